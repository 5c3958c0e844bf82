"""Small model files of every kind for the tests of the commands, valid and damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto

from exporter.graph import Array
from tests.builders.onnx_models import node, numbers, proto
from tests.builders.tflite_builder import Builder

UNITS = 7
FEATURES = 6
LABELS = ("macaw", "owl", "hen", "robin", "finch", "crow", "gull")
KERNEL = numbers(FEATURES, UNITS, seed=3)
BIAS = numbers(UNITS, seed=3)


def fill(folder: Path) -> None:
    """Write every file that needs no Keras."""
    for name, build in ONNX.items():
        (folder / name).write_bytes(build().SerializeToString(deterministic=True))
    for name, build_tflite in TFLITE.items():
        (folder / name).write_bytes(build_tflite())
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    (folder / "three.txt").write_text("macaw\nowl\nhen\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    for suffix in ("onnx", "tflite"):
        _damage(folder / f"net.{suffix}")
    samples = np.random.default_rng(1).normal(size=(5, FEATURES)).astype(np.float32)
    np.savez(folder / "samples.npz", features=samples)
    np.savez(folder / "wide.npz", features=np.zeros((5, FEATURES + 1), np.float32))


def fill_keras(folder: Path) -> None:
    """Write every Keras file."""
    import keras  # noqa: PLC0415 - seconds, which most tests do not need

    keras.utils.set_random_seed(3)
    for name, tail in _tails(keras).items():
        features = keras.Input((FEATURES,), name="features")
        hidden = keras.layers.Dense(9, activation="relu", name="hidden")(features)
        model = keras.Model(features, tail(hidden), name="net")
        if name == "nan.keras":
            model.get_layer("probabilities").bias.assign([np.nan] * UNITS)
        model.save(folder / name)
    for suffix in ("keras", "h5"):
        _damage(folder / f"net.{suffix}")


def _damage(file: Path) -> None:
    """Write an empty, a truncated and a foreign file next to a valid one."""
    content = file.read_bytes()
    file.with_stem("truncated").write_bytes(content[: len(content) // 2])
    file.with_stem("empty").write_bytes(b"")
    file.with_stem("foreign").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))


# --- ONNX ---------------------------------------------------------------------------------------


def _gemm() -> NodeProto:
    return node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm")


def _softmax(source: str = "z", target: str = "probabilities", name: str = "softmax") -> NodeProto:
    return node("Softmax", [source], [target], name, axis=1)


def _onnx(
    *nodes: NodeProto,
    outputs: Sequence[str] = ("probabilities",),
    constants: Mapping[str, Array] | None = None,
    units: int = UNITS,
) -> ModelProto:
    every = {"kernel": KERNEL, "bias": BIAS, **(constants or {})}
    return proto(nodes, every, outputs=dict.fromkeys(outputs, ("batch", units)))


def _two_heads() -> ModelProto:
    color = node("Gemm", ["x", "kernel", "bias"], ["c"], "color_gemm")
    shape = node("Gemm", ["x", "kernel2", "bias2"], ["s"], "shape_gemm")
    return _onnx(
        color,
        _softmax("c", "color", "color_softmax"),
        shape,
        _softmax("s", "shape", "shape_softmax"),
        outputs=("color", "shape"),
        constants={"kernel2": numbers(FEATURES, UNITS, seed=4), "bias2": numbers(UNITS, seed=4)},
    )


def _open_shape() -> ModelProto:
    made = proto(
        [
            node("MatMul", ["x", "kernel"], ["m"], "matmul"),
            node("Add", ["m", "bias"], ["y"], "add"),
        ],
        {"kernel": KERNEL, "bias": BIAS},
        x=("batch", "time", FEATURES),
        outputs={"y": ("batch", "time", UNITS)},
    )
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "time"
    return made


ONNX: Mapping[str, Callable[[], ModelProto]] = {
    "net.onnx": lambda: _onnx(_gemm(), _softmax()),
    "sigmoid.onnx": lambda: _onnx(
        _gemm(), node("Sigmoid", ["z"], ["scores"], "s"), outputs=["scores"]
    ),
    "two.onnx": _two_heads,
    "open.onnx": _open_shape,
    "nan.onnx": lambda: _onnx(
        _gemm(), _softmax(), constants={"bias": np.full(UNITS, np.nan, np.float32)}
    ),
    "double.onnx": lambda: _onnx(
        _gemm(), _softmax("z", "p", "first"), _softmax("p", name="second")
    ),
    "norule.onnx": lambda: _onnx(
        _gemm(),
        node("CumSum", ["z", "axis"], ["probabilities"], "running"),
        constants={"axis": np.array(1, np.int64)},
    ),
    "nohead.onnx": lambda: _onnx(node("Relu", ["x"], ["y"], "relu"), outputs=["y"], units=6),
}


# --- TFLite -------------------------------------------------------------------------------------


def _tflite(broken: float | None = None) -> bytes:
    builder = Builder()
    x = builder.feed("features", 1, FEATURES)
    bias = BIAS if broken is None else np.full(UNITS, broken, np.float32)
    kernel = builder.constant("kernel", np.ascontiguousarray(KERNEL.T))
    inputs = [x, kernel, builder.constant("bias", bias)]
    z = builder.op("FULLY_CONNECTED", inputs, (1, UNITS), "z", "FullyConnectedOptions")
    builder.softmax(z, "probabilities")
    return builder.content("probabilities")


TFLITE: Mapping[str, Callable[[], bytes]] = {
    "net.tflite": _tflite,
    "inf.tflite": lambda: _tflite(np.inf),
}


# --- Keras --------------------------------------------------------------------------------------


def _tails(keras: object) -> Mapping[str, Callable[[object], object]]:
    layers = keras.layers  # type: ignore[attr-defined]

    class Doubled(layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, values: object) -> object:
            return values

    def head(values: object) -> object:
        return layers.Dense(UNITS, activation="softmax", name="probabilities")(values)

    return {
        "net.keras": head,
        "net.h5": head,
        "nan.keras": head,
        "lambda.keras": lambda h: head(layers.Lambda(lambda values: values, name="trick")(h)),
        "custom.keras": lambda h: head(Doubled(name="mine")(h)),
        "double.keras": lambda h: layers.Softmax(name="second")(head(h)),
        "norule.keras": lambda h: layers.LayerNormalization(name="norm")(head(h)),
    }
