"""The largest value of a head as an output, and heads that drop a background after their softmax.

Expected values are computed with NumPy from the logits of the kept units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto

from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError
from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.prove import prove
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders.onnx_models import classifier, node, numbers, run, softmax
from tests.builders.onnx_rankings import SOFT

X = numbers(7, 6, seed=1)
Z = X @ numbers(6, 5) + numbers(5)
LARGEST = node("ReduceMax", ["p"], ["v"], "largest", axes=[1], keepdims=0)
BEST = node("ArgMax", ["p"], ["i"], "best", axis=1, keepdims=0)
OF_REST = (
    node("ReduceMax", ["q"], ["v"], "largest", axes=[1], keepdims=0),
    node("ArgMax", ["q"], ["i"], "best", axis=1, keepdims=0),
)
Expected = Mapping[str, Callable[[Array], Array]]

# name -> nodes after the logits, expected outputs for the logits that are left, constants
MAXIMA: Mapping[str, tuple[Sequence[NodeProto], Expected, Mapping[str, Array]]] = {
    "greedy decoder": (
        (SOFT, LARGEST, BEST),
        {"v": lambda z: softmax(z).max(1), "i": lambda z: z.argmax(1)},
        {},
    ),
    "probabilities too": (
        (SOFT, LARGEST, BEST),
        {"p": softmax, "v": lambda z: softmax(z).max(1), "i": lambda z: z.argmax(1)},
        {},
    ),
    "no index": ((SOFT, LARGEST), {"v": lambda z: softmax(z).max(1)}, {}),
    "of logits, axis kept": (
        (node("ReduceMax", ["z"], ["v"], "largest", axes=[-1]),),
        {"v": lambda z: z.max(1, keepdims=True), "z": lambda z: z},
        {},
    ),
    "moved and cast": (
        (
            SOFT,
            node("ReduceMax", ["p"], ["m"], "largest", axes=[1]),
            node("Transpose", ["m"], ["t"], "turned", perm=[1, 0]),
            node("Cast", ["t"], ["v"], "cast", to=TensorProto.DOUBLE),
        ),
        {"p": softmax, "v": lambda z: softmax(z).max(1)[np.newaxis]},
        {},
    ),
    "compared with a threshold": (
        (SOFT, LARGEST, node("Greater", ["v", "half"], ["sure"], "sure")),
        {"p": softmax, "sure": lambda z: softmax(z).max(1) > 0.5},
        {"half": np.asarray(0.5, np.float32)},
    ),
}


def _first(start: int, stop: int) -> dict[str, Array]:
    return {"start": np.array([start]), "stop": np.array([stop]), "axis": np.array([1])}


REST = node("Slice", ["p", "start", "stop", "axis"], ["q"], "rest")
_END = np.iinfo(np.int64).max

# name -> nodes, outputs for the logits that are left, constants, the position that is no unit
DROPPED: Mapping[str, tuple[Sequence[NodeProto], Expected, Mapping[str, Array], int]] = {
    "first": ((SOFT, REST), {"q": lambda z: softmax(z)[:, 1:]}, _first(1, _END), 0),
    "first, and all rows": (
        (SOFT, REST),
        {"q": lambda z: softmax(z)[:, 1:]},
        {"start": np.array([0, 1]), "stop": np.array([_END, _END]), "axis": np.array([0, 1])},
        0,
    ),
    "last": ((SOFT, REST), {"q": lambda z: softmax(z)[:, :-1]}, _first(0, -1), 4),
    "last, by its position": ((SOFT, REST), {"q": lambda z: softmax(z)[:, :-1]}, _first(0, 4), 4),
    "first of a split": (
        (SOFT, node("Split", ["p", "sizes"], ["other", "q"], "rest", axis=1)),
        {"q": lambda z: softmax(z)[:, 1:]},
        {"sizes": np.array([1, 4])},
        0,
    ),
    "last, with value and index": (
        (SOFT, REST, *OF_REST),
        {"v": lambda z: softmax(z)[:, :-1].max(1), "i": lambda z: z[:, :-1].argmax(1)},
        _first(0, -1),
        4,
    ),
    "first, all outputs": (
        (SOFT, REST, *OF_REST),
        {
            "z": lambda z: z,
            "p": softmax,
            "q": lambda z: softmax(z)[:, 1:],
            "v": lambda z: softmax(z)[:, 1:].max(1),
            "i": lambda z: z[:, 1:].argmax(1),
        },
        _first(1, _END),
        0,
    ),
}


def _cut(original: OnnxModel, kept: Sequence[int], **options: Any) -> OnnxModel:
    """The model with new indices, after its proof and its checks."""
    cut = plan_cut(original, CutOptions(keep=kept, **options))
    pruned = original.apply(cut.plan)
    assert prove(original, pruned, pruned.remap).result == "proved"
    given = VerifyOptions(synthetic_samples(original.graph(), 3, 0))
    checks = verify_pair("cut", original, pruned, cut.remap.heads, given).checks
    assert checks
    assert all(check.passed for check in checks)
    return pruned


def _assert_equal(model: OnnxModel, expected: Expected, logits: Array) -> None:
    returned = run(model, {"x": X})
    assert returned.keys() == expected.keys()
    for name, compute in expected.items():
        wanted = compute(logits)
        assert returned[name].shape == wanted.shape
        np.testing.assert_allclose(returned[name], wanted, atol=1e-5)


@pytest.mark.parametrize("kept", [[0, 2, 4], [3], [1, 2, 3, 4]], ids=len)
@pytest.mark.parametrize("name", MAXIMA)
def test_the_largest_value_is_that_of_the_kept_units(name: str, kept: list[int]) -> None:
    nodes, expected, constants = MAXIMA[name]
    original = classifier(*nodes, outputs=dict.fromkeys(expected), constants=constants)
    _assert_equal(original, expected, Z)
    ids = {"new_ids": True} if "i" in expected else {}
    _assert_equal(_cut(original, kept, **ids), expected, Z[:, kept])


@pytest.mark.parametrize("kept", [[0, 3], [2], [0, 1, 2]], ids=len)
@pytest.mark.parametrize("name", DROPPED)
def test_the_background_stays_in_the_sum_and_out_of_the_output(name: str, kept: list[int]) -> None:
    nodes, expected, constants, other = DROPPED[name]
    original = classifier(*nodes, outputs=dict.fromkeys(expected), constants=constants)
    _assert_equal(original, expected, Z)
    ids = {"new_ids": True} if "i" in expected else {}
    head = {"head": "q"} if "q" in expected else {}
    pruned = _cut(original, kept, **ids, **head)
    rows = sorted([other, *(unit + (other == 0) for unit in kept)])
    _assert_equal(pruned, expected, Z[:, rows])


@pytest.mark.parametrize("name", ["probabilities too", "compared with a threshold"])
def test_the_largest_value_of_merged_units(name: str) -> None:
    nodes, expected, constants = MAXIMA[name]
    original = classifier(*nodes, outputs=dict.fromkeys(expected), constants=constants)
    p = softmax(Z[:, [0, 1, 4]])
    merged = np.stack([p[:, 0] + p[:, 2], p[:, 1]], axis=1)
    wanted = {"p": merged, "v": merged.max(1), "i": merged.argmax(1), "sure": merged.max(1) > 0.5}
    ids = {"new_ids": True} if "i" in expected else {}
    pruned = _cut(original, [0, 1, 4], merge={"both": [0, 4]}, **ids)
    for output, values in run(pruned, {"x": X}).items():
        np.testing.assert_allclose(values, wanted[output], atol=1e-5)


@pytest.mark.parametrize("mode", ["mask", "zero"])
@pytest.mark.parametrize("name", ["first", "last, with value and index"])
def test_removed_in_place(name: str, mode: str) -> None:
    nodes, expected, constants, other = DROPPED[name]
    original = classifier(*nodes, outputs=dict.fromkeys(expected), constants=constants)
    pruned = _cut(original, [1, 2], mode=mode)
    logits = np.full_like(Z, 0 if mode == "zero" else -1e4)
    rows = [other, *(unit + (other == 0) for unit in (1, 2))]
    logits[:, rows] = Z[:, rows]
    _assert_equal(pruned, expected, logits)


SUM = node("ReduceSum", ["p", "one"], ["v"], "sum", keepdims=0)
REFUSED: Mapping[str, tuple[Sequence[NodeProto], Sequence[str], Mapping[str, Array], str]] = {
    "a sum of the units": ((SOFT, SUM), ("p", "v"), {"one": np.array([1])}, "mixes the units"),
    "the largest value is subtracted": (
        (
            node("ReduceMax", ["z"], ["m"], "largest", axes=[1]),
            node("Sub", ["z", "m"], ["y"], "less"),
        ),
        ("y",),
        {},
        "values of other units",
    ),
    "a layer reads the largest value": (
        (
            SOFT,
            node("ReduceMax", ["p"], ["v"], "largest", axes=[1]),
            node("MatMul", ["v", "w"], ["y"], "more"),
        ),
        ("p", "y"),
        {"w": numbers(1, 3)},
        "'more' reads the result",
    ),
    "every second unit": (
        (SOFT, node("Slice", ["p", "start", "stop", "axis", "step"], ["q"], "rest")),
        ("q",),
        {**_first(0, 5), "step": np.array([2])},
        "by position",
    ),
    "the probability of the background": (
        (SOFT, node("Split", ["p", "sizes"], ["other", "q"], "rest", axis=1)),
        ("q", "other"),
        {"sizes": np.array([1, 4])},
        "shows a probability of no unit",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    nodes, outputs, constants, reason = REFUSED[name]
    original = classifier(*nodes, outputs=dict.fromkeys(outputs), constants=constants)
    with pytest.raises(ExporterError, match=reason):
        plan_cut(original, CutOptions(keep=[0, 1], head=outputs[0]))
