"""float16 for ONNX models, by onnxconverter-common.

onnxruntime's own float16 converter writes files that `onnx.checker` refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from warnings import WarningMessage

import onnx
from onnx import ModelProto, TensorProto, helper

from exporter.quantization.onnx_excluded import excluded_nodes

# The smallest and largest float16; the converter's defaults clip at 1e-7 and 1e4.
_SMALLEST, _LARGEST = 6e-8, 65504.0
_CLIPPED = re.compile(r"number (?P<weight>\S+) will be truncated to (?P<to>\S+)")


def to_float16(source: Path, excluded: set[str]) -> ModelProto:
    """The model in float16, with float32 inputs and outputs. Args: excluded: tensors."""
    from onnxconverter_common.float16 import convert_float_to_float16  # noqa: PLC0415

    model = onnx.load(source)
    nodes = excluded_nodes(model, excluded)
    _detach_outputs(model)
    made: ModelProto = convert_float_to_float16(
        model,
        min_positive_val=_SMALLEST,
        max_finite_val=_LARGEST,
        keep_io_types=True,
        node_block_list=[*nodes, *_casts_to_float(model)],
    )
    return made


def _detach_outputs(model: ModelProto) -> None:
    """Return outputs that nodes read too through an Identity.

    The converter casts outputs back to float32, for these nodes too, which expect float16.
    """
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    for name in [output.name for output in graph.output if output.name in read]:
        inner = f"{name}__inside"
        for node in graph.node:
            for names in (node.input, node.output):
                for slot, each in enumerate(names):
                    if each == name:
                        names[slot] = inner
        graph.node.append(helper.make_node("Identity", [inner], [name], f"{name}__returned"))


def _casts_to_float(model: ModelProto) -> list[str]:
    """The names of nodes that cast to float32; nodes without a name get one.

    The converter does not change them, but treats their results as float16.
    """
    found = []
    for node in model.graph.node:
        if any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute):
            node.name = node.name or f"{node.output[0]}__cast"
            found.append(node.name)
    return found


def clipped_weights(messages: Iterable[WarningMessage]) -> tuple[str, ...]:
    """A warning about weights that float16 cannot represent, which the converter clips.

    The converter also reports weights below 6e-8, which it rounds to that: no loss.
    """
    matches = (_CLIPPED.search(str(message.message)) for message in messages)
    pairs = [(float(match["weight"]), float(match["to"])) for match in matches if match]
    beyond = [pair for pair in pairs if abs(pair[0]) > abs(pair[1])]
    if not beyond:
        return ()
    weight, to = max(beyond, key=lambda pair: abs(pair[0]))
    return (f"weights exceed the range of float16: the largest, {weight:g}, became {to:g}",)
