"""Units that are kept because the code that reads the output needs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.errors import NotAllowedError, UsageError
from exporter.planning.cut import CutOptions, plan_cut
from tests.builders.onnx_models import classifier, model, node, numbers

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


def ssd(activation: str = "Softmax", *, boxes: bool = True) -> Any:
    """Classes and boxes of 16 places, from convolutions; the first class is the background."""
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    for name, width in (("cls", CLASSES), ("box", 4)):
        constants |= {f"k_{name}": numbers(width, 3, 1, 1), f"s_{name}": np.array([1, -1, width])}
        nodes += [
            node("Conv", ["x", f"k_{name}"], [f"c_{name}"], f"conv_{name}"),
            node("Transpose", [f"c_{name}"], [f"t_{name}"], f"move_{name}", perm=[0, 2, 3, 1]),
            node("Reshape", [f"t_{name}", f"s_{name}"], [f"r_{name}"], f"rows_{name}"),
        ]
    nodes += [node(activation, ["r_cls"], ["probs"], "last")]
    outputs = {"probs": None, **({"r_box": None} if boxes else {})}
    return model(nodes, constants, x=(1, 3, 4, 4), outputs=outputs)


def pixels(*last: Any, outputs: tuple[str, ...] = ("y",), size: int = 4) -> Any:
    """A class for each pixel."""
    nodes = [node("Conv", ["x", "k"], ["z"], "head"), *last]
    constants = {"k": numbers(CLASSES, 3, 1, 1)}
    return model(nodes, constants, x=(1, 3, size, size), outputs=dict.fromkeys(outputs))


def reader(activation: str = "Softmax", *, x: tuple[int, ...] = (1, 3, 1, 9)) -> Any:
    """A text recognizer: columns of a picture, or steps of a signal, become rows."""
    picture = len(x) == 4
    moved = "m" if picture else "x"
    axis: dict[str, Any] = {} if activation == "Sigmoid" else {"axis": -1}
    nodes = [
        *([node("Squeeze", ["x", "axis"], ["s"], "height")] if picture else []),
        *([node("Transpose", ["s"], ["m"], "columns", perm=[0, 2, 1])] if picture else []),
        node("MatMul", [moved, "k"], ["z"], "head"),
        node(activation, ["z"], ["y"], "last", **axis),
    ]
    constants = {"k": numbers(3, CLASSES), **({"axis": np.array([2])} if picture else {})}
    return model(nodes, constants, x=x)


SOFT = node("Softmax", ["z"], ["y"], "last", axis=1)
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
    "blank, and a letter that is a word for it elsewhere": (
        sequence(),
        {"labels": ["blank", "a", "b", "\u03b5", "d"]},
        (0, 1),
        "unit 0, 'blank', is kept: needed by a decoder",
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
    "background of SSD, without labels": (
        ssd(),
        {"head": "probs"},
        (0, 1),
        "unit 0 is kept: probably the background, since the model has no labels",
    ),
    "background of pixels, without labels": (
        pixels(SOFT),
        {},
        (0, 1),
        "unit 0 is kept: probably the background",
    ),
    "background of pixels, only indices": (
        pixels(node("ArgMax", ["z"], ["y"], "best", axis=1)),
        {},
        (0, 1),
        "unit 0 is kept: probably the background",
    ),
    "blank of a picture's text, without labels": (
        reader(),
        {},
        (0, 1, 4),
        "units 0, 4 are kept: the first or the last is the blank",
    ),
    "blank of speech, without labels": (
        reader("LogSoftmax", x=(1, 9, 3)),
        {},
        (0, 1, 4),
        "units 0, 4 are kept: the first or the last is the blank",
    ),
    "blank and space of a dictionary": (
        reader(),
        {"labels": ["blank", "a", "b", "c", " "]},
        (0, 1, 4),
        "unit 4, ' ', is kept: readers of the dictionary add this space",
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
        (classifier(), {"labels": ["text", "photo", "blank", "\u03b5", "form"]}),  # of pages
        (sequence(), {}),
        (ssd("Sigmoid"), {"head": "probs"}),
        (ssd(), {"head": "probs", "labels": ["a", "b", "c", "d", "e"]}),
        (pixels(node("Sigmoid", ["z"], ["y"], "last")), {}),  # independent classes
        (pixels(outputs=("z",)), {}),  # keypoints, or anything
        (pixels(SOFT), {"labels": ["road", "car", "tree", "sky", "bus"]}),
        (pixels(SOFT, size=1), {}),  # a classifier
        (reader("Sigmoid"), {}),
        (reader(x=(1, 3, 1, 1)), {}),  # one row for each picture: a classifier
        (reader("LogSoftmax", x=(2, 1, 3)), {}),
        (reader("Softmax", x=(1, 9, 3)), {}),
        (reader(), {"labels": ["a", "b", "c", "d", "e"]}),
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
