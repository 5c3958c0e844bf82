"""Outputs that join several parts, and units that several outputs show: values of removed units.

Expected values are NumPy's, of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from exporter.data.samples import synthetic_samples
from exporter.errors import ModelError, UsageError
from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from exporter.planning.cut import CutOptions, plan_cut
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import onnx_models as onnx
from tests.builders.onnx_models import node, numbers, run, softmax

X = numbers(7, 6, seed=1)
WEIGHTS = {"k1": numbers(6, 3), "b1": numbers(3), "k2": numbers(6, 2), "b2": numbers(2)}
Z = np.concatenate([X @ WEIGHTS["k1"] + WEIGHTS["b1"], X @ WEIGHTS["k2"] + WEIGHTS["b2"]], axis=1)
KEPT, DEAD = [0, 3], [1, 2, 4]
FLOOR = -1e4


def sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z.astype(np.float64))))


def joined(inside: str = "", after: str = "") -> OnnxModel:
    """Two products that are joined, with an optional activation before and after the join."""
    nodes = [
        node("Gemm", ["x", f"k{part}", f"b{part}"], [f"z{part}"], f"gemm {part}") for part in "12"
    ]
    parts = ["z1", "z2"]
    if inside:
        nodes += [node(inside, [f"z{p}"], [f"a{p}"], f"inside {p}") for p in "12"]
        parts = ["a1", "a2"]
    nodes.append(node("Concat", parts, ["c" if after else "y"], "join", axis=1))
    if after:
        nodes.append(node(after, ["c"], ["y"], "after", axis=1))
    return onnx.model(nodes, WEIGHTS)


def cut(model: OnnxModel, **options: Any) -> dict[str, Array]:
    """The outputs of the pruned model; its check has passed."""
    done = plan_cut(model, CutOptions(**options))
    pruned = model.apply(done.plan)
    job = VerifyOptions(synthetic_samples(model.graph(), 4, 1))
    checks = verify_pair("cut", model, pruned, done.remap.heads, job).checks
    assert [check for check in checks if not check.passed] == []
    return run(pruned, {"x": X})


HEADS: Mapping[str, tuple[OnnxModel, Callable[[Array], Array], float]] = {
    "sigmoids joined": (joined("Sigmoid"), sigmoid, 0.0),
    "logits joined": (joined(), np.asarray, FLOOR),
    "a softmax over the joined parts": (joined(after="Softmax"), softmax, 0.0),
    "parts that are no probabilities": (joined("Tanh"), np.tanh, FLOOR),
}


@pytest.mark.parametrize(
    "options", [{"mode": "mask"}, {"restore_width": True}], ids=["mask", "restored width"]
)
@pytest.mark.parametrize("name", HEADS)
def test_removed_units_are_zero(name: str, options: dict[str, Any]) -> None:
    model, function, nothing = HEADS[name]
    found = cut(model, keep=KEPT, **options)["y"]
    assert (found[:, DEAD] == nothing).all()
    np.testing.assert_allclose(found[:, KEPT], function(Z[:, KEPT]), atol=1e-5)


def test_parts_with_their_own_activation_are_not_merged() -> None:
    with pytest.raises(UsageError, match="parts that have probabilities of their own"):
        plan_cut(HEADS["sigmoids joined"][0], CutOptions(merge={"g": [0, 1]}))


def test_neighbors_in_one_part_are_merged() -> None:
    found = cut(HEADS["a softmax over the joined parts"][0], merge={"g": [0, 1]})["y"]
    whole = softmax(Z)
    expected = np.concatenate([whole[:, :2].sum(axis=1, keepdims=True), whole[:, 2:]], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_units_are_not_merged_across_parts() -> None:
    with pytest.raises(ModelError, match="across the parts of Concat 'join'") as caught:
        plan_cut(HEADS["logits joined"][0], CutOptions(merge={"g": [1, 3]}))
    assert "merge units within one part" in caught.value.hint


OUTPUTS: Mapping[str, tuple[str, Callable[[Array], Array], float]] = {
    "probabilities": ("Softmax", softmax, 0.0),
    "each of its own": ("Sigmoid", sigmoid, 0.0),
    "cut off at 0": ("Relu", lambda z: np.maximum(z, 0), FLOOR),
}


def test_every_output_of_a_masked_head_hides_removed_units() -> None:
    """The mask value is in the logits, and again after an activation that would change it."""
    nodes = [node("Gemm", ["x", "k1", "b1"], ["z"], "gemm")]
    nodes += [node(operator, ["z"], [name], name) for name, (operator, _, _) in OUTPUTS.items()]
    weights = {name: WEIGHTS[name] for name in ("k1", "b1")}
    model = onnx.model(nodes, weights, outputs=dict.fromkeys(["z", *OUTPUTS]))
    found = cut(model, keep=[0, 2], mode="mask")
    assert (found["z"][:, 1] == FLOOR).all()
    for name, (_, function, nothing) in OUTPUTS.items():
        assert (found[name][:, 1] == nothing).all()
        np.testing.assert_allclose(found[name][:, [0, 2]], function(Z[:, [0, 2]]), atol=1e-5)
