"""What is read of a file when it is drawn, and when its head is traced."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest

from exporter.errors import ModelError
from exporter.formats.onnx import draw
from exporter.formats.onnx.files import from_bytes
from exporter.formats.onnx.table import translate
from exporter.graph import Node
from exporter.graph.operations import Activation
from exporter.trace import trace
from exporter.trace.axis_walk import AxisWalk
from exporter.trace.rules.protocol import Port
from exporter.trace.unit_axis import UnitAxis
from tests.builders.onnx_models import cut, model, node, numbers, proto, run


def long_chain(length: int) -> list[onnx.NodeProto]:
    names = ["x", *(f"t{i}" for i in range(length))]
    operators = ("Relu", "Sub", "Mul")
    return [
        node(operator, [a, "ones"][: 1 + (operator != "Relu")], [b], f"n{i}")
        for i, (a, b) in enumerate(itertools.pairwise(names))
        for operator in [operators[i % 3]]
    ] + [node("Gemm", [names[-1], "w", "b"], ["z"], "fc"), node("Softmax", ["z"], ["y"], axis=1)]


CONSTANTS = {"ones": np.ones(6, np.float32), "w": numbers(6, 5), "b": numbers(5)}


def test_a_cut_translates_only_the_nodes_near_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    translated: list[str] = []

    def counting(domain: str, operator: str, view: Any) -> Any:
        translated.append(operator)
        return original(domain, operator, view)

    original = translate
    monkeypatch.setattr(draw, "translate", counting)
    opened = model(long_chain(60), CONSTANTS)
    (head,) = trace(opened.graph()).heads
    assert head.units == 5
    assert sorted(translated) == ["Gemm", "Softmax"]
    assert len([n.operation for n in opened.graph().nodes]) == 62  # the others when they are read
    assert len(translated) == 62


def test_a_node_that_onnx_inferred_is_not_inferred_again(monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[str] = []
    monkeypatch.setattr(
        onnx.shape_inference, "infer_node_outputs", lambda _schema, n, *_, **__: again.append(n)
    )
    opened = model(long_chain(60), CONSTANTS)
    assert opened.graph().shape("z") == (None, 5)  # the batch is open in all 60 shapes
    assert again == []


def test_a_recurrent_network_may_leave_out_its_sequence() -> None:
    """Its first output has no name, and is no constant."""
    nodes = [
        node("GRU", ["x", "w", "r"], ["", "h"], "gru", hidden_size=4),
        node("Squeeze", ["h", "axes"], ["last"]),
        node("Gemm", ["last", "kernel", "bias"], ["y"], "fc"),
    ]
    constants = {
        "w": numbers(1, 12, 3),
        "r": numbers(1, 12, 4),
        "axes": np.array([0]),
        "kernel": numbers(4, 5),
        "bias": numbers(5),
    }
    opened = model(nodes, constants, x=(2, 1, 3))
    feeds = {"x": numbers(2, 1, 3)}
    expected = run(opened, feeds)["y"]
    np.testing.assert_allclose(run(cut(opened, [1, 3]), feeds)["y"], expected[:, [1, 3]], rtol=1e-6)


def test_a_translated_node_has_its_fields_only() -> None:
    calls: list[int] = []
    assert not hasattr(Node, "products"), "it would be read in place of the translation"

    def relu() -> tuple[Activation, tuple[()]]:
        calls.append(1)
        return Activation("relu"), ()

    lazy = Node.translated_later("n", "Relu", ("a",), ("b",), relu)
    name = "color"
    with pytest.raises(AttributeError, match=name):
        getattr(lazy, name)
    assert not calls
    assert (lazy, lazy.products) == (Node("n", "Relu", Activation("relu"), ("a",), ("b",)), ())
    assert len(calls) == 1


def test_text_that_is_not_utf8_is_found_in_nodes_without_attributes() -> None:

    whole = proto([node("Relu", ["x"], ["y"], "n")], {})
    whole.graph.node[0].doc_string = "documentation"
    content = whole.SerializeToString()
    assert from_bytes(content, "net").graph().outputs == ("y",)
    for text in (b"documentation", b"Relu"):
        damaged = content.replace(text, b"\xdb" * len(text))
        with pytest.raises(ModelError, match="UTF-8"):
            from_bytes(damaged, "net")


def test_outputs_that_show_the_same_units_share_a_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    visits: list[str] = []
    visit = AxisWalk._visit

    def counting(walk: AxisWalk, node: Node, port: Port, unit_axis: UnitAxis) -> None:
        visits.append(node.name)
        visit(walk, node, port, unit_axis)

    monkeypatch.setattr(AxisWalk, "_visit", counting)
    nodes = [node("Gemm", ["x", "w", "b"], ["t0"], "fc")]
    nodes += [node("Relu", [f"t{i}"], [f"t{i + 1}"], f"n{i}") for i in range(20)]
    outputs = [f"y{i}" for i in range(20)]
    nodes += [node("Sigmoid", ["t20"], [name], name) for name in outputs]
    opened = model(nodes, CONSTANTS, outputs=dict.fromkeys(outputs, ("batch", 5)))
    found = trace(opened.graph()).heads
    assert [head.z for head in found] == ["t20"] * 20
    assert max(map(visits.count, visits)) <= 22  # once for each tensor of a node
    feeds = {"x": numbers(2, 6)}
    expected = run(opened, feeds)
    for name, values in run(cut(opened, [3, 1]), feeds).items():
        np.testing.assert_array_equal(values, expected[name][:, [3, 1]])
