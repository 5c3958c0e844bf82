"""Labels in metadata: read as data, used if they fit an axis, and cut with the units."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from exporter.formats.onnx import OnnxModel, from_proto
from exporter.formats.onnx.labels import read_entry
from exporter.graph import Array
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.planning.cut import CutOptions, plan_cut
from exporter.remap import HeadRemap, Origin, Remap, compose
from exporter.trace import trace
from tests.builders.onnx_models import classifier, model, node, run

NAMES = ("ant", "bee", "cät", "dog's", "emu")

# --- one entry ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("ant, bee", id="plain text"),
        pytest.param("[]", id="empty"),
        pytest.param("{}", id="empty mapping"),
        pytest.param("[1, 2]", id="numbers"),
        pytest.param('["a", 1]', id="mixed"),
        pytest.param('"ant"', id="one text"),
        pytest.param("{0: 'a', 2: 'b'}", id="a gap"),
        pytest.param("{1: 'a', 2: 'b'}", id="not from 0"),
        pytest.param("{0: 'a', '1': 'b'}", id="keys of two kinds"),
        pytest.param("{0: 'a', True: 'b'}", id="a truth as a key"),
        pytest.param("{0: 1}", id="an integer as a label"),
        pytest.param('{"ant": 0}', id="the other way round"),
        pytest.param('{"00": "a"}', id="a key with a leading zero"),
        pytest.param("{'a', 'b'}", id="a set"),
        pytest.param("[x for x in 'ab']", id="code"),
        pytest.param("__import__('os').system('true')", id="a call"),
        pytest.param("['a' * 9]", id="an expression"),
        pytest.param("[" * 100_000, id="too deep"),
        pytest.param("['" + "a" * 9_000_000 + "']", id="too long"),
        pytest.param("{[]: 'a'}", id="a key that cannot be one"),
        pytest.param("['a\0']", id="a null character"),
    ],
)
def test_entries_that_are_not_labels(text: str) -> None:
    assert read_entry(text) is None


@pytest.mark.parametrize(
    ("text", "labels", "changed"),
    [
        pytest.param('["a", "é"]', ("a", "é"), '["é"]', id="JSON list"),
        pytest.param('{"1": "b", "0": "a"}', ("a", "b"), '{"0": "é"}', id="JSON object"),
        pytest.param("['a', \"b's\"]", ("a", "b's"), "['é']", id="Python list"),
        pytest.param("('a', 'b')", ("a", "b"), "['é']", id="Python tuple"),
        pytest.param("{0: 'a', 1: 'b'}", ("a", "b"), "{0: 'é'}", id="Python dictionary"),
        pytest.param("{'0': 'a'}", ("a",), "{'0': 'é'}", id="Python dictionary of texts"),
    ],
)
def test_entries_keep_their_syntax(text: str, labels: tuple[str, ...], changed: str) -> None:
    entry = read_entry(text)
    assert entry is not None
    assert entry.labels == labels
    assert entry.text(["é"]) == changed


# --- in a model -----------------------------------------------------------------------------------


def labeled(opened: OnnxModel, **entries: str) -> OnnxModel:
    helper.set_model_props(opened.proto, entries)
    return from_proto(opened.proto, "network.onnx")


def props(opened: OnnxModel) -> dict[str, str]:
    return {p.key: p.value for p in opened.proto.metadata_props if p.key != "exporter.remap"}


LITERAL = repr(dict(enumerate(NAMES)))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"names": repr(NAMES[:4])}, None, id="of another count"),
        pytest.param({"author": repr(NAMES)}, None, id="under a key that is not for labels"),
        pytest.param({"names": LITERAL}, NAMES, id="names"),
        pytest.param({"classes": json.dumps(NAMES)}, NAMES, id="classes"),
        pytest.param(
            {"labels": repr(NAMES[::-1]), "names": LITERAL}, NAMES, id="names before labels"
        ),
        pytest.param(
            {"labels": repr(NAMES), "names": repr(NAMES[:2])}, NAMES, id="the first entry that fits"
        ),
        pytest.param({"character": "\n".join(NAMES)}, NAMES, id="a label a line"),
        pytest.param({"character": "\n".join(NAMES) + "\n"}, NAMES, id="a final line break"),
        pytest.param({"names": "\n".join(NAMES)}, None, id="lines under another key"),
    ],
)
def test_labels_of_the_head(entries: dict[str, str], expected: tuple[str, ...] | None) -> None:
    opened = labeled(classifier(), **entries)
    assert trace(opened.graph()).head().labels == expected


def test_labels_of_another_axis_do_not_label_the_units() -> None:
    """A batch of 5 rows is not a unit axis; neither is another axis of 3 positions."""
    opened = classifier(
        node("Unsqueeze", ["z", "axes"], ["u"], "u"),
        node("Expand", ["u", "to"], ["y"], "expand"),
        constants={"axes": np.array([1]), "to": np.array([1, 3, 5])},
        x=(2, 6),
    )
    head = trace(labeled(opened, names=repr(NAMES[:3])).graph()).head()
    assert (head.units, head.labels) == (5, None)


def remap_of(opened: OnnxModel, kept: Sequence[int], mode: str) -> Remap:
    head = trace(opened.graph()).head()
    places = tuple(kept) if MODES[mode].narrows else tuple(range(head.units))
    table = HeadRemap(
        name=head.name,
        output=head.output,
        axis=head.axis,
        mode=mode,
        activation=head.activation,
        old_units=head.units,
        new_units=len(places),
        kept=tuple(kept),
        new_to_old=places,
    )
    later = Remap(Origin("network.onnx", None), None, (table,))
    return compose(opened.remap, later) if opened.remap else later


def cut(opened: OnnxModel, kept: Sequence[int], mode: str = "slice") -> OnnxModel:
    head = trace(opened.graph()).head()
    return opened.apply(Plan(MODES[mode].edits(head, kept), remap_of(opened, kept, mode)))


def test_merged_group_is_labeled_with_its_name() -> None:
    opened = labeled(classifier(), names=LITERAL)
    merged = opened.apply(plan_cut(opened, CutOptions(keep=[2], merge={"fly": [3, 0]})).plan)
    assert props(merged)["names"] == "{0: 'fly', 1: 'cät'}"


def test_labels_are_cut_twice() -> None:
    opened = labeled(classifier(), names=LITERAL, task="classify", stride="32")
    once = cut(opened, [4, 2, 0])
    assert props(once) == {
        "names": "{0: 'emu', 1: 'cät', 2: 'ant'}",
        "task": "classify",
        "stride": "32",
    }
    assert trace(once.graph()).head().labels == ("emu", "cät", "ant")
    twice = cut(once, [2, 1])
    assert props(twice)["names"] == "{0: 'ant', 1: 'cät'}"
    assert props(opened)["names"] == LITERAL


def test_line_syntax_is_kept() -> None:
    opened = labeled(classifier(), character="\n".join(NAMES))
    assert props(cut(opened, [4, 2]))["character"] == f"{NAMES[4]}\n{NAMES[2]}"


ALPHABET = ("0", "1", "A", "\u00e9", ",")  # the lines of a dictionary


def read_text(model: OnnxModel, x: Array, *, space: bool) -> str:
    """Decode as PaddleOCR and RapidOCR do: the blank is first, and the space is last."""
    lines = props(model)["character"].splitlines()
    dictionary = ["blank", *lines, *([" "] if space else [])]
    best = run(model, {"x": x})["y"].argmax(-1)[0]
    assert run(model, {"x": x})["y"].shape[-1] == len(dictionary)
    new = [each for i, each in enumerate(best) if each and (i == 0 or each != best[i - 1])]
    return "".join(dictionary[each] for each in new)


def text_recognizer(units: int) -> OnnxModel:
    """Its input are logits of 12 steps, so that a test writes the text."""
    nodes = [
        node("MatMul", ["x", "kernel"], ["z"], "head"),
        node("Softmax", ["z"], ["y"], "softmax", axis=-1),
    ]
    kernel = np.eye(units, dtype=np.float32)
    return labeled(
        model(nodes, {"kernel": kernel}, x=(1, 12, units)), character="\n".join(ALPHABET)
    )


@pytest.mark.parametrize("space", [False, True])
def test_a_dictionary_without_blank_and_space_reads_the_same(*, space: bool) -> None:
    units = ("blank", *ALPHABET, *([" "] if space else []))
    original = text_recognizer(len(units))
    assert trace(original.graph()).head().labels == units
    steps = ["A", "A", "blank", "A", units[-1], "1", "1", "blank", "1", "A", "blank", "A"]
    x = np.eye(len(units), dtype=np.float32)[[units.index(each) for each in steps]][np.newaxis]
    text = read_text(original, x, space=space)
    assert text == f"AA{units[-1]}11AA"
    once = pruned(original, keep=["A", "1", units[-1]])
    assert props(once)["character"] == ("1\nA" if space else "1\nA\n,")
    assert read_text(once, x, space=space) == text
    twice = pruned(once, keep=["A", units[-1]])
    assert props(twice)["character"] == ("A" if space else "A\n,")
    assert trace(twice.graph()).head().labels == ("blank", "A", units[-1])


def test_entries_that_do_not_label_the_units_are_kept() -> None:
    entries = {"labels": "['p', 'q']", "names": json.dumps(NAMES), "classes": "5"}
    result = cut(labeled(classifier(), **entries), [1])
    assert props(result) == {**entries, "names": '["bee"]'}


@pytest.mark.parametrize("mode", ["zero", "slice"])
def test_entry_is_unchanged_if_all_units_are_kept(mode: str) -> None:
    text = "{0:'ant',1:'bee',2:'cat',3:'dog',4:'emu'}"
    kept = [0, 1] if mode == "zero" else [0, 1, 2, 3, 4]
    assert props(cut(labeled(classifier(), names=text), kept, mode))["names"] == text


def test_labels_of_a_model_that_returns_class_indices() -> None:
    best = node("ArgMax", ["z"], ["y"], "best", axis=1, keepdims=0)
    opened = labeled(classifier(best), names=LITERAL)
    assert trace(opened.graph()).head().labels == NAMES
    result = cut(opened, [3, 1])
    assert props(result)["names"] == "{0: \"dog's\", 1: 'bee'}"
    assert trace(result.graph()).head().labels == ("dog's", "bee")


# --- labels that the file lacks -------------------------------------------------------------------


def pruned(opened: OnnxModel, **options: Any) -> OnnxModel:
    return opened.apply(plan_cut(opened, CutOptions(**options)).plan)


def read_by_ultralytics(opened: OnnxModel) -> dict[int, str]:
    """As its AutoBackend does, with the literal that its exporter writes."""
    session = onnxruntime.InferenceSession(opened.proto.SerializeToString())
    names = session.get_modelmeta().custom_metadata_map["names"]
    return dict(ast.literal_eval(names))


@pytest.mark.parametrize("labels", [None, [""] * 5], ids=["no labels", "empty labels"])
def test_no_names_without_labels(labels: list[str] | None) -> None:
    assert props(pruned(classifier(), keep=[1, 3], labels=labels)) == {}


def test_no_names_for_original_indices() -> None:
    """The indices that the file returns are not positions of the kept labels."""
    best = node("ArgMax", ["z"], ["y"], "best", axis=1, keepdims=0)
    assert props(pruned(classifier(best), keep=[3, 1], labels=NAMES)) == {}


def test_another_entry_called_names_is_kept() -> None:
    opened = labeled(classifier(), names="by the author")
    assert props(pruned(opened, keep=[1, 3], labels=NAMES)) == {"names": "by the author"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"keep": [3, 1]}, {0: "bee", 1: "dog's"}, id="slice"),
        pytest.param({"keep": [3, 1], "mode": "zero"}, dict(enumerate(NAMES)), id="zero"),
        pytest.param(
            {"keep": [2], "merge": {"fly": [3, 0]}}, {0: "fly", 1: "cät"}, id="merged units"
        ),
    ],
)
def test_names_are_added(options: dict[str, Any], expected: dict[int, str]) -> None:
    small = pruned(classifier(), labels=NAMES, **options)
    assert read_by_ultralytics(small) == expected
    assert small.graph().labels["y"] == tuple(expected.values())


def test_names_are_added_for_new_indices() -> None:
    best = node("ArgMax", ["z"], ["y"], "best", axis=1, keepdims=0)
    small = pruned(classifier(best), keep=[3, 1], labels=NAMES, new_ids=True)
    assert read_by_ultralytics(small) == {0: "bee", 1: "dog's"}


def test_names_from_an_earlier_cut_are_cut_again() -> None:
    once = pruned(classifier(), keep=[0, 2, 4], labels=NAMES)
    assert read_by_ultralytics(pruned(once, keep=["emu", "ant"])) == {0: "ant", 1: "emu"}


def test_labels_of_the_user_replace_an_entry() -> None:
    opened = labeled(classifier(), classes=json.dumps(NAMES), task="classify")
    small = pruned(opened, keep=["B", "E"], labels=list("ABCDE"))
    assert props(small) == {"classes": '["B", "E"]', "task": "classify"}


def test_names_label_the_cut_head_only() -> None:
    """The other output has as many positions, but they are no units of this head."""
    other = node("Slice", ["x", "from", "to", "axes"], ["other"], "other")
    constants = {"from": np.array([0]), "to": np.array([2]), "axes": np.array([1])}
    opened = classifier(other, constants=constants, outputs={"z": None, "other": None})
    small = pruned(opened, keep=[1, 3], labels=NAMES)
    assert small.graph().labels == {"z": ("bee", "dog's")}
