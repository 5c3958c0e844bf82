"""ArgMax and TopK after a head return indices of the kept units."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from exporter.errors import ModelError
from exporter.trace import trace
from exporter.trace.rules.rankings import ranked_ids
from tests.builders.onnx_models import cut, node, numbers, run, softmax
from tests.builders.onnx_rankings import K3, RANKED, SOFT, ranked

KEPT = [4, 0, 2]
X = numbers(7, 6, seed=1)
Z = X @ numbers(6, 5) + numbers(5)


@pytest.mark.parametrize("kept", [KEPT, [3], [1, 2, 3, 4]], ids=len)
@pytest.mark.parametrize("name", RANKED)
def test_class_indices_count_kept_units(name: str, kept: list[int]) -> None:
    nodes, expected, options = RANKED[name]
    opened = ranked(*nodes, outputs=tuple(expected), **options)
    before = run(opened, {"x": X})
    after = run(cut(opened, kept), {"x": X})
    for output, compute in expected.items():
        np.testing.assert_allclose(before[output], compute(Z), atol=1e-5)
        wanted = compute(Z[:, kept])
        assert after[output].shape == wanted.shape
        np.testing.assert_allclose(after[output], wanted, atol=1e-5)


@pytest.mark.parametrize("name", RANKED)
def test_head_names_the_outputs_with_class_indices(name: str) -> None:
    nodes, expected, options = RANKED[name]
    opened = ranked(*nodes, outputs=tuple(expected), **options)
    traced = trace(opened.graph())
    head = traced.head()
    assert not traced.refusals
    assert head.name == ("p" if "p" in expected else "rank")
    (ranking,) = head.readers.rankings
    assert ranking.outputs == ("y",)
    values = softmax(Z) if "p" in expected else Z
    returned = run(opened, {"x": X})["y"]
    np.testing.assert_array_equal(ranked_ids(ranking, values)["y"], returned)


def test_zeroed_units_keep_their_indices() -> None:
    nodes, _, _ = RANKED["ArgMax alone"]
    result = run(cut(ranked(*nodes), KEPT, "zero"), {"x": X})["y"]
    zeroed = Z.copy()
    zeroed[:, [1, 3]] = 0
    np.testing.assert_array_equal(result, zeroed.argmax(1))


RUNNING = (
    node("ReduceSum", ["x"], ["s"], "sum", keepdims=0),
    node("Cast", ["s"], ["i"], "int", to=TensorProto.INT64),
    node("Reshape", ["i", "one"], ["k"], "vector"),
)

REFUSED = {
    "k computed": (
        (SOFT, *RUNNING, node("TopK", ["p", "k"], ["v", "y"], "rank")),
        {"one": np.array([1])},
        "computed while the model runs",
    ),
    "in no order": (
        (SOFT, node("TopK", ["p", "k"], ["v", "y"], "rank", sorted=0)),
        K3,
        "no stated order",
    ),
    "arithmetic with looked-up class indices": (
        (
            SOFT,
            node("ArgMax", ["p"], ["i"], "best", axis=1),
            node("Gather", ["table", "i"], ["t"], "look up"),
            node("Add", ["t", "t"], ["y"], "rank"),
        ),
        {"table": numbers(5)},
        "a table contains for unit indices",
    ),
    "a table that is too short": (
        (
            SOFT,
            node("ArgMax", ["p"], ["i"], "best", axis=1),
            node("Gather", ["table", "i"], ["y"], "rank"),
        ),
        {"table": numbers(4)},
        "no entry for some of the 5",
    ),
    "arithmetic with ids": (
        (
            SOFT,
            node("ArgMax", ["p"], ["i"], "best", axis=1),
            node("Add", ["i", "one"], ["y"], "rank"),
        ),
        {"one": np.array([1])},
        "unit indices",
    ),
    "the best comes back": (
        (
            node("TopK", ["z", "one"], ["v", "y"], "best"),
            node("Sub", ["z", "v"], ["p"], "rank"),
        ),
        {"one": np.array([1])},
        "values of other units",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    nodes, constants, reason = REFUSED[name]
    traced = trace(ranked(*nodes, outputs=("p", "y"), constants=constants).graph())
    assert not traced.heads
    assert any("'rank'" in str(refusal) for refusal in traced.refusals)
    assert any(reason in refusal.reason for refusal in traced.refusals)


def test_k_larger_than_the_kept_units() -> None:
    nodes = (
        SOFT,
        node("TopK", ["p", "k"], ["v", "i"], "rank"),
        node("Reshape", ["v", "to"], ["y"], "counted"),
    )
    constants = {**K3, "to": np.array([-1, 3, 1])}
    opened = ranked(*nodes, outputs=("p", "y"), constants=constants)
    assert run(cut(opened, KEPT), {"x": X})["y"].shape == (7, 3, 1)
    with pytest.raises(ModelError, match="TopK 'rank' returns 3 units, but only 2 would remain"):
        cut(opened, [0, 1])
