"""The matrix of modes: every cell is a small hand-built model and the options of a cut.

Nothing is shared with the code under test except the records of options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto

from exporter.formats.model import Model
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from tests.builders import onnx_models as onnx
from tests.builders.tflite_builder import Builder

UNITS, FEATURES = 6, 8
KEPT = (0, 2, 3)

MODES = ("slice", "zero", "mask")
PROBABILITIES = ("renormalized", "absolute")
KINDS = ("onnx", "tflite")
CALIBRATED = "softmax, then a factor for each unit"
HEADS = ("softmax", "sigmoid", "log_softmax", "linear", "relu", CALIBRATED)
FACTORS = np.array(
    [0.6, 1.4, 0.9, 1.25, 1.0, 0.75]
)  # multiples of 0.01, so that they are exact when quantized
PRECISIONS = ("float32", "float16 weights", "int8", "uint8")


class Cell(NamedTuple):
    """One combination of a model and options."""

    mode: str
    probabilities: str
    head: str
    kind: str
    precision: str

    def __str__(self) -> str:
        return ", ".join(self)


def cells() -> Iterator[Cell]:
    for mode in MODES:
        for probabilities in PROBABILITIES:
            for head in HEADS:
                for kind in KINDS:
                    for precision in PRECISIONS:
                        yield Cell(mode, probabilities, head, kind, precision)


def built(head: str, kind: str, precision: str) -> Model:
    """x -> dense "z" -> an activation "y" (none for linear); calibrated: y * factors -> "w"."""
    return BUILDERS[kind, precision.split(maxsplit=1)[0]](head)


def _weights() -> tuple[Array, Array]:
    """Kernel [units, features] and bias [units], as large as in a trained head."""
    random = np.random.default_rng(5)
    return random.normal(0, 0.5, (UNITS, FEATURES)), random.normal(0, 0.5, UNITS)


# --- onnx ----------------------------------------------------------------------------------------

_ONNX: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("Softmax", {"axis": 1}),
    "sigmoid": ("Sigmoid", {}),
    "log_softmax": ("LogSoftmax", {"axis": 1}),
    "relu": ("Relu", {}),
    CALIBRATED: ("Softmax", {"axis": 1}),
}


def _onnx_float(head: str, dtype: type[np.generic] = np.float32) -> Model:
    kernel, bias = _weights()
    constants = {"kernel": kernel.T.astype(dtype), "bias": bias.astype(dtype)}
    nodes: list[NodeProto] = []
    if dtype is np.float16:
        nodes = [onnx.node("Cast", [name], [f"{name}_32"], name, to=1) for name in constants]
    names = [each.output[0] for each in nodes] or list(constants)
    nodes.append(onnx.node("Gemm", ["x", *names], ["z"], "gemm"))
    return _onnx_model(nodes, constants, head)


def _onnx_model(nodes: list[NodeProto], constants: dict[str, Array], head: str) -> Model:
    if head == "linear":
        return onnx.model(nodes, constants, x=("batch", FEATURES), outputs={"z": None})
    operator, attributes = _ONNX[head]
    nodes.append(onnx.node(operator, ["z"], ["y"], "last", **attributes))
    if head != CALIBRATED:
        return onnx.model(nodes, constants, x=("batch", FEATURES))
    dtype, factor = constants["bias"].dtype, "c"
    constants["c"] = FACTORS.astype(dtype)
    if dtype == np.float16:
        factor = "c_32"
        nodes.append(onnx.node("Cast", ["c"], [factor], "c", to=1))
    nodes.append(onnx.node("Mul", ["y", factor], ["w"], "scaled"))
    return onnx.model(nodes, constants, x=("batch", FEATURES), outputs={"w": None})


def _onnx_quantized(head: str, dtype: str) -> Model:
    """QDQ form: x, kernel, bias, z and y are quantized; the kernel per channel."""
    kernel, bias = _weights()
    low = 0 if dtype == "uint8" else -128
    middle = low + 128
    scales = (np.abs(kernel).max(axis=1) / 127).astype(np.float32)
    x_scale = np.float32(1 / 32)
    constants: dict[str, Array] = {
        "xs": np.array(x_scale),
        "xz": np.array(middle, dtype),
        "k": np.rint(kernel / scales[:, None]).astype(np.int8),
        "ks": scales,
        "kz": np.zeros(UNITS, np.int8),
        "b": np.rint(bias / (x_scale * scales)).astype(np.int32),
        "bs": x_scale * scales,
        "bz": np.zeros(UNITS, np.int32),
        "zs": np.array(0.1, np.float32),
        "zz": np.array(middle + 5, dtype),
    }
    nodes = [
        *_onnx_rounded("x", "x_real", "xs", "xz"),
        onnx.node("DequantizeLinear", ["k", "ks", "kz"], ["k_real"], "k", axis=0),
        onnx.node("DequantizeLinear", ["b", "bs", "bz"], ["b_real"], "b", axis=0),
        onnx.node("Gemm", ["x_real", "k_real", "b_real"], ["z_raw"], "gemm", transB=1),
        *_onnx_rounded("z_raw", "z", "zs", "zz"),
    ]
    if head == "linear":
        return _onnx_model(nodes, constants, head)
    scale, zero = _output_quantization(head, dtype)
    constants |= {"ys": np.array(scale, np.float32), "yz": np.array(zero, dtype)}
    operator, attributes = _ONNX[head]
    nodes.append(onnx.node(operator, ["z"], ["y_raw"], "last", **attributes))
    nodes += _onnx_rounded("y_raw", "y", "ys", "yz")
    if head != CALIBRATED:
        return onnx.model(nodes, constants, x=("batch", FEATURES))
    low = 0 if dtype == "uint8" else -128
    constants |= {
        "c": (np.rint(FACTORS * 100) + low).astype(dtype),
        "cs": np.array(0.01, np.float32),
        "cz": np.array(low, dtype),
        "ws": np.array(1.5 / 255, np.float32),
        "wz": np.array(low + 3, dtype),
    }
    nodes += [
        onnx.node("DequantizeLinear", ["c", "cs", "cz"], ["c_real"], "c"),
        onnx.node("Mul", ["y", "c_real"], ["w_raw"], "scaled"),
        *_onnx_rounded("w_raw", "w", "ws", "wz"),
    ]
    return onnx.model(nodes, constants, x=("batch", FEATURES), outputs={"w": None})


def _onnx_rounded(name: str, result: str, scale: str, zero: str) -> list[NodeProto]:
    codes = f"{result}_codes"
    return [
        onnx.node("QuantizeLinear", [name, scale, zero], [codes], f"q {name}"),
        onnx.node("DequantizeLinear", [codes, scale, zero], [result], f"dq {name}"),
    ]


def _output_quantization(head: str, dtype: str) -> tuple[float, int]:
    """Scale and zero point of y, as the kernels of TFLite require them."""
    low = 0 if dtype == "uint8" else -128
    high = low + 255
    match head:
        case "log_softmax":
            return 16 / 256, high
        case "relu":
            return 0.05, low
        case _:
            return 1 / 256, low


# --- tflite --------------------------------------------------------------------------------------

_TFLITE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "softmax": ("SOFTMAX", "SoftmaxOptions", {"beta": 1.0}),
    "sigmoid": ("LOGISTIC", "", {}),
    "log_softmax": ("LOG_SOFTMAX", "LogSoftmaxOptions", {}),
    "relu": ("RELU", "", {}),
    CALIBRATED: ("SOFTMAX", "SoftmaxOptions", {"beta": 1.0}),
}


def _tflite_float(head: str, dtype: type[np.generic] = np.float32) -> Model:
    kernel, bias = _weights()
    builder = Builder()
    x = builder.feed("x", None, FEATURES)
    names = []
    for name, values in {"kernel": kernel, "bias": bias}.items():
        builder.constant(name, values.astype(dtype))
        if dtype is np.float16:
            builder.op("DEQUANTIZE", [name], values.shape, f"{name}_32", "DequantizeOptions")
        names.append(f"{name}_32" if dtype is np.float16 else name)
    shape = (None, UNITS)
    builder.op("FULLY_CONNECTED", [x, *names], shape, "z", "FullyConnectedOptions")
    return _tflite_model(builder, head, "float32")


def _tflite_model(builder: Builder, head: str, dtype: str) -> Model:
    if head == "linear":
        return from_bytes(builder.content("z"), "cell.tflite")
    operator, options, fields = _TFLITE[head]
    version = 2 if dtype == "int8" else 1
    builder.op(operator, ["z"], (None, UNITS), "y", options, dtype, version, **fields)
    if dtype != "float32":
        builder.quantize("y", *_output_quantization(head, dtype))
    if head != CALIBRATED:
        return from_bytes(builder.content("y"), "cell.tflite")
    low = 0 if dtype == "uint8" else -128
    codes = dtype != "float32"
    values = (np.rint(FACTORS * 100) + low).astype(dtype) if codes else FACTORS.astype(dtype)
    c = builder.constant("c", values)
    builder.op("MUL", ["y", c], (None, UNITS), "w", "MulOptions", dtype, version)
    if codes:
        builder.quantize(c, 0.01, low)
        builder.quantize("w", 1.5 / 255, low + 3)
    return from_bytes(builder.content("w"), "cell.tflite")


def _tflite_quantized(head: str, dtype: str) -> Model:
    kernel, bias = _weights()
    builder = Builder()
    low = 0 if dtype == "uint8" else -128
    middle = low + 128
    x_scale = 1 / 32
    x = builder.quantize(builder.feed("x", None, FEATURES, dtype=dtype), x_scale, middle)
    if dtype == "int8":
        scales, zeros = np.abs(kernel).max(axis=1) / 127, np.zeros(UNITS)
        codes = np.rint(kernel / scales[:, None])
    else:  # one scale for all rows
        scales, zeros = np.abs(kernel).max(keepdims=True).reshape(1) / 127, np.full(1, 128)
        codes = np.clip(np.rint(kernel / scales) + 128, 0, 255)
    builder.constant("kernel", codes.astype(dtype))
    builder.quantize("kernel", scales, zeros)
    builder.constant("bias", np.rint(bias / (x_scale * scales)).astype(np.int32))
    builder.quantize("bias", x_scale * scales, np.zeros(len(scales)))
    version = 4 if dtype == "int8" else 1
    shape = (None, UNITS)
    names = [x, "kernel", "bias"]
    builder.op("FULLY_CONNECTED", names, shape, "z", "FullyConnectedOptions", dtype, version)
    builder.quantize("z", 0.1, middle + 5)
    return _tflite_model(builder, head, dtype)


BUILDERS: dict[tuple[str, str], Callable[[str], Model]] = {
    ("onnx", "float32"): _onnx_float,
    ("onnx", "float16"): lambda head: _onnx_float(head, np.float16),
    ("onnx", "int8"): lambda head: _onnx_quantized(head, "int8"),
    ("onnx", "uint8"): lambda head: _onnx_quantized(head, "uint8"),
    ("tflite", "float32"): _tflite_float,
    ("tflite", "float16"): lambda head: _tflite_float(head, np.float16),
    ("tflite", "int8"): lambda head: _tflite_quantized(head, "int8"),
    ("tflite", "uint8"): lambda head: _tflite_quantized(head, "uint8"),
}


MORE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "merge of two units": {"keep": (0,), "merge": {"group": (2, 3)}},
    "merge, absolute": {
        "keep": (0,),
        "merge": {"group": (2, 3)},
        "probabilities": "absolute",
    },
    "emit ids": {"keep": KEPT, "emit": "ids:2"},
    "gate by an input": {"keep": KEPT, "gate": "input"},
    "gate by a condition": {"keep": KEPT, "gate": "logit > 0.1"},
    "gate by the largest values": {"keep": KEPT, "gate": "top:2"},
}
"""Title -> further options, for every activation."""


def options_of(cell: Cell) -> dict[str, Any]:
    """The options of the cut."""
    return {"keep": KEPT, "mode": cell.mode, "probabilities": cell.probabilities}
