"""Keras models in the child match local ones, and are converted there."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from exporter.conversion.options import ConvertOptions
from exporter.conversion.process import Child
from exporter.conversion.remote import ROUTES, Conversion, RemoteKerasModel, open_keras, open_live
from exporter.errors import ConversionError, ExporterError, ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.keras.model import KerasModel
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders.keras_models import ARCHITECTURES, Architecture

KEPT = [4, 0, 3]
LIMIT = 1e-5


@cache
def live(name: str) -> Any:
    return ARCHITECTURES[name].made()


@pytest.fixture(scope="module")
def remote(child: Child) -> Callable[[str], RemoteKerasModel]:
    return cache(lambda name: open_live(live(name), child))


@pytest.fixture(params=list(ARCHITECTURES.values()), ids=list(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> Architecture:
    found: Architecture = request.param
    return found


def run(model: Model, inputs: dict[str, Array]) -> dict[str, Array]:
    return model.runner(RunOptions())(inputs)


def one_input(shape: tuple[int | None, ...], *layers: Any, dtype: str = "float32") -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype, name="x"), *layers], name="net")


# --- refused --------------------------------------------------------------------------------------


def _open_length() -> Any:
    return one_input((None, 2), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3))


def _determinant() -> Any:
    values = keras.Input((4, 3, 3), name="x")
    return keras.Model(values, keras.layers.Dense(3)(keras.ops.det(values)))


def _inverse() -> Any:
    values = keras.Input((4,), name="x")
    return keras.Model(values, keras.layers.Dense(3)(keras.ops.erfinv(values)))


def _stateful() -> Any:
    values = keras.Input(batch_shape=(1, 4, 2), name="x")
    return keras.Model(values, keras.layers.LSTM(3, stateful=True, name="steps")(values))


def _plain() -> Any:
    return one_input((2,), keras.layers.Dense(3))


Case = tuple[Callable[[], Any], str, ConvertOptions, type[ExporterError], str]
REFUSED: dict[str, Case] = {
    "onnx, missing operator": (
        _inverse,
        "onnx",
        ConvertOptions(),
        ConversionError,
        "operator Erfinv",
    ),
    "onnx, opset too new": (_plain, "onnx", ConvertOptions(99), UsageError, "opset 99"),
    "onnx, opset too old": (_plain, "onnx", ConvertOptions(7), UsageError, "opset 7"),
    "tflite, states": (
        _stateful,
        "tflite",
        ConvertOptions(),
        ConversionError,
        "LSTM 'steps' keeps",
    ),
    "onnx, states": (_stateful, "onnx", ConvertOptions(), ConversionError, "LSTM 'steps' keeps"),
    "tflite, open dimension": (
        _open_length,
        "tflite",
        ConvertOptions(),
        UsageError,
        "dimension 1 of the input 'x' is open",
    ),
    "tflite, not builtin": (
        _determinant,
        "tflite",
        ConvertOptions(),
        ConversionError,
        "cannot express tf.MatrixDeterminant, and LiteRT runs only builtin",
    ),
    "shape of another input": (
        _plain,
        "tflite",
        ConvertOptions(input_shapes={"y": (1, 2)}),
        UsageError,
        "no input 'y'",
    ),
    "shape of another rank": (
        _plain,
        "tflite",
        ConvertOptions(input_shapes={"x": (2,)}),
        UsageError,
        "has 1 dimensions",
    ),
    "shape that contradicts": (
        _plain,
        "onnx",
        ConvertOptions(input_shapes={"x": (1, 5)}),
        UsageError,
        "is 2, not 5",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(child: Child, tmp_path: Path, case: Case) -> None:
    build, kind, options, error, message = case
    path = tmp_path / f"net.{kind}"
    with pytest.raises(error, match=message) as raised:
        open_live(build(), child).convert(kind, path, options)
    assert type(raised.value) is error
    assert "\n" not in raised.value.message + raised.value.hint
    assert not path.exists()


def test_lambda_in_a_live_model(child: Child) -> None:
    model = one_input((2,), keras.layers.Lambda(lambda x: x, name="odd"), keras.layers.Dense(3))
    with pytest.raises(ModelError, match="layer 'odd' is a Lambda"):
        open_live(model, child)


# --- models in the child --------------------------------------------------------------------------


def test_a_remote_model_matches_the_local_one(
    architecture: Architecture, remote: Callable[[str], RemoteKerasModel]
) -> None:
    opened, local = remote(architecture.name), KerasModel(live(architecture.name))
    assert opened.graph() == local.graph()
    assert opened.kind == local.kind
    assert (opened.name, opened.precision) == (local.name, local.precision)
    for name, tensor in local.graph().tensors.items():
        other = opened.graph().tensors[name]
        if tensor.read is not None and other.read is not None:
            np.testing.assert_array_equal(other.read(), tensor.read())
    inputs = architecture.samples()
    np.testing.assert_allclose(
        run(opened, inputs)[architecture.output], run(local, inputs)[architecture.output], atol=1e-6
    )


def test_a_remote_model_is_pruned_and_written(child: Child, tmp_path: Path) -> None:
    architecture = ARCHITECTURES["functional, softmax layer"]
    path = tmp_path / "net.keras"
    live(architecture.name).save(path)
    model = open_keras(path, child)
    assert model.name == "net.keras"
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    head, inputs = trace(model.graph()).head(), architecture.samples()
    z = run(model.apply(Plan((AddOutput(head.z, "z"),))), inputs)["z"]
    pruned = model.apply(Plan(MODES["slice"].edits(head, KEPT)))
    output = run(pruned, inputs)[head.output]
    np.testing.assert_allclose(output, MODES["slice"].oracle(head, KEPT, z).y, atol=1e-6)
    pruned.write(tmp_path / "small.keras")
    np.testing.assert_allclose(
        run(open_model(tmp_path / "small.keras"), inputs)[head.output], output, atol=1e-6
    )


# --- converted ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def convert(
    remote: Callable[[str], RemoteKerasModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    folder = tmp_path_factory.mktemp("converted")

    def once(name: str, kind: str) -> Path:
        path = folder / f"{name}.{kind}"
        done = remote(name).convert(kind, path, ConvertOptions())
        assert done == Conversion(path, ROUTES[kind], ())
        return path

    return cache(once)


@pytest.mark.parametrize("kind", ROUTES)
def test_converted_files_match_keras(
    architecture: Architecture, kind: str, convert: Callable[[str, str], Path]
) -> None:
    model, inputs = open_model(convert(architecture.name, kind)), architecture.samples(1)
    graph = model.graph()
    assert graph.inputs == tuple(architecture.inputs)
    assert graph.outputs == (architecture.output,)
    expected = np.asarray(live(architecture.name)(next(iter(inputs.values())), training=False))
    output = run(model, inputs)[architecture.output]
    assert output.shape == expected.shape
    np.testing.assert_allclose(output, expected, rtol=0, atol=LIMIT)
    head = trace(graph).head()
    fused = kind == "tflite" and architecture.activation == "relu"  # part of FULLY_CONNECTED
    activation = "linear" if fused else architecture.activation
    assert (head.units, head.activation) == (architecture.units, activation)


def test_onnx_leaves_the_batch_open(convert: Callable[[str, str], Path]) -> None:
    model = onnx.load(convert("convolutions", "onnx"))
    shapes = [
        [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["batch", 8, 8, 1], ["batch", 10]]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    architecture = ARCHITECTURES["convolutions"]
    outputs = run(open_model(convert("convolutions", "onnx")), architecture.samples(5))
    assert outputs["digit"].shape == (5, 10)


def test_tflite_has_a_signature_with_the_names(convert: Callable[[str, str], Path]) -> None:
    interpreter = Interpreter(str(convert("convolutions", "tflite")), num_threads=1)
    interpreter.allocate_tensors()
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["digit"]}
    }
    ends = (*interpreter.get_input_details(), *interpreter.get_output_details())
    assert [(end["name"], list(end["shape"])) for end in ends] == [
        ("image", [1, 8, 8, 1]),
        ("digit", [1, 10]),
    ]


@pytest.mark.parametrize("opset", [13, 18])
def test_other_opsets(
    remote: Callable[[str], RemoteKerasModel], tmp_path: Path, opset: int
) -> None:
    architecture, path = ARCHITECTURES["log softmax"], tmp_path / "net.onnx"
    remote(architecture.name).convert("onnx", path, ConvertOptions(opset))
    assert onnx.load(path).opset_import[0].version == opset
    inputs = architecture.samples(2)
    expected = np.asarray(live(architecture.name)(inputs["features"]))
    np.testing.assert_allclose(run(open_model(path), inputs)["logs"], expected, atol=LIMIT)


def test_given_shapes_and_batch(child: Child, tmp_path: Path) -> None:
    model = open_live(_open_length(), child)
    options = ConvertOptions(batch=3, input_shapes={"x": (1, 5, 2)})
    shapes = {}
    for kind in ROUTES:
        model.convert(kind, tmp_path / f"net.{kind}", options)
        shapes[kind] = open_model(tmp_path / f"net.{kind}").graph().shape("x")
    assert shapes == {"onnx": (None, 5, 2), "tflite": (3, 5, 2)}
    model.convert("onnx", tmp_path / "open.onnx", ConvertOptions())
    dims = onnx.load(tmp_path / "open.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", "x_1", 2]


def _several() -> Any:
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    values = keras.layers.Concatenate()([right, left])
    first = keras.layers.Dense(4, name="first")(values)
    second = keras.layers.Dense(3, activation="sigmoid", name="second")(values)
    third = keras.layers.Dense(2, name="third")(first)
    return keras.Model({"right": right, "left": left}, [third, second, first], name="several")


def _fixed_batch() -> Any:
    values = keras.Input(batch_shape=(2, 3), name="x")
    return keras.Model(values, keras.layers.Dense(3, activation="softmax", name="y")(values))


def _half() -> Any:
    layer = keras.layers.Dense(4, dtype="mixed_float16", name="y", activation="softmax")
    return one_input((3,), layer)


def _lstm() -> Any:
    return one_input((5, 2), keras.layers.LSTM(4), keras.layers.Dense(3, name="y"))


def _half_inside() -> Any:
    """In the layer of a wrapper, and in an inner model."""
    half = "mixed_float16"
    steps = keras.layers.Bidirectional(keras.layers.LSTM(3, dtype=half), dtype=half)
    head = keras.layers.Dense(3, dtype=half)
    inner = keras.Sequential([keras.Input((6,)), head], name="inner")
    return one_input((4, 2), steps, inner)


def _double() -> Any:
    return one_input((3,), keras.layers.Dense(3, dtype="float64", name="y"))


def _attention() -> Any:
    values = keras.Input((4, 6), name="x")
    mixed = keras.layers.MultiHeadAttention(2, 3)(values, values)
    mixed = keras.layers.LayerNormalization()(mixed + values)
    pooled = keras.layers.GlobalAveragePooling1D()(mixed)
    return keras.Model(values, keras.layers.Dense(3, name="y")(pooled))


OTHER_MODELS: dict[str, tuple[Callable[[], Any], float]] = {
    "several inputs and outputs": (_several, LIMIT),
    "fixed batch": (_fixed_batch, LIMIT),
    "half precision": (_half, 2e-3),
    "half precision inside": (_half_inside, 2e-3),
    "double precision": (_double, LIMIT),
    "LSTM": (_lstm, LIMIT),
    "attention": (_attention, LIMIT),
}


@pytest.mark.parametrize("kind", ROUTES)
@pytest.mark.parametrize(("build", "limit"), OTHER_MODELS.values(), ids=OTHER_MODELS)
def test_other_models_match_keras(
    child: Child, tmp_path: Path, build: Callable[[], Any], limit: float, kind: str
) -> None:
    keras.utils.set_random_seed(3)
    model, path = KerasModel(build()), tmp_path / f"net.{kind}"
    done = open_live(model.model, child).convert(kind, path, ConvertOptions())
    assert bool(done.warnings) == (model.precision != "fp32")
    converted, random = open_model(path), np.random.default_rng(1)
    assert set(converted.graph().inputs) == set(model.graph().inputs)
    assert converted.graph().outputs == model.graph().outputs
    inputs = {
        name: random.normal(size=[n or 1 for n in model.graph().shape(name)]).astype(np.float32)
        for name in model.graph().inputs
    }
    expected, outputs = run(model, inputs), run(converted, inputs)
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values, rtol=0, atol=limit)


def test_weights_that_are_not_finite_are_read(child: Child) -> None:
    model = _plain()
    model.layers[-1].kernel.assign(np.full((2, 3), np.nan))
    tensors = open_live(model, child).graph().tensors
    kernel = tensors[f"{model.layers[-1].name}/kernel"]
    assert kernel.read is not None
    assert np.isnan(kernel.read()).all()


def _mixed(width: int) -> Any:
    """With a large width its weights bypass tf2onnx; with a small one they do not."""
    values = keras.Input((4, width), name="x")
    mixed = keras.layers.MultiHeadAttention(2, 32)(values, values) + 1.0
    mixed = keras.layers.LayerNormalization()(keras.layers.Dense(width, "gelu")(mixed) + values)
    mixed = keras.layers.Bidirectional(keras.layers.GRU(3))(mixed)
    return keras.Model(values, keras.layers.Dense(3, activation="softmax", name="y")(mixed))


def test_two_processes_write_the_same_bytes(
    child: Child, other_child: Child, tmp_path: Path
) -> None:
    """By every route; each process writes to a folder of its own."""
    for width in (8, 64):
        _mixed(width).save(tmp_path / f"{width}.keras")
    routes = ["tf2onnx", "tf2onnx, bare graph", "TFLiteConverter"]
    written = [_convert_all(tmp_path, each) for each in (child, other_child)]
    assert [route for route, _ in written[0]] == routes
    assert written[0] == written[1]


def _convert_all(folder: Path, child: Child) -> list[tuple[str, str]]:
    """Route and hash of each conversion: ONNX has a route for each width, TFLite one for both."""
    found = []
    with tempfile.TemporaryDirectory(dir=folder) as target:
        for width, kind in ((8, "onnx"), (64, "onnx"), (64, "tflite")):
            model = open_keras(folder / f"{width}.keras", child)
            path = Path(target) / f"{width}.{kind}"
            route = model.convert(kind, path, ConvertOptions()).route
            found.append((route, hashlib.sha256(path.read_bytes()).hexdigest()))
    return found
