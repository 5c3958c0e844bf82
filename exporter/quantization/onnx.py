"""ONNX models by onnxruntime's quantizer, and by onnxconverter-common for float16.

onnxruntime's own float16 converter writes files that `onnx.checker` refuses. Static quantization is
QDQ. Codes of 8 bits are unsigned, those of weights too: with signed weights the kernels for x86
processors without VNNI add pairs of products in 16 bits and saturate, which costs 13 dB on the
digits and is not seen on the machine of somebody with a newer processor. What the tools do to the
metadata of a file is undone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from warnings import WarningMessage

import onnx
from onnx import ModelProto, TensorProto, helper, version_converter

from exporter.data.samples import Samples
from exporter.formats.onnx.apply import REMAP
from exporter.formats.onnx.files import from_proto
from exporter.formats.onnx.model import OnnxModel
from exporter.formats.onnx.protos import opset_of
from exporter.quantization.onnx_ends import with_integer_ends
from exporter.quantization.onnx_ranked import behind_rankings, nodes_behind
from exporter.quantization.precisions import PRECISIONS, QuantizationSpec
from exporter.quantization.silence import quantizer

BLOCK = 32  # int4 weights that share a scale
_FLOAT16 = (6e-8, 65504.0)  # smallest and largest; the converter clips by itself at 1e-7 and 1e4
_PER_CHANNEL = 13  # opset
_MOVED = re.compile(r"number (?P<weight>\S+) will be truncated to (?P<to>\S+)")


def quantize(
    model: OnnxModel, wish: QuantizationSpec, samples: Samples | None
) -> tuple[OnnxModel, tuple[str, ...]]:
    """See `quantization._Route`."""
    library = PRECISIONS[wish.precision].libraries["onnx"]
    task = f"make {model.name} {wish.precision}"
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        source = Path(folder, "float.onnx")
        model.write(source)
        with quantizer(library, task) as told:
            made = _made(source, wish, samples, behind_rankings(model.graph()))
            _check(made)
    if wish.integer_io:
        made = with_integer_ends(made, model.name)
    _carry(model, made)
    return from_proto(made, model.name), _truncations(told)


def _check(made: ModelProto) -> None:
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"what it wrote is no valid model: {error}") from error


def _made(
    source: Path, wish: QuantizationSpec, samples: Samples | None, ranked: frozenset[str]
) -> ModelProto:
    match wish.precision:
        case "fp16":
            return _float16(source, ranked)
        case "int4":
            return _int4(source)
        case _:
            return _int8(source, wish, samples, ranked)


def _float16(source: Path, ranked: frozenset[str]) -> ModelProto:
    from onnxconverter_common.float16 import convert_float_to_float16  # noqa: PLC0415

    smallest, largest = _FLOAT16
    model = onnx.load(source)
    aside = nodes_behind(model, ranked)
    plain = _with_outputs_apart(model)
    made: ModelProto = convert_float_to_float16(
        plain,
        min_positive_val=smallest,
        max_finite_val=largest,
        keep_io_types=True,
        node_block_list=[*aside, *_casts_to_float(plain)],
    )
    return made


def _with_outputs_apart(model: ModelProto) -> ModelProto:
    """Outputs that the model reads too are returned behind an Identity: the converter casts them
    back to float32 for their readers inside as well, which take float16."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    for name in [output.name for output in graph.output if output.name in read]:
        inner = f"{name}__inside"
        for node in graph.node:
            for names in (node.input, node.output):
                for slot, each in enumerate(names):
                    if each == name:
                        names[slot] = inner
        graph.node.append(helper.make_node("Identity", [inner], [name], f"{name}__returned"))
    return model


def _casts_to_float(model: ModelProto) -> list[str]:
    """The nodes that make floats of integers: the converter lets them go on to make float32, and
    takes that for float16. Those without a name get one."""
    found = []
    for node in model.graph.node:
        if any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute):
            node.name = node.name or f"{node.output[0]}__cast"
            found.append(node.name)
    return found


def _int4(source: Path) -> ModelProto:
    """Blocks of weights along the contracted axis; a Gemm becomes MatMul and Add first."""
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )
    from onnxruntime.quantization.onnx_model import ONNXModel  # noqa: PLC0415

    plain = ONNXModel(onnx.load(source))
    plain.replace_gemm_with_matmul()
    blocks = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True)
    work = MatMulNBitsQuantizer(plain.model, algo_config=blocks)
    work.process()
    made: ModelProto = work.model.model
    return made


def _int8(
    source: Path, wish: QuantizationSpec, samples: Samples | None, ranked: frozenset[str]
) -> ModelProto:
    from onnxruntime.quantization import (  # noqa: PLC0415 - half a second
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    ready, done = source.with_name("ready.onnx"), source.with_name("done.onnx")
    _make_ready(source, static=samples is not None)
    quant_pre_process(source, ready, skip_symbolic_shape=True)
    if samples is None:
        quantize_dynamic(ready, done, per_channel=True, weight_type=QuantType.QUInt8)
    else:
        eight = wish.precision == "int8"
        plain = onnx.load(ready)
        aside = nodes_behind(plain, ranked)
        onnx.save(plain, ready)
        quantize_static(
            ready,
            done,
            _Reader(samples),
            nodes_to_exclude=aside,
            per_channel=True,
            activation_type=QuantType.QUInt8 if eight else QuantType.QInt16,
            weight_type=QuantType.QUInt8 if eight else QuantType.QInt8,
        )
    return onnx.load(done)


def _make_ready(source: Path, *, static: bool) -> None:
    """Change what onnxruntime's quantizer cannot take.

    A DequantizeLinear with a scale for each channel is there since opset 13. Types that are stated
    of constants, as PyTorch's dynamo exporter does, would stay where a Gemm's is turned around.
    """
    model = onnx.load(source)
    if static and opset_of(model) < _PER_CHANNEL:
        model = version_converter.convert_version(model, _PER_CHANNEL)
    held = {tensor.name for tensor in model.graph.initializer}
    computed = [info for info in model.graph.value_info if info.name not in held]
    del model.graph.value_info[:]
    model.graph.value_info.extend(computed)
    onnx.save(model, source)


class _Reader:
    """Hands out one sample a call, then None; onnxruntime may begin again."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._feeds: Iterator[Any] = samples.feeds()

    def get_next(self) -> Any:
        return next(self._feeds, None)

    def rewind(self) -> None:
        self._feeds = self._samples.feeds()

    def __len__(self) -> int:
        return self._samples.count


def _carry(model: OnnxModel, made: ModelProto) -> None:
    """The metadata, texts and producer of the source, and its remap, instead of the tools' own."""
    del made.metadata_props[:]
    made.metadata_props.extend(p for p in model.proto.metadata_props if p.key != REMAP)
    if model.remap is not None:
        made.metadata_props.add(key=REMAP, value=model.remap.to_json())
    for field in ("producer_name", "producer_version", "doc_string", "domain", "model_version"):
        setattr(made, field, getattr(model.proto, field))
    made.graph.name = model.proto.graph.name


def _truncations(told: list[WarningMessage]) -> tuple[str, ...]:
    """Weights beyond float16, which its converter moves to the farthest that there is.

    It also tells of those nearer to 0 than 6e-8, which it moves to that: no loss.
    """
    moved = (_MOVED.search(str(each.message)) for each in told)
    pairs = [(float(each["weight"]), float(each["to"])) for each in moved if each]
    beyond = [pair for pair in pairs if abs(pair[0]) > abs(pair[1])]
    if not beyond:
        return ()
    weight, to = max(beyond, key=lambda pair: abs(pair[0]))
    return (f"weights are beyond float16: the farthest, {weight:g}, became {to:g}",)
