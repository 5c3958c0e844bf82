"""Quantize ONNX models: float16 by onnxconverter-common, integers by onnxruntime.

Models with quantized activations are in QDQ format. 8-bit values are unsigned, weights too: with
signed weights, the kernels for x86 processors without VNNI add pairs of products in 16 bits and
saturate, which costs 13 dB on the digits, and does not happen on newer processors. The libraries
change the metadata of a file: it is restored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from warnings import WarningMessage

import onnx
from onnx import ModelProto, version_converter

from exporter.data.samples import Samples
from exporter.formats.onnx.apply import REMAP
from exporter.formats.onnx.files import from_proto
from exporter.formats.onnx.model import OnnxModel
from exporter.formats.onnx.protos import opset_of
from exporter.quantization.interface import integer_ends
from exporter.quantization.onnx_excluded import excluded_nodes, index_tensors
from exporter.quantization.onnx_float16 import clipped_weights, to_float16
from exporter.quantization.onnx_integer_io import quantize_io
from exporter.quantization.precisions import PRECISIONS, QuantizationSpec
from exporter.quantization.silence import silenced

BLOCK = 32  # int4 weights that share a scale
_MIN_PER_CHANNEL_OPSET = 13  # of a DequantizeLinear with per-channel scales

Result = tuple[OnnxModel, tuple[str, ...]]  # as `quantization.quantize.Quantize`


def to_fp16(model: OnnxModel, spec: QuantizationSpec, _: Samples | None) -> Result:
    made, messages = _quantized(model, spec, to_float16)
    return made, clipped_weights(messages)


def to_dynamic(model: OnnxModel, spec: QuantizationSpec, _: Samples | None) -> Result:
    return _quantized(model, spec, _dynamic)[0], ()


def to_int4(model: OnnxModel, spec: QuantizationSpec, _: Samples | None) -> Result:
    return _quantized(model, spec, _int4)[0], ()


def to_int8(model: OnnxModel, spec: QuantizationSpec, samples: Samples) -> Result:
    return _quantized(model, spec, _Static(samples, "QUInt8", "QUInt8"))[0], ()


def to_int16x8(model: OnnxModel, spec: QuantizationSpec, samples: Samples) -> Result:
    return _quantized(model, spec, _Static(samples, "QInt16", "QInt8"))[0], ()


def _quantized(
    model: OnnxModel, spec: QuantizationSpec, quantize: Callable[[Path, set[str]], ModelProto]
) -> tuple[OnnxModel, list[WarningMessage]]:
    """The quantized model with the source's metadata, and the library's Python warnings.

    Args:
        quantize: gets the path of a file, which it may change, and the tensors to keep float.
    """
    library = PRECISIONS[spec.precision].quantizers["onnx"].library
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        source = Path(folder, "float.onnx")
        model.write(source)
        with silenced(library, f"quantize {model.name} to {spec.precision}") as messages:
            made = quantize(source, index_tensors(model.graph()))
            _check(made)
    quantize_io(made, integer_ends(model.graph(), spec), model.name)
    _restore_metadata(model, made)
    return from_proto(made, model.name), messages


def _check(made: ModelProto) -> None:
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"it wrote an invalid model: {error}") from error


def _restore_metadata(model: OnnxModel, made: ModelProto) -> None:
    """The source's metadata and remap replace those of the library."""
    del made.metadata_props[:]
    made.metadata_props.extend(p for p in model.proto.metadata_props if p.key != REMAP)
    if model.remap is not None:
        made.metadata_props.add(key=REMAP, value=model.remap.to_json(short=True))
    for field in ("producer_name", "producer_version", "doc_string", "domain", "model_version"):
        setattr(made, field, getattr(model.proto, field))
    made.graph.name = model.proto.graph.name


def _int4(source: Path, _: set[str]) -> ModelProto:
    """Weights in blocks along the contracted axis; Gemm becomes MatMul and Add first."""
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


def _dynamic(source: Path, _: set[str]) -> ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - half a second

    ready, made = _preprocessed(source), source.with_name("made.onnx")
    quantize_dynamic(ready, made, per_channel=True, weight_type=QuantType.QUInt8)
    return onnx.load(made)


class _Static:
    """Quantizes with ranges that are measured on samples.

    It is the samples' reader for onnxruntime too, which may read them several times.
    """

    def __init__(self, samples: Samples, activations: str, weights: str) -> None:
        """Args: activations, weights: names of onnxruntime's QuantType."""
        self._samples = samples
        self._types = activations, weights
        self.rewind()

    def __call__(self, source: Path, excluded: set[str]) -> ModelProto:
        from onnxruntime.quantization import QuantType, quantize_static  # noqa: PLC0415 - see above

        model = onnx.load(source)
        if opset_of(model) < _MIN_PER_CHANNEL_OPSET:
            onnx.save(version_converter.convert_version(model, _MIN_PER_CHANNEL_OPSET), source)
        ready, made = _preprocessed(source), source.with_name("made.onnx")
        model = onnx.load(ready)
        nodes = excluded_nodes(model, excluded)
        onnx.save(model, ready)
        activations, weights = (getattr(QuantType, name) for name in self._types)
        quantize_static(
            ready,
            made,
            self,
            nodes_to_exclude=nodes,
            per_channel=True,
            activation_type=activations,
            weight_type=weights,
        )
        return onnx.load(made)

    def get_next(self) -> Any:
        return next(self._feeds, None)

    def rewind(self) -> None:
        self._feeds: Iterator[Any] = self._samples.feeds()

    def __len__(self) -> int:
        return self._samples.count


def _preprocessed(source: Path) -> Path:
    """The file that onnxruntime's preprocessing writes.

    Types that the file states for constants, as PyTorch's dynamo exporter does, are removed: they
    would be wrong after the quantizer transposes the weights of a Gemm.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - see above

    model = onnx.load(source)
    constants = {tensor.name for tensor in model.graph.initializer}
    computed = [info for info in model.graph.value_info if info.name not in constants]
    del model.graph.value_info[:]
    model.graph.value_info.extend(computed)
    onnx.save(model, source)
    ready = source.with_name("ready.onnx")
    quant_pre_process(source, ready, skip_symbolic_shape=True)
    return ready
