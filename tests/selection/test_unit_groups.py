"""Whole groups of units: landmarks with several coordinates, series with several horizons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.planning.cut import CutOptions, plan_cut
from exporter.selection.unit_groups import select_groups
from tests.builders.onnx_models import model, node, numbers, run

POINTS = ("nose", "left eye", "right eye", "mouth")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        pytest.param({"keep": "1,3"}, (3, 4, 5, 9, 10, 11), id="indices"),
        pytest.param({"keep": "*eye", "labels": POINTS}, (3, 4, 5, 6, 7, 8), id="labels"),
        pytest.param({"remove": "0-2"}, (9, 10, 11), id="removed"),
        pytest.param({"keep": [2, 0], "keep_order": True}, (6, 7, 8, 0, 1, 2), id="an order"),
        pytest.param(
            {"keep": "b", "labels": [f"{p}{c}"[:1] for p in "abcd" for c in "xyz"]},
            (3, 4, 5),
            id="labels of units",
        ),
    ],
)
def test_whole_groups(options: dict[str, Any], kept: tuple[int, ...]) -> None:
    assert select_groups(3, units=12, **options).kept == kept


def test_units_are_named_after_their_group() -> None:
    found = select_groups(2, units=4, keep="mouth", labels=["nose", "mouth"])
    assert found.kept_labels == ("mouth:0", "mouth:1")
    units = ["nose x", "nose y", "mouth x", "mouth y"]
    assert select_groups(2, units=4, keep="nose x", labels=units).kept_labels == tuple(units[:2])
    assert select_groups(2, units=4, keep=[0], labels=["", "a"]).kept_labels == ("", "")


def test_groups_in_blocks() -> None:
    """x of all points, then y, then z."""
    found = select_groups(3, units=12, keep="*eye", labels=POINTS, blocks=True)
    assert found.kept == (1, 2, 5, 6, 9, 10)
    assert found.kept_labels == tuple(
        f"{side} eye:{i}" for i in range(3) for side in ("left", "right")
    )
    units = [f"{c} {p}" for c in "xyz" for p in POINTS]
    ordered = select_groups(
        3, units=12, keep="x mouth,x nose", labels=units, blocks=True, keep_order=True
    )
    assert ordered.kept_labels == ("x mouth", "x nose", "y mouth", "y nose", "z mouth", "z nose")
    with pytest.raises(UsageError, match="group_blocks needs group"):
        CutOptions(keep=[0], group_blocks=True)


def test_a_model_with_groups_in_blocks() -> None:
    made = model([node("MatMul", ["x", "k"], ["y"], "head")], {"k": numbers(6, 12)})
    cut = plan_cut(made, CutOptions(keep=[3, 0], group=3, group_blocks=True))
    x = numbers(5, 6)
    expected = (x @ numbers(6, 12)).reshape(5, 3, 4)[:, :, [0, 3]].reshape(5, 6)
    np.testing.assert_allclose(run(made.apply(cut.plan), {"x": x})["y"], expected, atol=1e-6)


def test_refused() -> None:
    with pytest.raises(UsageError, match="10 units are no groups of 3"):
        select_groups(3, units=10, keep="0")
    with pytest.raises(UsageError, match="there are 4 units, 0 to 3"):
        select_groups(3, units=12, keep="4")
    with pytest.raises(UsageError, match="merge names units"):
        CutOptions(keep=[0], group=3, merge={"a": [1, 2]})
    with pytest.raises(UsageError, match="group is 0"):
        CutOptions(keep=[0], group=0)
    with pytest.raises(UsageError, match="--group belongs to one head"):
        CutOptions(cuts={"y": [0]}, group=2)


def test_landmarks_of_a_model() -> None:
    constants = {"k": numbers(6, 12), "s": np.array([-1, 4, 3])}
    made = model([node("MatMul", ["x", "k"], ["y"], "head")], constants)
    x = numbers(5, 6)
    cut = plan_cut(made, CutOptions(keep="mouth,nose", labels=POINTS, group=3))
    np.testing.assert_allclose(
        run(made.apply(cut.plan), {"x": x})["y"],
        (x @ constants["k"]).reshape(5, 4, 3)[:, [0, 3]].reshape(5, 6),
        atol=1e-5,
    )
    assert cut.remap.heads[0].labels == tuple(
        f"{p}:{i}" for p in ("nose", "mouth") for i in (0, 1, 2)
    )
