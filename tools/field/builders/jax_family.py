"""jax2onnx: networks of Flax (NNX) and plain JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax2onnx import to_onnx
from recorder import FOLDER, attempt, record, version_of

VERSION = version_of("jax2onnx", "jax", "flax")
UNITS = 10


class Cnn(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.head = nnx.Linear(8, UNITS, rngs=rngs)

    def __call__(self, x):
        y = nnx.relu(self.norm(self.conv(x)))
        return nnx.softmax(self.head(y.mean((1, 2))))


class Mlp(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.head = nnx.Linear(12, 16, rngs=rngs), nnx.Linear(16, UNITS, rngs=rngs)

    def __call__(self, x):
        return nnx.log_softmax(self.head(nnx.gelu(self.first(x))))


class Attention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.body = nnx.MultiHeadAttention(2, 16, decode=False, rngs=rngs)
        self.head = nnx.LinearGeneral((16,), (UNITS,), rngs=rngs)

    def __call__(self, x):
        return self.head(self.body(x))


def export(label: str, function, shape: tuple, head: str) -> None:
    file = f"jax_{label}.onnx"
    to_onnx(function, [shape], return_mode="file", output_path=str(FOLDER / file))
    record("jax2onnx", VERSION, file, head, UNITS)


def plain() -> None:
    weights = jax.random.normal(jax.random.key(3), (12, UNITS))
    export(
        "plain",
        lambda x: jax.nn.sigmoid(jnp.tanh(x) @ weights),
        ("B", 12),
        "matrix product, sigmoid",
    )


FOLDER.mkdir(parents=True, exist_ok=True)
attempt("cnn", lambda: export("cnn", Cnn(nnx.Rngs(0)), ("B", 16, 16, 3), "Linear, softmax"))
attempt("mlp", lambda: export("mlp", Mlp(nnx.Rngs(0)), ("B", 12), "Linear, log-softmax"))
attempt(
    "attention",
    lambda: export("attention", Attention(nnx.Rngs(0)), ("B", 5, 16), "LinearGeneral per step"),
)
attempt("plain", plain)
