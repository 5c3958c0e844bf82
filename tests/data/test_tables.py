"""CSV and Parquet tables: rows are samples, columns fill the inputs in their order or by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from exporter.data import table_file, tables
from exporter.data.options import DataOptions
from exporter.data.read import read_samples
from exporter.data.stream import Stream, read_blocks
from exporter.errors import UsageError
from exporter.graph import Graph, Shape, Tensor
from exporter.graph.normalization import parse_normalization

CSV = "age,height,label\n1,2.5,cat\n3,-4e1,dog\n5,6,cat\n"
VALUES = [[1, 2.5], [3, -40], [5, 6]]


def graph(shapes: Mapping[str, Shape | None], dtype: str = "float32") -> Graph:
    tensors = {name: Tensor(name, shape, dtype) for name, shape in shapes.items()}
    return Graph((), tensors, tuple(shapes), ())


ONE = graph({"x": (None, 2)})


def write(folder: Path, text: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


FORMS = {
    "commas": CSV,
    "a byte order mark and Windows line ends": "\ufeff" + CSV.replace("\n", "\r\n"),
    "semicolons": CSV.replace(",", ";"),
    "tabs": CSV.replace(",", "\t"),
    "quotes": CSV.replace("cat", '"cat"').replace("3", '"3"'),
    "spaces around labels": CSV.replace("cat", " cat "),
    "another order": "label,age,height\ncat,1,2.5\ndog,3,-40\ncat,5,6\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_csv(tmp_path: Path, name: str) -> None:
    samples = read_samples(write(tmp_path, FORMS[name]), ONE)
    assert np.array_equal(samples.values["x"], np.array(VALUES, np.float32)[:, None])
    assert samples.values["x"].dtype == np.float32
    assert samples.labels == ["cat", "dog", "cat"]
    assert (samples.source, samples.files) == ("data.csv", (tmp_path / "data.csv",))


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    table = pa.table({"age": [1, 3, 5], "height": [2.5, -40.0, 6.0], "class": [2, 0, 2]})
    parquet.write_table(table, path)
    samples = read_samples(path, ONE, 2)
    assert np.array_equal(samples.values["x"], np.array(VALUES[:2], np.float32)[:, None])
    assert samples.labels == [2, 0]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        pytest.param(pa.array([2.0, 0.0]), [2, 0], id="whole floats"),
        pytest.param(pa.array(["a", "b"]).dictionary_encode(), ["a", "b"], id="categories"),
        pytest.param(pa.array([True, False]), [1, 0], id="booleans"),
    ],
)
def test_labels_of_parquet(tmp_path: Path, cells: Any, expected: list[Any]) -> None:
    parquet.write_table(pa.table({"x": [1.0, 2.0], "y": cells}), tmp_path / "a.parquet")
    options = DataOptions(label_column="y")
    model = graph({"x": (None, 1)})
    assert read_samples(tmp_path / "a.parquet", model, options=options).labels == expected


@pytest.mark.parametrize("fixed", [True, False])
def test_a_column_of_lists_fills_an_input(tmp_path: Path, *, fixed: bool) -> None:
    kind = pa.list_(pa.float32(), 4) if fixed else pa.list_(pa.float32())
    cells = pa.array([[1, 2, 3, 4], [5, 6, 7, 8]], kind)
    parquet.write_table(pa.table({"image": cells, "n": [7, 9]}), tmp_path / "a.parquet")
    model = graph({"n": (None, 1), "image": (1, 2, 2)})
    samples = read_samples(tmp_path / "a.parquet", model)
    assert np.array_equal(samples.values["image"][1], [[[5, 6], [7, 8]]])
    assert np.array_equal(samples.values["n"], [[[7]], [[9]]])


SHAPES: dict[str, tuple[Shape | None, tuple[int, ...]]] = {
    "batch": ((None, 2), (3, 1, 2)),
    "fixed batch": ((1, 2), (3, 1, 2)),
    "open width": ((None, None), (3, 1, 2)),
    "unknown rank": (None, (3, 1, 2)),
    "two axes": ((None, 2, 1), (3, 1, 2, 1)),
    "a batch of two": ((2, 1), (3, 2, 1)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_rows_get_the_shape_of_the_input(tmp_path: Path, name: str) -> None:
    shape, expected = SHAPES[name]
    values = read_samples(write(tmp_path, CSV), graph({"x": shape})).values["x"]
    assert values.shape == expected
    assert values.reshape(3, 2).tolist() == VALUES


def test_several_inputs_take_columns_by_name(tmp_path: Path) -> None:
    model = graph({"a": (None, 2), "b": (None, 1)})
    path = write(tmp_path, "b,a_1,a_0,label\n1,2,3,x\n4,5,6,y\n")
    samples = read_samples(path, model)
    assert samples.values["a"].tolist() == [[[3, 2]], [[6, 5]]]
    assert samples.values["b"].tolist() == [[[1]], [[4]]]


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_whole_numbers(tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path, "a,b\n1,0\n0,1\n")
    values = read_samples(path, graph({"x": (None, 2)}, dtype)).values["x"]
    assert values.dtype == dtype
    assert values.tolist() == [[[1, 0]], [[0, 1]]]


def test_an_input_may_be_called_label(tmp_path: Path) -> None:
    samples = read_samples(write(tmp_path, "label\n1\n2\n"), graph({"label": (None, 1)}))
    assert samples.labels is None
    assert samples.values["label"].tolist() == [[[1]], [[2]]]


def test_large_tables_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, and no table is small enough for the memory."""
    rows = np.arange(600).reshape(300, 2)
    lines = "".join(f"{a},{b},{a % 7}\n" for a, b in rows)
    monkeypatch.setattr(tables, "read_blocks", lambda blocks: read_blocks(blocks, in_memory=0))
    monkeypatch.setattr(table_file, "BLOCK_BYTES", 500)
    monkeypatch.setattr(table_file, "_ROWS", 40)
    parquet.write_table(
        pa.table({"a": rows[:, 0], "b": rows[:, 1], "label": rows[:, 0] % 7}),
        tmp_path / "a.parquet",
    )
    for path in (write(tmp_path, "a,b,label\n" + lines), tmp_path / "a.parquet"):
        samples = read_samples(path, ONE)
        assert isinstance(samples.values["x"], Stream)
        for _ in range(2):
            assert np.array_equal([feed["x"][0] for feed in samples.feeds()], rows)
        assert [str(each) for each in samples.labels or ()] == [str(a % 7) for a in rows[:, 0]]
        assert read_samples(path, ONE, 7).count == 7


def test_a_range_that_does_not_fit_is_warned_of(tmp_path: Path) -> None:
    model = Graph((), ONE.tensors, ONE.inputs, (), normalization={"x": parse_normalization("0..1")})
    (warning,) = read_samples(write(tmp_path, CSV), model).warnings
    assert warning.startswith("input 'x' takes values 0 to 1, the samples are -40 to 6: 8 bits ")


# --- refused ------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Graph, str]] = {
    "text": (CSV.replace("-4e1", "tall"), ONE, "row 2, column 'height' contains 'tall', not a num"),
    "long text": ("a,b\n1," + "x" * 99, ONE, r"contains 'x{39}\.\.\., not a number"),
    "empty cell": (CSV.replace("2.5", ""), ONE, "row 1, column 'height' is empty"),
    "NaN": (CSV.replace("-4e1", "nan"), ONE, "row 2, column 'height' contains 'nan', not a finite"),
    "fraction": (CSV, graph({"x": (None, 2)}, "int32"), "row 1, column 'height' contains '2.5'"),
    "huge": ("a,b\n1,1e300\n", graph({"x": (None, 2)}, "int64"), "contains '1e300', not a whole"),
    "out of range": ("a,b\n1,300\n", graph({"x": (None, 2)}, "uint8"), "uint8 cannot represent"),
    "too few columns": (CSV, graph({"x": (None, 3)}), "has 2 feature columns, and input 'x' takes"),
    "too many columns": (CSV, graph({"x": (None, 1)}), r"the shape \[\?, 1\]"),
    "two open axes": (CSV, graph({"x": (None, None, None)}), "has 2 feature columns"),
    "no feature": ("label\ncat\n", ONE, "has 0 feature columns"),
    "one cell too few": (
        CSV + "7,8\n",
        ONE,
        "is not a readable table: .*Expected 3 columns, got 2",
    ),
    "no label": (CSV + "7,8,\n", ONE, "row 4, column 'label' is empty"),
    "several labels": ("a,label,class\n1,x,y\n", ONE, "several columns that may be labels"),
    "two columns of a name": ("a,a\n1,2\n", ONE, "has two columns 'a'"),
    "no header": ("1,2\n3,4\n", ONE, "has no header"),
    "no rows": ("a,b\n", ONE, "has no rows"),
    "nothing": ("", ONE, "has no rows"),
    "no column for an input": (CSV, graph({"a": (1, 1), "b": (1, 1)}), "no columns for input 'a'"),
    "a column without an input": (
        "a,b,c\n1,2,3\n",
        graph({"a": (1, 1), "b": (1, 1)}),
        "the column 'c' belongs to no input",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    text, model, message = REFUSED[name]
    with pytest.raises(UsageError, match=message) as error:
        read_samples(write(tmp_path, text), model)
    assert error.value.hint


REFUSED_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "a missing number": ({"a": [1.0, None], "b": [1, 2]}, "row 2, column 'a' is empty"),
    "lists of two lengths": (
        {"a": [[1.0], [1.0, 2.0]], "b": [1, 2]},
        "row 2, column 'a' has 2 val",
    ),
    "dates": ({"a": np.array(["2020-01-01"] * 2, "M8[D]"), "b": [1, 2]}, "row 1, column 'a'"),
    "text": ({"a": ["1", "one"], "b": [1, 2]}, "row 2, column 'a' contains 'one'"),
    "labels of lists": ({"a": [1, 2], "b": [1, 2], "label": [[1], [2]]}, "not a class name"),
    "fractions as labels": ({"a": [1, 2], "b": [1, 2], "label": [1.5, 2]}, "not a whole number"),
    "no rows": ({"a": [], "b": []}, "has no rows"),
}


@pytest.mark.parametrize("name", REFUSED_PARQUET)
def test_parquet_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    columns, message = REFUSED_PARQUET[name]
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=message) as error:
        read_samples(tmp_path / "a.parquet", ONE)
    assert error.value.hint


def test_damaged_and_missing_tables_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "PAR1 and no more", "a.parquet")
    with pytest.raises(UsageError, match="is not a readable table"):
        read_samples(tmp_path / "a.parquet", ONE)
    (tmp_path / "latin.csv").write_bytes(b"a,b\n\xe9,1\n")
    with pytest.raises(UsageError, match="is not a readable table"):
        read_samples(tmp_path / "latin.csv", ONE)
    with pytest.raises(UsageError, match="there is no file"):
        read_samples(tmp_path / "none.csv", ONE)
    with pytest.raises(UsageError, match="has no column 'kind'"):
        read_samples(write(tmp_path, CSV), ONE, options=DataOptions(label_column="kind"))
    np.save(tmp_path / "a.npy", np.ones((1, 2)))
    with pytest.raises(UsageError, match="--label-column is for a table"):
        read_samples(tmp_path / "a.npy", ONE, options=DataOptions(label_column="kind"))
