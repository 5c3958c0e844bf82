"""Models with several heads, and what they return when each of them is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from tests.builders.onnx_models import model, node, numbers
from tests.builders.tflite_builder import Builder

FIVE = {"age": 5, "gender": 2, "race": 7, "mood": 4, "pose": 3}  # name -> units
LEVELS = {0: 8, 1: 4, 2: 2}  # of a detector -> height and width of its map
CLASSES, BOXES = 6, 32  # channels; a side of a box is a distribution over eight values


def five_heads() -> Any:
    """A multi-task network: five softmax heads on common features."""
    nodes = [node("Gemm", ["x", "w", "b"], ["g"]), node("Relu", ["g"], ["f"])]
    constants = {"w": numbers(6, 8), "b": numbers(8)}
    for name, units in FIVE.items():
        constants |= {f"k_{name}": numbers(8, units, seed=1), f"b_{name}": numbers(units)}
        nodes += [
            node("Gemm", ["f", f"k_{name}", f"b_{name}"], [f"z_{name}"], f"gemm_{name}"),
            node("Softmax", [f"z_{name}"], [name], name, axis=1),
        ]
    return model(nodes, constants, outputs=dict.fromkeys(FIVE))


def one_kernel() -> Any:
    """Two heads that are parts of one matrix product."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["z"], "gemm"),
        node("Split", ["z", "sizes"], ["z_age", "z_gender"], "split", axis=1),
        node("Softmax", ["z_age"], ["age"], "first", axis=1),
        node("Softmax", ["z_gender"], ["gender"], "second", axis=1),
    ]
    constants = {"w": numbers(6, 7), "b": numbers(7), "sizes": np.array([5, 2])}
    return model(nodes, constants, outputs={"age": None, "gender": None})


def two_in_tflite() -> Any:
    builder = Builder()
    x = builder.feed("x", 1, 6)
    for name in ("age", "gender"):
        builder.dense(x, FIVE[name], f"z_{name}")
        builder.softmax(f"z_{name}", name)
    return from_bytes(builder.content("age", "gender"), "two.tflite")


def level_maps(*, sigmoid: bool = True, labels: Sequence[str] = (), channels: int = BOXES) -> Any:
    """A detector as NanoDet: for each level a map of classes, and one of boxes."""
    nodes: list[NodeProto] = []
    constants: dict[str, Array] = {}
    features = "x"
    for level, size in LEVELS.items():
        constants[f"k{level}"] = numbers(8, 3 if level == 0 else 8, 3, 3)
        conv = node("Conv", [features, f"k{level}"], [f"f{level}"], pads=[1] * 4, strides=[2, 2])
        nodes.append(conv)
        features = f"f{level}"
        for name, width in (("cls", CLASSES), ("box", channels)):
            own = f"{name}{level}"
            constants |= {f"k_{own}": numbers(width, 8, 1, 1), f"b_{own}": numbers(width)}
            constants[f"s_{own}"] = np.array([1, width, size * size])
            moved = f"t_{own}" if name == "cls" and sigmoid else own
            nodes += [
                node("Conv", [features, f"k_{own}", f"b_{own}"], [f"c_{own}"], f"conv_{own}"),
                node("Reshape", [f"c_{own}", f"s_{own}"], [f"r_{own}"], f"reshape_{own}"),
                node("Transpose", [f"r_{own}"], [moved], f"transpose_{own}", perm=[0, 2, 1]),
            ]
            if moved != own:
                nodes.append(node("Sigmoid", [moved], [own], f"sigmoid_{own}"))
    names = [f"{kind}{level}" for kind in ("cls", "box") for level in LEVELS]
    made = model(nodes, constants, x=(1, 3, 16, 16), outputs=dict.fromkeys(names))
    if labels:
        made.proto.metadata_props.add(key="names", value=repr(list(labels)))
        made = type(made)(made.proto, made.name)
    return made


def softmax_of(y: Array, kept: Sequence[int]) -> Array:
    """The probabilities of the kept units, from those of all units."""
    taken = y[..., list(kept)].astype(np.float64)
    return np.asarray(taken / taken.sum(axis=-1, keepdims=True))


def expected(answers: Mapping[str, Array], cuts: Mapping[str, Sequence[int]], mode: str) -> Any:
    """Output -> values after all cuts, from the answers of the original."""
    found = dict(answers)
    for name, kept in cuts.items():
        small = softmax_of(answers[name], kept)
        if mode == "slice":
            found[name] = small
        else:
            found[name] = np.zeros(answers[name].shape)
            found[name][..., list(kept)] = small
    return found
