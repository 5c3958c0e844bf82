"""Small TFLite files for tests, written with the schema's objects.

The only thing shared with the code under test is the schema that comes with LiteRT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.graph import Array, Shape

TYPES = {
    "bool": schema.TensorType.BOOL,
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int4": schema.TensorType.INT4,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "resource": schema.TensorType.RESOURCE,
}


class Builder:
    """Add tensors and operators in running order, then take `content`. Subgraph 0 is built."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.subgraph = schema.SubGraphT(tensors=[], operators=[], name="main")
        self.model = schema.ModelT(
            version=3,
            description="built by a test",
            operatorCodes=[],
            buffers=[schema.BufferT()],
            subgraphs=[self.subgraph],
        )
        self.names: dict[str, int] = {}
        self.inputs: list[str] = []
        self.constants: dict[str, Array] = {}

    def feed(self, name: str, *shape: int | None, dtype: str = "float32") -> str:
        """An input of the model; None is an open dimension."""
        self.inputs.append(name)
        return self.tensor(name, shape, dtype)

    def tensor(self, name: str, shape: Shape, dtype: str = "float32", buffer: int = 0) -> str:
        tensor = schema.TensorT(name=name, type=TYPES[dtype], buffer=buffer, hasRank=True)
        tensor.shape = np.array([1 if n is None else n for n in shape], np.int32)
        if None in shape:
            tensor.shapeSignature = np.array([-1 if n is None else n for n in shape], np.int32)
        self.subgraph.tensors.append(tensor)
        self.names[name] = len(self.subgraph.tensors) - 1
        return name

    def constant(self, name: str, values: Any, like: str | None = None) -> str:
        """A constant; it shares the buffer of `like` if that is given."""
        array = np.asarray(values)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        buffer = self.buffer(array) if like is None else self.at(like).buffer
        self.constants[name] = array
        return self.tensor(name, array.shape, array.dtype.name, buffer)

    def normal(self, name: str, *shape: int) -> str:
        return self.constant(name, self.random.normal(size=shape))

    def buffer(self, array: Array) -> int:
        data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self.model.buffers.append(schema.BufferT(data=data))
        return len(self.model.buffers) - 1

    def at(self, name: str) -> Any:
        """The TensorT with this name."""
        return self.subgraph.tensors[self.names[name]]

    def quantize(self, name: str, scale: Any, zero: Any, axis: int = 0) -> str:
        scales, zeros = np.atleast_1d(np.float32(scale)), np.atleast_1d(np.int64(zero))
        self.at(name).quantization = schema.QuantizationParametersT(
            scale=scales, zeroPoint=zeros, quantizedDimension=axis
        )
        return name

    def op(  # noqa: PLR0917 - short calls in tests
        self,
        operator: str,
        inputs: Sequence[str],
        shape: Shape,
        name: str,
        options: str = "",
        dtype: str = "float32",
        version: int = 1,
        **fields: Any,
    ) -> str:
        """An operator that computes the tensor of this name; "" is an absent input."""
        self.tensor(name, shape, dtype)
        code = int(getattr(schema.BuiltinOperator, operator))
        self.model.operatorCodes.append(
            schema.OperatorCodeT(min(code, 127), builtinCode=code, version=version)
        )
        written = schema.OperatorT(
            opcodeIndex=len(self.model.operatorCodes) - 1,
            inputs=np.array([self.names[i] if i else -1 for i in inputs], np.int32),
            outputs=np.array([self.names[name]], np.int32),
        )
        if options:
            written.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            written.builtinOptions = getattr(schema, f"{options}T")(**fields)
        self.subgraph.operators.append(written)
        return name

    def dense(self, x: str, units: int, name: str, *, bias: bool = True) -> str:
        """FULLY_CONNECTED with the constants name/kernel [units, in] and name/bias [units]."""
        features = int(self.at(x).shape[-1])
        kernel = self.normal(f"{name}/kernel", units, features)
        offsets = self.normal(f"{name}/bias", units) if bias else ""
        shape = self.shape_of(x)[:-1]
        inputs = [x, kernel, offsets]
        return self.op(
            "FULLY_CONNECTED",
            inputs,
            (*shape, units),
            name,
            "FullyConnectedOptions",
            keepNumDims=len(shape) > 1,
        )

    def softmax(self, x: str, name: str, beta: float = 1.0) -> str:
        return self.op("SOFTMAX", [x], self.shape_of(x), name, "SoftmaxOptions", beta=beta)

    def shape_of(self, name: str) -> Shape:
        tensor = self.at(name)
        entries = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        return tuple(None if n < 0 else int(n) for n in entries)

    def signature(
        self, inputs: Mapping[str, str], outputs: Mapping[str, str], key: str = "serving_default"
    ) -> None:
        """Names in the signature -> tensors."""
        ends = [
            [schema.TensorMapT(name, self.names[tensor]) for name, tensor in side.items()]
            for side in (inputs, outputs)
        ]
        signature = schema.SignatureDefT(ends[0], ends[1], key, 0)
        self.model.signatureDefs = [*(self.model.signatureDefs or []), signature]

    def metadata(self, name: str, value: bytes) -> None:
        entry = schema.MetadataT(name, self.buffer(np.frombuffer(value, np.uint8)))
        self.model.metadata = [*(self.model.metadata or []), entry]

    def content(self, *outputs: str) -> bytes:
        """The file. Args: outputs: tensors."""
        self.subgraph.inputs = np.array([self.names[i] for i in self.inputs], np.int32)
        self.subgraph.outputs = np.array([self.names[o] for o in outputs], np.int32)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def read(content: bytes) -> Any:
    """The ModelT of a file."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))


def classifier(units: int = 5, features: int = 4, batch: int | None = 1, seed: int = 0) -> Builder:
    """x -> dense "z" -> softmax "y"; call `content("y")`."""
    builder = Builder(seed)
    builder.softmax(builder.dense(builder.feed("x", batch, features), units, "z"), "y")
    return builder
