"""Write the same model in another way, as other tools do. Results do not change."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import onnx_ir
import onnxruntime
from ai_edge_litert import schema_py_generated as schema
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from exporter.formats.tflite import archive


def saved_again(content: bytes) -> bytes:
    """Parsed and serialized, with the values as typed fields instead of raw bytes."""
    model = ModelProto.FromString(content)
    for tensor in model.graph.initializer:
        if tensor.data_type == tensor.FLOAT and tensor.HasField("raw_data"):
            values = numpy_helper.to_array(tensor).ravel().tolist()
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values)
    return bytes(model.SerializeToString())


def through_onnx_ir(content: bytes) -> bytes:
    model = onnx_ir.serde.deserialize_model(ModelProto.FromString(content))
    return bytes(onnx_ir.serde.serialize_model(model).SerializeToString())


def renamed_and_reordered(content: bytes) -> bytes:
    """Other names of nodes and inner tensors; nodes and constants in another possible order."""
    model = ModelProto.FromString(content)
    graph, chance = model.graph, random.Random(1)  # noqa: S311 - no secret
    ends = {info.name for infos in (graph.input, graph.output) for info in infos}
    made = {name for node in graph.node for name in node.output if name}
    names = sorted((made | {t.name for t in graph.initializer}) - ends)
    new = {name: f"v{i}" for i, name in enumerate(names)}
    _rename(graph, new)
    for named in (*graph.initializer, *graph.value_info):
        named.name = new.get(named.name, named.name)
    constants = list(graph.initializer)
    chance.shuffle(constants)
    nodes = list(graph.node)
    ordered = []
    while nodes:
        missing = {name for node in nodes for name in node.output if name}
        node = chance.choice([n for n in nodes if missing.isdisjoint(_read(n))])
        nodes = [n for n in nodes if n is not node]
        ordered.append(node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(constants)
    graph.node.extend(ordered)
    return bytes(model.SerializeToString())


def _rename(graph: GraphProto, new: Mapping[str, str]) -> None:
    """Rename the tensors that nodes read and write, also in graphs inside of nodes."""
    for node in graph.node:
        node.name = ""
        for field in (node.input, node.output):
            field[:] = [new.get(name, name) for name in field]
        for attribute in node.attribute:
            _rename(attribute.g, new)


def _read(node: NodeProto) -> set[str]:
    """The tensors that a node and the graphs inside it read."""
    inner = (each for attribute in node.attribute for each in attribute.g.node)
    return {*node.input, *(name for each in inner for name in _read(each))}


def repacked(content: bytes) -> bytes:
    """A TFLite file through the objects of its schema, with its archive after it."""
    start = archive.start(content)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    result = bytes(builder.Output())
    return result + archive.moved(content[start:], len(result) - start)


REWRITERS: Mapping[str, Mapping[str, Callable[[bytes], bytes]]] = {
    "onnx": {
        "saved again": saved_again,
        "through onnx-ir": through_onnx_ir,
        "renamed and reordered": renamed_and_reordered,
    },
    "tflite": {"repacked": repacked},
}


def optimized(content: bytes, level: Any) -> bytes:
    """An ONNX file as onnxruntime's optimizer writes it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()
