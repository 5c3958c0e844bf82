"""Keras to ONNX: both routes match Keras, also where tf2onnx alone is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
import tf2onnx
from keras import layers, ops
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.conversion import to_onnx
from exporter.conversion.options import ConvertOptions
from exporter.conversion.process import Child
from exporter.conversion.remote import Conversion, open_live
from exporter.conversion.to_onnx_fold import add_external, fold
from exporter.conversion.to_onnx_trace import LARGE_BYTES, large_weights
from exporter.errors import ConversionError, ModelError
from exporter.formats import open_model
from exporter.formats.keras.model import KerasModel
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.splice import write
from exporter.graph import Array
from exporter.trace import trace

LIMIT = 1e-4
SMALL, LARGE = 8, 80  # channels: without and with a kernel of 16 KB
ROUTES = {SMALL: "tf2onnx", LARGE: "tf2onnx, bare graph"}


def seeded(build: Callable[[], Any]) -> Any:
    """A model without weights of 0 or 1, with which a lost weight would not be noticed."""
    keras.utils.set_random_seed(7)
    model, random = build(), np.random.default_rng(3)
    for weight in model.trainable_weights + batch_statistics(model):
        if len(weight.shape) == 1:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return model


def batch_statistics(model: Any) -> list[Any]:
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    return [weight for layer in norms for weight in layer.non_trainable_weights]


def samples(model: Any, count: int = 3) -> list[Array]:
    random = np.random.default_rng(5)
    return [random.normal(size=(count, *t.shape[1:])).astype(np.float32) for t in model.inputs]


def converted(
    build: Callable[[], Any], child: Child, path: Path, limit: float = LIMIT
) -> Conversion:
    """Convert, and compare with Keras."""
    model = seeded(build)
    done = open_live(model, child).convert("onnx", path, ConvertOptions())
    compare(model, path, limit)
    return done


def compare(model: Any, path: Path, limit: float = LIMIT) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = samples(model)
    names = list(KerasModel(model).graph().inputs)
    assert [info.name for info in session.get_inputs()] == names
    outputs = session.run(None, dict(zip(names, inputs, strict=True)))
    expected = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))
    for output, values in zip(outputs, expected, strict=True):
        assert output.shape == values.shape
        assert np.ptp(output) > 100 * limit  # otherwise the comparison shows nothing
        np.testing.assert_allclose(output, values, rtol=0, atol=limit)


def head(values: Any) -> Any:
    return layers.Dense(5, activation="softmax", name="head")(values)


# --- what tf2onnx gets wrong, in both routes ------------------------------------------------------


def _exact_gelu(width: int) -> Any:
    values = keras.Input((width,), name="x")
    return keras.Model(values, head(layers.Dense(width, activation="gelu")(values)))


def _grouped(width: int) -> Any:
    values = keras.Input((6, 6, width), name="x")
    mixed = layers.Conv2D(2 * width, 3, groups=4, activation="relu")(values)
    return keras.Model(values, head(layers.Flatten()(mixed)))


def _depthwise(width: int) -> Any:
    values = keras.Input((6, 6, width), name="x")
    mixed = layers.DepthwiseConv2D(3, strides=2, padding="same")(values)
    mixed = layers.SeparableConv2D(width, 3, dilation_rate=2, padding="same")(mixed)
    return keras.Model(values, head(layers.GlobalAveragePooling2D()(mixed)))


def _block(width: int) -> Any:
    """As in ConvNeXt: one group per channel, then exact gelu between two Dense."""
    values = keras.Input((6, 6, width), name="x")
    mixed = layers.Conv2D(width, 3, padding="same", groups=width)(values)
    mixed = layers.LayerNormalization(epsilon=1e-6)(mixed)
    mixed = layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(mixed))
    return keras.Model(values, head(layers.GlobalAveragePooling2D()(mixed + values)))


def _normalized(width: int) -> Any:
    random = np.random.default_rng(2)
    mean, variance = random.normal(size=width), random.uniform(0.5, 2.0, width)
    values = keras.Input((width,), name="x")
    known = layers.Normalization(mean=mean.tolist(), variance=variance.tolist())(values)
    return keras.Model(values, head(layers.Dense(width)(known)))


def _adapted(width: int) -> Any:
    norm = layers.Normalization(name="adapted")
    norm.adapt(np.random.default_rng(2).normal(3.0, 2.0, (20, width)).astype(np.float32))
    values = keras.Input((width,), name="x")
    return keras.Model(values, head(layers.Dense(width)(norm(values))))


TF2ONNX_FAILURES = {
    "exact gelu": _exact_gelu,
    "grouped convolution": _grouped,
    "depthwise and separable": _depthwise,
    "ConvNeXt block": _block,
    "Normalization with numbers": _normalized,
    "adapted Normalization": _adapted,
}


@pytest.mark.parametrize("width", ROUTES, ids=ROUTES.values())
@pytest.mark.parametrize("build", TF2ONNX_FAILURES.values(), ids=TF2ONNX_FAILURES)
def test_failures_of_tf2onnx_are_fixed(
    build: Callable[[int], Any], width: int, child: Child, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    done = converted(lambda: build(width), child, path)
    assert done == Conversion(path, ROUTES[width], ())
    onnx.checker.check_model(onnx.load(path), full_check=True)
    found = trace(open_model(path).graph()).head()
    assert (found.units, found.activation) == (5, "softmax")


# --- the route ------------------------------------------------------------------------------------


def _cast() -> Any:
    values = keras.Input((LARGE,), name="x")
    half = ops.tanh(ops.cast(layers.Dense(LARGE)(values), "float16"))
    return keras.Model(values, head(ops.cast(half, "float32")))


def test_the_plain_route_converts_models_that_cannot_be_folded(
    child: Child, tmp_path: Path
) -> None:
    done = converted(_cast, child, tmp_path / "net.onnx", limit=2e-3)
    assert done.route == "tf2onnx"
    (warning,) = done.warnings
    message, _, reason = warning.partition(": ")
    assert message == "all weights went through tf2onnx, which is slow"
    assert reason == "a part of the model computes in half precision"


@pytest.mark.parametrize("reason", ["", "first line\nsecond line"])
def test_the_plain_route_is_not_tried_without_enough_memory(
    reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing(*_: object) -> None:
        raise LookupError(reason)

    free = SimpleNamespace(available=1_500_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(to_onnx, "fold", failing)
    model = KerasModel(seeded(lambda: _exact_gelu(LARGE)))  # 6,885 weights of 4 bytes, times 60
    with pytest.raises(ConversionError) as raised:
        to_onnx.convert(model, tmp_path / "net.onnx")
    cause = "first line" if reason else "LookupError"
    assert raised.value.message == (
        f"{cause}; the plain route would need about 0 GB of memory, 0 GB are free"
    )
    free.available = 1_700_000
    done = to_onnx.convert(model, tmp_path / "net.onnx")
    assert done.route == "tf2onnx"
    assert done.warnings == (f"all weights went through tf2onnx, which is slow: {cause}",)


@pytest.mark.parametrize("opset", [13, 18])
def test_other_opsets(opset: int, child: Child, tmp_path: Path) -> None:
    model, path = seeded(lambda: _block(LARGE)), tmp_path / "net.onnx"
    done = open_live(model, child).convert("onnx", path, ConvertOptions(opset))
    assert done == Conversion(path, ROUTES[LARGE], ())
    assert [entry.version for entry in onnx.load(path).opset_import] == [opset]
    compare(model, path)


def test_an_operator_that_no_route_can_convert_is_named(child: Child, tmp_path: Path) -> None:
    values = keras.Input((LARGE,), name="x")
    model = keras.Model(values, head(ops.erfinv(layers.Dense(LARGE)(values))))
    with pytest.raises(ConversionError, match="operator Erfinv, which is not in ONNX opset 17"):
        open_live(model, child).convert("onnx", tmp_path / "net.onnx", ConvertOptions())
    assert not list(tmp_path.iterdir())


def _recurrent() -> Any:
    values = keras.Input((7, 64), name="x")
    mixed = layers.LSTM(64, return_sequences=True, name="lstm")(values)
    mixed = layers.Bidirectional(layers.LSTM(64), name="both")(mixed)
    return keras.Model(values, head(layers.Dense(64, name="wide")(mixed)))


def _slopes() -> Any:
    values = keras.Input((16, 16, 3), name="x")
    mixed = layers.PReLU(name="slopes")(layers.Conv2D(32, 3, padding="same")(values))
    mixed = layers.Conv2D(32, 3, strides=2, name="wide")(mixed)
    return keras.Model(values, head(layers.GlobalAveragePooling2D()(mixed)))


def _small() -> Any:
    return keras.Sequential([keras.Input((63,)), layers.Dense(64), layers.Dense(65)], name="net")


LARGE_WEIGHTS = {
    "no weights of recurrent layers": (_recurrent, ["wide/kernel"]),
    "no slopes": (_slopes, ["wide/kernel"]),
    "none below 16 KB": (_small, ["net/dense_1/kernel"]),
}


@pytest.mark.parametrize(("build", "expected"), LARGE_WEIGHTS.values(), ids=LARGE_WEIGHTS)
def test_weights_that_bypass_tf2onnx(build: Callable[[], Any], expected: list[str]) -> None:
    keras.utils.clear_session()
    assert [weight.path for weight in large_weights(build())] == expected
    assert LARGE_BYTES == 16384


def _mobile_net() -> Any:
    """The first five blocks; in the last one the kernels are large enough to bypass tf2onnx."""
    whole = keras.applications.MobileNetV2((32, 32, 3), weights=None, include_top=False)
    last = whole.get_layer("block_4_add").output
    return keras.Model(whole.input, head(layers.GlobalAveragePooling2D()(last)))


def _attention() -> Any:
    values = keras.Input((6, 64), name="x")
    mixed = layers.MultiHeadAttention(4, 16)(values, values)
    mixed = layers.LayerNormalization()(mixed + values)
    mixed = layers.Dense(64)(layers.Dense(128, activation="gelu")(mixed))
    return keras.Model(values, head(layers.GlobalAveragePooling1D()(mixed)))


def _token_ids() -> Any:
    """The input is cast to the indices of an Embedding."""
    values = keras.Input((6,), name="x")
    mixed = layers.Embedding(700, 16)(ops.cast(ops.abs(values) * 300.0, "int32"))
    return keras.Model(values, head(layers.GlobalAveragePooling1D()(mixed)))


def _shared() -> Any:
    left, right = keras.Input((LARGE,), name="left"), keras.Input((LARGE,), name="right")
    twice = layers.Dense(LARGE, activation="tanh")
    inner = keras.Sequential([keras.Input((LARGE,)), twice, layers.Dropout(0.3)], name="inner")
    return keras.Model([left, right], head(inner(left) + 2 * inner(right)))


def _slopes_seeded() -> Any:
    model = _slopes()
    slopes = model.get_layer("slopes").alpha
    slopes.assign(np.random.default_rng(1).normal(size=slopes.shape))
    return model


def _gated() -> Any:
    """A scalar is added after a convolution without bias: tf2onnx would move no transpose."""
    mixed = values = keras.Input((8, 8, 64), name="x")
    for _ in range(3):
        pooled = layers.GlobalAveragePooling2D(keepdims=True)(mixed)
        gate = layers.ReLU(6.0)(layers.Conv2D(64, 1, use_bias=False)(pooled) + 3.0)
        mixed = layers.Conv2D(64, 3, padding="same")(mixed * gate)
    return keras.Model(values, head(layers.GlobalAveragePooling2D()(mixed)))


NETWORKS = {
    "scalar added after a convolution": _gated,
    "MobileNetV2": _mobile_net,
    "LSTM": _recurrent,
    "attention": _attention,
    "PReLU": _slopes_seeded,
    "token ids": _token_ids,
    "layer called twice": _shared,
}


def both_routes(build: Callable[[], Any], folder: Path) -> dict[str, ModelProto]:
    """Route -> the converted model, compared with Keras."""
    model, written = seeded(build), {}
    for number, route in enumerate(ROUTES.values()):
        path = folder / f"{number}.onnx"
        with pytest.MonkeyPatch.context() as patch:
            if route == to_onnx.PLAIN:
                patch.setattr(to_onnx, "large_weights", lambda _: [])
            done = to_onnx.convert(KerasModel(model), path)
        assert (done.route, done.warnings) == (route, ())
        compare(model, path)
        written[route] = onnx.load(path)
    return written


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bare_graph_has_no_additional_nodes(name: str, tmp_path: Path) -> None:
    plain, bare = both_routes(NETWORKS[name], tmp_path).values()
    assert len(bare.graph.node) <= len(plain.graph.node)
    counts = Counter(node.op_type for node in bare.graph.node)
    assert counts["LSTM"] == (2 if name == "LSTM" else 0)
    assert not counts["Loop"]
    if name == "scalar added after a convolution":
        plain_counts = Counter(node.op_type for node in plain.graph.node)
        assert (plain_counts["Transpose"], counts["Transpose"]) == (1, 1)
    if name == "MobileNetV2":
        assert (counts["BatchNormalization"], counts["Mul"], counts["Transpose"]) == (0, 0, 1)
    for model in (plain, bare):
        assert [info.name for info in model.graph.output] == ["head"]
        ends = (*model.graph.input, *model.graph.output)
        assert {info.type.tensor_type.shape.dim[0].dim_param for info in ends} == {"batch"}
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
        assert not model.graph.value_info
        assert not any(t.data_location for t in model.graph.initializer)


# --- written by hand ------------------------------------------------------------------------------


def _with_external_weights(folder: Path) -> tuple[ModelProto, Array]:
    kernel = np.random.default_rng(0).normal(size=(300, 70)).astype(np.float32)
    shapes = [("x", (None, 300)), ("y", (None, 70))]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in shapes]
    nodes = [
        helper.make_node("MatMul", ["x", "kernel"], ["z"]),
        helper.make_node("Add", ["z", "bias"], ["y"]),
    ]
    bias = numpy_helper.from_array(np.arange(70, dtype=np.float32), "bias")
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [bias])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.graph.initializer.append(add_external("kernel", kernel, folder))
    model.graph.initializer.append(add_external("further", kernel.T[:3], folder))
    return model, kernel


def test_external_weights_are_written_into_one_file(tmp_path: Path) -> None:
    model, kernel = _with_external_weights(tmp_path)
    write(model, ExternalData(tmp_path), tmp_path / "whole.onnx", "whole")
    whole = onnx.load(tmp_path / "whole.onnx", load_external_data=False)
    onnx.load_external_data_for_model(model, str(tmp_path))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    np.testing.assert_array_equal(values["kernel"], kernel)
    np.testing.assert_array_equal(values["further"], kernel.T[:3])
    for tensor in model.graph.initializer:  # only the location of the values differs
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    assert whole == model


def test_truncated_external_weights_are_refused(tmp_path: Path) -> None:
    model, kernel = _with_external_weights(tmp_path)
    with (tmp_path / "unfolded.data").open("r+b") as file:
        file.truncate(kernel.nbytes - 1)
    with pytest.raises(ModelError, match="too short"):
        write(model, ExternalData(tmp_path), tmp_path / "whole.onnx", "whole")


def test_folding_keeps_the_result(tmp_path: Path) -> None:
    model, kernel = _with_external_weights(tmp_path)
    folded = fold(model, tmp_path)
    assert "further" not in {tensor.name for tensor in folded.graph.initializer}
    write(folded, ExternalData(tmp_path), tmp_path / "whole.onnx", "whole")
    values = np.random.default_rng(1).normal(size=(2, 300)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        tmp_path / "whole.onnx", providers=["CPUExecutionProvider"]
    )
    output = session.run(None, {"x": values})[0]
    expected = values.astype(np.float64) @ kernel.astype(np.float64) + np.arange(70)
    np.testing.assert_allclose(output, expected, rtol=0, atol=LIMIT)


def _squeezing() -> Any:
    """Channels weighted by their means: tf2onnx optimizes these in an order that varies."""
    image = keras.Input((8, 8, 3), name="image")
    values = layers.Conv2D(LARGE, 1)(image)
    for _ in range(3):
        values = layers.Activation("hard_swish")(layers.Conv2D(LARGE, 1)(values))
        mean = layers.GlobalAveragePooling2D(keepdims=True)(values)
        mean = layers.Conv2D(LARGE, 1)(layers.ReLU()(layers.Conv2D(4, 1)(mean)))
        values = values * layers.ReLU(6.0)(mean + 3.0)
    return keras.Model(image, layers.Flatten()(values))


def test_sets_of_nodes_are_in_the_order_in_which_the_nodes_were_met() -> None:
    """Neither addresses nor names decide: Keras numbers the layers of a process."""
    kind = tf2onnx.graph.Node
    with to_onnx._stable_order():
        nodes = [kind.__new__(kind) for _ in range(100)]
        assert [hash(node) for node in nodes] == sorted({hash(node) for node in nodes})
        assert list(set(nodes)) == nodes
    assert kind.__hash__ is object.__hash__


def test_a_model_is_converted_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    model, path, written = KerasModel(seeded(_squeezing)), tmp_path / "net.onnx", set()
    for _ in range(4):
        to_onnx.convert(model, path)
        written.add(path.read_bytes())
    assert len(written) == 1


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have:UserWarning")
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_layers_that_keras_quantized_are_refused(child: Child, tmp_path: Path, mode: str) -> None:
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, name="scores")])
    model.quantize(mode)
    opened = open_live(model, child)
    for kind in ("onnx", "tflite"):
        with pytest.raises(ModelError, match=f"Dense 'scores' has {mode} weights from model.quan"):
            opened.convert(kind, tmp_path / f"net.{kind}", ConvertOptions())
