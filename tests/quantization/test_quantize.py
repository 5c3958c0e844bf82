"""Quantize a float model, in both formats: weights, ranges, inputs, outputs and metadata.

Expected values are computed in NumPy: the network of the shelf is one product and a softmax.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from exporter.data.samples import Samples, to_model_inputs
from exporter.errors import ConversionError, ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.model import Model, RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array
from exporter.planning.cut import CutOptions, plan_cut
from exporter.quantization import FLOAT, PRECISIONS, QUANTIZED, QuantizationSpec
from exporter.quantization.quantize import check_float, quantize_model
from exporter.quantization.silence import silenced
from exporter.quantization.unquantized import unquantized
from tests.builders.metrics import compare
from tests.builders.onnx_models import classifier, model, node, numbers, softmax
from tests.builders.shelf import BIAS, FEATURES, KERNEL, UNITS
from tests.builders.tflite_builder import Builder, read
from tests.builders.tflite_builder import classifier as tflite_classifier
from tests.builders.tflite_metadata import Associated, metadata, unzipped, zipped

KINDS = ("onnx", "tflite")
COARSER = tuple(name for name in PRECISIONS if name != FLOAT)
CALIBRATED = tuple(name for name in COARSER if PRECISIONS[name].calibrated)
POINTS = np.random.default_rng(5).uniform(-1, 1, (64, 1, FEATURES)).astype(np.float32)

each_kind = pytest.mark.parametrize("kind", KINDS)


def samples(model: Model, points: Array = POINTS) -> Samples:
    """The points for the model's input."""
    return Samples({model.graph().inputs[0]: points}, "points.npz")


def content(model: Any) -> bytes:
    return bytes(model.content if isinstance(model, TfliteModel) else model.to_bytes())


def answers(model: Model, points: Array = POINTS) -> Array:
    """Real values of the first output, (samples, batch, units)."""
    graph, runner = model.graph(), model.runner(RunOptions())
    output = graph.tensors[graph.outputs[0]]
    feeds = samples(model, points).feeds()
    return np.stack(
        [output.dequantize(runner(to_model_inputs(feed, graph))[output.name]) for feed in feeds]
    )


def expected() -> Array:
    return softmax(POINTS.astype(np.float64) @ KERNEL + BIAS)


@pytest.fixture(scope="module")
def net(shelf: Path) -> Callable[[str], Model]:
    return lambda kind: open_model(shelf / f"net.{kind}")


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (lambda: QuantizationSpec("int3"), "no precision 'int3'"),
        (lambda: QuantizationSpec("fp16", integer_io=True), "fp16 has float inputs"),
        (lambda: QuantizationSpec("dynamic", integer_io=True), "dynamic has float inputs"),
    ],
)
def test_invalid_specs(spec: Callable[[], QuantizationSpec], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec()


@each_kind
@pytest.mark.parametrize("precision", COARSER)
def test_a_quantized_model_is_refused(
    net: Callable[[str], Model], kind: str, precision: str
) -> None:
    made = quantize_model(net(kind), QuantizationSpec(precision), samples(net(kind))).model
    if kind == "onnx" and precision == "int4":
        assert made.precision == "int4"
    for again in COARSER:
        with pytest.raises(ModelError, match="quantized already"):
            check_float(made, again)


@pytest.mark.parametrize("precision", ["bf16", "fp64", "fp8"])
def test_other_float_types_are_refused(
    net: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    made = net("onnx")
    monkeypatch.setattr(made, "precision", precision)
    with pytest.raises(ModelError, match=f"is {precision}, and the libraries need float32"):
        check_float(made, "int8")


def test_a_kind_that_cannot_be_quantized(
    net: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = net("onnx")
    monkeypatch.setattr(made, "kind", "keras")
    with pytest.raises(UsageError, match="Keras models cannot be quantized to int8"):
        check_float(made, "int8")
    with pytest.raises(UsageError, match="Keras models cannot be quantized to fp32"):
        check_float(made, "fp32")


def test_nothing_to_quantize() -> None:
    """onnxruntime has int4 kernels only for matrix products."""
    with pytest.raises(ModelError, match=r"cannot quantize any weights of network\.onnx to int4"):
        quantize_model(convolution(), QuantizationSpec("int4"))


def test_a_library_that_fails_is_one_line(net: Callable[[str], Model]) -> None:
    builder = Builder()
    z = builder.dense(builder.feed("x", 1, 4), 5, "z")
    builder.softmax(z, "y")
    builder.at("z/bias").name = "z/kernel"  # names that are not unique stop litert-quantizer
    odd = from_bytes(builder.content("y"), "odd.tflite")
    with pytest.raises(ConversionError, match=r"litert-quantizer .* quantize odd\.tflite to fp16"):
        quantize_model(odd, QuantizationSpec("fp16"))


def test_inputs_and_outputs_that_cannot_be_integers() -> None:
    """A logarithm has no integer kernel, first or last."""
    nodes = [
        node("Exp", ["x"], ["e"], "exp"),
        node("Gemm", ["e", "kernel", "bias"], ["y"], "gemm"),
    ]
    first = model(nodes, {"kernel": numbers(6, 5), "bias": numbers(5)})
    with pytest.raises(ModelError, match=r"the input 'x' of network\.onnx stays float"):
        quantize_model(first, QuantizationSpec("int8", integer_io=True), samples(first))
    ends = classifier(node("Softmax", ["z"], ["s"], "s"), node("Log", ["s"], ["y"], "log"))
    with pytest.raises(ModelError, match=r"the output 'y' of network\.onnx stays float"):
        quantize_model(ends, QuantizationSpec("int8", integer_io=True), samples(ends))


# --- results --------------------------------------------------------------------------------------

LEAST_DB = {"fp16": 55.0, "dynamic": 40.0, "int8": 35.0, "int16x8": 40.0, "int4": 12.0}


@each_kind
@pytest.mark.parametrize("precision", COARSER)
def test_outputs_match_the_float_network(
    net: Callable[[str], Model], kind: str, precision: str
) -> None:
    original = net(kind)
    before = content(original)
    made = quantize_model(original, QuantizationSpec(precision), samples(original))
    assert made.model.precision == precision
    assert made.warnings == ()
    assert content(original) == before, "the source is never changed"
    values = compare(expected(), answers(made.model), axis=2, tie=0.05, metrics=["sqnr_db", "top1"])
    assert values["sqnr_db"] >= LEAST_DB[precision]
    assert values["top1"] >= 0.95
    again = quantize_model(original, QuantizationSpec(precision), samples(original))
    assert content(again.model) == content(made.model), "same input, same bytes"


ENDS = {
    ("onnx", "int8"): "uint8",
    ("tflite", "int8"): "int8",
    ("onnx", "int16x8"): "int16",
    ("tflite", "int16x8"): "int16",
}


@each_kind
@pytest.mark.parametrize("precision", CALIBRATED)
def test_integer_inputs_and_outputs(net: Callable[[str], Model], kind: str, precision: str) -> None:
    original = net(kind)
    made = quantize_model(
        original, QuantizationSpec(precision, integer_io=True), samples(original)
    ).model
    graph, dtype = made.graph(), ENDS[kind, precision]
    ends = [graph.tensors[name] for name in (*graph.inputs, *graph.outputs)]
    assert [end.dtype for end in ends] == [dtype, dtype]
    assert (graph.inputs, graph.outputs) == (original.graph().inputs, original.graph().outputs)
    values = compare(expected(), answers(made), axis=2, tie=0.05, metrics=["sqnr_db", "top1"])
    assert values["sqnr_db"] >= LEAST_DB[precision]
    known = ends[0].quantization
    assert known is not None
    step = (POINTS.max() - POINTS.min()) / (2 ** (16 if dtype == "int16" else 8) - 1)
    assert known.scale.item() == pytest.approx(step, rel=0.02), "the range of the samples"


def both_returned(kind: str) -> Model:
    """x -> z -> softmax y; z is an output that the softmax reads too."""
    if kind == "onnx":
        nodes = [
            node("Gemm", ["flat", "kernel", "bias"], ["z"], "gemm"),
            node("Softmax", ["z"], ["y"], "softmax", axis=1),
        ]
        flat = node("Reshape", ["x", "to"], ["flat"], "flat")
        constants = {"kernel": KERNEL, "bias": BIAS, "to": np.array([-1, FEATURES])}
        outputs = {"z": (1, UNITS), "y": (1, UNITS)}
        return model([flat, *nodes], constants, x=(1, 1, FEATURES), outputs=outputs)
    builder = Builder()
    builder.feed("x", 1, FEATURES)
    weights = builder.constant("w", KERNEL.T), builder.constant("b", BIAS)
    z = builder.op("FULLY_CONNECTED", ["x", *weights], (1, UNITS), "z", "FullyConnectedOptions")
    builder.softmax(z, "y")
    return from_bytes(builder.content("z", "y"), "both.tflite")


@each_kind
@pytest.mark.parametrize("precision", COARSER)
def test_an_output_that_operators_read_too(kind: str, precision: str) -> None:
    original = both_returned(kind)
    points = POINTS if kind == "onnx" else POINTS[:, 0]
    made = quantize_model(
        original, QuantizationSpec(precision), samples(original, points[:, np.newaxis])
    ).model
    assert made.graph().outputs == ("z", "y")
    runner = made.runner(RunOptions())
    found = [runner({"x": point[np.newaxis]}) for point in points]
    z = POINTS[:, 0].astype(np.float64) @ KERNEL + BIAS
    for name, right in (("z", z), ("y", softmax(z))):
        given = np.concatenate([answer[name] for answer in found])
        assert given.dtype == np.float32
        values = compare(right, given, axis=1, tie=0.05, metrics=["sqnr_db"])
        assert values["sqnr_db"] >= LEAST_DB[precision]


def test_integer_inputs_and_outputs_through_reshapes() -> None:
    moved = model(
        [
            node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 1]),
            node("Reshape", ["t", "to"], ["r"], "flat"),
            node("Gemm", ["r", "kernel", "bias"], ["y"], "gemm"),
        ],
        {
            "kernel": numbers(6, 5),
            "bias": numbers(5),
            "to": np.array([-1, 6], np.int64),
        },
        x=(1, 2, 3),
    )
    points = POINTS.reshape(-1, 1, 2, 3)
    made = quantize_model(
        moved, QuantizationSpec("int8", integer_io=True), samples(moved, points)
    ).model
    assert made.graph().tensors["x"].dtype == "uint8"
    flat = np.swapaxes(points.astype(np.float64), 2, 3).reshape(-1, 1, 6)
    values = compare(
        flat @ numbers(6, 5) + numbers(5), answers(made, points), axis=2, tie=0, metrics=["sqnr_db"]
    )
    assert values["sqnr_db"] > 25.0


def test_the_file_states_the_scale_of_integer_inputs_and_outputs(
    net: Callable[[str], Model],
) -> None:
    made: Any = quantize_model(
        net("onnx"), QuantizationSpec("int8", integer_io=True), samples(net("onnx"))
    )
    graph = made.model.proto.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    stated = {a.tensor_name: a for a in graph.quantization_annotation}
    for name in ("x", "probabilities"):
        named = {e.key: constants[e.value] for e in stated[name].quant_parameter_tensor_names}
        known = made.model.graph().tensors[name].quantization
        assert named["SCALE_TENSOR"] == known.scale.item()
        assert named["ZERO_POINT_TENSOR"] == known.zero_point.item()


def test_weights_are_rounded_per_channel(net: Callable[[str], Model]) -> None:
    """In both formats: per-channel scales, and no weight differs by more than half a step."""
    made: Any = quantize_model(
        net("tflite"), QuantizationSpec("int8"), samples(net("tflite"))
    ).model
    codes, scales = _tflite_kernel(made.content)
    steps = np.abs(KERNEL).max(axis=0) / 127
    np.testing.assert_allclose(scales, steps, rtol=1e-5)
    assert (np.abs(codes * scales - KERNEL) <= steps / 2 * 1.001).all()
    made = quantize_model(net("onnx"), QuantizationSpec("int8"), samples(net("onnx"))).model
    codes, scales = _onnx_kernel(made.proto)
    np.testing.assert_allclose(scales, np.abs(KERNEL).max(axis=0) / 127.5, rtol=1e-4)
    assert (np.abs(codes * scales - KERNEL) <= scales * 1.001).all()


def _tflite_kernel(file: bytes) -> tuple[Array, Array]:
    graph = read(file)
    (tensor,) = [t for t in graph.subgraphs[0].tensors if t.type == 9 and list(t.shape) == [7, 6]]
    codes = graph.buffers[tensor.buffer].data.view(np.int8).reshape(7, 6)
    return codes.T.astype(np.float64), np.asarray(tensor.quantization.scale, np.float64)


def _onnx_kernel(proto: onnx.ModelProto) -> tuple[Array, Array]:
    constants = {t.name: t for t in proto.graph.initializer}
    for each in proto.graph.node:
        if each.op_type == "DequantizeLinear" and each.input[0] in constants:
            tensor = constants[each.input[0]]
            if tensor.data_type == TensorProto.UINT8 and list(tensor.dims) == [FEATURES, UNITS]:
                codes, scale, zero = (
                    numpy_helper.to_array(constants[n]).astype(np.float64) for n in each.input
                )
                return codes - zero, scale
    raise AssertionError("no kernel of codes")


# --- remap and metadata ---------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("precision", COARSER)
def test_the_remap_survives(net: Callable[[str], Model], kind: str, precision: str) -> None:
    original = net(kind)
    cut = plan_cut(original, CutOptions(keep=[1, 4, 6]))
    small = original.apply(cut.plan)
    made = quantize_model(small, QuantizationSpec(precision), samples(small)).model
    file = Path(f"small.{kind}")
    opened = from_bytes(content(made), file.name) if kind == "tflite" else reopened(made)
    assert opened.remap == replace(cut.remap, precision=precision)
    assert opened.remap.to_original([0, 1, 2]).tolist() == [1, 4, 6]


def reopened(model: Model) -> Model:
    from exporter.formats.onnx.files import from_bytes as onnx_from_bytes  # noqa: PLC0415

    return onnx_from_bytes(content(model), "again.onnx")


def test_a_remap_that_is_not_in_the_file(net: Callable[[str], Model]) -> None:
    """A converter does not know of an earlier cut: the remap is in the model, not in its file."""
    for kind in KINDS:
        original = net(kind)
        remap = plan_cut(original, CutOptions(keep=[2, 3])).remap
        original.remap = remap
        made = quantize_model(original, QuantizationSpec("dynamic")).model
        again = from_bytes(content(made), "a") if kind == "tflite" else reopened(made)
        assert again.remap == replace(remap, precision="dynamic")


def test_metadata_of_an_onnx_file_is_kept() -> None:
    original = classifier()
    original.proto.metadata_props.add(key="author", value="somebody")
    original.proto.metadata_props.add(key="labels", value='["a", "b", "c", "d", "e"]')
    for precision in COARSER:
        made: Any = quantize_model(original, QuantizationSpec(precision), samples(original)).model
        props = {p.key: p.value for p in made.proto.metadata_props}
        assert props.pop("exporter.precision") == precision
        assert props == {"author": "somebody", "labels": '["a", "b", "c", "d", "e"]'}
        assert (made.proto.producer_name, made.proto.graph.name) == ("tests", "network")


def test_labels_of_a_tflite_file_are_kept() -> None:
    builder = tflite_classifier(features=FEATURES)
    builder.metadata("TFLITE_METADATA", metadata([Associated("labels.txt")]))
    lines = b"ant\nbee\ncat\ndog\nelk\n"
    original = from_bytes(zipped(builder.content("y"), {"labels.txt": lines}), "labeled.tflite")
    for precision in COARSER:
        made: Any = quantize_model(original, QuantizationSpec(precision), samples(original)).model
        assert unzipped(made.content) == {"labels.txt": lines}
        assert made.graph().labels == {"y": ("ant", "bee", "cat", "dog", "elk")}


# --- edge cases -----------------------------------------------------------------------------------


def test_an_old_tflite_file_is_quantized() -> None:
    """No signature, and operator codes only in the old field: the library would do nothing."""
    builder = tflite_classifier(features=FEATURES)
    for code in builder.model.operatorCodes:
        code.builtinCode = 0
    old = from_bytes(builder.content("y"), "old.tflite")
    made: Any = quantize_model(old, QuantizationSpec("int8"), samples(old)).model
    assert made.precision == "int8"
    assert (made.graph().inputs, made.graph().outputs) == (("x",), ("y",))


def test_large_buffers_are_moved_inside() -> None:
    """litert-quantizer writes them after the flatbuffer from 256 kB on, where tools lose them."""
    builder = Builder()
    z = builder.dense(builder.feed("x", 1, 512), 1024, "z")
    large = from_bytes(builder.content(z), "large.tflite")
    made: Any = quantize_model(large, QuantizationSpec("dynamic")).model
    assert len(made.content) < 0.3 * len(large.content)
    assert all(buffer.offset == 0 for buffer in read(made.content).buffers)


def test_a_weight_beyond_float16_is_a_warning() -> None:
    bias = np.array([1e6, -3e7, 1e-30, -1e-12, 1], np.float32)
    constants = {"kernel": np.float32(1e-20) * numbers(6, 5), "bias": bias}
    huge = model([node("Gemm", ["x", "kernel", "bias"], ["y"], "gemm")], constants)
    message = quantize_model(huge, QuantizationSpec("fp16")).warnings
    assert message == ("weights exceed the range of float16: the largest, -3e+07, became -65504",)


def test_weights_below_float16_are_no_warning() -> None:
    constants = {"kernel": numbers(6, 5), "bias": np.array([1e-30, -1e-12, 0, 1, 2], np.float32)}
    small = model([node("Gemm", ["x", "kernel", "bias"], ["y"], "gemm")], constants)
    assert quantize_model(small, QuantizationSpec("fp16")).warnings == ()


def convolution() -> Model:
    """x[1, 2, 5, 5] -> convolution -> mean -> y[1, 4]"""
    nodes = [
        node("Conv", ["x", "kernel"], ["c"], "conv"),
        node("GlobalAveragePool", ["c"], ["g"], "mean"),
        node("Flatten", ["g"], ["y"], "flat"),
    ]
    return model(nodes, {"kernel": numbers(4, 2, 3, 3)}, x=(1, 2, 5, 5))


def test_weights_that_stay_float_are_a_warning_with_a_share() -> None:
    nodes = [
        node("Conv", ["x", "filter"], ["c"], "conv"),
        node("GlobalAveragePool", ["c"], ["g"], "mean"),
        node("Flatten", ["g"], ["f"], "flat"),
        node("Gemm", ["f", "kernel", "bias"], ["y"], "gemm"),
    ]
    constants = {"filter": numbers(4, 2, 3, 3), "kernel": numbers(4, 7), "bias": numbers(7)}
    both = model(nodes, constants, x=(1, 2, 5, 5))
    made = quantize_model(both, QuantizationSpec("int4"))
    share = 72 / (72 + 28)  # weights of the convolution and of the product
    message = f"onnxruntime left float at int4: 1 Conv of 2 linear operations ({share:.1%} of their"
    assert [w[: len(message)] for w in made.warnings] == [message]
    left = unquantized(both.graph(), both.graph())
    assert left.is_everything
    assert (left.before, left.bytes, left.bytes_before) == (2, 400, 400)


def test_small_kernels_stay_float_if_there_are_large_ones() -> None:
    """In TFLite with dynamic ranges; in a model without large kernels they are quantized."""
    builder = Builder()
    builder.dense(builder.feed("x", 1, FEATURES), 200, "h")  # 1,200 numbers
    builder.dense("h", 3, "z")  # 600
    both = from_bytes(builder.content("z"), "both.tflite")
    made = quantize_model(both, QuantizationSpec("dynamic"))
    message = "litert-quantizer left float at dynamic: 1 FULLY_CONNECTED of 2 linear operations"
    assert made.warnings == (f"{message} ({600 / 1800:.1%} of their weights)",)
    held = {t.name: t.type for t in read(content(made.model)).subgraphs[0].tensors}
    assert (held[b"h/kernel"], held[b"z/kernel"]) == (9, 0), "int8, float32"


# --- silence --------------------------------------------------------------------------------------

CHATTY = """
import os, sys
from exporter.quantization.silence import silenced
print("before")
with silenced("numpy", "try"):
    print("python"); os.system("echo child"); os.write(1, b"raw"); os.write(2, b"raw")
    import logging, warnings
    logging.warning("log"); warnings.warn("warning")
print("after")
print("last", file=sys.stderr)
"""


def test_library_output_does_not_reach_the_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHATTY], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("before\nafter\n", "last\n")


@pytest.fixture
def handlers() -> Iterator[list[logging.Handler]]:
    before = list(logging.root.handlers)
    yield before
    assert list(logging.root.handlers) == before
    assert logging.root.manager.disable == logging.NOTSET


def test_the_root_logger_is_restored(
    handlers: list[logging.Handler], net: Callable[[str], Model]
) -> None:
    quantize_model(net("onnx"), QuantizationSpec("int8"), samples(net("onnx")))
    with (
        pytest.raises(ConversionError, match=r"numpy \d.* could not try: KeyError|'x'"),
        silenced("numpy", "try"),
    ):
        raise KeyError("x")


# --- the table ------------------------------------------------------------------------------------


def test_precisions_of_opened_files() -> None:
    assert set(COARSER) <= QUANTIZED
    assert FLOAT not in QUANTIZED


def test_integer_inputs_are_fed_quantized_samples(net: Callable[[str], Model]) -> None:
    original = net("tflite")
    made = quantize_model(
        original, QuantizationSpec("int8", integer_io=True), samples(original)
    ).model
    graph = made.graph()
    name = graph.inputs[0]
    known = graph.tensors[name].quantization
    assert known is not None
    fed = to_model_inputs({name: POINTS[0], "other": POINTS[1]}, graph)
    codes = np.clip(np.rint(POINTS[0] / known.scale + known.zero_point), -128, 127)
    np.testing.assert_array_equal(fed[name], codes.astype(np.int8))
    np.testing.assert_array_equal(fed["other"], POINTS[1])
    assert to_model_inputs(fed, graph)[name] is fed[name], "what is codes already stays"
    beyond = replace(known, low=-3, high=3).quantize(POINTS[0])
    assert (beyond.min(), beyond.max()) == (-3, 3)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("opset", [11, 17])
def test_opsets_before_per_channel_scales_are_quantized(precision: str, opset: int) -> None:
    plain = classifier(opset=opset)
    made: Any = quantize_model(plain, QuantizationSpec(precision), samples(plain)).model
    onnx.checker.check_model(made.proto, full_check=True)
    assert made.precision == precision
    assert plain.proto.opset_import[0].version == opset


def test_integers_that_are_cast_to_float_in_float16_models() -> None:
    """A detector counts the cells of its grid; here the logits are multiplied by their number."""
    count = [
        node("Shape", ["z"], ["lengths"], "lengths"),
        node("Cast", ["lengths"], ["floats"], "", to=TensorProto.FLOAT),
        node("ReduceMax", ["floats"], ["units"], "units", keepdims=0),
        node("Mul", ["z", "units"], ["y"], "times"),
    ]
    plain = classifier(*count)
    made = quantize_model(plain, QuantizationSpec("fp16")).model
    fed = {"x": numbers(3, 6, seed=5)}
    answer = made.runner(RunOptions())(fed)["y"]
    kernel, bias = (plain.graph().tensors[name].read for name in ("kernel", "bias"))
    assert kernel is not None
    assert bias is not None
    assert np.allclose(answer, (fed["x"] @ kernel() + bias()) * 5, rtol=0, atol=0.02)


@pytest.mark.parametrize("precision", ["dynamic", "int8", "fp16", "int4"])
def test_stated_types_of_constants(precision: str) -> None:
    kernel = np.ascontiguousarray(numbers(32, 5).T)
    gemm = node("Gemm", ["x", "kernel", "bias"], ["y"], "gemm", transB=1)
    plain = model([gemm], {"kernel": kernel, "bias": numbers(5)}, x=("batch", 32))
    stated = plain.proto.graph.value_info.add()
    stated.CopyFrom(onnx.helper.make_tensor_value_info("kernel", TensorProto.FLOAT, [5, 32]))
    fed = samples(plain, numbers(8, 1, 32, seed=5)) if precision == "int8" else None
    made = quantize_model(plain, QuantizationSpec(precision), fed).model
    answer = made.runner(RunOptions())({"x": numbers(1, 32, seed=5)})["y"]
    expected = numbers(1, 32, seed=5) @ kernel.T + numbers(5)
    assert np.allclose(answer, expected, rtol=0, atol=2.0 if precision == "int4" else 0.4)
