"""Damaged attributes and bytes give one-line errors, for every row of the operator table."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto

from exporter.errors import ExporterError
from exporter.formats.onnx import OnnxModel, from_bytes
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders import onnx_operators, onnx_quantized_kernels, onnx_rankings
from tests.builders.onnx_models import classifier, model, node

REFUSED = {
    "an axis out of reach": node("Concat", ["z", "z"], ["y"], "odd", axis="one"),
    "axes without bounds": node("Slice", ["z"], ["y"], "odd", starts=[0], axes=[1]),
    "bounds of two lengths": node("Slice", ["z"], ["y"], "odd", starts=[0], ends=[1, 2]),
    "a permutation with a repeated axis": node("Transpose", ["z"], ["y"], "odd", perm=[1, 1]),
    "a permutation of other axes": node("Transpose", ["z"], ["y"], "odd", perm=[0, 2, 1]),
    "a target of another rank": node("Reshape", ["z"], ["y"], "odd", shape=[-1, 1, 5]),
    "a number instead of a target": node("Reshape", ["z"], ["y"], "odd", shape=5),
    "text instead of a number": node("Elu", ["z"], ["y"], "odd", alpha="much"),
    "no output for indices": node("TopK", ["z"], ["y"], "odd", k=2),
    "a rank more": node("Expand", ["cube", "one"], ["y"], "odd"),
    "scales of another count": node("DequantizeLinear", ["z", "three"], ["y"], "odd"),
    "zero points of another count": node("DequantizeLinear", ["z", "five", "three"], ["y"], "odd"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradicting_attributes_are_refused_by_node_name(name: str) -> None:
    constants = {
        "cube": np.ones((1, 1, 5), np.float32),
        "one": np.array([1, 5]),
        "three": np.ones(3, np.float32),
        "five": np.ones(5, np.float32),
    }
    opened = classifier(REFUSED[name], constants=constants, outputs={"y": [None, 5]}, opset=9)
    (refusal,) = trace(opened.graph()).refusals
    assert str(refusal.operation).endswith("'odd'")


def sources() -> list[bytes]:
    """One file for each case of the operator tables."""
    opened: list[OnnxModel] = [onnx_operators.build(case) for case in onnx_operators.AFTER_HEAD]
    x = onnx_quantized_kernels.X.shape
    tables: list[tuple[list[NodeProto], object]] = [
        (nodes, constants)
        for table in (onnx_operators.KERNELS, onnx_quantized_kernels.KERNELS)
        for nodes, constants, _ in table.values()
    ]
    opened += [model(nodes, constants, x=x) for nodes, constants in tables]  # type: ignore[arg-type] # tables of both modules
    for tail, expected, options in onnx_rankings.RANKED.values():
        opened.append(onnx_rankings.ranked(*tail, outputs=tuple(expected), **options))
    return [each.to_bytes() for each in opened]


def test_damaged_bytes_give_one_line_errors() -> None:
    random = np.random.default_rng(11)
    files = sources()
    survived = 0
    for _ in range(1500):
        content = bytearray(files[random.integers(len(files))])
        for place in random.integers(len(content), size=random.integers(1, 4)):
            content[place] = random.choice([int(random.integers(256)), 0, 1, 2, 3, 127, 255])
        survived += outcome(bytes(content))
    assert 300 < survived < 1200


def outcome(content: bytes) -> bool:
    """Can the file still be cut? Any exception but an ExporterError fails the test."""
    try:
        opened = from_bytes(content, "damaged.onnx")
        for head in trace(opened.graph()).heads:
            for mode in (MODES[name] for name in ("slice", "zero", "mask")):
                opened.apply(Plan(mode.edits(head, [0]))).to_bytes()
    except ExporterError as error:
        assert "\n" not in error.message  # noqa: PT017 - other exceptions fail the test too
        return False
    return True
