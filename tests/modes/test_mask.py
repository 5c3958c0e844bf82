"""Mode mask: the values of removed units, with different operations between the head and z.

NumPy computes the expected values from the logits that a runtime returns for the original model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from exporter.data.samples import synthetic_samples
from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Fill, Insert, Plan
from exporter.modes import MODES
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.trace import trace
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import onnx_models as onnx
from tests.builders.tflite_builder import Builder

UNITS, KEPT, FLOOR = 5, (0, 1, 3), -1e4
DEAD = ~np.isin(np.arange(UNITS), KEPT)
COUNT = 8


def masked(model: Any, **choice: Any) -> tuple[Any, Cut]:
    cut = plan_cut(model, CutOptions(**{"keep": KEPT, "mode": "mask", **choice}))
    return model.apply(cut.plan), cut


def answers(model: Any, *inner: str) -> dict[str, Array]:
    """Every output and some inner tensors for seeded samples."""
    shown = model.apply(Plan(tuple(AddOutput(name, name) for name in inner)))
    run = shown.runner(RunOptions())
    each = [run(feeds) for feeds in synthetic_samples(model.graph(), COUNT, 3).feeds()]
    return {name: np.concatenate([a[name] for a in each]) for name in each[0]}


def passes(original: Any, pruned: Any, cut: Cut) -> bool:
    job = VerifyOptions(synthetic_samples(original.graph(), COUNT, 3))
    return all(c.passed for c in verify_pair("cut", original, pruned, cut.remap.heads, job).checks)


# --- how the floor is set -------------------------------------------------------------------------


@dataclass(frozen=True)
class Body:
    """A model, and whether constants can set z to exactly the floor."""

    build: Callable[[], Any]
    by_constants: bool


def _onnx(*nodes: Any, opset: int = 17, **constants: Array) -> Callable[[], Any]:
    """x[batch, 6] -> ... -> "z" -> softmax -> "y"."""
    last = onnx.node("Softmax", ["z"], ["y"], "last", axis=1)
    known = {"kernel": onnx.numbers(6, UNITS), "bias": onnx.numbers(UNITS), **constants}
    read = {name for each in (*nodes, last) for name in each.input}
    given = {name: value for name, value in known.items() if name in read}
    return lambda: onnx.model([*nodes, last], given, opset=opset)


def _gemm(result: str = "z", **attributes: Any) -> Any:
    return onnx.node("Gemm", ["x", "kernel", "bias"], [result], "gemm", **attributes)


_MATMUL = onnx.node("MatMul", ["x", "kernel"], ["m"], "matmul")
_SLOPES = np.array([1, -2, 1, 0.5, -1], np.float32)


def _tflite(*, bias: bool = True, fused: int = 0, tail: str = "") -> Callable[[], Any]:
    def build() -> Any:
        builder = Builder(seed=2)
        z = builder.dense(builder.feed("x", 1, 6), UNITS, "m" if tail else "z", bias=bias)
        builder.subgraph.operators[-1].builtinOptions.fusedActivationFunction = fused
        if tail == "ADD":
            builder.op("ADD", [z, builder.normal("offset", UNITS)], (1, UNITS), "z", "AddOptions")
        elif tail:
            builder.op(tail, [z], (1, UNITS), "z")
        return from_bytes(builder.content(builder.softmax("z", "y")), "net.tflite")

    return build


BODIES = {
    "onnx: Gemm": Body(_onnx(_gemm()), True),
    "onnx: Gemm, bias scaled": Body(_onnx(_gemm(beta=0.01)), False),
    "onnx: Gemm, kernel scaled": Body(_onnx(_gemm(alpha=0.5)), True),
    "onnx: no bias": Body(_onnx(onnx.node("MatMul", ["x", "kernel"], ["z"], "matmul")), False),
    "onnx: MatMul and Add": Body(
        _onnx(_MATMUL, onnx.node("Add", ["m", "bias"], ["z"], "add")), True
    ),
    "onnx: Add and MatMul": Body(
        _onnx(_MATMUL, onnx.node("Add", ["bias", "m"], ["z"], "add")), True
    ),
    "onnx: MatMul and Sub": Body(
        _onnx(_MATMUL, onnx.node("Sub", ["m", "bias"], ["z"], "sub")), False
    ),
    "onnx: one bias for all": Body(
        _onnx(_MATMUL, onnx.node("Add", ["m", "one"], ["z"], "add"), one=onnx.numbers(1)), False
    ),
    "onnx: a bias and an offset": Body(
        _onnx(_gemm("m"), onnx.node("Add", ["m", "offset"], ["z"], "add"), offset=onnx.numbers(5)),
        False,
    ),
    "onnx: two products": Body(
        _onnx(
            _gemm("m"),
            onnx.node("Gemm", ["x", "kernel", "bias"], ["n"], "second"),
            onnx.node("Add", ["m", "n"], ["z"], "add"),
        ),
        False,
    ),
    "onnx: a temperature": Body(
        _onnx(
            _gemm("m"),
            onnx.node("Div", ["m", "t"], ["z"], "cool"),
            t=np.array(20, np.float32),
        ),
        False,
    ),
    "onnx: a negative slope": Body(
        _onnx(_gemm("m"), onnx.node("Mul", ["m", "s"], ["z"], "mul"), s=_SLOPES), False
    ),
    "onnx: Relu": Body(_onnx(_gemm("m"), onnx.node("Relu", ["m"], ["z"], "relu")), False),
    "onnx: Clip": Body(
        _onnx(
            _gemm("m"),
            onnx.node("Clip", ["m", "low", "high"], ["z"], "clip"),
            low=np.array(-5, np.float32),
            high=np.array(5, np.float32),
        ),
        False,
    ),
    "onnx: batch normalization": Body(
        _onnx(
            _gemm("m"),
            onnx.node("BatchNormalization", ["m", "s", "o", "e", "v"], ["z"], "norm"),
            s=_SLOPES,
            o=onnx.numbers(5, seed=1),
            e=onnx.numbers(5, seed=2),
            v=np.abs(onnx.numbers(5, seed=3)) + np.float32(0.5),
        ),
        False,
    ),
    "onnx: MatMul, moves, and Add": Body(
        _onnx(
            _MATMUL,
            onnx.node("Reshape", ["m", "to"], ["r"], "reshape"),
            onnx.node("Add", ["r", "bias"], ["z"], "add"),
            to=np.array([-1, UNITS]),
        ),
        True,
    ),
    "onnx: MatMul, a scale, and Add": Body(
        _onnx(
            _MATMUL,
            onnx.node("Mul", ["m", "s"], ["r"], "scale"),
            onnx.node("Add", ["r", "bias"], ["z"], "add"),
            s=_SLOPES,
        ),
        False,
    ),
    "onnx: moves": Body(
        _onnx(
            _gemm("m"),
            onnx.node("Transpose", ["m"], ["t"], "turn", perm=[1, 0]),
            onnx.node("Transpose", ["t"], ["u"], "turn back", perm=[1, 0]),
            onnx.node("Identity", ["u"], ["z"], "same"),
        ),
        True,
    ),
    "onnx: joined parts": Body(
        _onnx(
            onnx.node("Gemm", ["x", "k1", "b1"], ["m"], "first"),
            onnx.node("Gemm", ["x", "k2", "b2"], ["n"], "second"),
            onnx.node("Concat", ["m", "n"], ["z"], "join", axis=1),
            k1=onnx.numbers(6, 2),
            b1=onnx.numbers(2),
            k2=onnx.numbers(6, 3),
            b2=onnx.numbers(3),
        ),
        True,
    ),
    "onnx: joined parts, one without a bias": Body(
        _onnx(
            onnx.node("Gemm", ["x", "k1", "b1"], ["m"], "first"),
            onnx.node("MatMul", ["x", "k2"], ["n"], "second"),
            onnx.node("Concat", ["m", "n"], ["z"], "join", axis=1),
            k1=onnx.numbers(6, 2),
            b1=onnx.numbers(2),
            k2=onnx.numbers(6, 3),
        ),
        False,
    ),
    "onnx: float16 weights": Body(
        _onnx(
            onnx.node("Cast", ["kernel"], ["k"], "widen", to=1),
            onnx.node("Cast", ["bias"], ["b"], "widen too", to=1),
            onnx.node("Gemm", ["x", "k", "b"], ["z"], "gemm"),
            bias=onnx.numbers(UNITS).astype(np.float16),
            kernel=onnx.numbers(6, UNITS).astype(np.float16),
        ),
        True,
    ),
    "onnx: the oldest opset": Body(_onnx(_gemm(), opset=9), True),
    "onnx: the oldest opset, no bias": Body(
        _onnx(onnx.node("MatMul", ["x", "kernel"], ["z"], "matmul"), opset=9), False
    ),
    "tflite: dense": Body(_tflite(), True),
    "tflite: no bias": Body(_tflite(bias=False), False),
    "tflite: fused RELU": Body(_tflite(fused=1), False),
    "tflite: fused RELU_N1_TO_1": Body(_tflite(fused=2), False),
    "tflite: RELU": Body(_tflite(tail="RELU"), False),
    "tflite: no bias, ADD": Body(_tflite(bias=False, tail="ADD"), True),
    "tflite: NEG": Body(_tflite(tail="NEG"), False),
}


@pytest.mark.parametrize("name", BODIES)
def test_floor_at_z_is_exact(name: str) -> None:
    body = BODIES[name]
    model = body.build()
    pruned, cut = masked(model)
    kinds = {type(edit) for edit in cut.plan.edits}
    assert kinds == ({Fill} if body.by_constants else {Insert})
    whole, after = answers(model, "z"), answers(pruned, "z")
    assert (after["z"][:, DEAD] == FLOOR).all()
    np.testing.assert_array_equal(after["z"][:, ~DEAD], whole["z"][:, ~DEAD])
    assert not after["y"][:, DEAD].any()
    expected = onnx.softmax(whole["z"][:, list(KEPT)])
    np.testing.assert_allclose(after["y"][:, ~DEAD], expected, atol=1e-6)
    assert passes(model, pruned, cut)
    assert cut.remap.of().options["floor"] == FLOOR


@pytest.mark.parametrize("name", ["onnx: Gemm", "onnx: no bias", "tflite: dense", "tflite: RELU"])
def test_masked_file_can_be_cut_again(name: str) -> None:
    model = BODIES[name].build()
    once, _ = masked(model)
    small, cut = masked(once, keep=(0, 3), mode="slice")
    table = cut.remap.of()
    assert (table.kept, table.new_to_old, table.mode) == ((0, 3), (0, 3), "slice")
    assert passes(model, small, cut)
    twice, cut = masked(once, keep=(0, 3))
    assert cut.remap.of().kept == (0, 3)
    assert passes(model, twice, cut)


@pytest.mark.parametrize("name", ["onnx: Gemm", "tflite: dense"])
def test_zeroed_file_can_be_masked(name: str) -> None:
    model = BODIES[name].build()
    zeroed, _ = masked(model, mode="zero")
    both, cut = masked(zeroed)
    assert (cut.remap.of().mode, cut.remap.of().kept) == ("mask", KEPT)
    assert passes(model, both, cut)


# --- the output -----------------------------------------------------------------------------------

LAST: dict[str, tuple[str, Callable[[Array], Array], float | None]] = {
    "Sigmoid": ("sigmoid", lambda z: 1 / (1 + np.exp(-z)), 0.0),
    "HardSigmoid": ("hard_sigmoid", lambda z: np.clip(0.2 * z + 0.5, 0, 1), 0.0),
    "LogSoftmax": ("log_softmax", lambda z: np.log(onnx.softmax(z)), None),
    "Relu": ("relu", lambda z: np.maximum(z, 0), FLOOR),
    "Tanh": ("tanh", np.tanh, FLOOR),
    "Softplus": ("softplus", lambda z: np.log1p(np.exp(z)), FLOOR),
    "Elu": ("elu", lambda z: np.where(z > 0, z, np.expm1(z)), FLOOR),
}


@pytest.mark.parametrize("operator", LAST)
def test_output_of_removed_units(operator: str) -> None:
    """A removed unit never wins, for any activation."""
    activation, function, answer = LAST[operator]
    model = onnx.classifier(onnx.node(operator, ["z"], ["y"], "last"))
    pruned, cut = masked(model)
    assert cut.heads[0].activation == activation
    z, after = answers(model, "z")["z"], answers(pruned)["y"]
    kept = z[:, ~DEAD].astype(np.float64)
    np.testing.assert_allclose(after[:, ~DEAD], function(kept), atol=1e-6)
    if answer is None:
        assert (after[:, DEAD] < -9e3).all()
    else:
        assert (after[:, DEAD] == answer).all()
    assert np.isin(after.argmax(axis=1), KEPT).all()
    assert passes(model, pruned, cut)


def test_argmax_of_a_masked_file_returns_original_ids() -> None:
    model = onnx.classifier(
        onnx.node("ArgMax", ["z"], ["y"], "first", axis=1, keepdims=0), outputs={"y": None}
    )
    pruned, cut = masked(model)
    z = answers(model, "z")["z"]
    expected = np.where(DEAD, -np.inf, z).argmax(axis=1)
    np.testing.assert_array_equal(answers(pruned)["y"], expected)
    assert passes(model, pruned, cut)


def test_logits_and_probabilities_as_outputs() -> None:
    model = onnx.classifier(
        onnx.node("Softmax", ["z"], ["y"], "last", axis=1), outputs={"z": None, "y": None}
    )
    pruned, cut = masked(model)
    after = answers(pruned)
    assert (after["z"][:, DEAD] == FLOOR).all()
    assert not after["y"][:, DEAD].any()
    assert {table.mode for table in cut.remap.heads} == {"mask"}
    assert passes(model, pruned, cut)


def test_mask_on_channels_of_an_image() -> None:
    kernel = onnx.numbers(UNITS, 3, 1, 1)
    model = onnx.model(
        [
            onnx.node("Conv", ["x", "kernel"], ["z"], "conv"),
            onnx.node("Softmax", ["z"], ["y"], "last", axis=1),
        ],
        {"kernel": kernel},
        x=("batch", 3, 4, 4),
    )
    pruned, cut = masked(model)
    assert not answers(pruned)["y"][:, DEAD].any()
    assert passes(model, pruned, cut)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("unit", range(UNITS))
def test_mask_that_misses_a_unit_fails_verification(kind: str, unit: int) -> None:
    """The size of the floor must not widen the limits of the kept units."""
    model = BODIES["onnx: Gemm" if kind == "onnx" else "tflite: dense"].build()
    pruned, cut = masked(model)
    name = "bias" if kind == "onnx" else "z/bias"
    axis, nodes = 0, pruned.graph().consumers[name]
    before = pruned.graph().tensors[name].read()
    uses = tuple(type(cut.heads[0].constants[0].uses[0])(node.name, slot) for node, slot in nodes)
    value = float(before[unit]) + 1e-3 * max(1.0, abs(float(before[unit])))
    spoiled = pruned.apply(Plan((Fill(name, axis, np.array([unit]), value, uses),), pruned.remap))
    assert not passes(model, spoiled, cut)


def test_keeping_all_units_needs_no_edit() -> None:
    head = trace(onnx.classifier().graph()).head()
    assert MODES["mask"].edits(head, range(UNITS)) == ()


def test_only_the_output_is_quantized() -> None:
    """z is real; only the softmax is quantized."""
    model = onnx.classifier(
        onnx.node("Softmax", ["z"], ["p"], "last", axis=1),
        onnx.node("QuantizeLinear", ["p", "s", "o"], ["q"], "round"),
        onnx.node("DequantizeLinear", ["q", "s", "o"], ["y"], "real"),
        constants={"s": np.array(1 / 256, np.float32), "o": np.array(0, np.uint8)},
    )
    pruned, cut = masked(model)
    assert cut.remap.of().options["restore_width"] is True
    assert not answers(pruned)["y"][:, DEAD].any()
    assert passes(model, pruned, cut)


def test_no_operation_is_inserted_after_bfloat16() -> None:
    narrow: dict[str, Any] = {"to": TensorProto.BFLOAT16}
    model = onnx.model(
        [
            onnx.node("Cast", ["x"], ["h"], "narrow", **narrow),
            onnx.node("Cast", ["kernel"], ["k"], "narrow too", **narrow),
            onnx.node("MatMul", ["h", "k"], ["z"], "matmul"),
            onnx.node("Softmax", ["z"], ["p"], "soft", axis=1),
            onnx.node("Cast", ["p"], ["y"], "widen", to=TensorProto.FLOAT),
        ],
        {"kernel": onnx.numbers(6, UNITS)},
    )
    with pytest.raises(
        ModelError, match="no operation can be inserted after 'z', which is bfloat16"
    ):
        masked(model)
