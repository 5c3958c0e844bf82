"""ONNX classifiers that end in an ArgMax or a TopK."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto, TensorProto

from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from tests.builders.onnx_models import classifier, node, softmax

SOFT = node("Softmax", ["z"], ["p"], "softmax")
K3 = {"k": np.array([3])}


def ranked(*nodes: NodeProto, outputs: tuple[str, ...] = ("y",), **options: object) -> OnnxModel:
    return classifier(*nodes, outputs=dict.fromkeys(outputs), **options)


def ids(z: Array, count: int) -> Array:
    return np.argsort(-z, axis=1, kind="stable")[:, :count]


def best(z: Array, count: int) -> Array:
    return -np.sort(-z, axis=1)[:, :count]


Expected = Mapping[str, Callable[[Array], Array]]
RANKED: Mapping[str, tuple[tuple[NodeProto, ...], Expected, Mapping[str, object]]] = {
    "ArgMax alone": (
        (node("ArgMax", ["z"], ["y"], "rank", axis=1, keepdims=0),),
        {"y": lambda z: z.argmax(1)},
        {},
    ),
    "ArgMax and the softmax before it": (
        (SOFT, node("ArgMax", ["p"], ["y"], "rank", axis=-1)),
        {"p": softmax, "y": lambda z: z.argmax(1)[:, None]},
        {},
    ),
    "ArgMin": (
        (node("ArgMin", ["z"], ["y"], "rank", axis=1, keepdims=0, select_last_index=1),),
        {"y": lambda z: z.argmin(1)},
        {},
    ),
    "ArgMax, cast and squeezed": (
        (
            node("ArgMax", ["z"], ["i"], "rank", axis=1),
            node("Squeeze", ["i", "axes"], ["s"], "squeeze"),
            node("Cast", ["s"], ["y"], "cast", to=TensorProto.INT32),
        ),
        {"y": lambda z: z.argmax(1)},
        {"constants": {"axes": np.array([1])}},
    ),
    "TopK": (
        (node("TopK", ["z", "k"], ["v", "y"], "rank"),),
        {"y": lambda z: ids(z, 3), "v": lambda z: best(z, 3)},
        {"constants": K3},
    ),
    "TopK of few, smallest first": (
        (node("TopK", ["z", "k"], ["v", "y"], "rank", largest=0),),
        {"y": lambda z: ids(-z, 1), "v": lambda z: np.sort(z, 1)[:, :1]},
        {"constants": {"k": np.array([1])}},
    ),
    "TopK before opset 10": (
        (node("TopK", ["z"], ["v", "y"], "rank", axis=1, k=5),),
        {"y": lambda z: ids(z, 5), "v": lambda z: best(z, 5)},
        {"opset": 9},
    ),
    "TopK of probabilities, all three shown": (
        (SOFT, node("TopK", ["p", "k"], ["v", "y"], "rank")),
        {
            "p": softmax,
            "y": lambda z: ids(z, 3),
            "v": lambda z: best(softmax(z), 3),
        },
        {"constants": K3},
    ),
}
