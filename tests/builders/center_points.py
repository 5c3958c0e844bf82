"""A detector of center points (CenterNet, https://arxiv.org/abs/1904.07850) with its decoder.

A place in the joined class maps is class x height x width + position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.builders.onnx_models import model, node, numbers

CLASSES, SIDE, COUNT = 5, 4, 6


def center_points(
    kept: Sequence[int] | None = None,
    *,
    form: str = "joined",
    divisor: int | None = None,
    count: int = COUNT,
) -> Any:
    """x[1, 3, 4, 4] -> rows[1, 6, 6] of x, y, width, height, score, class (or an output "class").

    Args:
        kept: build the decoder for these classes only.
        form: "joined" ranks all places together; "float" divides floats; "fraction" does not round
            them; "places" returns places instead of classes; "some" divides the first two places;
            "fixed" states the number of places; "two steps" ranks the places of each class, then
            all of these.
        divisor: divide places by another number.
        count: how many places are ranked.
    """
    chosen = list(range(CLASSES) if kept is None else kept)
    size = SIDE * SIDE
    constants = {
        "k": numbers(8, 3, 3, 3),
        "k_heat": numbers(CLASSES, 8, 1, 1)[chosen],
        "b_heat": numbers(CLASSES)[chosen],
        "k_box": numbers(2, 8, 1, 1, seed=5),
        "count": np.array([count]),
        "flat": np.array([1, len(chosen) * size if form == "fixed" else -1]),
        "size": np.array(divisor or size),
        "per_class": np.array(COUNT),
        "width": np.array(SIDE),
        "rows": np.array([1, 2, -1]),
        "maps": np.array([1, len(chosen), -1]),
        "first": np.array([0]),
        "last": np.array([2]),
        "rows_axis": np.array([1]),
        "real_size": np.array(size, np.float32),
    }
    nodes = [
        node("Conv", ["x", "k"], ["c"], "conv", pads=[1] * 4),
        node("Relu", ["c"], ["f"], "relu"),
        node("Conv", ["f", "k_heat", "b_heat"], ["z"], "heat_conv"),
        node("Sigmoid", ["z"], ["heat"], "heat"),
        node("MaxPool", ["heat"], ["near"], "near", kernel_shape=[3, 3], pads=[1] * 4),
        node("Equal", ["heat", "near"], ["is_peak"], "is_peak"),
        node("Cast", ["is_peak"], ["peak"], "peak", to=1),
        node("Mul", ["heat", "peak"], ["peaks"], "peaks"),
        node("Conv", ["f", "k_box"], ["box"], "box_conv"),
        node("Reshape", ["box", "rows"], ["box_rows"], "box_rows"),
        node("Transpose", ["box_rows"], ["boxes"], "boxes", perm=[0, 2, 1]),
    ]
    if form == "two steps":
        nodes += [
            node("Reshape", ["peaks", "maps"], ["of_maps"], "of_maps"),
            node("TopK", ["of_maps", "count"], ["best", "places"], "best_of_class"),
            node("Reshape", ["best", "flat"], ["all_best"], "all_best"),
            node("TopK", ["all_best", "count"], ["score", "ranked"], "best_of_all"),
            node("Div", ["ranked", "per_class"], ["class"], "class"),
            node("Reshape", ["places", "flat"], ["all_places"], "all_places"),
            node("GatherElements", ["all_places", "ranked"], ["place"], "place", axis=1),
        ]
    else:
        nodes += [
            node("Reshape", ["peaks", "flat"], ["joined"], "joined"),
            node("TopK", ["joined", "count"], ["score", "ranked"], "best_of_all"),
            node("Mod", ["ranked", "size"], ["place"], "place"),
        ]
    if form == "float":
        nodes += [
            node("Cast", ["ranked"], ["real"], "real", to=1),
            node("Div", ["real", "real_size"], ["quotient"], "quotient"),
            node("Cast", ["quotient"], ["class"], "class", to=6),
        ]
    elif form == "fraction":
        nodes += [
            node("Cast", ["ranked"], ["real"], "real", to=1),
            node("Div", ["real", "real_size"], ["class"], "class"),
        ]
    elif form == "places":
        nodes.append(node("Slice", ["ranked", "first", "last", "rows_axis"], ["class"], "class"))
    elif form == "some":
        nodes += [
            node("Slice", ["ranked", "first", "last", "rows_axis"], ["some"], "some"),
            node("Div", ["some", "size"], ["class"], "class"),
        ]
    elif form != "two steps":
        nodes.append(node("Div", ["ranked", "size"], ["class"], "class"))
    nodes += [
        node("Div", ["place", "width"], ["y"], "y"),
        node("Mod", ["place", "width"], ["x_"], "x"),
        node("Squeeze", ["place", "first"], ["flat_place"], "flat_place"),
        node("Gather", ["boxes", "flat_place"], ["wh"], "wh", axis=1),
    ]
    for name in ("x_", "y", "class", "score"):
        nodes += [
            node("Cast", [name], [f"{name}_f"], f"cast_{name}", to=1),
            node("Unsqueeze", [f"{name}_f", "last"], [f"{name}_c"], f"column_{name}"),
        ]
    columns = ["x__c", "y_c", "wh", "score_c", "class_c"]
    if form in {"fraction", "places", "some"}:
        columns.remove("class_c")
    nodes.append(node("Concat", columns, ["detections"], "detections", axis=2))
    read = {name for each in nodes for name in each.input}
    constants = {name: value for name, value in constants.items() if name in read}
    outputs = ["detections", *([] if "class_c" in columns else ["class"])]
    return model(nodes, constants, x=(1, 3, SIDE, SIDE), outputs=dict.fromkeys(outputs))
