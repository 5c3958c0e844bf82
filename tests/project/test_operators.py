"""`docs/operators.md` matches the operator tables, and every row is tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest

from exporter.formats import KINDS
from exporter.formats.onnx import from_proto
from exporter.formats.onnx.classical.attributes import FORMS
from exporter.graph import Graph
from exporter.graph.operations import Elementwise, Opaque, Operation, Pool, Reduce, Reshape
from tests.builders import (
    onnx_fused,
    onnx_heads,
    onnx_integer_operators,
    onnx_operators,
    onnx_precisions,
    onnx_quantized_kernels,
    onnx_rankings,
    onnx_suppression,
)
from tests.builders.onnx_models import classifier, model
from tests.builders.scripts import load

operators = load("operators")
TABLES = operators.tables()


def test_document_is_up_to_date() -> None:
    assert operators.DOCUMENT.read_text("utf-8") == operators.document(), "run `make operators`"


EACH = [
    pytest.param(kind, operator, row, id=f"{kind}-{operator}")
    for kind, entry in KINDS.items()
    if entry.title in TABLES
    for table in (TABLES[entry.title].TABLE, *operators.domains(TABLES[entry.title]).values())
    for operator, row in table.items()
]


@pytest.mark.parametrize(("kind", "operator", "row"), EACH)
def test_every_row_is_translated_and_tested(
    kind: str, operator: str, row: Callable[..., Any]
) -> None:
    if operator not in FORMS:  # split before it is traced; its own row says why it was not
        assert operators.neutral(row)
    assert operators.tested_by(kind, operator)


def helper(flag: object) -> Operation:
    return Reshape() if flag else Opaque()


FIXED = Pool((1,))
CHOICE: dict[str, Callable[[], Operation]] = {"a": lambda: helper(True), "b": lambda: FIXED}


def built(_: object) -> Operation:
    return Elementwise()


def refused(_: object) -> Operation:
    return Opaque()


def chosen(key: str) -> Operation:
    return CHOICE[key]()


def closing(function: Callable[[object], Operation]) -> Callable[[object], list[Operation]]:
    return lambda _: [function(each) for each in "ab"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(refused, [], id="refused"),
        pytest.param(built, ["Elementwise"], id="built"),
        pytest.param(lambda _: helper(True), ["Reshape"], id="through a function"),
        pytest.param(lambda _: FIXED, ["Pool"], id="a constant"),
        pytest.param(chosen, ["Reshape", "Pool"], id="through a table"),
        pytest.param(closing(built), ["Elementwise"], id="through a closure"),
        pytest.param(partial(Reduce, (1,), function="sum"), ["Reduce"], id="a partial function"),
    ],
)
def test_neutral_operations_of_a_row(row: Callable[..., Any], expected: list[str]) -> None:
    assert operators.neutral(row) == expected


def onnx_graphs() -> Iterator[Graph]:
    for case in onnx_heads.AFTER_HEAD:
        yield classifier(*case.nodes, constants=case.constants, opset=case.opset).graph()
    for nodes, constants, x, _ in onnx_heads.HEADS.values():
        yield model(nodes, constants, x=x.shape).graph()
    for each in onnx_operators.AFTER_HEAD:
        yield onnx_operators.build(each).graph()
    for nodes, constants, _ in onnx_operators.KERNELS.values():
        yield model(nodes, constants, x=onnx_operators.INPUT["dense"]).graph()
    for nodes, constants, _ in onnx_quantized_kernels.KERNELS.values():
        yield model(nodes, constants, x=onnx_quantized_kernels.X.shape).graph()
    yield from graphs_of_codes()
    for name in onnx_fused.OPERATORS:
        yield from_proto(onnx_fused.network(name), "fused.onnx").graph()
    for build in onnx_suppression.BUILDERS:
        yield from_proto(build(), "detector.onnx").graph()
    for tail, expected, options in onnx_rankings.RANKED.values():
        yield onnx_rankings.ranked(*tail, outputs=tuple(expected), **options).graph()


def graphs_of_codes() -> Iterator[Graph]:
    for name in onnx_integer_operators.FORMS_OF_CODES:
        yield onnx_integer_operators.form(name).graph()
    pairs = product(onnx_precisions.FUNCTIONS, onnx_precisions.PRECISIONS)
    found = (onnx_precisions.built(*pair) for pair in pairs)
    yield from (opened.graph() for opened in found if opened is not None)


def test_graphs_contain_the_documented_operations() -> None:
    module = TABLES["ONNX"]
    table = {**module.DOMAINS["com.microsoft"], **module.TABLE}
    met = {
        (node.operator, type(node.operation).__name__)
        for graph in onnx_graphs()
        for node in graph.nodes
        if not isinstance(node.operation, Opaque)
    }
    assert {operator for operator, _ in met} >= set(table) - {
        "ConstantOfShape",
        "ConvTranspose",
        "Gather",
        "GatherBlockQuantized",
    }
    wrong = [(o, found) for o, found in met if found not in operators.neutral(table[o])]
    assert wrong == []
