"""One small classifier in every precision of TFLite files, quantized in NumPy.

As in `onnx_precisions`, `FUNCTIONS` x `PRECISIONS` are the cells of docs/precisions.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array
from tests.builders.tflite_builder import Builder

FEATURES, UNITS, BATCH = 33, 5, 3  # odd: int4 rows end within a byte


def normal(*shape: int, seed: int = 0) -> Array:
    random = np.random.default_rng([seed, *shape])
    return random.normal(size=shape).astype(np.float32)


WEIGHTS, BIAS = normal(UNITS, FEATURES), normal(UNITS)  # [units, in]
DENSE, IMAGE = normal(BATCH, FEATURES, seed=1), normal(1, 2, 2, FEATURES, seed=1)


@dataclass(frozen=True)
class Activations:
    """How activations are quantized: x, z and y, each (scale, zero point)."""

    dtype: str
    x: tuple[float, int]
    z: tuple[float, int]
    y: tuple[float, int]


INT8 = Activations("int8", (0.04, 3), (0.25, -4), (1 / 256, -128))
UINT8 = Activations("uint8", (0.04, 131), (0.25, 124), (1 / 256, 0))
INT16 = Activations("int16", (2e-4, 0), (1e-3, 0), (1 / 32768, 0))


def per_channel(bits: int = 8) -> tuple[Array, Array]:
    """Symmetric quantized values [units, in], and per-unit scales."""
    high = 2 ** (bits - 1) - 1
    scale = (np.abs(WEIGHTS).max(axis=1) / high).astype(np.float32)
    return np.rint(WEIGHTS / scale[:, None]).astype(np.int8), scale


def constant4(builder: Builder, name: str, quantized: Array) -> str:
    """int4: two values per byte, the first in the low half."""
    flat = quantized.reshape(-1).astype(np.int64) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, np.int64))
    data = (flat[0::2] | flat[1::2] << 4).astype(np.uint8)
    builder.constants[name] = quantized
    return builder.tensor(name, quantized.shape, "int4", builder.buffer(data))


class Network:
    """x -> product `z` -> mean, if x is an image -> function -> `y`."""

    def __init__(self, kind: str, quantized: Activations | None = None) -> None:
        self.builder = Builder()
        self.image = kind.startswith("convolution")
        self.function = FUNCTIONS[kind]
        self.quantized = quantized
        x = self.builder.feed("x", *(IMAGE if self.image else DENSE).shape)
        self.x = x if quantized is None else self._quantized(x, "xq", quantized.x)

    @property
    def dtype(self) -> str:
        return "float32" if self.quantized is None else self.quantized.dtype

    def _quantized(self, tensor: str, name: str, how: tuple[float, int]) -> str:
        shape = self.builder.shape_of(tensor)
        dtype = self.dtype
        self.builder.op("QUANTIZE", [tensor], shape, name, "QuantizeOptions", dtype, version=3)
        return self.builder.quantize(name, *how)

    def kernel(self, values: Array, name: str = "w") -> str:
        return self.builder.constant(name, self.shaped(values))

    def shaped(self, values: Array) -> Array:
        return values[:, None, None] if self.image else values

    def product(self, kernel: str, bias: str) -> str:
        """[batch, units], or [1, 2, 2, units]"""
        builder = self.builder
        shape = (*builder.shape_of(self.x)[:-1], UNITS)
        operator = "CONV_2D" if self.image else "FULLY_CONNECTED"
        options = "Conv2DOptions" if self.image else "FullyConnectedOptions"
        more: dict[str, Any] = {"strideW": 1, "strideH": 1} if self.image else {}
        builder.op(
            operator, [self.x, kernel, bias], shape, "z", options, self.dtype, version=7, **more
        )
        return builder.quantize("z", *self.quantized.z) if self.quantized else "z"

    def finished(self) -> TfliteModel:
        builder, quantized, last = self.builder, self.quantized, "z"
        if self.image:
            axes = builder.constant("axes", np.array([1, 2], np.int32))
            builder.op(
                "MEAN", ["z", axes], (1, UNITS), "m", "ReducerOptions", self.dtype, version=3
            )
            last = builder.quantize("m", *quantized.z) if quantized else "m"
        if self.function:
            name = "yq" if quantized else "y"
            options = "SoftmaxOptions" if self.function == "SOFTMAX" else ""
            more: dict[str, Any] = {"beta": 1.0} if options else {}
            shape = builder.shape_of(last)
            builder.op(self.function, [last], shape, name, options, self.dtype, version=3, **more)
            last = builder.quantize(name, *quantized.y) if quantized else name
        if quantized:
            shape = builder.shape_of(last)
            options = "DequantizeOptions"
            last = builder.op("DEQUANTIZE", [last], shape, "y", options, version=3)
        return from_bytes(builder.content(last), "network.tflite")


# --- the product, in each precision ---------------------------------------------------------------


def _float32(kind: str) -> Network:
    network = Network(kind)
    network.product(network.kernel(WEIGHTS), network.builder.constant("b", BIAS))
    return network


def _after_dequantize(kind: str, kernel: Callable[[Network], str]) -> Network:
    """Weights that go through a DEQUANTIZE."""
    network = Network(kind)
    builder, stored = network.builder, kernel(network)
    shape = builder.shape_of(stored)
    builder.op("DEQUANTIZE", [stored], shape, "wf", "DequantizeOptions", version=6)
    network.product("wf", builder.constant("b", BIAS))
    return network


def _float16(kind: str) -> Network:
    return _after_dequantize(kind, lambda network: network.kernel(WEIGHTS.astype(np.float16)))


def _weights8(kind: str) -> Network:
    quantized, scale = per_channel()

    def kernel(network: Network) -> str:
        return network.builder.quantize(network.kernel(quantized), scale, np.zeros(UNITS))

    return _after_dequantize(kind, kernel)


def _dynamic(kind: str, bits: int = 8) -> Network:
    """Hybrid kernels: integer weights; x is quantized at run time."""
    network, (quantized, scale) = Network(kind), per_channel(bits)
    kernel = _kernel_of(network, quantized, bits)
    network.builder.quantize(kernel, scale, np.zeros(UNITS))
    network.product(kernel, network.builder.constant("b", BIAS))
    return network


def _kernel_of(network: Network, quantized: Array, bits: int) -> str:
    if bits < 8:
        return constant4(network.builder, "w", network.shaped(quantized))
    return network.kernel(quantized)


def _integer(kind: str, how: Activations, bits: int = 8) -> Network:
    network, (quantized, scale) = Network(kind, how), per_channel(bits)
    builder, zeros = network.builder, np.zeros(UNITS)
    kernel = _kernel_of(network, quantized, bits)
    builder.quantize(kernel, scale, zeros)
    wide = np.int64 if how.dtype == "int16" else np.int32
    step = np.float32(how.x[0]) * scale
    bias = builder.constant("b", np.rint(BIAS / step).astype(wide))
    network.product(kernel, builder.quantize(bias, step, zeros))
    return network


def _uint8(kind: str) -> Network:
    """One scale and zero point for the kernel, as in files from before int8."""
    network = Network(kind, UINT8)
    scale = np.float32((WEIGHTS.max() - WEIGHTS.min()) / 255)
    point = int(np.rint(-WEIGHTS.min() / scale))
    quantized = np.clip(np.rint(WEIGHTS / scale) + point, 0, 255).astype(np.uint8)
    kernel = network.builder.quantize(network.kernel(quantized), scale, point)
    step = np.float32(UINT8.x[0]) * scale
    bias = network.builder.constant("b", np.rint(BIAS / step).astype(np.int32))
    network.product(kernel, network.builder.quantize(bias, step, 0))
    return network


def _sparse(kind: str) -> Network | None:
    """Compressed rows (CSR); there is no sparse convolution."""
    if kind.startswith("convolution"):
        return None
    network = Network(kind)
    builder = network.builder
    kernel = network.kernel(WEIGHTS)
    dense, csr = schema.DimensionType.DENSE, schema.DimensionType.SPARSE_CSR
    segments, indices = (schema.Int32VectorT() for _ in range(2))
    segments.values = np.arange(UNITS + 1, dtype=np.int32) * FEATURES
    indices.values = np.tile(np.arange(FEATURES, dtype=np.int32), UNITS)
    kind_of = schema.SparseIndexVector.Int32Vector
    builder.at(kernel).sparsity = schema.SparsityParametersT(
        traversalOrder=np.array([0, 1], np.int32),
        dimMetadata=[
            schema.DimensionMetadataT(format=dense, denseSize=UNITS),
            schema.DimensionMetadataT(csr, 0, kind_of, segments, kind_of, indices),
        ],
    )
    network.product(kernel, builder.constant("b", BIAS))
    return network


FUNCTIONS: Mapping[str, str] = {
    "dense, softmax": "SOFTMAX",
    "dense, sigmoid": "LOGISTIC",
    "dense, logits": "",
    "convolution, mean, softmax": "SOFTMAX",
}

# precision -> its network; None if there is no such file
PRECISIONS: Mapping[str, Callable[[str], Network | None]] = {
    "float32": _float32,
    "float16 before Dequantize": _float16,
    "int8 weights before Dequantize": _weights8,
    "dynamic int8 (hybrid)": _dynamic,
    "dynamic int4 (hybrid)": lambda kind: _dynamic(kind, 4),
    "int8": lambda kind: _integer(kind, INT8),
    "uint8": _uint8,
    "int16x8": lambda kind: _integer(kind, INT16),
    "int4 weights, int8 values": lambda kind: _integer(kind, INT8, 4),
    "sparse": _sparse,
}


def built(kind: str, precision: str) -> TfliteModel | None:
    """A head of this kind in this precision; None if the format has none."""
    network = PRECISIONS[precision](kind)
    return None if network is None else network.finished()
