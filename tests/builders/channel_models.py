"""Small ONNX networks whose channels are tied together in different ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto

from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from tests.builders.onnx_models import model, node

SIDE = 9
UNITS = 5


class Network:
    """Nodes and constants, added one layer after the other; each layer returns its tensor."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.channels = {"x": 3}
        self._random = np.random.default_rng(seed)

    def constant(self, values: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = values
        return name

    def add(self, operator: str, *inputs: str, channels: int, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(operator, list(inputs), [name], name=f"n_{name}", **attributes))
        self.channels[name] = channels
        return name

    def normal(self, *shape: int) -> Array:
        return self._random.normal(size=shape).astype(np.float32)

    def conv(
        self,
        x: str,
        channels: int,
        k: int = 3,
        *,
        groups: int = 1,
        bias: bool = True,
        **more: Any,
    ) -> str:
        fan = self.channels[x] // groups
        kernel = self.constant(self.normal(channels, fan, k, k) / np.float32(np.sqrt(fan) * k))
        inputs = [x, kernel] + ([self.constant(self.normal(channels))] if bias else [])
        settings: dict[str, Any] = {"pads": [k // 2] * 4, "group": groups, **more}
        if not settings["pads"]:
            del settings["pads"]
        return self.add("Conv", *inputs, channels=channels, **settings)

    def relu(self, x: str) -> str:
        return self.add("Relu", x, channels=self.channels[x])

    def batch_norm(self, x: str) -> str:
        n = self.channels[x]
        values = (
            np.abs(self.normal(n)) + 1,
            self.normal(n),
            self.normal(n),
            np.abs(self.normal(n)) + 1,
        )
        return self.add("BatchNormalization", x, *map(self.constant, values), channels=n)

    def prelu(self, x: str) -> str:
        slope = self.constant(np.abs(self.normal(self.channels[x], 1, 1)))
        return self.add("PRelu", x, slope, channels=self.channels[x])

    def sum(self, x: str, y: str, operator: str = "Add") -> str:
        return self.add(operator, x, y, channels=self.channels[x])

    def concat(self, *parts: str) -> str:
        return self.add("Concat", *parts, channels=sum(self.channels[p] for p in parts), axis=1)

    def pool(self, x: str) -> str:
        n = self.channels[x]
        return self.add("MaxPool", x, channels=n, kernel_shape=[2, 2], strides=[2, 2])

    def mean(self, x: str) -> str:
        return self.add("GlobalAveragePool", x, channels=self.channels[x])

    def flat(self, x: str, features: int) -> str:
        return self.add("Flatten", x, channels=features)

    def dense(self, x: str, channels: int, *, transposed: bool = True) -> str:
        fan = self.channels[x]
        kernel = self.normal(channels, fan) / np.float32(np.sqrt(fan))
        inputs = (
            x,
            self.constant(kernel if transposed else kernel.T),
            self.constant(self.normal(channels)),
        )
        return self.add("Gemm", *inputs, channels=channels, transB=int(transposed))

    def gate(self, x: str) -> str:
        """Squeeze and excitation."""
        inner = self.relu(self.conv(self.mean(x), max(2, self.channels[x] // 2), 1))
        scale = self.add(
            "Sigmoid", self.conv(inner, self.channels[x], 1), channels=self.channels[x]
        )
        return self.sum(x, scale, "Mul")

    def done(self, x: str) -> OnnxModel:
        """A model that returns the softmax over five units of the features in a tensor."""
        logits = self.dense(x, UNITS)
        self.nodes.append(node("Softmax", [logits], ["y"], name="softmax", axis=-1))
        return model(
            self.nodes, self.constants, x=("batch", 3, SIDE, SIDE), outputs={"y": ("batch", UNITS)}
        )


def _plain(net: Network) -> str:
    a = net.relu(net.conv("x", 8))
    b = net.relu(net.batch_norm(net.conv(a, 12, bias=False, strides=[2, 2])))
    return net.flat(net.mean(b), 12)


def _flattened(net: Network) -> str:
    a = net.pool(net.prelu(net.conv("x", 6)))
    return net.relu(net.dense(net.flat(a, 6 * 16), 10))


def _depthwise(net: Network) -> str:
    a = net.relu(net.conv("x", 8, 1))
    b = net.relu(net.conv(a, 16, groups=8))
    c = net.relu(net.conv(b, 6, 1))
    return net.flat(net.mean(c), 6)


def _grouped(net: Network) -> str:
    a = net.relu(net.conv("x", 8, 1))
    b = net.relu(net.conv(a, 12, groups=4))
    c = net.relu(net.conv(b, 6, 1))
    return net.flat(net.mean(c), 6)


def _residual(net: Network) -> str:
    a = net.relu(net.conv("x", 8))
    b = net.relu(net.sum(net.conv(net.relu(net.conv(a, 6)), 8), a))
    c = net.relu(net.sum(net.conv(net.relu(net.conv(b, 10, dilations=[2, 2], pads=[2] * 4)), 8), b))
    return net.flat(net.mean(c), 8)


def _concatenated(net: Network) -> str:
    a = net.relu(net.conv("x", 6))
    b = net.relu(net.conv(a, 8))
    c = net.relu(net.batch_norm(net.concat(a, b)))
    d = net.relu(net.conv(c, 10, auto_pad="SAME_LOWER", pads=[], strides=[2, 2]))
    return net.flat(net.mean(d), 10)


def _gated(net: Network) -> str:
    a = net.relu(net.conv("x", 8))
    b = net.relu(net.conv(net.gate(a), 6))
    return net.flat(net.mean(b), 6)


NETWORKS: Mapping[str, Callable[[Network], str]] = {
    "plain": _plain,
    "flattened": _flattened,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "residual": _residual,
    "concatenated": _concatenated,
    "gated": _gated,
}


def network(name: str, seed: int = 0) -> OnnxModel:
    """One of NETWORKS, with random weights."""
    net = Network(seed)
    return net.done(NETWORKS[name](net))
