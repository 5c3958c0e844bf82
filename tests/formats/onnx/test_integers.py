"""Products of quantized values: kept units match the original, and a zeroed unit is 0.

The reference is the original file in the same runtime; integer sums must be bit-identical.
`onnx_precisions` makes the files, and NumPy dequantizes their values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import NodeProto, TensorProto, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.formats.onnx.operators import quantized_values
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.graph.operations import Elementwise, Linear
from exporter.jobs.inspect import inspect_model
from exporter.trace import trace
from exporter.trace.rules import RULES
from exporter.trace.rules.protocol import Port, Refused, Visit
from exporter.trace.unit_axis import UnitAxis
from tests.builders import onnx_precisions as made
from tests.builders.onnx_integer_operators import (
    FORMS_OF_CODES,
    LEFT,
    ONE,
    READ,
    RIGHT,
    START,
    X,
    form,
    ms,
)
from tests.builders.onnx_models import cut, model, node, numbers, proto, run, softmax

KEPT, GONE = [4, 0, 2], [1, 3, 5]
CUT = [precision for precision in made.PRECISIONS if precision != "int8 in blocks of units"]
FEEDS = {False: made.DENSE, True: made.IMAGE}
EACH = [
    pytest.param(kind, precision, id=f"{kind}-{precision}")
    for kind in made.FUNCTIONS
    for precision in CUT
    if made.built(kind, precision) is not None
]


def built(kind: str, precision: str) -> OnnxModel:
    opened = made.built(kind, precision)
    assert opened is not None
    return opened


def feeds(kind: str) -> dict[str, Array]:
    return {"x": FEEDS[kind.startswith("convolution")]}


def logits(opened: OnnxModel, z: str, given: Mapping[str, Array]) -> Array:
    shown = opened.apply(Plan((AddOutput(z, "_z"),))) if z != "y" else opened
    return run(shown, given)["_z" if z != "y" else "y"]


def close(precision: str) -> float:
    """The limit for logits: integers are bit-identical, float sums may be rounded differently."""
    return 0.0 if "blocks" not in precision else 1e-5


@pytest.mark.parametrize(("kind", "precision"), EACH)
def test_slice_matches_the_original(kind: str, precision: str) -> None:
    opened = built(kind, precision)
    z = trace(opened.graph()).head().z
    before, after = (
        logits(each, z, feeds(kind)).astype(np.float64) for each in (opened, cut(opened, KEPT))
    )
    assert after.shape[1] == len(KEPT)
    np.testing.assert_allclose(after, before[:, KEPT], rtol=0, atol=close(precision))


@pytest.mark.parametrize(("kind", "precision"), EACH)
def test_zeroed_unit_is_exactly_0(kind: str, precision: str) -> None:
    opened = built(kind, precision)
    head = trace(opened.graph()).head()
    before, after = (
        logits(each, head.z, feeds(kind)) for each in (opened, cut(opened, KEPT, "zero"))
    )
    tensor = opened.graph().tensors[head.z]
    assert not tensor.dequantize(after)[:, GONE].any()
    np.testing.assert_allclose(
        after[:, KEPT].astype(float), before[:, KEPT].astype(float), rtol=0, atol=close(precision)
    )


@pytest.mark.parametrize("precision", made.PRECISIONS)
def test_quantized_files_are_near_the_float_network(precision: str) -> None:
    """Every file is close to its float network; otherwise the tests above prove little."""
    z = run(built("dense, logits", precision), {"x": made.DENSE})["y"].astype(np.float64)
    wanted = made.DENSE @ made.WEIGHTS + made.BIAS
    coarse = 2.5 if "int4" in precision else 0.4
    np.testing.assert_allclose(z, wanted, atol=coarse)


@pytest.mark.parametrize("precision", CUT)
def test_probabilities_are_computed_from_the_kept_units(precision: str) -> None:
    z = run(built("dense, logits", precision), {"x": made.DENSE})["y"]
    y = run(cut(built("dense, softmax", precision), KEPT), {"x": made.DENSE})["y"]
    step = 1 / 256 if "QOperator" in precision else 1e-5
    np.testing.assert_allclose(y, softmax(z[:, KEPT]), atol=step)


NAMES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16 weights": "bf16",
    "int8 QDQ, one scale": "int8",
    "int8 QDQ, a scale a unit": "int8",
    "int16x8 QDQ": "int16x8",
    "int4 QDQ": "int4",
    "int8 QOperator": "int8",
    "dynamic int8": "dynamic",
    "int4 in blocks (DequantizeLinear)": "int4",
    "int4 in blocks (MatMulNBits)": "int4",
    "int8 in blocks (MatMulNBits)": "dynamic",
}


@pytest.mark.parametrize("precision", CUT)
def test_precision_name(precision: str) -> None:
    before = built("dense, softmax", precision)
    assert (before.precision, cut(before, KEPT).precision) == (NAMES[precision],) * 2


# --- MatMulNBits: every form of its inputs --------------------------------------------------------

FORMS: list[tuple[int, bool, str, int]] = [
    (bits, flat, points, level)
    for bits in (4, 8)
    for flat in (False, True)
    for points in ("packed", "float", "none")
    for level in (0, 4)
    if not (points == "float" and (flat or bits == 8))  # onnxruntime does not run it
]


@pytest.mark.parametrize(("bits", "flat", "points", "level"), FORMS)
@pytest.mark.parametrize("mode", ["slice", "zero"])
def test_packed_kernels(bits: int, flat: bool, points: str, level: int, mode: str) -> None:
    parts = made.nbits(bits, flat=flat, points=points, level=level)
    opened = made.assembled("dense, logits", parts)
    after = run(cut(opened, KEPT, mode), {"x": made.DENSE})["y"]
    before = run(opened, {"x": made.DENSE})["y"]
    if mode == "zero":
        assert not after[:, GONE].any()
        after = after[:, KEPT]
    np.testing.assert_allclose(after, before[:, KEPT], rtol=0, atol=5e-5)


def constants(opened: OnnxModel) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in opened.proto.graph.initializer}


@pytest.mark.parametrize("flat", [False, True])
def test_blocks_are_cut_with_their_units(flat: bool) -> None:
    opened = made.assembled("dense, logits", made.nbits(4, flat=flat))
    old, new = constants(opened), constants(cut(opened, KEPT))
    for name in ("w", "ws", "wp"):
        rows = old[name].reshape(made.UNITS, -1)[KEPT]
        np.testing.assert_array_equal(new[name].reshape(len(KEPT), -1), rows)
        assert new[name].ndim == old[name].ndim
    np.testing.assert_array_equal(new["b"], old["b"][KEPT])
    (head,) = [n for n in cut(opened, KEPT).proto.graph.node if n.op_type == "MatMulNBits"]
    assert {a.name: a.i for a in head.attribute}["N"] == len(KEPT)


def test_four_bit_values_are_packed_again() -> None:
    """An odd number of values fills half of the last byte."""
    kernel = np.random.default_rng(4).integers(-8, 8, (made.FEATURES, 5)).astype(ml_dtypes.int4)
    scale = np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32)
    nodes = [
        node("DequantizeLinear", ["w", "s"], ["k"], "read", axis=1),
        node("MatMul", ["x", "k"], ["y"], "head"),
    ]
    opened = model(
        nodes, {"w": kernel, "s": scale}, x=made.DENSE.shape, outputs={"y": [3, 5]}, opset=21, ir=10
    )
    narrow = cut(opened, [4, 0, 2])
    (stored,) = [t for t in narrow.proto.graph.initializer if t.name == "w"]
    assert len(stored.raw_data) == -(-made.FEATURES * 3 // 2)
    kept = kernel[:, [4, 0, 2]]
    np.testing.assert_array_equal(numpy_helper.to_array(stored).astype(int), kept.astype(int))
    expected = made.DENSE @ (kernel.astype(np.float32) * scale)
    y = run(narrow, {"x": made.DENSE}, plain=True)["y"]
    np.testing.assert_allclose(y, expected[:, [4, 0, 2]], atol=1e-4)


# --- other forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("name", FORMS_OF_CODES)
def test_operators_on_quantized_values(name: str, mode: str) -> None:
    opened = form(name)
    before, after = (run(each, {"x": X})["y"] for each in (opened, cut(opened, [4, 0, 2], mode)))
    assert len(np.unique(before[:, [0, 2, 4]])) > 6
    if mode == "zero":
        assert not after[:, [1, 3]].any()
        after = after[:, [4, 0, 2]]
    floats = "block" in name or "own" in name
    wanted = before[:, [4, 0, 2]]
    np.testing.assert_allclose(after, wanted, rtol=0, atol=1e-5 if floats else 0)


def test_every_quantized_operator_is_tested() -> None:
    """`docs/operators.md` lists these operators."""
    nodes = [n for each, _ in FORMS_OF_CODES.values() for n in each]
    nodes += [n for kind in made.FUNCTIONS for p in made.PRECISIONS for n in _nodes(kind, p)]
    elsewhere = {"GatherBlockQuantized"}  # tests/planning/test_vocabulary.py
    tested = {n.op_type for n in nodes if n.domain == made.MICROSOFT} | elsewhere
    assert tested >= set(quantized_values.MICROSOFT)


def _nodes(kind: str, precision: str) -> Sequence[NodeProto]:
    opened = made.built(kind, precision)
    return () if opened is None else tuple(opened.proto.graph.node)


# --- refused --------------------------------------------------------------------------------------


def damaged(**changed: Any) -> Callable[[], OnnxModel]:
    """A MatMulNBits with changed constants or attributes."""

    def make() -> OnnxModel:
        parts = made.nbits(4)
        held = {**parts.constants, **{k: v for k, v in changed.items() if not isinstance(v, int)}}
        opened = made.assembled("dense, logits", made.Parts(parts.nodes, held))
        source = type(opened.proto)()
        source.CopyFrom(opened.proto)
        for attribute in source.graph.node[0].attribute:
            attribute.i = changed.get(attribute.name, attribute.i)
        return from_proto(source, "damaged.onnx")

    return make


def coded(*nodes: NodeProto, **more: Array) -> Callable[[], OnnxModel]:
    read = {each for n in nodes for each in n.input}
    known: dict[str, Array] = {**ONE, **more}
    held = {each: value for each, value in known.items() if each in read}
    return lambda: from_proto(
        proto(
            nodes,
            held,
            x=X.shape,
            outputs={"y": [3, 5]},
            opset=21,
            ir=10,
            domains={made.MICROSOFT: 1},
        ),
        "refused.onnx",
    )


PRODUCT = node("MatMul", ["x", "k"], ["y"], "head")
REFUSED: Mapping[str, tuple[Callable[[], OnnxModel], str]] = {
    "packed kernel of another size": (damaged(bits=8), "not as large as its attributes state"),
    "no block size": (damaged(block_size=0), "do not fit together"),
    "scales of another number": (
        damaged(ws=np.ones((6, 3), np.float32)),
        "'?MatMulNBits'? 'z': it has not one scale and zero point for each block",
    ),
    "zero points of another number": (
        damaged(wp=np.ones((6, 2), np.uint8)),
        "it has not one scale and zero point for each block",
    ),
    "a kernel that is computed": (
        coded(
            ms("MatMulNBits", ["x", "kq", "s"], "y", K=6, N=5, bits=8, block_size=16),
            node("Cast", ["x"], ["kq"], "cast", to=TensorProto.UINT8),
            s=np.ones((5, 1), np.float32),
        ),
        "its kernel is not a constant but computed",
    ),
    "scales neither per-tensor nor per-channel": (
        coded(
            START,
            node("QLinearMatMul", [*LEFT, "w", "s", "wp", "zs", "zp"], ["zq"], "head"),
            READ,
            s=np.ones(4, np.float32),
        ),
        "QLinearMatMul 'head': its scales and zero points are neither per-tensor nor per-channel",
    ),
    "blocks of another number": (
        coded(
            node("DequantizeLinear", ["w", "sb"], ["k"], "read", axis=0, block_size=4),
            PRODUCT,
            sb=np.ones((3, 5), np.float32),
        ),
        "it has not one scale for each block of values",
    ),
    "blocks of units": (
        coded(
            node("DequantizeLinear", ["w", "sb"], ["k"], "read", axis=1, block_size=4),
            PRODUCT,
            sb=np.ones((6, 2), np.float32),
        ),
        "its blocks contain several units each",
    ),
    "zero points in other blocks": (
        coded(
            node("DequantizeLinear", ["w", "sb", "pb"], ["k"], "read", axis=0, block_size=4),
            PRODUCT,
            sb=np.ones((2, 5), np.float32),
            pb=np.ones((5, 2), np.int8),
        ),
        "it has not one scale for each block of values",
    ),
    "a scale of all units while it runs": (
        coded(
            node("MatMul", ["x", "kf"], ["m"], "head"),
            node("DynamicQuantizeLinear", ["m"], ["mq", "ds", "dp"], "dynamic"),
            node("DequantizeLinear", ["mq", "ds", "dp"], ["y"], "read"),
            kf=numbers(6, 5),
        ),
        "DequantizeLinear 'read': its scale is computed while the model runs",
    ),
    "per-channel scales of an addition": (
        coded(
            START,
            node("QLinearMatMul", [*LEFT, *RIGHT, "zs", "zp"], ["mq"], "head"),
            ms("QLinearAdd", ["mq", "zs", "zp", "mq", "ws", "zp", "zs", "zp"], "zq"),
            READ,
        ),
        "QLinearAdd 'zq': its scales and zero points are not per-tensor constants",
    ),
    "a softmax over several axes": (
        coded(
            START,
            node("QLinearMatMul", [*LEFT, *RIGHT, "zs", "zp"], ["mq"], "head"),
            node("Unsqueeze", ["mq", "last"], ["uq"], "more"),
            ms("QLinearSoftmax", ["uq", "zs", "zp", "zs", "zp"], "sq", axis=1, opset=12),
            node("Squeeze", ["sq", "last"], ["zq"], "less"),
            READ,
            last=np.array([2]),
        ),
        "as before opset 13",
    ),
    "concatenated quantized values": (
        coded(
            START,
            node("QLinearMatMul", [*LEFT, *RIGHT, "zs", "zp"], ["mq"], "head"),
            ms("QLinearConcat", ["zs", "zp", "mq", "zs", "zp"], "zq", axis=1),
            READ,
        ),
        "QLinearConcat 'zq': it joins quantized values of several scales",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    make, reason = REFUSED[name]
    opened = make()
    with pytest.raises(ModelError, match=reason) as caught:
        trace(opened.graph()).head()
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message


def test_damaged_scales_of_a_refused_operator_are_not_read() -> None:
    opened = REFUSED["scales neither per-tensor nor per-channel"][0]()
    assert opened.graph().tensors["w"].quantization is None


def test_packed_kernel_in_the_neutral_graph() -> None:
    graph = made.assembled("dense, logits", made.nbits(4, flat=True)).graph()
    (operation,) = [n.operation for n in graph.nodes if n.operator == "MatMulNBits"]
    assert isinstance(operation, Linear)
    assert (operation.packed_bits, operation.width_attribute, operation.bias) == (4, "N", 5)
    assert [each.slot for each in operation.along] == [2, 3]
    head = trace(graph).head()
    labels = {c.name: c.unit_axis.units.tolist() for c in head.constants}
    assert labels["ws"] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert labels["w"] == labels["wp"] == [0, 1, 2, 3, 4, 5]


def test_units_not_divisible_into_blocks_are_refused() -> None:
    """A check in the rule: no operator is translated to this."""
    parts = made.nbits(4, flat=True)
    graph = made.assembled("dense, logits", parts).graph()
    (head,) = [n for n in graph.nodes if n.operator == "MatMulNBits"]
    visit = Visit(graph, head, Port("output", 0), UnitAxis(1, np.arange(5)))
    with pytest.raises(Refused, match="input 'ws' does not fit its channels"):
        list(RULES[Linear](visit, head.operation))


def test_blocked_quantizer_has_no_channel_axis() -> None:
    graph = built("dense, logits", "int4 in blocks (DequantizeLinear)").graph()
    (read,) = [n.operation for n in graph.nodes if n.operator == "DequantizeLinear"]
    assert isinstance(read, Elementwise)
    assert (read.block_axis, read.channel_axis) == (0, None)
    assert graph.tensors["w"].quantization is None


@pytest.mark.parametrize("bits", [4, 8])
def test_multiply_adds_of_packed_kernels_count_unpacked_values(bits: int) -> None:
    (facts,) = inspect_model(made.assembled("dense, logits", made.nbits(bits))).heads
    assert facts.multiply_adds == made.FEATURES * made.UNITS
