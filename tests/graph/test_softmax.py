"""A softmax that is written as exponentials and their sum is cut as one activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto

from exporter.errors import ModelError
from exporter.formats.model import Model, RunOptions
from exporter.formats.onnx import OnnxModel
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders.onnx_models import classifier, node, numbers
from tests.builders.tflite_builder import Builder

UNITS, KEPT = 5, [0, 2, 3]
X = numbers(2, 6, seed=1)
KERNEL, BIAS = numbers(6, UNITS), numbers(UNITS)
Z = (X @ KERNEL + BIAS).astype(np.float64)


def softmax(z: Array) -> Array:
    return np.asarray(np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True))


# --- in ONNX files -------------------------------------------------------------------------------


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def largest(shape: str = "kept") -> list[NodeProto]:
    """max(z) as `m`, with the reduced axis restored."""
    if shape == "kept":
        return [node("ReduceMax", ["z"], ["m"], "max", axes=[1])]
    return [
        node("ReduceMax", ["z"], ["most"], "max", axes=[1], keepdims=0),
        node("Max", ["lowest", "most"], ["bounded"], "bound"),
        node("Identity", ["bounded"], ["stopped"], "stop"),
        *with_axis("stopped", "m"),
    ]


def with_axis(tensor: str, made: str) -> list[NodeProto]:
    """[batch] to [batch, 1], by a reshape and a broadcast to a computed shape."""
    own = f"{made}/shape"
    return [
        node("Shape", [tensor], [f"{own}/batch"], f"{own}/batch"),
        node("Concat", [f"{own}/batch", "one"], [own], own, axis=0),
        node("Reshape", [tensor, own], [f"{made}/1"], f"{made}/1"),
        node("Expand", [f"{made}/1", own], [made], made),
    ]


SHIFTED = [*largest(), node("Sub", ["z", "m"], ["d"], "sub")]
POWERS = [*SHIFTED, node("Exp", ["d"], ["e"], "exp")]
SUM = node("ReduceSum", ["e", "axes"], ["s"], "sum")
ONNX: Mapping[str, tuple[list[NodeProto], bool]] = {
    "with the largest taken off": ([*POWERS, SUM, node("Div", ["e", "s"], ["y"], "y")], False),
    "as it is defined": (
        [node("Exp", ["z"], ["e"], "exp"), SUM, node("Div", ["e", "s"], ["y"], "y")],
        False,
    ),
    "as JAX traces it": (
        [
            *largest("flat"),
            *POWERS[1:],
            node("ReduceSum", ["e", "axes"], ["total"], "sum", keepdims=0),
            *with_axis("total", "s"),
            node("Div", ["e", "s"], ["y"], "y"),
        ],
        False,
    ),
    "its logarithm": (
        [*POWERS, SUM, node("Log", ["s"], ["l"], "log"), node("Sub", ["d", "l"], ["y"], "y")],
        True,
    ),
    "its logarithm, of exponentials that are not shifted": (
        [
            node("Exp", ["z"], ["e"], "exp"),
            SUM,
            node("Log", ["s"], ["l"], "log"),
            node("Sub", ["z", "l"], ["y"], "y"),
        ],
        True,
    ),
    "its logarithm, by one reduction": (
        [
            node("ReduceLogSumExp", ["z"], ["l"], "total", axes=[1]),
            node("Sub", ["z", "l"], ["y"], "y"),
        ],
        True,
    ),
    "the exponential of its logarithm": (
        [node("LogSoftmax", ["z"], ["l"], "log", axis=1), node("Exp", ["l"], ["y"], "y")],
        False,
    ),
    "the logarithm of a softmax": (
        [node("Softmax", ["z"], ["p"], "softmax", axis=1), node("Log", ["p"], ["y"], "y")],
        True,
    ),
    "the logarithm of one that is written out": (
        [*POWERS, SUM, node("Div", ["e", "s"], ["p"], "p"), node("Log", ["p"], ["y"], "y")],
        True,
    ),
    "the exponential of its logarithm, that is written out": (
        [
            *POWERS,
            SUM,
            node("Log", ["s"], ["l"], "log"),
            node("Sub", ["d", "l"], ["p"], "p"),
            node("Exp", ["p"], ["y"], "y"),
        ],
        False,
    ),
    "the exponential of its logarithm, by one reduction": (
        [
            node("ReduceLogSumExp", ["z"], ["s"], "total", axes=[1]),
            node("Sub", ["z", "s"], ["l"], "log"),
            node("Exp", ["l"], ["y"], "y"),
        ],
        False,
    ),
}
CONSTANTS: Mapping[str, Array] = {
    "minus": np.array(-1, np.float32),
    "unit": np.array(1, np.float32),
    "count": np.array(UNITS, np.float32),
    "axes": ints(1),
    "one": ints(1),
    "lowest": np.array(-np.inf, np.float32),
    "rows": ints(0),
}


def onnx(*tail: NodeProto, **options: Any) -> OnnxModel:
    used = {name for each in tail for name in each.input}
    held = {name: value for name, value in CONSTANTS.items() if name in used}
    return classifier(*tail, constants={"kernel": KERNEL, "bias": BIAS, **held}, **options)


# --- in TFLite files -----------------------------------------------------------------------------


def logits() -> Builder:
    builder = Builder()
    x = builder.feed("x", 2, 6)
    kernel = builder.constant("kernel", np.ascontiguousarray(KERNEL.T))
    inputs = [x, kernel, builder.constant("bias", BIAS)]
    builder.op("FULLY_CONNECTED", inputs, (2, UNITS), "z", "FullyConnectedOptions")
    builder.constant("axes", np.array([1], np.int32))
    return builder


def reduced(builder: Builder, operator: str, source: str, name: str, *, keep: bool = True) -> str:
    shape = (2, 1) if keep else (2,)
    return builder.op(operator, [source, "axes"], shape, name, "ReducerOptions", keepDims=keep)


def subtract_maximum(builder: Builder) -> None:
    reduced(builder, "REDUCE_MAX", "z", "m")
    builder.op("SUB", ["z", "m"], (2, UNITS), "d", "SubOptions")
    builder.op("EXP", ["d"], (2, UNITS), "e", "ExpOptions")


def _with_its_maximum_subtracted(builder: Builder) -> None:
    subtract_maximum(builder)
    reduced(builder, "SUM", "e", "s")
    builder.op("DIV", ["e", "s"], (2, UNITS), "y", "DivOptions")


def _as_jax_traces_it(builder: Builder) -> None:
    reduced(builder, "REDUCE_MAX", "z", "most", keep=False)
    lowest = builder.constant("lowest", np.array(-np.inf, np.float32))
    builder.op("MAXIMUM", [lowest, "most"], (2,), "bounded", "MaximumMinimumOptions")
    shape = builder.constant("shape", np.array([2, 1], np.int32))
    builder.op("RESHAPE", ["bounded", shape], (2, 1), "m", "ReshapeOptions")
    builder.op("SUB", ["z", "m"], (2, UNITS), "d", "SubOptions")
    builder.op("EXP", ["d"], (2, UNITS), "e", "ExpOptions")
    reduced(builder, "SUM", "e", "total", keep=False)
    builder.op("RESHAPE", ["total", shape], (2, 1), "s", "ReshapeOptions")
    builder.op("DIV", ["e", "s"], (2, UNITS), "y", "DivOptions")


def _log_softmax(builder: Builder) -> None:
    subtract_maximum(builder)
    reduced(builder, "SUM", "e", "s")
    builder.op("LOG", ["s"], (2, 1), "l")
    builder.op("SUB", ["d", "l"], (2, UNITS), "y", "SubOptions")


def _over_channels(builder: Builder) -> None:
    """Channels before the positions of one row; the maximum lacks the channel axis."""
    to = builder.constant("to", np.array([1, 2, UNITS], np.int32))
    builder.op("RESHAPE", ["z", to], (1, 2, UNITS), "r", "ReshapeOptions")
    order = builder.constant("order", np.array([0, 2, 1], np.int32))
    builder.op("TRANSPOSE", ["r", order], (1, UNITS, 2), "t")
    builder.op("REDUCE_MAX", ["t", "axes"], (1, 2), "m", "ReducerOptions")
    builder.op("SUB", ["t", "m"], (1, UNITS, 2), "d", "SubOptions")
    builder.op("EXP", ["d"], (1, UNITS, 2), "e", "ExpOptions")
    builder.op("SUM", ["e", "axes"], (1, 2), "s", "ReducerOptions")
    builder.op("DIV", ["e", "s"], (1, UNITS, 2), "p", "DivOptions")
    builder.op("TRANSPOSE", ["p", order], (1, 2, UNITS), "q")
    back = builder.constant("back", np.array([2, UNITS], np.int32))
    builder.op("RESHAPE", ["q", back], (2, UNITS), "y", "ReshapeOptions")


def _logarithm_of_softmax(builder: Builder) -> None:
    builder.op("SOFTMAX", ["z"], (2, UNITS), "p", "SoftmaxOptions", beta=1.0)
    builder.op("LOG", ["p"], (2, UNITS), "y")


TFLITE: Mapping[str, tuple[Callable[[Builder], None], bool]] = {
    "with the largest taken off": (_with_its_maximum_subtracted, False),
    "as JAX traces it": (_as_jax_traces_it, False),
    "its logarithm": (_log_softmax, True),
    "the logarithm of a softmax": (_logarithm_of_softmax, True),
    "of channels, with an axis that broadcasting adds": (_over_channels, False),
}


def tflite(build: Callable[[Builder], None], *outputs: str) -> TfliteModel:
    builder = logits()
    build(builder)
    return from_bytes(builder.content(*outputs or ("y",)), "composed.tflite")


# --- cut as one ----------------------------------------------------------------------------------

CASES = [
    *(pytest.param(onnx(*tail), log, id=f"ONNX, {name}") for name, (tail, log) in ONNX.items()),
    *(
        pytest.param(tflite(build), log, id=f"TFLite, {name}")
        for name, (build, log) in TFLITE.items()
    ),
]


def answer(model: Model) -> Array:
    return np.asarray(model.runner(RunOptions())({"x": X})["y"], np.float64)


@pytest.mark.parametrize(("model", "logarithm"), CASES)
def test_it_is_cut_as_one_activation(model: Model, logarithm: bool) -> None:
    shown = np.log if logarithm else np.asarray
    zeroed = np.where(np.isin(np.arange(UNITS), KEPT), Z, 0.0)
    expected = {
        "slice": shown(softmax(Z[:, KEPT])),
        "zero": shown(softmax(zeroed)),
    }
    if not logarithm:
        expected["mask"] = np.zeros_like(Z)
        expected["mask"][:, KEPT] = softmax(Z[:, KEPT])
    for mode, wanted in expected.items():
        done = prune_model(model, CutOptions(keep=KEPT, mode=mode), Job(samples=4))
        assert done.results.passed, mode
        assert np.allclose(answer(done.model), wanted, rtol=0, atol=2e-6), mode
    done = prune_model(model, CutOptions(keep=KEPT, probabilities="absolute"), Job(samples=4))
    assert done.results.passed
    assert np.allclose(answer(done.model), shown(softmax(Z))[:, KEPT], rtol=0, atol=2e-6)


def test_the_logarithm_of_a_removed_share_is_minus_infinity() -> None:
    """A softmax returns exactly 0 for a masked unit, which log_softmax does not show."""
    model = onnx(*ONNX["the logarithm of a softmax"][0])
    done = prune_model(model, CutOptions(keep=KEPT, mode="mask"), Job(samples=4))
    assert done.results.passed
    wanted = np.full_like(Z, -np.inf)
    wanted[:, KEPT] = np.log(softmax(Z[:, KEPT]))
    assert np.allclose(answer(done.model), wanted, rtol=0, atol=2e-6)


def test_the_logarithm_of_a_softmax_keeps_its_factor() -> None:
    def sharpened(builder: Builder) -> None:
        builder.op("SOFTMAX", ["z"], (2, UNITS), "p", "SoftmaxOptions", beta=2.5)
        builder.op("LOG", ["p"], (2, UNITS), "y")

    done = prune_model(tflite(sharpened), CutOptions(keep=KEPT), Job(samples=4))
    assert done.results.passed
    wanted = np.log(softmax(2.5 * Z[:, KEPT]))
    assert np.allclose(answer(done.model), wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("model", "logarithm"), CASES)
def test_its_logits_are_found_and_its_inner_tensors_narrow(
    model: Model,
    logarithm: bool,
) -> None:
    done = prune_model(model, CutOptions(keep=KEPT), Job(samples=1))
    head = done.cut.heads[0]
    assert head.activation == ("log_softmax" if logarithm else "softmax")
    assert head.z == ("t" if "t" in model.graph().tensors else "z")
    before, after = (each.graph().tensors for each in (model, done.model))
    wide = {name for name, each in before.items() if each.shape and UNITS in each.shape}
    assert wide >= {"z", "y"}
    for name in wide:
        lengths = after[name].shape or ()
        assert (UNITS in lengths, len(KEPT) in lengths) == (False, True), name


def test_a_softmax_and_its_logarithm_are_both_returned() -> None:
    log = node("LogSoftmax", ["z"], ["l"], "log", axis=1)
    model = onnx(log, node("Exp", ["l"], ["y"], "y"), outputs={"y": None, "l": None})
    done = prune_model(model, CutOptions(keep=KEPT, head="y"), Job(samples=4))
    answers = done.model.runner(RunOptions())({"x": X})
    assert np.allclose(answers["y"], softmax(Z[:, KEPT]), rtol=0, atol=2e-6)
    assert np.allclose(answers["l"], np.log(softmax(Z[:, KEPT])), rtol=0, atol=2e-6)


# --- values divided by their sum -----------------------------------------------------------------

PROBABILITIES = 1 / (1 + np.exp(-Z))
GUARDED = [  # as skl2onnx writes SGDClassifier(loss="log_loss")
    node("Mul", ["z", "minus"], ["n"], "negate"),
    node("Exp", ["n"], ["e"], "exp"),
    node("Add", ["e", "unit"], ["a"], "add"),
    node("Reciprocal", ["a"], ["p"], "p"),
    node("ReduceSum", ["p", "axes"], ["s"], "sum"),
    node("Cast", ["s"], ["some"], "some", to=TensorProto.BOOL),
    node("Not", ["some"], ["none"], "none"),
    node("Cast", ["none"], ["k"], "cast", to=TensorProto.FLOAT),
    node("Add", ["p", "k"], ["value"], "value"),
    node("Mul", ["k", "count"], ["m"], "count"),
    node("Add", ["s", "m"], ["total"], "total"),
    node("Div", ["value", "total"], ["y"], "y"),
]
SHARES = {
    "probabilities and their sum": (
        [
            node("Sigmoid", ["z"], ["e"], "sigmoid"),
            SUM,
            node("Div", ["e", "s"], ["y"], "y"),
        ],
        PROBABILITIES,
    ),
    "any values and the sum of their absolute values": (
        [node("ReduceL1", ["z"], ["s"], "sum", axes=[1]), node("Div", ["z", "s"], ["y"], "y")],
        Z,
    ),
    "sigmoids that are written out, and a value where their sum is 0": (GUARDED, PROBABILITIES),
}


@pytest.mark.parametrize("name", SHARES)
def test_values_divided_by_their_sum_are_divided_by_that_of_the_kept(name: str) -> None:
    tail, values = SHARES[name]
    kept = values[:, KEPT]
    expected = kept / np.abs(kept).sum(axis=1, keepdims=True)
    for mode in ("slice", "mask"):
        done = prune_model(onnx(*tail), CutOptions(keep=KEPT, mode=mode), Job(samples=4))
        assert done.results.passed, mode
        found = answer(done.model)
        shown = found if mode == "slice" else found[:, KEPT]
        assert np.allclose(shown, expected, rtol=0, atol=2e-6), mode
        if mode == "mask":
            removed = np.delete(found, KEPT, axis=1)
            assert (removed == (0.0 if values is PROBABILITIES else -1e4)).all()


# --- not a softmax over units --------------------------------------------------------------------


def _over_rows(builder: Builder) -> None:
    subtract_maximum(builder)
    rows = builder.constant("rows", np.array([0], np.int32))
    builder.op("SUM", ["e", rows], (1, UNITS), "s", "ReducerOptions", keepDims=True)
    builder.op("DIV", ["e", "s"], (2, UNITS), "y", "DivOptions")


E = node("Exp", ["d"], ["e"], "exp")
# Built in the test: reading a file combines its softmax already, and collection is not traced.
OTHERS: Mapping[str, Callable[[], Model]] = {
    "ONNX, the mean in place of the sum": partial(
        onnx,
        *POWERS,
        node("ReduceMean", ["e"], ["s"], "mean", axes=[1]),
        node("Div", ["e", "s"], ["y"], "y"),
    ),
    "ONNX, the sum of other values": partial(
        onnx,
        *POWERS,
        node("ReduceSum", ["d", "axes"], ["s"], "sum"),
        node("Div", ["e", "s"], ["y"], "y"),
    ),
    "ONNX, of values that may be negative": partial(
        onnx, node("ReduceSum", ["z", "axes"], ["s"], "sum"), node("Div", ["z", "s"], ["y"], "y")
    ),
    "ONNX, upside down": partial(onnx, *POWERS, SUM, node("Div", ["s", "e"], ["y"], "y")),
    "ONNX, the sum itself taken off": partial(
        onnx, *POWERS, SUM, node("Sub", ["d", "s"], ["y"], "y")
    ),
    "ONNX, of values that are no exponentials": partial(
        onnx,
        *SHIFTED,
        node("ReduceSum", ["d", "axes"], ["s"], "sum"),
        node("Div", ["d", "s"], ["y"], "y"),
    ),
    "ONNX, its exponentials are returned too": partial(
        onnx, *POWERS, SUM, node("Div", ["e", "s"], ["y"], "y"), outputs={"y": None, "e": None}
    ),
    "ONNX, something else reads the sum": partial(
        onnx,
        *POWERS,
        SUM,
        node("Div", ["e", "s"], ["y"], "y"),
        node("Relu", ["s"], ["other"], "other"),
        outputs={"y": None, "other": None},
    ),
    "ONNX, the mean taken off": partial(
        onnx,
        node("ReduceMean", ["z"], ["m"], "mean", axes=[1]),
        *POWERS[1:],
        SUM,
        node("Div", ["e", "s"], ["y"], "y"),
    ),
    "ONNX, the largest of other values taken off": partial(
        onnx,
        node("Relu", ["z"], ["r"], "relu"),
        node("ReduceMax", ["r"], ["m"], "max", axes=[1]),
        *POWERS[1:],
        SUM,
        node("Div", ["e", "s"], ["y"], "y"),
    ),
    "ONNX, the logarithm of other exponentials' sum": partial(
        onnx,
        node("Relu", ["z"], ["d"], "relu"),
        node("Exp", ["d"], ["e"], "exp"),
        SUM,
        node("Log", ["s"], ["l"], "log"),
        node("Sub", ["z", "l"], ["y"], "y"),
    ),
    "ONNX, the same by one reduction": partial(
        onnx,
        node("Relu", ["z"], ["d"], "relu"),
        node("ReduceLogSumExp", ["d"], ["l"], "total", axes=[1]),
        node("Sub", ["z", "l"], ["y"], "y"),
    ),
    "ONNX, the larger of two taken off": partial(
        onnx,
        node("ReduceMax", ["z"], ["most"], "max", axes=[1]),
        node("ReduceMean", ["x"], ["other"], "mean", axes=[1]),
        node("Max", ["most", "other"], ["m"], "larger"),
        *POWERS[1:],
        SUM,
        node("Div", ["e", "s"], ["y"], "y"),
    ),
    "TFLite, its exponentials are returned too": partial(
        tflite, _with_its_maximum_subtracted, "y", "e"
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_computations_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"mixes the units|gives each unit values of other units"):
        plan_cut(OTHERS[name](), CutOptions(keep=KEPT, head="y"))


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(
            partial(
                onnx,
                *POWERS,
                node("ReduceSum", ["e", "rows"], ["s"], "sum"),
                node("Div", ["e", "s"], ["y"], "y"),
                x=(2, 6),
            ),
            id="ONNX",
        ),
        pytest.param(
            partial(
                onnx,
                node("Exp", ["z"], ["e"], "exp"),
                node("ReduceSum", ["e", "axes"], ["s"], "sum", keepdims=0),
                node("Div", ["e", "s"], ["y"], "y"),
                x=(UNITS, 6),
            ),
            id="ONNX, sums of rows along the units",
        ),
        pytest.param(partial(tflite, _over_rows), id="TFLite"),
    ],
)
def test_a_softmax_over_another_axis_is_not_over_units(build: Callable[[], Model]) -> None:
    with pytest.raises(ModelError):
        plan_cut(build(), CutOptions(keep=KEPT))


@pytest.mark.parametrize("mode", ["slice", "mask"])
def test_where_all_probabilities_are_0_the_value_of_the_file_stays(mode: str) -> None:
    done = prune_model(onnx(*GUARDED), CutOptions(keep=KEPT, mode=mode), Job(samples=4))
    assert done.results.passed
    low = np.linalg.lstsq(KERNEL.T.astype(np.float64), np.full(UNITS, -500.0), rcond=None)[0]
    assert ((low @ KERNEL + BIAS) < -200.0).all()  # its exponential is infinite in float32
    found = np.asarray(done.model.runner(RunOptions())({"x": low[None].astype(np.float32)})["y"])
    assert np.allclose(found[0, KEPT] if mode == "mask" else found[0], 1 / UNITS, atol=1e-6)
    assert mode == "slice" or not np.delete(found[0], KEPT).any()


@pytest.mark.parametrize("changed", [1, 2, 6, 7, 9])
def test_other_operations_after_the_probabilities_are_refused(changed: int) -> None:
    """Another function, 1 + exp with another number, no test for 0, or a part that is an output."""
    nodes = {
        1: node("Sinh", ["n"], ["e"], "exp"),
        2: node("Add", ["e", "count"], ["a"], "add"),
        6: node("Identity", ["some"], ["none"], "none"),
        7: node("Cast", ["none"], ["k"], "cast", to=TensorProto.FLOAT),
        9: node("Mul", ["k", "s"], ["m"], "count"),
    }
    tail = [nodes[changed] if i == changed else each for i, each in enumerate(GUARDED)]
    if changed == 7:  # its result is an output too
        tail.append(node("Identity", ["k"], ["shown"], "shown"))
    outputs = {"y": ("batch", UNITS)} | ({"shown": ("batch", 1)} if changed == 7 else {})
    with pytest.raises(ModelError, match="it mixes the units"):
        prune_model(onnx(*tail, outputs=outputs), CutOptions(keep=KEPT), Job(samples=4))
