"""The selection language: refused and accepted selections, and properties of all selections."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.selection import Selection, select
from exporter.selection.labels import read_labels

LABELS = (
    "background",  # 0
    "cat",  # 1
    "Dog",  # 2
    "crane",  # 3
    "tabby, tabby cat",  # 4
    "crane",  # 5
    "carpenter's kit",  # 6
    "7",  # 7: looks like its own index
    "1-2",  # 8
    "what?",  # 9
    "Mouse",  # 10
    "MOUSE",  # 11
    "-3",  # 12
    "@home",  # 13
    "a=b",  # 14
    "5",  # 15: looks like the index of another unit
    "'tis",  # 16
    "Caf\u00e9",  # 17
    "",  # 18: a unit without a label
    "owl",  # 19
)
UNITS = len(LABELS)


# --- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "position", "fact", "hint"),
    [
        pytest.param("", "keep", "empty", "name indices", id="nothing"),
        pytest.param("  ", "keep", "empty", "name indices", id="blank"),
        pytest.param(",", "entry 1 at character 1, ''", "empty", "comma", id="a comma"),
        pytest.param("1,,2", "entry 2 at character 3, ''", "empty", "comma", id="two commas"),
        pytest.param("1, ", "entry 2 at character 3, ''", "empty", "comma", id="comma at the end"),
        pytest.param("''", "entry 1", "empty", "remove it", id="empty quotes"),
        pytest.param(
            "=", "entry 1 at character 1, '='", "empty", "remove it", id="no text after ="
        ),
        pytest.param("=''", "entry 1", "empty", "remove it", id="empty quotes after ="),
        pytest.param("@", "entry 1", "empty", "remove it", id="no file after @"),
        pytest.param("20", "'20'", "no unit 20", "20 units, 0 to 19", id="out of range"),
        pytest.param(
            "1,18-20", "entry 2 at character 3, '18-20'", "no unit 20", "0 to 19", id="end"
        ),
        pytest.param("9" * 5000, "9...'", "no unit", "0 to 19", id="more digits than int() takes"),
        pytest.param("-1", "'-1'", "negative", "=-1", id="negative"),
        pytest.param("5-3", "'5-3'", "reversed", "3-5", id="reversed range"),
        pytest.param(
            "3, 03", "entry 2 at character 4, '03'", "entry 1", "remove", id="index twice"
        ),
        pytest.param("1-3,4,1 - 3", "entry 3", "entry 1", "remove", id="range twice"),
        pytest.param("'cat", '"\'cat"', "not closed", "close", id="unclosed quote"),
        pytest.param(
            '1,="a, b', "entry 2 at character 3", "not closed", "other kind", id="after ="
        ),
        pytest.param("'cat' x,1", "\"'cat' x\"", "'x' follows", "whole", id="text after quotes"),
        pytest.param("bird", "'bird'", "no unit has", "run from", id="unknown"),
        pytest.param("OWN", "'OWN'", "no unit has", "'owl' (19)", id="similar label"),
        pytest.param("TABBY", "'TABBY'", "no unit has", "'tabby, tabby cat' (4)", id="part of one"),
        pytest.param(
            "qqq", "'qqq'", "no unit has", "from 'background' to 'owl'", id="no similar label"
        ),
        pytest.param(
            "crane", "'crane'", "2 units have this label: 3, 5", "by index", id="two units"
        ),
        pytest.param(
            "mouse", "'mouse'", "2 units have this label: 10, 11", "by index", id="two cases"
        ),
        pytest.param("=3", "'=3'", "no unit has", "", id="a literal label is no index"),
        pytest.param(
            "zebra*", "'zebra*'", "no label matches", "=zebra*", id="pattern without match"
        ),
        pytest.param("[", "'['", "no label matches", "=[", id="half a set"),
        pytest.param("='*at'", "\"='*at'\"", "no unit has", "", id="a literal label is no pattern"),
        pytest.param(
            "\u00b2", "'\u00b2'", "no unit has", "", id="digits of other scripts are text"
        ),
        pytest.param("@no.txt", "'@no.txt'", "cannot read 'no.txt'", "path", id="missing file"),
    ],
)
def test_spec_refused(spec: str, position: str, fact: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(units=UNITS, keep=spec, labels=LABELS)
    assert position in caught.value.message
    assert fact in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    assert len(caught.value.message) < 200
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "position", "fact"),
    [
        pytest.param("cat\nbrid\n", "cats.txt:2, 'brid'", "no unit has", id="unknown"),
        pytest.param("\n\n77\n", "cats.txt:3, '77'", "no unit 77", id="blank lines count"),
        pytest.param("1\n2\n1\n", "cats.txt:3, '1'", "cats.txt:1", id="index twice"),
        pytest.param("cat\n@other.txt\n", "cats.txt:2, '@other.txt'", "another", id="a file in it"),
        pytest.param("cat,owl\n", "cats.txt:1, 'cat,owl'", "no unit has", id="a comma is text"),
        pytest.param("cat\n=\n", "cats.txt:2, '='", "empty", id="empty label"),
        pytest.param(" \n", "entry 1", "has no entry", id="blank"),
    ],
)
def test_file_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, position: str, fact: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cats.txt").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        select(units=UNITS, keep="@cats.txt", labels=LABELS)
    assert position in caught.value.message
    assert fact in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("keep", "fact"),
    [
        pytest.param([1, -1], "keep entry 2, '-1': an index cannot be negative", id="negative"),
        pytest.param([1, 20], "keep entry 2, '20': there is no unit 20", id="out of range"),
        pytest.param([3, 1, 3], "keep entry 3, '3': it is the same as keep entry 1", id="twice"),
        pytest.param(
            [3, "3"], "keep entry 2, '3': it is the same as keep entry 1", id="twice, as text"
        ),
        pytest.param(["cat,owl"], "keep entry 1, 'cat,owl': no unit has this label", id="comma"),
        pytest.param(["cat", ""], "keep entry 2, '': the entry is empty", id="empty string"),
        pytest.param([1, 2.0], "keep entry 2, '2.0': it is neither an integer", id="float"),
        pytest.param([1, None], "keep entry 2, 'None': it is neither", id="None"),
        pytest.param([True], "keep entry 1, 'True': it is neither", id="boolean"),
        pytest.param(np.array([True, False]), "keep entry 1, 'True': it is neither", id="mask"),
        pytest.param(np.array([[1, 2]]), "keep entry 1, '[1 2]': it is neither", id="two axes"),
        pytest.param(3, "keep is neither a string nor a sequence: 3", id="an int"),
        pytest.param(b"12", "keep is neither a string nor a sequence: b'12'", id="bytes"),
        pytest.param([], "none of the 20 units would be kept", id="nothing kept"),
    ],
)
def test_items_refused(keep: Any, fact: str) -> None:
    with pytest.raises(UsageError, match=re.escape(fact)) as caught:
        select(units=UNITS, keep=keep, labels=LABELS)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        pytest.param({}, "keep or remove", id="neither keep nor remove"),
        pytest.param({"keep": "1", "remove": "2"}, "not both", id="keep and remove"),
        pytest.param({"remove": "0-19"}, "none of the 20 units", id="remove everything"),
        pytest.param({"remove": ""}, "remove is empty", id="remove an empty spec"),
        pytest.param({"remove": "1,1"}, "remove entry 2", id="remove one twice"),
        pytest.param({"remove": "1", "keep_order": True}, "needs keep", id="order of the removed"),
        pytest.param({"keep": "1", "units": 0}, "the number of units is 0", id="no units"),
        pytest.param({"keep": "1", "units": 2.5}, "2.5 is not a whole number", id="half units"),
        pytest.param({"keep": "cat", "labels": None}, "there are no labels", id="no labels"),
        pytest.param(
            {"keep": "c*", "labels": None}, "there are no labels", id="pattern, no labels"
        ),
        pytest.param(
            {"keep": "1", "labels": LABELS[:5]}, "5 labels for 20 units", id="label count"
        ),
        pytest.param({"keep": "1", "labels": LABELS[1:]}, "19 labels for 20", id="no background"),
        pytest.param({"keep": "1", "units": 2, "labels": ["a", 7]}, "unit 1 is 7", id="a number"),
        pytest.param({"keep": "1", "units": 2, "labels": ["a", "b\nc"]}, "'b\\nc'", id="two lines"),
        pytest.param(
            {"keep": "1", "units": 2, "labels": ["\ud800", "b"]}, "unit 0", id="surrogate"
        ),
    ],
)
def test_options_refused(options: dict[str, Any], fact: str) -> None:
    with pytest.raises(UsageError, match=re.escape(fact)) as caught:
        select(**{"units": UNITS, "labels": LABELS, **options})
    assert caught.value.hint


def test_hint_names_a_missing_background_class() -> None:
    with pytest.raises(UsageError) as caught:
        Selection(1001, (0,), tuple(map(str, range(1000))))
    assert "background" in caught.value.hint


@pytest.mark.parametrize(
    ("units", "kept", "fact"),
    [
        pytest.param(3, (), "none of the 3 units", id="nothing"),
        pytest.param(3, (0, 3), "no unit 3", id="too high"),
        pytest.param(3, (-1, 0), "no unit -1", id="negative"),
        pytest.param(3, (2, 0, 2), "unit 2 is kept twice", id="twice"),
        pytest.param(3, (0.5,), "0.5 is not a whole number", id="float"),
        pytest.param(3, (True,), "True is not a whole number", id="boolean"),
        pytest.param("3", (0,), "'3' is not a whole number", id="units as text"),
    ],
)
def test_selection_refused(units: Any, kept: Any, fact: str) -> None:
    with pytest.raises(UsageError, match=re.escape(fact)):
        Selection(units, kept)


# --- accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("3", [3], id="index"),
        pytest.param(" 3 , 0 ", [0, 3], id="white space, ascending"),
        pytest.param("003", [3], id="leading zeros"),
        pytest.param("0" * 5000 + "3", [3], id="more zeros than int() takes"),
        pytest.param("2-4", [2, 3, 4], id="range, both ends"),
        pytest.param("2 - 2", [2], id="range of one"),
        pytest.param("cat", [1], id="label"),
        pytest.param("dog", [2], id="without case"),
        pytest.param("Mouse", [10], id="an exact match comes first"),
        pytest.param("CAFE\u0301", [17], id="accents in decomposed form"),
        pytest.param("carpenter's kit,cat", [1, 6], id="a quote within a label"),
        pytest.param("'tabby, tabby cat',1", [1, 4], id="single quotes"),
        pytest.param('1, "tabby, tabby cat" ', [1, 4], id="double quotes"),
        pytest.param("='tabby, tabby cat'", [4], id="quotes after ="),
        pytest.param("'=tabby, tabby cat'", [4], id="= within quotes"),
        pytest.param('"carpenter\'s kit"', [6], id="the other quote within quotes"),
        pytest.param('"=\'tis"', [16], id="a label that begins with a quote"),
        pytest.param("'3'", [3], id="quotes protect commas, not digits"),
        pytest.param("=7", [7], id="a label of digits"),
        pytest.param("=5", [15], id="a label that looks like another index"),
        pytest.param("=1-2", [8], id="a label like a range"),
        pytest.param("=-3", [12], id="a label like a negative index"),
        pytest.param("=what?", [9], id="a label like a pattern"),
        pytest.param("=@home", [13], id="a label like a file"),
        pytest.param("= cat", [1], id="white space after ="),
        pytest.param("a=b", [14], id="= within a label"),
        pytest.param("=a=b", [14], id="= within a literal label"),
        pytest.param("c*", [1, 3, 5, 6], id="pattern, with case"),
        pytest.param("C*", [17], id="pattern, with case before without"),
        pytest.param("D??", [2], id="question marks"),
        pytest.param("[ct]a[tb]*", [1, 4], id="sets"),
        pytest.param("mo*", [10, 11], id="pattern, without case"),
        pytest.param("'tabby, *'", [4], id="pattern with a comma"),
        pytest.param("*", list(range(20)), id="everything"),
    ],
)
def test_spec(spec: str, expected: list[int]) -> None:
    selection = select(units=UNITS, keep=spec, labels=LABELS)
    assert selection.kept == tuple(expected)
    assert selection.notes == ()


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        pytest.param(range(3), [0, 1, 2], id="range"),
        pytest.param([3, 1], [1, 3], id="list, ascending"),
        pytest.param({3, 1}, [1, 3], id="set"),
        pytest.param(np.array([3, 1], np.uint8), [1, 3], id="array"),
        pytest.param(iter([np.int64(3)]), [3], id="iterator of NumPy scalars"),
        pytest.param(["cat", "dog", 0], [0, 1, 2], id="labels and indices"),
        pytest.param(["tabby, tabby cat"], [4], id="a comma separates nothing"),
        pytest.param(["2-3", "=1-2"], [2, 3, 8], id="a range, and a label like one"),
        pytest.param(["'tis"], [16], id="an open quote is a letter"),
        pytest.param(["[co]*t", "owl"], [1, 6, 19], id="pattern"),
    ],
)
def test_items(keep: Iterable[int | str], expected: list[int]) -> None:
    selection = select(units=UNITS, keep=keep, labels=list(LABELS))
    assert selection.kept == tuple(expected)
    assert all(type(unit) is int for unit in selection.kept)


@pytest.mark.parametrize("written", ["@my, units.txt", "=x"], ids=["entries", "literal"])
def test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.chdir(tmp_path)
    content = '\ufeffdog\r\n\r\n 0-1 \r\ntabby, tabby cat\r\n\'tis\r\n"=what?"\r\nowl'
    Path("my, units.txt").write_text(content, encoding="utf-8")
    labels = (*LABELS[:-2], "x", "owl")
    selection = select(units=UNITS, keep=f"12,'{written}'", labels=labels, keep_order=True)
    expected = (12, 2, 0, 1, 4, 16, 9, 19) if written.startswith("@") else (12, 18)
    assert selection.kept == expected
    assert select(units=UNITS, keep=["12", written], labels=labels, keep_order=True) == selection


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        pytest.param("4,0-2,owl", (4, 0, 1, 2, 19), id="spec"),
        pytest.param([4, "0-2", "owl"], (4, 0, 1, 2, 19), id="items"),
        pytest.param(
            "6,c*,0", (6, 1, 3, 5, 0), id="position of the first entry that names the unit"
        ),
    ],
)
def test_keep_order(keep: str | list[int | str], kept: tuple[int, ...]) -> None:
    ordered = select(units=UNITS, keep=keep, labels=LABELS, keep_order=True)
    assert ordered.kept == kept
    assert select(units=UNITS, keep=keep, labels=LABELS).kept == tuple(sorted(kept))


@pytest.mark.parametrize(
    ("remove", "kept"),
    [
        pytest.param("0,3-5", (1, 2, 6, 7, 8, 9), id="spec"),
        pytest.param([5, 9], (0, 1, 2, 3, 4, 6, 7, 8), id="items"),
        pytest.param(np.arange(9), (9,), id="all but one"),
        pytest.param([], tuple(range(10)), id="nothing"),
    ],
)
def test_remove(remove: Any, kept: tuple[int, ...]) -> None:
    selection = select(units=10, remove=remove)
    assert selection.kept == kept
    assert selection.removed == tuple(sorted(set(range(10)) - set(kept)))


@pytest.mark.parametrize(
    ("keep", "notes"),
    [
        pytest.param("3,3-3", ["keep entry 2 at character 3, '3-3': unit 3 was named"], id="one"),
        pytest.param("cat,c*,1-3", ["'c*': unit 1 was", "'1-3': units 1, 3 were"], id="several"),
        pytest.param(["cat", "CAT"], ["keep entry 2, 'CAT': unit 1 was named"], id="same label"),
        pytest.param(["*", "0-9"], ["units 0, 1, 2, 3, 4, 5, 6, 7 and 2 more were"], id="many"),
        pytest.param("5", ["read as labels, not as indices: 5 (unit 15)"], id="digits"),
        pytest.param("1-2,5", ["1-2 (unit 8), 5 (unit 15); write 0-0"], id="range and digits"),
        pytest.param("7", [], id="a label that is its own index"),
        pytest.param("wha*", [], id="a pattern that is no label"),
        pytest.param("what?", [], id="a pattern that matches its own label only"),
        pytest.param([5], [], id="a number is never meant as a label"),
    ],
)
def test_notes(keep: str | list[int | str], notes: list[str]) -> None:
    found = select(units=UNITS, keep=keep, labels=LABELS).notes
    assert len(found) == len(notes)
    for expected, note in zip(notes, found, strict=True):
        assert expected in note


def test_selection_has_labels_of_kept_units() -> None:
    selection = Selection(3, [2, 0], ["a", "b", "c"])  # type: ignore[arg-type]
    assert selection.kept == (2, 0)
    assert selection.removed == (1,)
    assert selection.labels == ("a", "b", "c")
    assert selection.kept_labels == ("c", "a")
    assert Selection(3, (0,)).kept_labels is None
    assert hash(selection) == hash(Selection(3, (2, 0), ("a", "b", "c")))


def test_a_selection_selects_again() -> None:
    """With its order and reasons, and only units of as many, with the same labels."""
    given = Selection(3, (2, 0), ("a", "", "c"), reasons={2: "f1 0.9", 1: "f1 0.1"})
    again = select(units=3, keep=given, labels=["a", "b", "c"], keep_order=True)
    assert (again.kept, again.reasons) == ((2, 0), given.reasons)
    with pytest.raises(UsageError, match=r"selection for keep was written for another model.*'a'"):
        select(units=3, keep=given, labels=["c", "b", "a"])
    with pytest.raises(UsageError, match="3 units"):
        select(units=4, keep=given)
    with pytest.raises(UsageError, match="selection for remove, '2'") as error:
        select(units=3, remove=given)
    assert error.value.hint == "give it with keep"


@pytest.mark.parametrize(
    ("kept", "expected"), [((0, 1), True), ((1, 0), False), ((1,), False)], ids=str
)
def test_keeps_all(kept: tuple[int, ...], *, expected: bool) -> None:
    assert Selection(2, kept).keeps_all is expected


def test_real_labels(zoo: Path) -> None:
    labels = read_labels(zoo / "labels" / "imagenet_1001.txt")
    spec = 'Macaw,"carpenter\'s kit, tool kit",background'
    assert select(units=1001, keep=spec, labels=labels, keep_order=True).kept == (89, 478, 0)
    with pytest.raises(UsageError, match="2 units have this label: 135, 518") as caught:
        select(units=1001, keep="crane", labels=labels)
    assert caught.value.hint == "name them by index, or write =crane for all of them"
    assert select(units=1001, keep="=crane", labels=labels).kept == (135, 518)


SIGNS = (
    "blank",
    " ",
    "0",
    "1",
    "=",
    "@",
    ",",
    "*",
    "?",
    "[",
    "18-25",
    "[CLS]",
    "???",
    "???",
    "@x",
    "-1",
)


@pytest.mark.parametrize("label", SIGNS)
def test_an_entry_that_equals_a_label_is_that_label(label: str) -> None:
    wanted = tuple(unit for unit, other in enumerate(SIGNS) if other == label)
    for keep in ([label], f"'{label}'"):
        assert select(units=len(SIGNS), keep=keep, labels=SIGNS).kept == wanted
    assert select(units=len(SIGNS), remove=[label], labels=SIGNS).removed == wanted


def test_an_integer_is_never_a_label() -> None:
    assert select(units=len(SIGNS), keep=[0, 3], labels=SIGNS).kept == (0, 3)
    assert select(units=len(SIGNS), keep="0-0,2", labels=SIGNS).kept == (0, 2)


ANIMALS = (
    "tiger cat",
    "Egyptian cat",
    "catamaran",
    "oscilloscope, cathode-ray oscilloscope",
    "bullfrog, Rana catesbeiana",
    "sea_cat",
    "polecat",
    "macaw",
)


@pytest.mark.parametrize(
    ("pattern", "kept", "more"),
    [
        pytest.param("*cat*", (0, 1, 5), "'**cat**' selects 4 more", id="a word"),
        pytest.param("*cat", (0, 1, 5), "'**cat' selects 1 more", id="the last word"),
        pytest.param("**cat", (0, 1, 5, 6), "", id="the last letters"),
        pytest.param("*CAT*", (0, 1, 5), "'**CAT**' selects 4 more", id="a word, without case"),
        pytest.param("mac*", (7,), "", id="no such word: its first letters"),
        pytest.param("sea_*", (5,), "", id="an underscore ends a word"),
        pytest.param("?at*", (2,), "", id="letters"),
        pytest.param("*ray*", (3,), "", id="a hyphen ends a word"),
    ],
)
def test_a_pattern_matches_whole_words(pattern: str, kept: tuple[int, ...], more: str) -> None:
    found = select(units=len(ANIMALS), keep=pattern, labels=ANIMALS)
    assert found.kept == kept
    (match,) = found.matches
    assert f"{pattern!r} selects {len(kept)} unit" in match
    assert all(f"{ANIMALS[unit]} ({unit})" in match for unit in kept)
    assert more in match
    assert ("more" in match) is bool(more)


@pytest.mark.parametrize(
    ("missing", "suggested"),
    [
        pytest.param("cat", "similar labels: 'tiger cat' (0), 'Egyptian cat' (1)", id="words"),
        pytest.param(
            "a sea cat", "similar labels: 'sea_cat' (5), 'tiger cat' (0)", id="most words"
        ),
        pytest.param("polecats", "similar labels: 'polecat' (6)", id="beginning of a word"),
        pytest.param("makaw", "similar labels: 'macaw' (7)", id="spelling, if no word is there"),
        pytest.param("x", "the labels run from 'tiger cat' to 'macaw'", id="nothing"),
    ],
)
def test_near_misses_search_words(missing: str, suggested: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(units=len(ANIMALS), keep=missing, labels=ANIMALS)
    assert caught.value.hint.startswith(suggested)


def test_another_animal_is_no_near_miss() -> None:
    with pytest.raises(UsageError) as caught:
        select(units=2, keep="parrot", labels=["marmot", "macaw"])
    assert "similar" not in caught.value.hint
    assert caught.value.hint.endswith("`exporter inspect MODEL --labels` lists them")


# --- properties ---------------------------------------------------------------------------------


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_keep_and_remove_are_complements(case: tuple[int, set[int]]) -> None:
    units, chosen = case
    if 0 < len(chosen) < units:
        kept = select(units=units, keep=chosen)
        assert kept.removed == select(units=units, keep=kept.removed).kept
        assert select(units=units, remove=kept.removed).kept == kept.kept


@given(st.permutations(range(12)), st.integers(1, 12))
def test_keep_order_is_the_given_order(order: list[int], count: int) -> None:
    chosen = order[:count]
    written = ",".join(map(str, chosen))
    assert select(units=12, keep=written, keep_order=True).kept == tuple(chosen)
    assert select(units=12, keep=written).kept == tuple(sorted(chosen))


LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1)


@given(st.lists(LINES, min_size=1, max_size=6, unique=True), st.data())
def test_every_label_can_be_named(labels: list[str], data: st.DataObject) -> None:
    unit = data.draw(st.integers(0, len(labels) - 1))
    label = labels[unit]
    for quote in "'\"":
        if quote not in label:
            spec = f"={quote}{label}{quote}"
            assert select(units=len(labels), keep=spec, labels=labels).kept == (unit,)
            assert select(units=len(labels), keep=[spec], labels=labels).kept == (unit,)


@given(st.text(st.sampled_from("0123-,=@*?['\" ab"), max_size=12))
def test_any_text_is_read_or_refused_in_one_line(spec: str) -> None:
    refused: list[UsageError] = []
    kept: tuple[int, ...] = ()
    try:
        kept = select(units=4, keep=spec, labels=["a", "b", "ab", "0-1"]).kept
    except UsageError as error:
        refused.append(error)
    assert bool(kept) is not bool(refused)
    assert kept == tuple(sorted(set(kept)))
    for each in refused:
        assert each.hint
        assert "\n" not in each.message + each.hint
