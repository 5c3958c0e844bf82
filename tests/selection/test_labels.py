"""Labels from files: refused and accepted files."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.selection.labels import read_labels


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        pytest.param("a.txt", b"", "contains no label", id="empty"),
        pytest.param("a.txt", b"\n\n", "contains no label", id="nothing but blank lines"),
        pytest.param("a.txt", b"caf\xe9\n", "byte 3", id="latin-1"),
        pytest.param("a.txt", "cat\n".encode("utf-16"), "not UTF-8", id="utf-16"),
        pytest.param("a.json", b"", "not valid JSON", id="json: empty"),
        pytest.param("a.json", b"[" * 100_000, "not valid JSON", id="json: too deep"),
        pytest.param("a.json", b'"cat"', "neither a list", id="json: a string"),
        pytest.param("a.json", b"[1, 2]", "neither a list", id="json: numbers"),
        pytest.param("a.json", b"[]", "contains no label", id="json: empty list"),
        pytest.param("a.json", b"{}", "contains no label", id="json: empty object"),
        pytest.param("a.json", b'{"cat": 0}', "neither a list", id="json: label to index"),
        pytest.param("a.json", b'{"0": ["n01", "a"]}', "neither a list", id="json: pairs"),
        pytest.param("a.json", b'{"0": {"0": "a"}}', "neither a list", id="json: nested"),
        pytest.param("a.json", b'[["0", "a"]]', "neither a list", id="json: list of pairs"),
        pytest.param(
            "a.json", b'{"0": "a", "0": "b"}', "two labels for the index 0", id="json: key twice"
        ),
        pytest.param("a.json", b'{"1": "a", "2": "b"}', "none for the index 0", id="json: from 1"),
        pytest.param("a.json", b'{"0": "a", "2": "b"}', "none for the index 1", id="json: gap"),
        pytest.param("a.json", b'{"cat": "a"}', "none for the index 0", id="json: no index"),
        pytest.param("a.csv", b"", "contains no label", id="csv: empty"),
        pytest.param("a.csv", b"label\n", "contains no label", id="csv: a header alone"),
        pytest.param("a.csv", b"id,label\n", "contains no label", id="csv: a wide header alone"),
        pytest.param("a.csv", b"0,cat\n1,dog\n", "none is named", id="csv: no header"),
        pytest.param("a.csv", b"id,mid\n0,x\n", "none is named", id="csv: no column of labels"),
        pytest.param("a.csv", b"name,class\na,b\n", "name, class", id="csv: two columns of labels"),
        pytest.param("a.csv", b"id,index,name\n0,0,a\n", "id, index", id="csv: two indices"),
        pytest.param("a.csv", b"cat\ntench, Tinca\n", "a.csv:2: 2 columns", id="csv: bare comma"),
        pytest.param("a.csv", b"id,name\n0\n", "a.csv:2: 1 columns", id="csv: short row"),
        pytest.param("a.csv", b'a\n"b" c\n', "a.csv:2: not valid CSV", id="csv: stray quote"),
        pytest.param("a.csv", b"id;name\n0;cat\n", "semicolons", id="csv: semicolons"),
        pytest.param("a.csv", b"id\tname\n0\tcat\n", "semicolons or tabs", id="csv: tabs"),
        pytest.param("a.csv", b"id,name\n0,a\n0,b\n", "two labels", id="csv: index twice"),
        pytest.param("a.csv", b"id,name\n1,a\n2,b\n", "index 0", id="csv: from 1"),
    ],
)
def test_refused(tmp_path: Path, name: str, content: bytes, fact: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_labels(path)
    assert fact in caught.value.message
    assert name in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("path", "fact"),
    [
        pytest.param("nowhere.txt", "cannot read 'nowhere.txt': No such file", id="missing"),
        pytest.param(".", "cannot read '.': Is a directory", id="a folder"),
        pytest.param("a\0b", "cannot read 'a\\x00b': ", id="invalid path"),
    ],
)
def test_not_a_file(path: str, fact: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_labels(path)
    assert caught.value.message.startswith(fact)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("a.txt", "cat\ndog\n", ["cat", "dog"], id="a line each"),
        pytest.param("a.txt", "cat\ndog", ["cat", "dog"], id="no newline at the end"),
        pytest.param("a.txt", "cat\ndog\n\n \n", ["cat", "dog"], id="blank lines at the end"),
        pytest.param("a.txt", "cat\n\ndog\n", ["cat", "", "dog"], id="a unit without a label"),
        pytest.param("a.txt", "\ufeffcat\r\n dog \r\n", ["cat", "dog"], id="Windows"),
        pytest.param("a.txt", "tench, Tinca\n'x'\n", ["tench, Tinca", "'x'"], id="commas, quotes"),
        pytest.param("a.txt", "a\x0cb\u2028c\nd\n", ["a\x0cb\u2028c", "d"], id="odd separators"),
        pytest.param("labels", "7\n8\n", ["7", "8"], id="no suffix"),
        pytest.param("a.JSON", '["cat", " dog, x"]', ["cat", " dog, x"], id="json: list"),
        pytest.param("a.json", '{"1": "dog", "0": "cat"}', ["cat", "dog"], id="json: object"),
        pytest.param("a.csv", "cat\n\ndog\n\n", ["cat", "", "dog"], id="csv: no header"),
        pytest.param("a.csv", "Label\ncat\ndog\n", ["cat", "dog"], id="csv: header"),
        pytest.param("a.csv", "a;b\nc\n", ["a;b", "c"], id="csv: a semicolon in a label"),
        pytest.param("a.csv", '"tench, T."\n"a ""b"""\n', ["tench, T.", 'a "b"'], id="csv: quotes"),
        pytest.param("a.csv", "mid,Name\n/m/1,cat\n\n/m/2,dog\n", ["cat", "dog"], id="csv: wide"),
        pytest.param(
            "a.csv",
            "index,mid,display_name\n1,/m/1,Speech\n0,/m/0,\n",
            ["", "Speech"],
            id="csv: the index orders the rows",
        ),
    ],
)
def test_read(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert read_labels(path) == tuple(expected)
    assert read_labels(str(path)) == tuple(expected)


def test_real_labels(zoo: Path) -> None:
    labels = read_labels(zoo / "labels" / "imagenet_1001.txt")
    assert len(labels) == 1001
    assert (labels[0], labels[89]) == ("background", "macaw")
    assert labels.count("crane") == 2
