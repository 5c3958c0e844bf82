"""A file with several signatures: those that a cut leaves are named."""

from __future__ import annotations

from exporter.formats.tflite import from_bytes
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders.tflite_builder import Builder, classifier


def test_signatures_with_a_subgraph_of_their_own_are_named() -> None:
    main, other = classifier(), Builder()
    other.feed("a", 1, 4)
    other.subgraph.inputs = other.subgraph.outputs = [0]
    main.model.subgraphs.append(other.subgraph)
    main.signature({"x": "x"}, {"y": "y"})
    main.signature({"a": "x"}, {"b": "x"}, key="second")
    main.model.signatureDefs[1].subgraphIndex = 1
    planned = plan_cut(from_bytes(main.content("y"), "built.tflite"), CutOptions(keep="1,2"))
    (warning,) = planned.warnings
    assert warning.startswith("signature 'second' is not cut")
