"""A box for each class, next to the classes: they are cut together, and other outputs are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.data.samples import synthetic_samples
from exporter.errors import ModelError, NotAllowedError
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.prove import prove
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders.onnx_models import model, node, numbers, run, softmax

CLASSES, REGIONS = 5, 7
X = numbers(REGIONS, 6)
K, B = numbers(6, CLASSES), numbers(6, 4 * CLASSES, seed=1)
Z, BOX = X @ K, (X @ B).reshape(REGIONS, CLASSES, 4)


def two_stage(
    boxes: str = "boxes", *, flat: bool = False, rest: bool = False, activation: str = "Softmax"
) -> Any:
    """The last layers of a detector of two stages.

    Args:
        boxes: name of the output.
        flat: boxes are [regions, 4 classes].
        rest: the background is dropped from both.
    """
    axis: dict[str, Any] = {"axis": 1} if activation == "Softmax" else {}
    nodes = [
        node("MatMul", ["x", "k"], ["z"], "classes"),
        node(activation, ["z"], ["p"], "last", **axis),
        node("MatMul", ["x", "b"], [boxes if flat else "flat"], "more"),
    ]
    constants = {"k": K, "b": B, "s": np.array([-1, CLASSES, 4])}
    if not flat:
        nodes.append(node("Reshape", ["flat", "s"], [boxes], "by_class"))
    outputs = ["p", boxes]
    if rest:
        constants |= {"one": np.array([1]), "end": np.array([2**62])}
        nodes += [
            node("Slice", [name, "one", "end", "one"], [f"{name}_1"], f"rest_{name}")
            for name in outputs
        ]
        outputs = [f"{name}_1" for name in outputs]
    return model(nodes, constants, x=(REGIONS, 6), outputs=dict.fromkeys(outputs))


def pruned(original: Any, **options: Any) -> dict[str, Any]:
    cut = plan_cut(original, CutOptions(**options))
    result = original.apply(cut.plan)
    assert prove(original, result, result.remap).result == "proved"
    given = VerifyOptions(synthetic_samples(original.graph(), 2, 0))
    assert all(
        c.passed for c in verify_pair("cut", original, result, cut.remap.heads, given).checks
    )
    return run(result, {"x": X})


@pytest.mark.parametrize("keep", [[0, 1, 3], [0, 4], [0, 1, 2, 3, 4]], ids=len)
@pytest.mark.parametrize("flat", [False, True], ids=["of each class", "in one row"])
def test_boxes_are_cut_with_their_classes(keep: list[int], *, flat: bool) -> None:
    found = pruned(two_stage("bbox_pred", flat=flat), keep=keep)
    np.testing.assert_allclose(found["p"], softmax(Z[:, keep]), atol=1e-5)
    wanted = BOX[:, keep].reshape(REGIONS, -1) if flat else BOX[:, keep]
    np.testing.assert_allclose(found["bbox_pred"], wanted, atol=1e-5)


def test_coordinates_before_the_classes() -> None:
    """[regions, 4, C]: the classes are on the last axis."""
    nodes = [
        node("MatMul", ["x", "k"], ["z"], "classes"),
        node("Softmax", ["z"], ["p"], "last", axis=1),
        node("MatMul", ["x", "b"], ["flat"], "more"),
        node("Reshape", ["flat", "s"], ["boxes"], "by_class"),
    ]
    constants = {"k": K, "b": B, "s": np.array([-1, 4, CLASSES])}
    original = model(nodes, constants, x=(REGIONS, 6), outputs=dict.fromkeys(["p", "boxes"]))
    found = pruned(original, keep=[0, 1, 3])
    wanted = (X @ B).reshape(REGIONS, 4, CLASSES)[..., [0, 1, 3]]
    np.testing.assert_allclose(found["boxes"], wanted, atol=1e-5)


def test_without_background_in_both() -> None:
    found = pruned(two_stage(rest=True), keep=[1, 3])
    np.testing.assert_allclose(found["p_1"], softmax(Z[:, [0, 2, 4]])[:, 1:], atol=1e-5)
    np.testing.assert_allclose(found["boxes_1"], BOX[:, [2, 4]], atol=1e-5)


def test_in_the_given_order() -> None:
    found = pruned(two_stage("bbox_pred", flat=True), keep=[0, 4, 2], keep_order=True)
    np.testing.assert_allclose(found["bbox_pred"].reshape(-1, 3, 4), BOX[:, [0, 4, 2]], atol=1e-5)


def test_masked() -> None:
    found = pruned(two_stage(), keep=[0, 2], mode="mask")
    assert found["boxes"].shape == BOX.shape
    np.testing.assert_allclose(found["boxes"][:, [0, 2]], BOX[:, [0, 2]], atol=1e-5)
    assert not found["p"][:, [1, 3, 4]].any()


def test_the_background_is_kept() -> None:
    assert plan_cut(two_stage(), CutOptions(keep=[3])).selection.kept == (0, 3)
    with pytest.raises(NotAllowedError, match="unit 0 is probably the background"):
        plan_cut(two_stage(), CutOptions(remove=[0]))


def test_a_group_has_no_box() -> None:
    with pytest.raises(ModelError, match="'boxes' has a box for each class, which cannot follow"):
        plan_cut(two_stage(), CutOptions(keep=[0, 1], merge={"pets": [2, 3]}))


def of_other(*nodes: Any) -> Any:
    """Classes, and an output [regions, classes, 4] that ends in the nodes."""
    shared = [
        node("MatMul", ["x", "k"], ["z"], "classes"),
        node("Softmax", ["z"], ["p"], "last", axis=1),
        node("Relu", ["x"], ["h"], "features"),
        node("MatMul", ["h", "b"], ["flat"], "more"),
        node("Reshape", ["flat", "s"], ["boxes" if not nodes else "open"], "by_class"),
    ]
    constants = {"k": K, "b": B, "s": np.array([-1, CLASSES, 4]), "one": np.array([1])}
    return model(
        [*shared, *nodes], constants, x=(REGIONS, 6), outputs=dict.fromkeys(["p", "boxes"])
    )


OF_OTHER = np.maximum(X, 0) @ B


@pytest.mark.parametrize(
    ("original", "wanted"),
    [
        pytest.param(of_other(), OF_OTHER, id="of other features"),
        pytest.param(
            of_other(node("CumSum", ["open", "one"], ["boxes"], "mixed")),
            OF_OTHER.reshape(BOX.shape).cumsum(1),
            id="mixed",
        ),
    ],
)
def test_boxes_that_are_not_of_the_classes_stay(original: Any, wanted: Any) -> None:
    found = pruned(original, keep=[1, 3], head="p")
    np.testing.assert_allclose(found["boxes"], wanted.reshape(BOX.shape), atol=1e-4)
    assert found["p"].shape == (REGIONS, 2)


@pytest.mark.parametrize(
    ("original", "other"),
    [
        pytest.param(two_stage("landmarks", flat=True), "landmarks", id="landmarks"),
        pytest.param(two_stage("regression", flat=True), "regression", id="another regression"),
        pytest.param(
            two_stage("bbox_pred", flat=True, activation="Sigmoid"), "bbox_pred", id="tags"
        ),
    ],
)
def test_other_outputs_are_heads_of_their_own(original: Any, other: str) -> None:
    found = pruned(original, keep=[1, 3], head="p")
    np.testing.assert_allclose(found[other].reshape(BOX.shape), BOX, atol=1e-5)
    assert found["p"].shape == (REGIONS, 2)
