"""Live Keras models are drawn, pruned, run and written; the original does not change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import exporter
from exporter.errors import ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.keras.model import KerasModel
from exporter.formats.model import RunOptions
from exporter.graph import Array, Use
from exporter.graph.edits import (
    AddInput,
    AddOutput,
    Compute,
    ComputeStep,
    Edit,
    Fill,
    Insert,
    Plan,
    Replace,
    SetAttribute,
)
from exporter.graph.operations import Activation, Linear
from exporter.modes import MODES
from exporter.trace import trace
from exporter.trace.head import Head
from tests.builders.keras_models import ARCHITECTURES, Architecture, logits_by_hand, softmax

KEPT = [4, 0, 3]  # not ascending: kept units may change their order


@cache
def opened(name: str) -> KerasModel:
    return KerasModel(ARCHITECTURES[name].made())


def head_of(model: KerasModel) -> Head:
    return trace(model.graph()).head()


def run(model: KerasModel, inputs: dict[str, Array]) -> dict[str, Array]:
    return model.runner(RunOptions())(inputs)


def weights(model: KerasModel) -> list[Array]:
    return [np.array(w) for w in model.model.get_weights()]


@pytest.fixture(params=list(ARCHITECTURES.values()), ids=list(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> Architecture:
    made: Architecture = request.param
    return made


# --- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalized", [False, True])
def test_a_mask_that_a_layer_ignores_does_not_stop_a_cut(*, normalized: bool) -> None:
    """Keras hands the mask of an Embedding to each later layer that has the argument."""
    between = [keras.layers.BatchNormalization()] if normalized else []
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32", name="tokens"),
            keras.layers.Embedding(9, 4, mask_zero=True),
            keras.layers.GRU(6, return_sequences=True),
            *between,
            keras.layers.TimeDistributed(keras.layers.Dense(7, activation="softmax")),
        ]
    )
    tokens = np.array([[3, 1, 4, 0, 0], [8, 2, 6, 5, 7]], np.int32)
    expected = np.array(model(tokens))[..., KEPT]
    pruned = exporter.prune(model, keep=KEPT, keep_order=True)
    values = np.array(pruned(tokens))
    np.testing.assert_allclose(values, expected / expected.sum(-1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(values[0, 3], values[0, 2])  # the GRU skips the padding
    assert (values[0, 2] != values[0, 1]).all()


# --- refused --------------------------------------------------------------------------------------


class Own(keras.layers.Dense):  # type: ignore[misc]  # Keras is untyped
    """A class that Keras does not know."""


def _after_dense(layer: Any) -> Any:
    features = keras.Input((4,), name="features")
    values = keras.layers.Dense(4, name="dense")(features)
    return keras.Model(features, layer(values))


def _groups() -> Any:
    convolution = keras.layers.Conv2D(4, 2, groups=2, name="conv")
    return keras.Sequential([keras.Input((2, 2, 4)), convolution, keras.layers.Flatten()])


def _einsum(equation: str, shape: tuple[int, ...], bias: str | None = None) -> Callable[[], Any]:
    layer = keras.layers.EinsumDense(equation, shape, bias_axes=bias, name="head")
    return lambda: keras.Sequential([keras.Input((3, 4)), layer])


HEADLESS: dict[str, tuple[Callable[[], Any], str]] = {
    "bias on another axis than the last": (
        _einsum("abc,cd->adb", (5, 3), "d"),
        "EinsumDense 'head': Keras may add its bias along another axis",
    ),
    "several channel axes": (_einsum("abc,cde->abde", (3, 5, 2)), "2 axes of output channels"),
    "kernel for each step": (_einsum("abc,bcd->abd", (3, 5)), "differs from position"),
    "ellipsis": (_einsum("...c,cd->...d", (3, 5)), "no rule for the equation"),
    "masked steps": (
        lambda: keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Embedding(5, 4, mask_zero=True),
                keras.layers.Dense(3),
                keras.layers.GlobalAveragePooling1D(name="mean"),
            ]
        ),
        "GlobalAveragePooling1D 'mean': it skips masked steps",
    ),
    "number for each position": (
        lambda: _after_dense(keras.layers.Rescaling([1.0, 2.0, 3.0, 4.0], name="scaled")),
        "Rescaling 'scaled': its configuration contains a number for each position",
    ),
    "inner layer of another class": (
        lambda: keras.Sequential(
            [keras.Input((3, 4)), keras.layers.TimeDistributed(Own(3), name="steps")]
        ),
        "TimeDistributed 'steps': inner layers of class Own are not cut",
    ),
    "channel groups": (_groups, "Conv2D 'conv': its 2 groups"),
    "subclass of Dense": (
        lambda: _after_dense(Own(3, name="own")),
        "Own 'own': layers of class Own",
    ),
    "normalization over the units": (
        lambda: _after_dense(keras.layers.LayerNormalization(name="norm")),
        "LayerNormalization 'norm': layers of class LayerNormalization are not cut",
    ),
    "activation without a rule": (
        lambda: _after_dense(keras.layers.Activation("mish", name="act")),
        "the activation 'mish' has no rule",
    ),
    "activation without a rule in a Dense": (
        lambda: _after_dense(keras.layers.Dense(3, activation="mish", name="last")),
        "mish 'last/mish'",
    ),
    "threshold": (
        lambda: _after_dense(keras.layers.ReLU(threshold=1.0, name="act")),
        "its threshold",
    ),
    "softmax over two axes": (
        lambda: _after_dense(keras.layers.Softmax(axis=(0, 1), name="act")),
        "several axes",
    ),
    "operation without a rule": (
        lambda: _after_dense(lambda x: keras.ops.cumsum(x, axis=-1)),
        "operations of class Cumsum are not cut",
    ),
    "array in a call": (
        lambda: _after_dense(lambda x: x * np.ones(4, np.float32)),
        "an array that is not a weight",
    ),
    "softmax twice in an inner model": (
        lambda: _after_dense(
            keras.Sequential([keras.layers.Softmax(), keras.layers.Softmax()], name="twice")
        ),
        "Softmax 'twice/softmax",
    ),
}


@pytest.mark.parametrize(("build", "message"), HEADLESS.values(), ids=HEADLESS)
def test_no_head(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError) as raised:
        head_of(KerasModel(build()))
    assert message in raised.value.message


@pytest.mark.parametrize("name", ["array in a call", "number for each position"])
def test_hint_names_conversion_where_a_converted_file_can_be_pruned(name: str) -> None:
    with pytest.raises(ModelError) as raised:
        head_of(KerasModel(HEADLESS[name][0]()))
    assert raised.value.hint == "`exporter run` prunes the converted model: --to onnx,tflite"


def _subclassed() -> Any:
    class Net(keras.Model):  # type: ignore[misc]  # Keras is untyped
        pass

    return Net()


def _called_twice(*, agree: bool) -> Any:
    features = keras.Input((3,), name="features")
    dense = keras.layers.Dense(3, name="dense")
    first = dense(features)
    return keras.Model(
        features, keras.layers.Add()([first, dense(-features)]) if agree else dense(first)
    )


def test_calls_that_need_different_weights_are_refused_by_name() -> None:
    model = KerasModel(_called_twice(agree=False))
    message = "Dense 'dense' is called 2 times, and the cut would need different weights"
    with pytest.raises(ModelError, match=message):
        model.apply(Plan(MODES["slice"].edits(head_of(model), [0, 2])))
    agreeing = KerasModel(_called_twice(agree=True))
    agreeing.apply(Plan(MODES["slice"].edits(head_of(agreeing), [0, 2])))


NOT_OPENED: dict[str, tuple[Callable[[], Any], str]] = {
    "subclassed": (_subclassed, "class 'Net'"),
    "never built": (lambda: keras.Sequential([keras.layers.Dense(3)]), "is not built"),
}


@pytest.mark.parametrize(("build", "message"), NOT_OPENED.values(), ids=NOT_OPENED)
def test_not_opened(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        KerasModel(build())


def _lambda() -> Any:
    return keras.layers.Lambda(lambda x: x, output_shape=(4,), name="odd")


NOT_REBUILT: dict[str, tuple[Callable[[], Any], str]] = {
    "Lambda": (_lambda, "layer 'odd' is a Lambda"),
    "custom layer": (lambda: Own(4, name="odd"), "layer 'odd' is of the custom class 'Own'"),
}


@pytest.mark.parametrize(("layer", "message"), NOT_REBUILT.values(), ids=NOT_REBUILT)
def test_layers_that_cannot_be_rebuilt(layer: Callable[[], Any], message: str) -> None:
    inputs = keras.Input((4,), name="features")
    head = keras.layers.Dense(5, name="head")
    model = KerasModel(keras.Model(inputs, head(layer()(inputs))))
    with pytest.raises(ModelError, match=message):
        model.apply(Plan(MODES["slice"].edits(head_of(model), [1])))


PLAIN = "linear"
NOT_APPLIED: dict[str, tuple[Edit, str]] = {
    "insert": (Insert("add", "values"), "cannot take the edit"),
    "compute": (Compute("values", (ComputeStep("exp", (0,)),)), "cannot take the edit"),
    "add an input": (AddInput("extra", (None, 2), "float32"), "cannot take the edit"),
    "no such weight": (Fill("values/scale", 0, np.array([0]), 0.0, ()), "no weight"),
    "activation instead of a weight": (Fill("values", 0, np.array([0]), 0.0, ()), "no weight"),
    "no such layer": (SetAttribute("other", "units", 3), "no layer 'other'"),
    "no such setting": (SetAttribute("values", "color", 3), "no setting 'color'"),
    "no such tensor": (AddOutput("other", "z"), "no tensor 'other'"),
    "weight as output": (AddOutput("values/kernel", "z"), "no tensor"),
    "name of another tensor": (AddOutput("values", "hidden"), "already has a tensor named"),
    "name of another output": (AddOutput("values", "values"), "already has an output named"),
    "width and weights disagree": (SetAttribute("values", "units", 3), "cannot be rebuilt"),
    "setting out of range": (SetAttribute("values", "units", -3), "cannot be rebuilt"),
}


@pytest.mark.parametrize(("edit", "message"), NOT_APPLIED.values(), ids=NOT_APPLIED)
def test_edits_that_are_refused(edit: Edit, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        opened(PLAIN).apply(Plan((edit,)))


def test_missing_values() -> None:
    with pytest.raises(UsageError, match="no values for the input 'features'"):
        run(opened(PLAIN), {})


# --- the drawing ----------------------------------------------------------------------------------


def test_head_is_found(architecture: Architecture) -> None:
    head = head_of(opened(architecture.name))
    assert (head.name, head.units) == (architecture.output, architecture.units)
    assert head.activation == architecture.activation
    assert {c.name for c in head.constants} <= {
        f"{architecture.head}/kernel",
        f"{architecture.head}/bias",
    }


def test_names_and_shapes_of_a_dense_with_activation() -> None:
    graph = opened("sequential, softmax inside").graph()
    dense, activation = graph.nodes[-2:]
    assert (dense.name, dense.outputs) == ("probabilities", ("probabilities/linear",))
    assert dense.inputs[1:] == ("probabilities/kernel", "probabilities/bias")
    assert isinstance(dense.operation, Linear)
    assert dense.operation.width_attribute == "units"
    assert (activation.name, activation.outputs) == ("probabilities/softmax", ("probabilities",))
    assert activation.operation == Activation("softmax", 1)
    assert graph.shape("probabilities/kernel") == (9, 7)
    assert graph.shape("probabilities/linear") == (None, 7)
    assert (graph.inputs, graph.outputs) == (("features",), ("probabilities",))


def test_every_weight_can_be_read(architecture: Architecture) -> None:
    model = opened(architecture.name)
    constants = [t for t in model.graph().tensors.values() if t.read is not None]
    read = [tensor.read() for tensor in constants if tensor.read is not None]
    assert [value.shape for value in read] == [tensor.shape for tensor in constants]
    sums = sorted(float(np.sum(w)) for w in model.model.get_weights())
    assert np.allclose(sorted(float(v.sum()) for v in read), sums)


def test_several_inputs_and_outputs_keep_their_names() -> None:
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    values = keras.layers.Concatenate(name="both")([left, right])
    first = keras.layers.Dense(4, name="first")(values)
    second = keras.layers.Dense(3, activation="sigmoid", name="second")(values)
    model = KerasModel(keras.Model({"right": right, "left": left}, {"b": first, "a": second}))
    found = trace(model.graph())
    assert set(model.graph().inputs) == {"left", "right"}
    assert {head.name for head in found.heads} == {"first", "second"}
    inputs = {"left": np.ones((1, 2), np.float32), "right": np.ones((1, 3), np.float32)}
    before = run(model, inputs)
    after = run(model.apply(Plan(MODES["slice"].edits(found.head("second"), [2, 0]))), inputs)
    np.testing.assert_array_equal(after["first"], before["first"])
    np.testing.assert_allclose(after["second"], before["second"][:, [2, 0]], atol=1e-6)


def test_a_tensor_that_is_returned_twice() -> None:
    features = keras.Input((2,), name="features")
    values = keras.layers.Dense(3, name="values")(features)
    model = KerasModel(keras.Model(features, [values, values]))
    assert model.graph().outputs == ("values", "values_1")
    assert set(run(model, {"features": np.ones((1, 2))})) == {"values", "values_1"}


@pytest.mark.parametrize(
    ("policies", "precision"),
    [
        pytest.param(("float32",), "fp32", id="float32"),
        pytest.param(("mixed_float16",), "fp16", id="mixed"),
        pytest.param(("float64",), "fp64", id="float64"),
        pytest.param(("mixed_float16", "float32"), "fp16", id="coarser of two"),
        pytest.param(("mixed_bfloat16", "float16"), "bf16", id="coarser of two half precisions"),
        pytest.param((), "fp32", id="no weights"),
    ],
)
def test_precision(policies: tuple[str, ...], precision: str) -> None:
    dense = [keras.layers.Dense(3, dtype=policy) for policy in policies]
    layers = [keras.Input((2,)), *dense, keras.layers.ReLU()]
    assert KerasModel(keras.Sequential(layers)).precision == precision


def test_an_int8_layer_and_a_float_layer_are_mixed() -> None:
    dense = [keras.layers.Dense(4, name=name) for name in ("quantized", "y")]
    model = keras.Sequential([keras.Input((4,)), *dense])
    model.layers[0].quantize("int8")
    assert KerasModel(model).precision == "mixed"


def test_the_output_of_an_operation_can_be_added() -> None:
    """Operations that are not layers have names too."""
    x = keras.Input((2,), name="x")
    halved = keras.layers.Dense(3, name="head")(x) / 2.0
    model = KerasModel(keras.Model(x, keras.layers.Softmax(name="y")(halved)))
    (name,) = (node.name for node in model.graph().nodes if node.name.startswith("true_divide"))
    extended = model.apply(Plan((AddOutput(name, name),)))
    values = run(extended, {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_allclose(softmax(values[name]), values["y"], atol=1e-6)


# --- pruning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["slice", "zero"])
def test_pruned_model_matches_numpy(architecture: Architecture, mode: str) -> None:
    model, inputs = opened(architecture.name), architecture.samples()
    logits = logits_by_hand(model.model, architecture, inputs)
    if mode == "slice":
        expected = logits[:, KEPT]
    else:
        expected = np.where(np.isin(np.arange(architecture.units), KEPT), logits, 0.0)
    pruned = model.apply(Plan(MODES[mode].edits(head_of(model), KEPT)))
    result = run(pruned, inputs)[architecture.output]
    np.testing.assert_allclose(result, architecture.compute(expected), rtol=0, atol=2e-6)
    assert type(pruned.model) is type(model.model)
    assert pruned.model.name == model.model.name
    assert pruned.graph().outputs == model.graph().outputs
    assert pruned.graph().inputs == model.graph().inputs


def test_pruned_model_matches_the_oracle(architecture: Architecture) -> None:
    model, inputs = opened(architecture.name), architecture.samples()
    head = head_of(model)
    shown = run(model.apply(Plan((AddOutput(head.z, "z/values"),))), inputs)
    np.testing.assert_array_equal(shown[head.output], run(model, inputs)[head.output])
    by_hand = logits_by_hand(model.model, architecture, inputs)
    np.testing.assert_allclose(shown["z/values"].reshape(by_hand.shape), by_hand, atol=2e-6)
    plan = Plan((*MODES["slice"].edits(head, KEPT), AddOutput(head.z, "z/values")))
    pruned = run(model.apply(plan), inputs)
    expected = MODES["slice"].oracle(head, KEPT, shown["z/values"])
    np.testing.assert_allclose(pruned["z/values"], expected.z, rtol=0, atol=1e-6)
    np.testing.assert_allclose(pruned[head.output], expected.y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["slice", "zero"])
def test_the_original_does_not_change(architecture: Architecture, mode: str) -> None:
    model, inputs = KerasModel(architecture.made()), architecture.samples(8)
    before, output = weights(model), run(model, inputs)[architecture.output]
    pruned = model.apply(Plan(MODES[mode].edits(head_of(model), KEPT)))
    untrained = weights(pruned)
    pruned.model.compile(keras.optimizers.SGD(1.0), "mse")
    target = np.ones_like(run(pruned, inputs)[architecture.output])
    pruned.model.fit(next(iter(inputs.values())), target, verbose=0)
    assert any(not np.array_equal(a, b) for a, b in zip(untrained, weights(pruned), strict=True))
    for a, b in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(output, run(model, inputs)[architecture.output])


def test_a_compiled_model_keeps_a_loss_that_cannot_be_saved() -> None:
    model = ARCHITECTURES[PLAIN].made()
    model.compile("adam", lambda true, predicted: predicted - true)
    wrapped = KerasModel(model)
    pruned = wrapped.apply(Plan(MODES["slice"].edits(head_of(wrapped), [1])))
    assert pruned.model.loss is model.loss
    shown = wrapped.apply(Plan((AddOutput(head_of(wrapped).z, "z"),)))
    assert not shown.model.compiled


@pytest.mark.parametrize("functional", [False, True])
def test_regularizers_and_trainability_are_kept(*, functional: bool) -> None:
    layer = keras.layers.Dense(
        5,
        name="head",
        kernel_regularizer=keras.regularizers.L2(0.5),
        bias_initializer=keras.initializers.Constant(np.arange(5.0)),
        trainable=False,
    )
    values = keras.Input((3,), name="x")
    if functional:
        wrapped = KerasModel(keras.Model(values, layer(values)))
    else:
        wrapped = KerasModel(keras.Sequential([values, layer]))
    pruned = wrapped.apply(Plan(MODES["slice"].edits(head_of(wrapped), [1, 4]))).model
    head = pruned.get_layer("head")
    assert head.kernel_regularizer.l2 == 0.5
    assert not head.trainable
    np.testing.assert_array_equal(head.bias, [1.0, 4.0])


def test_adapted_layers_keep_their_statistics() -> None:
    adapted = keras.layers.Normalization(name="norm")
    data = np.random.default_rng(0).normal(3.0, 2.0, (50, 3)).astype(np.float32)
    adapted.adapt(data)
    head = keras.layers.Dense(4, name="head")
    wrapped = KerasModel(keras.Sequential([keras.Input((3,), name="x"), adapted, head]))
    pruned = wrapped.apply(Plan(MODES["slice"].edits(head_of(wrapped), [0, 2])))
    before, after = run(wrapped, {"x": data})["head"], run(pruned, {"x": data})["head"]
    np.testing.assert_allclose(after, before[:, [0, 2]], atol=1e-6)


@pytest.mark.parametrize("tensor", ["hidden", "probabilities/linear", "features"])
def test_an_inner_tensor_is_returned_under_its_own_name(tensor: str) -> None:
    model = opened("sequential, softmax inside")
    inputs = ARCHITECTURES["sequential, softmax inside"].samples()
    shown = model.apply(Plan((AddOutput(tensor, tensor),)))
    assert shown.graph().outputs == ("probabilities", tensor)
    again = shown.apply(Plan((AddOutput(tensor, "again"),)))
    values = run(again, inputs)
    assert list(values) == ["probabilities", tensor, "again"]
    np.testing.assert_array_equal(values[tensor], values["again"])
    np.testing.assert_array_equal(values["probabilities"], run(model, inputs)["probabilities"])


def test_replace_and_fill() -> None:
    model = opened(PLAIN)
    uses = (Use("values", 2),)
    bias = np.arange(5, dtype=np.float64)
    edits = (
        Replace("values/bias", bias, uses),
        Fill("values/bias", 0, np.array([1]), 7.0, uses),
        Fill("values/kernel", 1, np.array([0, 1, 2, 3, 4]), 0.0, uses),
    )
    inputs = ARCHITECTURES[PLAIN].samples(1)
    output = run(model.apply(Plan(edits)), inputs)["values"]
    np.testing.assert_array_equal(output, [[0.0, 7.0, 2.0, 3.0, 4.0]])


def test_reshape_target_follows_the_width() -> None:
    model = opened("reshape after the head")
    pruned = model.apply(Plan(MODES["slice"].edits(head_of(model), KEPT)))
    assert pruned.model.get_layer("column").target_shape == (3, 1)


def test_a_head_over_time_steps() -> None:
    steps = keras.Input((3, 4), name="steps")
    model = KerasModel(
        keras.Model(steps, keras.layers.Dense(5, activation="softmax", name="tags")(steps))
    )
    head = head_of(model)
    assert head.axis == 2
    inputs = {"steps": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)}
    kernel, bias = (np.asarray(w, np.float64) for w in model.model.get_weights())
    expected = softmax((inputs["steps"] @ kernel + bias)[..., KEPT])
    pruned = model.apply(Plan(MODES["slice"].edits(head, KEPT)))
    np.testing.assert_allclose(run(pruned, inputs)["tags"], expected, atol=1e-6)


# --- files ----------------------------------------------------------------------------------------

LOAD = """
import sys
sys.modules["exporter"] = None  # importing it fails
from pathlib import Path
import keras, numpy as np
for path in sorted(Path(sys.argv[1]).glob("*.keras")):
    model = keras.saving.load_model(path)
    inputs = np.load(path.with_suffix(".in.npy"))
    np.save(path.with_suffix(".out.npy"), model(inputs, training=False))
"""


def test_saved_files_load_without_this_package(tmp_path: Path) -> None:
    expected = {}
    for i, architecture in enumerate(ARCHITECTURES.values()):
        model, inputs = opened(architecture.name), architecture.samples()
        pruned = model.apply(Plan(MODES["slice"].edits(head_of(model), KEPT)))
        pruned.write(tmp_path / f"{i}.keras")
        np.save(tmp_path / f"{i}.in.npy", next(iter(inputs.values())))
        expected[i] = run(pruned, inputs)[architecture.output]
    subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], check=True, capture_output=True)
    for i, output in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.out.npy"), output, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".other"])
def test_a_written_file_is_opened_by_content(tmp_path: Path, suffix: str) -> None:
    architecture = ARCHITECTURES["sequential, softmax inside"]
    path, inputs = tmp_path / f"net{suffix}", architecture.samples()
    opened(architecture.name).write(path)
    again = open_model(path)
    assert (again.kind, again.name, again.remap) == ("keras", path.name, None)
    output = again.runner(RunOptions())(inputs)["probabilities"]
    np.testing.assert_array_equal(output, run(opened(architecture.name), inputs)["probabilities"])


@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_hdf5(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["convolutions"]
    path, inputs = tmp_path / "net.h5", architecture.samples()
    opened(architecture.name).write(path)
    output = open_model(path).runner(RunOptions())(inputs)["digit"]
    np.testing.assert_array_equal(output, run(opened(architecture.name), inputs)["digit"])


def test_written_bytes_are_stable(tmp_path: Path) -> None:
    contents = set()
    for i in range(2):
        model = KerasModel(ARCHITECTURES["dropout around"].made())
        pruned = model.apply(Plan(MODES["slice"].edits(head_of(model), KEPT)))
        pruned.write(tmp_path / f"{i}.keras")
        contents.add((tmp_path / f"{i}.keras").read_bytes())
    assert len(contents) == 1


def test_a_file_that_keras_cannot_load(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation=custom_function)])
    model.save(path)
    with pytest.raises(ModelError, match="custom_function"):
        open_model(path)


def custom_function(x: Any) -> Any:
    return x * 2.0
