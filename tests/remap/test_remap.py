"""The remap: what it refuses, its JSON, its use on a device, and two cuts in a row."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import ModelError, UsageError
from exporter.remap import SCHEMA, HeadRemap, Origin, Remap, compose
from exporter.remap.head_remap import OPTIONS
from exporter.remap.unit_text import units_of_text

SLICE = HeadRemap(
    name="probs",
    output="probs:0",
    axis=1,
    mode="slice",
    activation="softmax",
    old_units=6,
    new_units=3,
    kept=(4, 0, 5),
    new_to_old=(4, 0, 5),
    labels=("owl", "cat", "\u00e9lan"),
)
MERGED = replace(
    SLICE,
    name="merged",
    kept=(0, 1, 4, 3),
    new_to_old=(0, (1, 4), 3),
    labels=("cat", "birds", "dog"),
    part=(4, 7),
    options={"probabilities": "renormalized", "merge": {"birds": [1, 4]}, "gate": {"top": 2}},
)
ZERO = replace(
    SLICE, mode="zero", new_units=6, kept=(0, 4), new_to_old=(0, 1, 2, 3, 4, 5), labels=None
)
FILE = Origin("net.onnx", "ab" * 32)
BETWEEN = Origin("small.onnx", "cd" * 32)


def one(head: HeadRemap) -> Remap:
    return Remap.of_cut(FILE, [head])


# --- invalid tables --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        pytest.param({"axis": -1}, "the axis -1 is negative", id="axis"),
        pytest.param({"old_units": 0}, "0 old units", id="no old units"),
        pytest.param({"old_units": 2**63}, "9223372036854775808 old units", id="beyond int64"),
        pytest.param({"new_units": 2}, "2 new units, but new_to_old has 3", id="new units"),
        pytest.param(
            {"new_units": 0, "new_to_old": (), "labels": None},
            "no unit has a position",
            id="no position",
        ),
        pytest.param({"kept": ()}, "no unit is kept", id="nothing kept"),
        pytest.param({"kept": (4, 0, 6)}, "kept names unit 6, of 6", id="kept out of range"),
        pytest.param({"kept": (-1, 0, 4)}, "kept names unit -1", id="kept negative"),
        pytest.param({"kept": (4, 0, 4)}, "kept names a unit twice", id="kept twice"),
        pytest.param({"kept": (4, 1)}, "a kept unit is not in new_to_old", id="kept, not present"),
        pytest.param(
            {"new_to_old": (4, 0, 6)}, "new_to_old names unit 6", id="new_to_old out of range"
        ),
        pytest.param({"new_to_old": (4, 0, (5, 4))}, "names a unit twice", id="at two positions"),
        pytest.param({"new_to_old": (4, 0, ())}, "an entry with no member", id="empty entry"),
        pytest.param({"labels": ("a", "b")}, "2 labels for 3 units", id="label count"),
        pytest.param({"part": (0, 2)}, "3 units do not fit the part [0, 2]", id="short part"),
        pytest.param({"part": (-3, 0)}, "do not fit the part [-3, 0]", id="negative part"),
        pytest.param({"options": {"b": 1, "a": 2}}, "unknown options: a, b", id="unknown options"),
        pytest.param({"options": {"probabilities": "raw"}}, "is 'raw'", id="probabilities"),
        pytest.param({"options": {"floor": float("nan")}}, "floor is nan", id="floor not finite"),
        pytest.param({"options": {"floor": "0"}}, "floor is '0'", id="floor is a string"),
        pytest.param({"options": {"restore_width": 1}}, "restore_width is 1", id="restore_width"),
        pytest.param({"options": {"ids": "y"}}, "ids is 'y'", id="ids is one string"),
        pytest.param({"options": {"ids": [1]}}, "ids is [1]", id="ids are numbers"),
        pytest.param({"options": {"emit": "ids"}}, "emit is 'ids'", id="emit is a string"),
        pytest.param({"options": {"emit": {"count": 1}}}, "emit is", id="emit without an output"),
        pytest.param(
            {"options": {"emit": {"output": "ids", "count": 0}}}, "emit is", id="emit with count 0"
        ),
        pytest.param({"options": {"merge": ["a"]}}, "option merge", id="merge is no object"),
        pytest.param({"options": {"merge": {"a": 4}}}, "option merge", id="merge without members"),
        pytest.param({"options": {"merge": {"a": [[4]]}}}, "option merge", id="merge of lists"),
        pytest.param(
            {"options": {"merge": {"a": [4, 0]}}}, "option merge", id="merge is not in new_to_old"
        ),
    ],
)
def test_invalid_heads_are_refused(changes: dict[str, Any], fact: str) -> None:
    with pytest.raises(ModelError) as caught:
        replace(SLICE, **changes)
    assert caught.value.message.startswith("remap of head 'probs': ")
    assert fact in caught.value.message


def test_invalid_remaps_are_refused() -> None:
    with pytest.raises(ModelError, match="no head"):
        Remap(FILE, None, ())
    with pytest.raises(ModelError, match="two heads with the same name: probs, probs"):
        Remap(FILE, None, (SLICE, ZERO))


# --- JSON ---------------------------------------------------------------------------------------


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    record = json.loads(one(MERGED).to_json())
    change(record)
    return json.dumps(record)


def head_with(**entries: object) -> str:
    return edited(lambda record: record["heads"][0].update(entries))


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        pytest.param("", "not valid JSON", id="empty"),
        pytest.param(one(SLICE).to_json()[:-20], "not valid JSON", id="truncated"),
        pytest.param("[" * 100_000, "not valid JSON", id="too deep"),
        pytest.param(b"\xff{}", "not valid JSON", id="not UTF-8"),
        pytest.param("[]", "no schema", id="a list"),
        pytest.param("{}", "no schema", id="no schema"),
        pytest.param('{"schema": 1}', "no schema", id="schema is a number"),
        pytest.param('{"schema": "exporter/remap/3"}', "'exporter/remap/3' where", id="newer"),
        pytest.param(f'{{"schema": "{SCHEMA}"}}', "remap.original is not", id="no original"),
        pytest.param(edited(lambda r: r.pop("heads")), "remap.heads is not a list", id="no heads"),
        pytest.param(edited(lambda r: r.update(heads=[])), "no head", id="empty heads"),
        pytest.param(edited(lambda r: r.update(heads=[7])), "heads[0] is not an", id="head: 7"),
        pytest.param(
            edited(lambda r: r.update(parent=7)), "remap.parent is not an", id="parent: 7"
        ),
        pytest.param(
            edited(lambda r: r["original"].update(name=None)), "original.name is not", id="no name"
        ),
        pytest.param(
            edited(lambda r: r["original"].update(sha256=5)), "original.sha256 is not", id="sha256"
        ),
        pytest.param(head_with(name="\ud800"), "heads[0].name is not a string", id="surrogate"),
        pytest.param(head_with(axis=True), "heads[0].axis is not a whole number", id="axis: true"),
        pytest.param(head_with(axis=1.0), "heads[0].axis is not a whole number", id="axis: 1.0"),
        pytest.param(head_with(part=[1]), "part is not [start, stop]", id="part of one"),
        pytest.param(head_with(part=[4, 7.0]), "part is not [start, stop]", id="part of floats"),
        pytest.param(head_with(kept=None), "kept is not a list of whole numbers", id="no kept"),
        pytest.param(
            head_with(kept=[0, "1"]), "kept is not a list of whole", id="kept are strings"
        ),
        pytest.param(head_with(new_to_old=[0, [[1]], 3]), "new_to_old is not", id="lists in lists"),
        pytest.param(
            head_with(labels="abc"), "labels is not a list of strings", id="labels: a string"
        ),
        *(
            pytest.param(head_with(kept=text), "kept is no text for units", id=f"kept: {text!r}")
            for text in ("", "a", "1,", "3-1-2", "-1", "0-6", "0-99999999999", "bits:", "bits:AAA=")
        ),
        pytest.param(head_with(kept="0-1,9"), "kept names unit 9, of 6", id="kept: 0-1,9"),
        pytest.param(head_with(kept="5-3"), "ends before it starts", id="kept: 5-3"),
        pytest.param(head_with(new_to_old="x"), "new_to_old is no text", id="new_to_old: x"),
        pytest.param(head_with(options=[]), "options is not an object", id="options: a list"),
        pytest.param(head_with(old_units=3), "of 3", id="fields that disagree"),
        pytest.param(head_with(new_to_old=[0, [1, 4], 10**30]), "names unit 1000", id="huge index"),
    ],
)
def test_invalid_json_is_refused(text: str | bytes, fact: str) -> None:
    with pytest.raises(ModelError) as caught:
        Remap.from_json(text)
    assert fact in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint


def test_json_has_the_documented_keys() -> None:
    remap = Remap(FILE, BETWEEN, (replace(SLICE, logits="z:0"), MERGED))
    unused = dict.fromkeys(key for key in OPTIONS if key not in {"vocabulary", "gather"})
    common = {"output": "probs:0", "axis": 1, "mode": "slice", "activation": "softmax"}
    assert json.loads(remap.to_json()) == {
        "schema": "exporter/remap/1",
        "original": {"name": "net.onnx", "sha256": "ab" * 32},
        "parent": {"name": "small.onnx", "sha256": "cd" * 32},
        "heads": [
            {
                **common,
                "name": "probs",
                "part": None,
                "logits": "z:0",
                "old_units": 6,
                "new_units": 3,
                "kept": [4, 0, 5],
                "new_to_old": [4, 0, 5],
                "labels": ["owl", "cat", "\u00e9lan"],
                "options": unused,
            },
            {
                **common,
                "name": "merged",
                "part": [4, 7],
                "logits": None,
                "old_units": 6,
                "new_units": 3,
                "kept": [0, 1, 4, 3],
                "new_to_old": [0, [1, 4], 3],
                "labels": ["cat", "birds", "dog"],
                "options": {
                    **unused,
                    "probabilities": "renormalized",
                    "merge": {"birds": [1, 4]},
                    "gate": {"top": 2},
                },
            },
        ],
    }


RANKED = replace(
    SLICE, options={"ids": ["best", "first five"], "emit": {"output": "ids", "count": 5}}
)


@pytest.mark.parametrize(
    "head", [SLICE, MERGED, ZERO, RANKED], ids=["slice", "merged", "zero", "ranked"]
)
def test_json_round_trip(head: HeadRemap) -> None:
    remap = one(head)
    text = remap.to_json()
    assert Remap.from_json(text) == Remap.from_json(text.encode()) == remap
    assert Remap.from_json(text).to_json() == text
    assert text.endswith("}\n")
    assert len(text.splitlines()) == 22  # one line for each key, however many units
    assert hash(remap) == hash(Remap.from_json(text))


# Kept units of 600 -> their text.
TEXTS = [
    ([7], "7"),
    ([0, 1, 2, 9, 599], "0-2,9,599"),
    ([3, 2, 5, 6], "3,2,5-6"),
    ([*range(600)], "0-599"),
    ([*range(599, -1, -1)], ",".join(map(str, range(599, -1, -1)))),
    ([*range(0, 600, 2)], "bits:" + "qqqq" * 25),
    ([*range(599)], "0-598"),
]


def of_slice(units: int, kept: list[int]) -> HeadRemap:
    positions: dict[str, Any] = {"kept": tuple(kept), "new_to_old": tuple(kept)}
    return replace(SLICE, labels=None, old_units=units, new_units=len(kept), **positions)


@pytest.mark.parametrize(("kept", "text"), TEXTS)
def test_short_json(kept: list[int], text: str) -> None:
    """As in model files: the same remap, in fewer bytes."""
    remap = one(of_slice(600, kept))
    short = json.loads(remap.to_json(short=True))
    assert short["schema"] == "exporter/remap/2"
    assert (short["heads"][0]["kept"], short["heads"][0]["new_to_old"]) == (text, None)
    assert Remap.from_json(json.dumps(short)) == remap
    del short["heads"][0]["new_to_old"]
    assert Remap.from_json(json.dumps(short)) == remap


@pytest.mark.parametrize("head", [MERGED, ZERO, RANKED], ids=["merged", "zero", "ranked"])
def test_short_json_round_trip(head: HeadRemap) -> None:
    again = Remap(FILE, BETWEEN, (head,), ((head,), (head,)))
    assert Remap.from_json(again.to_json(short=True)) == again
    long, short = (json.loads(again.to_json(short=flag))["heads"][0] for flag in (False, True))
    differ = {key for key in long if long[key] != short[key]}
    assert differ == {"kept"} | ({"new_to_old"} if head is not MERGED else set())


def test_short_json_takes_few_bytes() -> None:
    """31,250 of 62,500 units took 415 kB."""
    kept = sorted(np.random.default_rng(1).permutation(62_500)[:31_250].tolist())
    remap = one(of_slice(62_500, kept))
    assert len(remap.to_json(short=True)) < 12_000
    assert Remap.from_json(remap.to_json(short=True)) == remap


def test_unknown_keys_are_ignored() -> None:
    def add(record: dict[str, Any]) -> None:
        for each in (record, record["original"], record["heads"][0], record["heads"][0]["options"]):
            each["later"] = 1

    assert Remap.from_json(edited(add)) == one(MERGED)


def test_a_converted_file_does_not_name_the_logits() -> None:
    remap = Remap(FILE, BETWEEN, (replace(SLICE, logits="z"), MERGED))
    assert remap.without_logits() == Remap(FILE, BETWEEN, (SLICE, MERGED))


def test_missing_optional_keys_count_as_null() -> None:
    def drop(record: dict[str, Any]) -> None:
        for key in ("options", "part", "labels", "logits"):
            del record["heads"][0][key]
        del record["parent"]

    plain = replace(MERGED, options={}, part=None, labels=None)
    assert Remap.from_json(edited(drop)) == one(plain)


# --- on a device --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("indices", "fact"),
    [
        pytest.param(3, "from 3 to 3 are out of range", id="too high"),
        pytest.param([0, -1], "from -1 to 0 are out of range", id="negative"),
        pytest.param([0.5], "whole numbers", id="fraction"),
        pytest.param([float("nan")], "whole numbers", id="NaN"),
        pytest.param([float("inf")], "from inf to inf", id="infinite"),
        pytest.param([True], "whole numbers", id="boolean"),
        pytest.param(["1"], "whole numbers", id="text"),
        pytest.param([2**70], "whole numbers", id="beyond int64"),
        pytest.param([[0], [0, 1]], "whole numbers", id="ragged"),
    ],
)
def test_invalid_new_indices_are_refused(indices: Any, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        one(SLICE).to_original(indices)


def test_invalid_original_indices_are_refused() -> None:
    with pytest.raises(UsageError, match="original indices from 6 to 6") as caught:
        one(SLICE).to_new([6])
    assert caught.value.hint == "there are 6 units, 0 to 5"


@pytest.mark.parametrize(
    ("head", "indices", "expected"),
    [
        pytest.param(SLICE, [0, 1, 2], [4, 0, 5], id="slice"),
        pytest.param(SLICE, [[2], [0]], [[5], [4]], id="shape is kept"),
        pytest.param(SLICE, 1, 0, id="a scalar"),
        pytest.param(SLICE, [], [], id="none"),
        pytest.param(SLICE, np.array([2.0], np.float16), [5], id="a detector's floats"),
        pytest.param(SLICE, np.array([2], np.uint64), [5], id="unsigned"),
        pytest.param(MERGED, [0, 1, 2], [0, 1, 3], id="merged: the lowest member"),
        pytest.param(ZERO, [0, 1, 5], [0, 1, 5], id="zero: the identity"),
    ],
)
def test_to_original(head: HeadRemap, indices: Any, expected: Any) -> None:
    result = one(head).to_original(indices)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.int64
    assert result.shape == np.shape(expected)
    assert result.tolist() == expected


@pytest.mark.parametrize(
    ("head", "indices", "expected"),
    [
        pytest.param(SLICE, range(6), [1, -1, -1, -1, 0, 2], id="slice"),
        pytest.param(SLICE, [[4, 3]], [[0, -1]], id="shape is kept"),
        pytest.param(SLICE, 5, 2, id="a scalar"),
        pytest.param(SLICE, [], [], id="none"),
        pytest.param(MERGED, range(6), [0, 1, -1, 2, 1, -1], id="merged: each member"),
        pytest.param(ZERO, range(6), [0, 1, 2, 3, 4, 5], id="zero: all have a position"),
    ],
)
def test_to_new(head: HeadRemap, indices: Any, expected: Any) -> None:
    result = one(head).to_new(indices)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.int64
    assert result.tolist() == expected
    other = one(head).to_new(indices, missing=99)
    assert other.tolist() == np.where(np.equal(expected, -1), 99, expected).tolist()


@pytest.mark.parametrize(
    ("shape", "dtype", "fill", "axis", "fact"),
    [
        pytest.param((2, 4), "float32", 0, -1, "shape (2, 4) have no 3 units", id="width"),
        pytest.param((3, 2), "float32", 0, -1, "no 3 units on axis -1", id="another axis"),
        pytest.param((3,), "float32", 0, 1, "no 3 units on axis 1", id="no such axis"),
        pytest.param((), "float32", 0, -1, "no 3 units", id="a scalar"),
        pytest.param(
            (3,), "uint8", -1, -1, "uint8 cannot represent the fill -1", id="below the dtype"
        ),
        pytest.param((3,), "int8", 0.5, -1, "int8 cannot represent the fill 0.5", id="a fraction"),
        pytest.param((3,), "int8", float("nan"), -1, "fill nan", id="NaN"),
        pytest.param((3,), "int8", -float("inf"), -1, "fill -inf", id="infinite"),
    ],
)
def test_expand_refuses(
    shape: tuple[int, ...], dtype: str, fill: float, axis: int, fact: str
) -> None:
    with pytest.raises(UsageError) as caught:
        one(SLICE).expand(np.zeros(shape, dtype), fill, axis)
    assert fact in caught.value.message


@pytest.mark.parametrize(
    ("head", "values", "options", "expected"),
    [
        pytest.param(SLICE, [7, 8, 9], {}, [8, 0, 0, 0, 7, 9], id="integers"),
        pytest.param(SLICE, [7, 8, 9], {"fill": -2}, [8, -2, -2, -2, 7, 9], id="fill"),
        pytest.param(
            SLICE, [0.5, 1.5, 2.5], {"fill": -np.inf}, [1.5, *[-np.inf] * 3, 0.5, 2.5], id="floats"
        ),
        pytest.param(
            SLICE, [[7], [8], [9]], {"axis": 0}, [[8], [0], [0], [0], [7], [9]], id="axis 0"
        ),
        pytest.param(MERGED, [7, 8, 9], {}, [7, 8, 0, 9, 0, 0], id="merged: at the lowest member"),
        pytest.param(
            ZERO, [1, 2, 3, 4, 5, 6], {"fill": 9}, [1, 2, 3, 4, 5, 6], id="zero: unchanged"
        ),
    ],
)
def test_expand(head: HeadRemap, values: Any, options: Any, expected: Any) -> None:
    floats = ("float64", "float32", "float16")
    whole = np.asarray(values).dtype.kind == "i"
    for dtype in ("int64", "int8", *floats) if whole else floats:
        result = one(head).expand(np.asarray(values, dtype), **options)
        assert result.dtype == dtype
        assert result.tolist() == expected


# --- a dataset's labels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "y", "options", "fact"),
    [
        pytest.param(SLICE, [0], {"on_missing": "skip"}, "on_missing is 'skip'", id="on_missing"),
        pytest.param(SLICE, [0.5], {}, "not an array of whole numbers", id="fractions"),
        pytest.param(SLICE, [0, 6], {}, "from 0 to 6 are out of range", id="out of range"),
        pytest.param(SLICE, [-1], {}, "from -1 to -1 are out of range", id="negative"),
        pytest.param(
            SLICE, [[0, 1], [2, 4]], {}, r"shape \(2, 2\) cannot be dropped one by one", id="maps"
        ),
        pytest.param(
            SLICE,
            [1, 0, 3, 1],
            {"on_missing": "raise"},
            "3 labels name 2 removed units, the first is 1",
            id="missing",
        ),
        pytest.param(
            ZERO,
            [0, 1],
            {"on_missing": "raise"},
            "1 labels name 1 removed units, the first is 1",
            id="removed, with a position",
        ),
    ],
)
def test_relabel_refuses(head: HeadRemap, y: Any, options: Any, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        head.relabel(y, **options)


@pytest.mark.parametrize(
    ("head", "y", "on_missing", "expected", "rows"),
    [
        pytest.param(SLICE, [4, 1, 0, 5, 2], "drop", [0, 1, 2], [0, 2, 3], id="drop"),
        pytest.param(SLICE, [4, 1, 0], "other", [0, 3, 1], [0, 1, 2], id="other"),
        pytest.param(SLICE, [4, 0, 0], "raise", [0, 1, 1], [0, 1, 2], id="none is missing"),
        pytest.param(SLICE, [1, 2, 3], "drop", [], [], id="all are missing"),
        pytest.param(SLICE, [], "drop", [], [], id="no labels"),
        pytest.param(SLICE, [[4], [1], [0]], "drop", [[0], [1]], [0, 2], id="a column"),
        pytest.param(SLICE, [[4, 1], [3, 0]], "other", [[0, 3], [3, 1]], [0, 1], id="maps"),
        pytest.param(SLICE, [5.0, 1.0], "drop", [2], [0], id="whole numbers as floats"),
        pytest.param(MERGED, [1, 4, 0, 5, 3], "drop", [1, 1, 0, 2], [0, 1, 2, 4], id="merged"),
        pytest.param(ZERO, [0, 1, 4, 5], "drop", [0, 4], [0, 2], id="removed, with a position"),
        pytest.param(ZERO, [0, 1], "other", [0, 6], [0, 1], id="other, with a position"),
    ],
)
def test_relabel(head: HeadRemap, y: Any, on_missing: Any, expected: Any, rows: Any) -> None:
    done = one(head).relabel(y, on_missing)
    assert (str(done.y.dtype), str(done.rows.dtype)) == ("int64", "int64")
    assert done.y.tolist() == expected
    assert done.rows.tolist() == rows


def test_label() -> None:
    assert [one(SLICE).label(i) for i in range(3)] == ["owl", "cat", "\u00e9lan"]
    assert one(SLICE).label(int(np.argmax([0, 0, 1]))) == "\u00e9lan"
    with pytest.raises(UsageError, match="out of range"):
        one(SLICE).label(-1)
    with pytest.raises(UsageError, match="has no labels"):
        one(ZERO).label(0)


def test_several_heads_need_a_name() -> None:
    remap = Remap(FILE, None, (SLICE, MERGED))
    with pytest.raises(UsageError, match="several heads: 'probs', 'merged'") as caught:
        remap.to_original([0])
    assert caught.value.hint == "choose one with head=NAME"
    with pytest.raises(UsageError, match="no head 'boxes'") as caught:
        remap.to_new([0], head="boxes")
    assert caught.value.hint == "it has 'probs', 'merged'"
    assert remap.to_original([1], head="merged").tolist() == [1]
    assert remap.to_new([4], head="merged").tolist() == [1]
    assert remap.expand([1, 2, 3], head="probs").tolist() == [2, 0, 0, 0, 1, 3]
    assert remap.label(1, head="merged") == "birds"


def test_remap_imports_only_numpy() -> None:
    """In a fresh interpreter, so that no other test has imported anything."""
    code = (
        "import sys, numpy; before = set(sys.modules); import exporter.remap;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - {'numpy'};"
        "print(sorted(new - set(sys.stdlib_module_names)));"
        "print(sorted(name for name in sys.modules if name.startswith('exporter.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = ["errors", *("remap", "remap.head_remap", "remap.recut", "remap.remap")]
    own.append("remap.unit_text")
    assert done.stdout.splitlines() == ["['exporter']", str([f"exporter.{name}" for name in own])]


# --- cut twice ----------------------------------------------------------------------------------


def sliced(old: int, *kept: int, **changes: Any) -> HeadRemap:
    plain = replace(
        SLICE, old_units=old, new_units=len(kept), kept=kept, new_to_old=kept, labels=None
    )
    return replace(plain, **changes)


def zeroed(units: int, *kept: int, **changes: Any) -> HeadRemap:
    plain = replace(
        ZERO, old_units=units, new_units=units, kept=kept, new_to_old=tuple(range(units))
    )
    return replace(plain, **changes)


def twice(earlier: HeadRemap, later: HeadRemap) -> HeadRemap:
    """The combined table; the later cut uses the head's earlier name."""
    return Remap.of_cut(BETWEEN, [replace(later, name=earlier.name)], one(earlier)).of()


@pytest.mark.parametrize(
    ("earlier", "later", "error", "fact"),
    [
        pytest.param(
            SLICE,
            sliced(6, 1),
            ModelError,
            "results in 3 units, the later one starts from 6",
            id="width",
        ),
        pytest.param(
            zeroed(6, 0, 4),
            sliced(6, 1, 2),
            UsageError,
            "all units to keep in head 'probs' were removed by an earlier cut",
            id="only removed units",
        ),
        pytest.param(
            zeroed(6, 0, 4),
            zeroed(6, 0, 1, mode="mask", options={"floor": -1.0}),
            UsageError,
            "mode zero",
            id="zero, then mask, which keeps a zeroed unit",
        ),
        pytest.param(
            zeroed(6, 0, 4, mode="mask", options={"floor": -1e4}),
            zeroed(6, 0, 1, mode="mask", options={"floor": 0}),
            UsageError,
            "would have different values",
            id="two floors",
        ),
        pytest.param(
            zeroed(6, 0, 4),
            zeroed(6, 0, mode="gate", options={"gate": "input", "floor": -1e4}),
            UsageError,
            "cut with mode zero: its removed units still have positions, and a gate needs",
            id="zero, then a gate",
        ),
    ],
)
def test_two_cuts_are_refused(
    earlier: HeadRemap, later: HeadRemap, error: type[ModelError | UsageError], fact: str
) -> None:
    with pytest.raises(error, match=fact):
        twice(earlier, later)


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        pytest.param(sliced(9, 8, 2, 5), sliced(3, 2, 0), sliced(9, 5, 8), id="slice, then slice"),
        pytest.param(
            zeroed(6, 0, 4),
            zeroed(6, 0, mode="mask", options={"floor": -1e4}),
            zeroed(6, 0, mode="mask", options={"floor": -1e4}),
            id="zero, then mask, which removes the zeroed units too",
        ),
        pytest.param(
            sliced(9, 8, 2, 5),
            zeroed(3, 1),
            sliced(9, 8, 2, 5, mode="zero", kept=(2,)),
            id="slice, then zero: the positions of the slice, one kept",
        ),
        pytest.param(
            zeroed(6, 0, 4),
            sliced(6, 4, 3),
            sliced(6, 4, 3, mode="zero", kept=(4,)),
            id="zero, then slice: keeps a removed unit",
        ),
        pytest.param(
            zeroed(6, 0, 4), sliced(6, 4, 0), sliced(6, 4, 0), id="zero, then slice: of kept units"
        ),
        pytest.param(
            zeroed(6, 0, 4), zeroed(6, 0, 1), zeroed(6, 0), id="zero, then zero: kept in both"
        ),
        pytest.param(
            sliced(9, 8, 2), zeroed(2, 0, 1), sliced(9, 8, 2), id="slice, then keep everything"
        ),
        pytest.param(
            zeroed(6, 0, 4),
            sliced(6, *range(6)),
            zeroed(6, 0, 4),
            id="zero, then keep everything",
        ),
        pytest.param(
            sliced(9, 8, 2, 5, options={"probabilities": "absolute"}),
            sliced(3, 1),
            sliced(9, 2, options={"probabilities": "absolute"}),
            id="the earlier option",
        ),
        pytest.param(
            sliced(9, 8, 2, 5, options={"probabilities": "absolute"}),
            sliced(3, 1, options={"probabilities": "renormalized", "gate": 1}),
            sliced(9, 2, options={"probabilities": "renormalized", "gate": 1}),
            id="the later option",
        ),
        pytest.param(
            zeroed(6, 0, 4, mode="mask", options={"floor": -5.0}),
            sliced(6, 4, 3, options={"floor": 1.0}),
            sliced(6, 4, 3, mode="mask", kept=(4,), options={"floor": -5.0}),
            id="the floor of the removed units with a position",
        ),
        pytest.param(
            zeroed(6, 0, 4, mode="mask", options={"floor": -5.0}),
            sliced(6, 4, 0),
            sliced(6, 4, 0),
            id="no floor without such units",
        ),
        pytest.param(
            sliced(9, 8, 2, 5),
            zeroed(3, 0, 1, 2, mode="gate", options={"gate": "top:1", "floor": -1e4}),
            sliced(9, 8, 2, 5, mode="gate", options={"gate": "top:1", "floor": -1e4}),
            id="slice, then a gate",
        ),
        pytest.param(
            sliced(9, 8, 2, 5, axis=1, activation="softmax"),
            sliced(3, 1, axis=2, part=(4, 5), activation="linear", output="scores"),
            sliced(9, 2, axis=2, part=(4, 5), activation="linear", output="scores"),
            id="axis, part and output of the later cut",
        ),
        pytest.param(
            sliced(9, 8, 2, 5, logits="z"),
            sliced(3, 1, logits="z__1"),
            sliced(9, 2, logits="z__1"),
            id="logits of the later cut",
        ),
        pytest.param(
            sliced(9, 8, 2, 5, logits="z"),
            sliced(3, 1),
            sliced(9, 2),
            id="no logits of the earlier cut",
        ),
    ],
)
def test_two_cuts(earlier: HeadRemap, later: HeadRemap, expected: HeadRemap) -> None:
    assert twice(earlier, later) == expected


@pytest.mark.parametrize(
    ("earlier", "later", "new_to_old", "groups"),
    [
        pytest.param(MERGED, sliced(3, 1, 0), ((1, 4), 0), {"birds": (1, 4)}, id="a group stays"),
        pytest.param(MERGED, sliced(3, 2), (3,), None, id="a group is removed"),
        pytest.param(
            MERGED,
            sliced(
                3, 0, 1, 2, new_units=2, new_to_old=(0, (1, 2)), options={"merge": {"b": (1, 2)}}
            ),
            (0, (1, 3, 4)),
            {"b": (1, 3, 4)},
            id="a group includes another",
        ),
        pytest.param(
            MERGED,
            sliced(
                3, 0, 1, 2, new_units=2, new_to_old=(1, (0, 2)), options={"merge": {"b": (0, 2)}}
            ),
            ((1, 4), (0, 3)),
            {"birds": (1, 4), "b": (0, 3)},
            id="two groups",
        ),
        pytest.param(
            SLICE,
            sliced(3, 0, 1, new_units=1, new_to_old=((0, 1),), options={"merge": {"b": (0, 1)}}),
            ((0, 4),),
            {"b": (0, 4)},
            id="members are ascending in the original",
        ),
    ],
)
def test_merged_groups_of_two_cuts(
    earlier: HeadRemap, later: HeadRemap, new_to_old: object, groups: object
) -> None:
    result = twice(earlier, later)
    assert result.new_to_old == new_to_old
    assert result.options["merge"] == groups


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        pytest.param(("a", "b", "c"), ("x", "y"), ("x", "y"), id="of the later cut"),
        pytest.param(("a", "b", "c"), None, ("c", "a"), id="of the earlier cut"),
        pytest.param(None, ("x", "y"), ("x", "y"), id="first given later"),
        pytest.param(None, None, None, id="none"),
    ],
)
def test_labels_of_two_cuts(
    earlier: tuple[str, ...] | None, later: tuple[str, ...] | None, expected: object
) -> None:
    result = twice(sliced(9, 8, 2, 5, labels=earlier), sliced(3, 2, 0, labels=later))
    assert result.labels == expected


def test_a_merged_unit_without_a_label_joins_those_of_its_members() -> None:
    result = twice(
        sliced(9, 8, 2, 5, labels=("a", "b", "c")),
        sliced(3, 0, 1, 2, new_units=2, new_to_old=(1, (0, 2))),
    )
    assert result.labels == ("b", "a+c")


def test_original_parent_and_heads_of_three_cuts() -> None:
    other = replace(MERGED, name="other")
    earlier = Remap(FILE, None, (SLICE, other))
    later = Remap.of_cut(BETWEEN, [sliced(3, 1), replace(MERGED, name="new")], earlier)
    assert (later.original, later.parent) == (FILE, BETWEEN)
    assert [head.name for head in later.heads] == ["probs", "other", "new"]
    assert later.of("other") == other
    assert later.of("probs").kept == (0,)
    again = Remap.of_cut(Origin("tiny.onnx", None), [sliced(1, 0)], later)
    assert (again.original, again.parent) == (FILE, Origin("tiny.onnx", None))
    assert again == compose(later, Remap(Origin("tiny.onnx", None), None, (sliced(1, 0),)))


# --- properties ---------------------------------------------------------------------------------


@st.composite
def heads(draw: st.DrawFn, old_units: int | None = None) -> HeadRemap:
    """Any cut of a head: slice in any order, zero, or slice with merged units."""
    old = draw(st.integers(1, 12)) if old_units is None else old_units
    chosen = draw(st.permutations(range(old)))[: draw(st.integers(1, old))]
    if draw(st.booleans()):
        return zeroed(old, *sorted(chosen))
    units: list[int | tuple[int, ...]] = list(chosen)
    if len(chosen) > 1 and draw(st.booleans()):
        units = [*chosen[:-2], tuple(sorted(chosen[-2:]))]
    labels = tuple(f"unit {unit}" for unit in units)
    return sliced(old, *chosen, new_units=len(units), new_to_old=tuple(units), labels=labels)


@given(heads())
def test_new_to_original_and_back(head: HeadRemap) -> None:
    remap = one(head)
    new = np.arange(head.new_units)
    np.testing.assert_array_equal(remap.to_new(remap.to_original(new)), new)


@given(heads())
def test_to_new_agrees_with_new_to_old(head: HeadRemap) -> None:
    result = one(head).to_new(range(head.old_units))
    for unit, new in enumerate(result.tolist()):
        all_units = [old if isinstance(old, tuple) else (old,) for old in head.new_to_old]
        found = [i for i, units in enumerate(all_units) if unit in units]
        assert found == ([new] if new >= 0 else [])


@given(heads(), st.integers(1, 3))
def test_expand_then_take_returns_the_values(head: HeadRemap, rows: int) -> None:
    values = np.arange(1.0, rows * head.new_units + 1).reshape(rows, head.new_units)
    wide = one(head).expand(values)
    assert wide.shape == (rows, head.old_units)
    np.testing.assert_array_equal(wide[:, one(head).to_original(range(head.new_units))], values)
    assert wide.sum() == values.sum()


@given(st.data())
def test_two_cuts_equal_one_table_after_the_other(data: st.DataObject) -> None:
    earlier = data.draw(heads())
    later = data.draw(heads(earlier.new_units))
    survivors = {earlier.new_to_old[unit] for unit in later.kept}
    flat = {unit for old in survivors for unit in (old if isinstance(old, tuple) else [old])}
    if not flat.intersection(earlier.kept):
        with pytest.raises(UsageError, match="were removed by an earlier cut"):
            twice(earlier, later)
        return
    both = twice(earlier, later)
    new = np.arange(later.new_units)
    unmerged = [not isinstance(old, tuple) for old in both.new_to_old]
    step = one(earlier).to_original(one(later).to_original(new))
    np.testing.assert_array_equal(one(both).to_original(new)[unmerged], step[unmerged])
    old = np.arange(earlier.old_units)
    between = one(earlier).to_new(old)
    expected = np.where(between < 0, -1, one(later).to_new(np.maximum(between, 0)))
    np.testing.assert_array_equal(one(both).to_new(old), expected)
    kept = {unit for unit in earlier.kept if int(between[unit]) in later.kept}
    assert set(both.kept) == kept
    assert Remap.from_json(one(both).to_json()) == one(both)


@given(st.data())
def test_combining_three_cuts_is_associative(data: st.DataObject) -> None:
    first = data.draw(heads())
    second = data.draw(heads(first.new_units))
    third = data.draw(heads(second.new_units))
    with suppress(UsageError):  # both or neither, see the test above
        left = twice(twice(first, second), third)
        right = twice(first, twice(second, third))
        assert left.new_to_old == right.new_to_old
        assert left.kept == right.kept


def test_a_vocabulary_that_was_cut_on_both_sides_is_written() -> None:
    tokens = {"inputs": ("ids",), "keep_ids": False, "unknown": 1}
    remap = Remap(FILE, None, (replace(SLICE, options={"vocabulary": tokens}),))
    assert Remap.from_json(remap.to_json()) == remap
    with pytest.raises(ModelError, match="the option vocabulary is"):
        replace(SLICE, options={"vocabulary": {"inputs": ["ids"]}})
    with pytest.raises(ModelError, match="the option vocabulary is"):
        replace(SLICE, options={"vocabulary": "both"})


def test_ranges_that_run_backwards_do_not_make_room_for_endless_ones() -> None:
    with pytest.raises(ValueError, match="a range that ends before it starts"):
        units_of_text("0-9999999999,9999999999-0", 10)
