"""Units that are kept because the code that reads the output needs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.errors import NotAllowedError, UsageError
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders.onnx_models import model, node, numbers

CLASSES = 5


def detr(activation: str = "Softmax") -> Any:
    """Classes and boxes of seven queries; the last class is "no object"."""
    nodes = [
        node("MatMul", ["x", "k"], ["z"], "classes"),
        node(activation, ["z"], ["probs"], "last"),
        node("MatMul", ["x", "b"], ["boxes"], "boxes"),
    ]
    constants = {"k": numbers(6, CLASSES), "b": numbers(6, 4)}
    return model(nodes, constants, x=(1, 7, 6), outputs={"probs": None, "boxes": None})


def sequence(*, axes: int = 3) -> Any:
    x = {3: (1, 7, 6), 4: (1, 2, 3, 6)}[axes]
    nodes = [
        node("MatMul", ["x", "k"], ["z"], "head"),
        node("Softmax", ["z"], ["y"], "last", axis=-1),
    ]
    return model(nodes, {"k": numbers(6, CLASSES)}, x=x)


TEXT = ["<blank>", "a", "b", "c", "d"]
TOKENS = ["[CLS]", "cat", "dog", "<|end|>", "[SEP]"]
PIXELS = ["background", "cat", "dog", "owl", "fox"]
CASES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], str]] = {
    "no object, by its place": (
        detr(),
        {"head": "probs"},
        (1, 4),
        "unit 4 is kept: needed by a det",
    ),
    "no object, by its label": (
        detr("Sigmoid"),
        {"head": "probs", "labels": ["no-object", "a", "b", "c", "d"]},
        (0, 1),
        "unit 0, 'no-object', is kept: needed by a detector",
    ),
    "blank, first": (sequence(), {"labels": TEXT}, (0, 1), "unit 0, '<blank>', is kept: needed by"),
    "blank, last": (
        sequence(),
        {"labels": [*TEXT[1:], "blank"]},
        (1, 4),
        "unit 4, 'blank', is kept: needed by a decoder",
    ),
    "tokens": (
        sequence(),
        {"labels": TOKENS},
        (0, 1, 3, 4),
        "units 0, 3, 4 are kept: needed by a language model",
    ),
    "pixels": (
        sequence(axes=4),
        {"labels": PIXELS},
        (0, 1),
        "unit 0, 'background', is kept: needed by a detector",
    ),
    "protected": (
        sequence(),
        {"protect": "2-3"},
        (1, 2, 3),
        "units 2, 3 are kept: protected",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_special_units_are_kept(case: str) -> None:
    original, options, kept, note = CASES[case]
    cut = plan_cut(original, CutOptions(keep=[1], **options))
    assert cut.selection.kept == kept
    assert any(warning.startswith(note) for warning in cut.warnings), cut.warnings


@pytest.mark.parametrize("case", CASES)
def test_removing_one_is_refused(case: str) -> None:
    original, options, kept, _ = CASES[case]
    special = [unit for unit in kept if unit != 1]
    with pytest.raises(NotAllowedError, match=f"unit {special[0]}"):
        plan_cut(original, CutOptions(remove=special, **options))


@pytest.mark.parametrize("case", [name for name in CASES if name != "protected"])
def test_allowed(case: str) -> None:
    original, options, _, _ = CASES[case]
    cut = plan_cut(original, CutOptions(keep=[1], allow_remove_special=True, **options))
    assert cut.selection.kept == (1,)


@pytest.mark.parametrize(
    ("original", "options"),
    [
        (detr("Sigmoid"), {"head": "probs"}),
        (sequence(), {"labels": PIXELS}),  # of no pixels and no boxes
        (sequence(), {}),
        (sequence(), {"labels": ["<s>", "<pad>", "<unk>", "</s>", "[MASK]"]}),  # nothing else
    ],
)
def test_nothing_is_special(original: Any, options: dict[str, Any]) -> None:
    assert plan_cut(original, CutOptions(keep=[1], **options)).selection.kept == (1,)


def test_an_order_is_kept() -> None:
    cut = plan_cut(sequence(), CutOptions(keep=[3, 1], keep_order=True, labels=TEXT))
    assert cut.selection.kept == (0, 3, 1)
    pruned = sequence().apply(cut.plan)
    kernel = next(i for i in pruned.proto.graph.initializer if i.name == "k")
    found = np.frombuffer(kernel.raw_data, np.float32).reshape(6, 3)
    np.testing.assert_array_equal(found, numbers(6, CLASSES)[:, [0, 3, 1]])


def test_a_protected_unit_must_exist() -> None:
    with pytest.raises(UsageError, match="protect entry 1"):
        plan_cut(sequence(), CutOptions(keep=[1], protect="9"))
