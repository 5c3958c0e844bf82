"""Small language models for tests: a table of embeddings, one dense layer, and a head of tokens.

Token ids enter as `ids`, and the head returns `logits`, one for each token. The head shares the
table (tied), or has a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.graph import Array
from tests.builders.tflite_builder import Builder

UNITS, FEATURES, BLOCK = 40, 32, 16
CONTRIB = "com.microsoft"


def values() -> dict[str, Array]:
    """The weights: float32, and quantized with per-channel and with block scales."""
    random = np.random.default_rng(0)
    blocks = FEATURES // BLOCK
    return {
        "table": random.normal(size=(UNITS, FEATURES)).astype(np.float32),
        "head": random.normal(size=(FEATURES, UNITS)).astype(np.float32),
        "middle": random.normal(size=(FEATURES, FEATURES)).astype(np.float32),
        "bytes": random.integers(-127, 128, (UNITS, FEATURES), dtype=np.int8),
        "scales": (random.random(UNITS) * 0.1 + 0.01).astype(np.float32),
        "packed": random.integers(0, 256, (UNITS, FEATURES // 2), dtype=np.uint8),
        "head_packed": random.integers(0, 256, (UNITS, blocks, BLOCK // 2), dtype=np.uint8),
        "block_scales": (random.random((UNITS, blocks)) * 0.1 + 0.01).astype(np.float32),
        "zeros": random.integers(0, 256, (UNITS, (blocks + 1) // 2), dtype=np.uint8),
    }


def _node(operator: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), [output], output, **attributes)


def _blocks(inputs: str) -> NodeProto:
    numbers: Any = {"bits": 4, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
    return _node("GatherBlockQuantized", inputs, "embedded", domain=CONTRIB, **numbers)


def _product(inputs: str) -> NodeProto:
    numbers: Any = {"bits": 4, "block_size": BLOCK, "K": FEATURES, "N": UNITS}
    return _node("MatMulNBits", inputs, "logits", domain=CONTRIB, **numbers)


_GATHER = _node("Gather", "table ids", "embedded")
_HIDDEN = _node("MatMul", "embedded middle", "hidden")

FORMS: Mapping[str, Callable[[], list[NodeProto]]] = {
    "tied": lambda: [
        _GATHER,
        _HIDDEN,
        _node("Transpose", "table", "kernel", perm=[1, 0]),
        _node("MatMul", "hidden kernel", "logits"),
    ],
    "untied": lambda: [_GATHER, _HIDDEN, _node("MatMul", "hidden head", "logits")],
    "int8 tied": lambda: [
        helper.make_node("DequantizeLinear", ["bytes", "scales"], ["real"], "real", axis=0),
        _node("Gather", "real ids", "embedded"),
        _HIDDEN,
        _node("Transpose", "real", "kernel", perm=[1, 0]),
        _node("MatMul", "hidden kernel", "logits"),
    ],
    "int8 table": lambda: [
        helper.make_node("DequantizeLinear", ["bytes", "scales"], ["real"], "real", axis=0),
        _node("Gather", "real ids", "embedded"),
        _HIDDEN,
        _node("MatMul", "hidden head", "logits"),
    ],
    "int4 untied": lambda: [
        _blocks("packed ids block_scales zeros"),
        _HIDDEN,
        _product("hidden head_packed block_scales zeros"),
    ],
    "int4 tied": lambda: [
        _node("Reshape", "packed kernel_shape", "kernel"),
        _blocks("packed ids block_scales"),
        _HIDDEN,
        _product("hidden kernel block_scales"),
    ],
    "int4 tied at the table": lambda: [
        _node("Reshape", "head_packed table_shape", "rows"),
        _blocks("rows ids block_scales"),
        _HIDDEN,
        _product("hidden head_packed block_scales"),
    ],
}


def onnx_model(form: str, more: tuple[NodeProto, ...] = (), **constants: Array) -> ModelProto:
    """A model of FORMS; `more` nodes read its tensors, and make the output `extra`."""
    nodes = [*FORMS[form](), *more]
    known = {
        **values(),
        "kernel_shape": np.array([UNITS, FEATURES // BLOCK, BLOCK // 2]),
        "table_shape": np.array([UNITS, FEATURES // 2]),
        **constants,
    }
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name not in made)
    shape = ["batch", "length"]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*shape, UNITS])]
    if more:
        outputs.append(helper.make_tensor_value_info("extra", TensorProto.BOOL, shape))
    graph = helper.make_graph(
        nodes,
        "language model",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, shape)],
        outputs,
        [numpy_helper.from_array(known[name], name) for name in read if name in known],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def tflite_model(operator: str, *, tied: bool, int8: bool = False) -> Builder:
    """The same network with GATHER or EMBEDDING_LOOKUP, for 7 ids without a batch."""
    builder, known, length = Builder(), values(), 7
    ids = builder.feed("ids", length, dtype="int32")
    if int8:
        table = builder.constant("table", known["bytes"])
        builder.quantize("table", known["scales"], np.zeros(UNITS))
    else:
        table = builder.constant("table", known["table"])
    lookup = [table, ids] if operator == "GATHER" else [ids, table]
    options = "GatherOptions" if operator == "GATHER" else ""
    rows = builder.op(operator, lookup, (length, FEATURES), "embedded", options, version=1)
    hidden = builder.dense(rows, FEATURES, "hidden")
    kernel = table if tied else builder.constant("head", known["head"].T)
    builder.op(
        "FULLY_CONNECTED",
        [hidden, kernel, ""],
        (length, UNITS),
        "logits",
        "FullyConnectedOptions",
    )
    return builder
