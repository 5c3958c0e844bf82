"""An output that joins the results of several softmaxes: each is renormalized on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import NodeProto

from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError
from exporter.graph import Array
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.prove import prove
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders.onnx_models import model, node, numbers, run, softmax

X = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)
Z = X @ numbers(6, 10) + numbers(10)
KEPT = [0, 2, 5, 6, 8]
MIXES = "it mixes the units of only one input"


def joined(*more: NodeProto, outputs: tuple[str, ...] = ("p",), last: str = "Sigmoid") -> Any:
    """Five ages, three genders and, each on its own, two properties."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["z"], "gemm"),
        node("Split", ["z", "sizes"], ["a", "g", "r"], "split", axis=1),
        node("Softmax", ["a"], ["pa"], "age", axis=1),
        node("Softmax", ["g"], ["pg"], "gender", axis=1),
        node(last, ["r"], ["pr"], "properties"),
        node("Concat", ["pa", "pg", "pr"], ["p"], "join", axis=1),
    ]
    constants = {"w": numbers(6, 10), "b": numbers(10), "sizes": np.array([5, 3, 2])}
    return model([*nodes, *more], constants, outputs=dict.fromkeys(outputs))


def wanted(kept: list[int]) -> Array:
    """From the logits, in float64."""
    parts = [[u for u in kept if low <= u < high] for low, high in ((0, 5), (5, 8), (8, 10))]
    of_properties = 1 / (1 + np.exp(-Z[:, parts[2]].astype(np.float64)))
    return np.concatenate([*(softmax(Z[:, part]) for part in parts[:2]), of_properties], axis=1)


def checked(original: Any, **options: Any) -> tuple[Any, tuple[str, ...]]:
    cut = plan_cut(original, CutOptions(keep=options.pop("keep", KEPT), **options))
    pruned = original.apply(cut.plan)
    assert prove(original, pruned, pruned.remap).result == "proved"
    compare = VerifyOptions(synthetic_samples(original.graph(), 3, 0))
    checks = verify_pair("cut", original, pruned, cut.remap.heads, compare).checks
    assert all(check.passed for check in checks)
    return pruned, cut.warnings


def test_each_softmax_adds_up_to_1() -> None:
    pruned, warnings = checked(joined())
    np.testing.assert_allclose(run(pruned, {"x": X})["p"], wanted(KEPT), atol=1e-6)
    assert not warnings
    assert [n.op_type for n in pruned.proto.graph.node].count("Softmax") == 2


@pytest.mark.parametrize("options", [{"restore_width": True}, {"mode": "mask"}])
def test_removed_units_are_0_at_the_original_width(options: dict[str, Any]) -> None:
    pruned, _ = checked(joined(), **options)
    expected = np.zeros_like(Z)
    expected[:, KEPT] = wanted(KEPT)
    np.testing.assert_allclose(run(pruned, {"x": X})["p"], expected, atol=1e-6)


def test_a_wrong_sum_is_found() -> None:
    """All units of both parts, of which only some should be there."""
    original = joined()
    cut = plan_cut(original, CutOptions(keep=KEPT))
    wrong = original.apply(plan_cut(original, CutOptions(keep=[0, 3, 5, 6, 8])).plan)
    compare = VerifyOptions(synthetic_samples(original.graph(), 3, 0))
    checks = verify_pair("cut", original, wrong, cut.remap.heads, compare).checks
    assert not all(check.passed for check in checks)


def test_an_argmax_over_all_parts_follows() -> None:
    best = node("ArgMax", ["p"], ["id"], "best", axis=1, keepdims=0)
    pruned, _ = checked(joined(best, outputs=("p", "id")), head="p")
    expected = np.array(KEPT)[wanted(KEPT).argmax(1)]
    np.testing.assert_array_equal(run(pruned, {"x": X})["id"], expected)


def test_a_single_unit_of_a_softmax_is_warned_of() -> None:
    _, warnings = checked(joined(), keep=[0, 2, 5, 8])
    assert warnings == ("unit 5 is the only one of its softmax, which always returns 1.0 for it",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": [0, 2]}, "would get an empty part"),
        ({"mode": "zero"}, "does not map 0 to 0"),
        ({"gate": "top:1"}, "joins several softmaxes"),
        ({"probabilities": "absolute"}, "whose sums a cut changes"),
        ({"merge": {"young": [0, 2]}}, "do not add up"),
    ],
)  # fmt: skip
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExporterError) as caught:
        plan_cut(joined(), CutOptions(**{"keep": KEPT, **options}))
    assert message in str(caught.value) or "have probabilities of their own" in str(caught.value)


def test_a_part_as_another_output_is_refused() -> None:
    """Its remap would count the units of all parts."""
    for parts in (("p", "pg"), ("p", "pa"), ("pa", "p", "z")):
        with pytest.raises(ExporterError, match=r"shows only some units of head 'p'") as caught:
            plan_cut(joined(outputs=parts), CutOptions(keep=KEPT, head="p"))
        name = next(each for each in parts if each in {"pa", "pg"})
        assert caught.value.hint == f"--drop-output {name} removes that output"


def test_a_part_without_units_has_a_remedy_that_works() -> None:
    with pytest.raises(ExporterError, match="would get an empty part") as caught:
        plan_cut(joined(), CutOptions(keep=[0, 2, 8]))
    assert caught.value.hint == "keep one of the units 5 to 7"


def test_shares_that_are_scaled_after_their_softmax_are_refused() -> None:
    nodes = [
        node("Gemm", ["x", "w", "b"], ["z"], "gemm"),
        node("Split", ["z", "sizes"], ["a", "g"], "split", axis=1),
        node("Softmax", ["a"], ["pa"], "age", axis=1),
        node("Mul", ["pa", "half"], ["ha"], "half_of_it"),
        node("Softmax", ["g"], ["pg"], "gender", axis=1),
        node("Concat", ["ha", "pg"], ["p"], "join", axis=1),
    ]
    constants = {"w": numbers(6, 8), "b": numbers(8), "sizes": np.array([5, 3])}
    constants["half"] = np.array(0.5, np.float32)
    with pytest.raises(ExporterError, match="mixes"):
        plan_cut(model(nodes, constants, outputs={"p": None}), CutOptions(keep=[0, 1, 5, 6]))


def test_other_activations_over_a_part_are_refused() -> None:
    nodes = [
        node("Gemm", ["x", "w", "b"], ["z"], "gemm"),
        node("Split", ["z", "sizes"], ["a", "g"], "split", axis=1),
        node("LogSoftmax", ["a"], ["pa"], "age", axis=1),
        node("Concat", ["pa", "g"], ["p"], "join", axis=1),
    ]
    constants = {"w": numbers(6, 8), "b": numbers(8), "sizes": np.array([5, 3])}
    with pytest.raises(ExporterError, match=MIXES):
        plan_cut(model(nodes, constants, outputs={"p": None}), CutOptions(keep=[0, 1, 5]))


# --- parts that are taken with slices -------------------------------------------------------------

LAST = np.iinfo(np.int64).max


def sliced(*bounds: tuple[int, int], opset: int = 17) -> Any:
    """As `joined`, with a Slice for each part, as PyTorch exports `z[:, a:b]`."""
    nodes = [node("Gemm", ["x", "w", "b"], ["z"], "gemm")]
    constants: dict[str, Array] = {}
    for i, (start, stop) in enumerate(bounds):
        part = f"part{i}"
        if opset < 10:
            nodes.append(node("Slice", ["z"], [part], part, starts=[start], ends=[stop], axes=[1]))
        else:
            values = {"starts": start, "ends": stop, "axes": 1, "steps": 1}
            constants |= {f"{name}{i}": np.array([value]) for name, value in values.items()}
            nodes.append(node("Slice", ["z", *(f"{name}{i}" for name in values)], [part], part))
    nodes += [
        node("Softmax", ["part0"], ["pa"], "age", axis=1),
        node("Softmax", ["part1"], ["pg"], "gender", axis=1),
        node("Sigmoid", ["part2"], ["pr"], "properties"),
        node("Concat", ["pa", "pg", "pr"], ["p"], "join", axis=1),
    ]
    constants |= {"w": numbers(6, 10), "b": numbers(10)}
    return model(nodes, constants, outputs={"p": None}, opset=opset)


@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize(
    "bounds",
    [
        ((0, 5), (5, 8), (8, LAST)),
        ((0, 5), (5, -2), (-2, 10)),
        ((0, -5), (-5, 8), (8, LAST)),
        ((-10, 5), (5, 8), (-2, LAST)),
    ],
)
def test_parts_that_slices_take_are_cut(bounds: Any, opset: int) -> None:
    for kept in (KEPT, [4, 6, 7, 9], [0, 1, 2, 3, 4, 5, 8, 9], [1, 5, 6, 7, 8]):
        pruned, _ = checked(sliced(*bounds, opset=opset), keep=kept)
        np.testing.assert_allclose(run(pruned, {"x": X})["p"], wanted(kept), atol=1e-6)


def test_slices_that_overlap_or_leave_gaps_are_refused() -> None:
    for bounds in (
        ((0, 5), (4, 8), (8, LAST)),
        ((0, 5), (6, 8), (8, LAST)),
        ((0, 5), (5, 8), (8, 9)),
    ):
        with pytest.raises(ExporterError, match="no head can be cut"):
            plan_cut(sliced(*bounds), CutOptions(keep=[0, 1, 5, 6]))


def test_an_empty_part_of_slices_is_refused() -> None:
    with pytest.raises(ExporterError, match="would get an empty part") as caught:
        plan_cut(sliced((0, 5), (5, 8), (8, LAST)), CutOptions(keep=[0, 2, 8]))
    assert caught.value.hint == "keep one of the units 5 to 7"


@pytest.mark.parametrize("options", [{"restore_width": True}, {"mode": "mask"}])
def test_probabilities_next_to_other_values_get_no_common_value(options: dict[str, Any]) -> None:
    original = joined(last="Tanh")
    with pytest.raises(ExporterError, match="joins probabilities and other values"):
        plan_cut(original, CutOptions(keep=KEPT, **options))
    plan_cut(original, CutOptions(keep=KEPT))
