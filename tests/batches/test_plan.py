"""Plans: which cells they have, with which options, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter.batches.plan import Plan, read_plan
from exporter.errors import ExporterError, UsageError
from exporter.planning.option_values import merged

DOCUMENT = Path(__file__).parents[2] / "docs" / "batch.md"
FILES = ("a.onnx", "b.onnx", "zoo/c.onnx", "zoo/d.tflite", "zoo/a.onnx", "zoo/deep/c.onnx")
TEXTS = {
    "models.txt": "# two models\na.onnx\n\nzoo/*.tflite\n",
    "customers.csv": 'customer,keep,max-size\nacme,0-3,20kB\nbolt,"owl,hen",\n',
    "units.csv": "name,label\nacme,owl\nbolt,3\nacme,=hen\n",
    "options.tsv": "name\tkeep\tmode\nx\t0,1\tmask\n",
    "semicolons.csv": "name;keep\ny;0,1\n",
    "lists/one.txt": "owl\n",
    "lists/two.txt": "hen\n",
    "empty.csv": "name,keep\n",
    "header.csv": "name\n",
    "ragged.csv": "name,keep\na,0,1\n",
    "twice.csv": "name,keep\na,0\na,1\n",
    "unknown.csv": "name,kep\na,0\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plans")
    for name in (*FILES, *TEXTS):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(TEXTS.get(name, ""), "utf-8")
    return root


def plan_of(text: str, folder: Path, **overrides: Any) -> Plan:
    (folder / "plan.toml").write_text(text, "utf-8")
    return read_plan(folder / "plan.toml", overrides)


ONE = '[models]\nnet = "a.onnx"\n[selections]\nx = "0"\n'

REFUSED = {
    "not toml": ("models = ", "not TOML"),
    "nothing": ("", "no models"),
    "unknown table": ('[model]\nnet = "a.onnx"', "'models'"),
    "unknown option": (f"[options]\nsampels = 3\n{ONE}", "'samples'"),
    "unknown key of a matrix": (f"{ONE}[[matrix]]\nmodel = 'net'", "no option"),
    "models are no table": ('models = "a.onnx"', "table"),
    "no selections": ('[models]\nnet = "a.onnx"\n[[matrix]]\n', "no selections"),
    "a model without a path": ("[models]\nnet = {mode = 'mask'}\n[selections]\nx='0'", "no path"),
    "a path that is a number": ("[models]\nnet = 3\n[selections]\nx='0'", "path"),
    "no file matches": ('[models]\nnet = "*.keras"\n[selections]\nx="0"', "no file matches"),
    "a name that is no folder": ('[models]\n"a/b" = "a.onnx"\n[selections]\nx="0"', "folder"),
    "names that differ in case": (f'{ONE}X = "1"', "two selections"),
    "unknown model of a matrix": (f"{ONE}[[matrix]]\nmodels = ['nte']", "'net'"),
    "unknown selection of a cell": (f"{ONE}[[cell]]\nmodel='net'\nselection='y'", "'y'"),
    "a cell without a model": ("[[cell]]\nname='c'\nkeep='0'", "no model"),
    "a cell without a name": ("[[cell]]\nmodel='a.onnx'\nkeep='0'", "no name"),
    "a cell without units": ("[[cell]]\nmodel='a.onnx'\nname='c'", "no units"),
    "two cells of one name": (f"{ONE}[[matrix]]\n[[matrix]]\nmode='mask'", "two cells"),
    "an axis that is no list": (f"{ONE}[[matrix]]\nprecisions='int8'", "list"),
    "an empty axis": (f"{ONE}[[matrix]]\nformats=[]", "list"),
    "an unknown value of an axis": (f"{ONE}[[matrix]]\nformats=['onx']", "onnx"),
    "each that is no table": (f"{ONE}[[matrix]]\neach=['mode']", "table"),
    "options that exclude each other": (
        f"{ONE}[options]\nmode='mask'\nkeep-order=true",
        "the cell net/x",
    ),
    "a table of selections without lines": (
        '[models]\nnet="a.onnx"\n[selections]\nt={csv="empty.csv"}',
        "no selections",
    ),
    "one with one column": ('[models]\nn="a.onnx"\n[selections]\nt={csv="header.csv"}', "columns"),
    "one with a long line": ('[models]\nn="a.onnx"\n[selections]\nt={csv="ragged.csv"}', "line 2"),
    "one with a name twice": ('[models]\nn="a.onnx"\n[selections]\nt={csv="twice.csv"}', "line 3"),
    "one with an unknown column": (
        '[models]\nn="a.onnx"\n[selections]\nt={csv="unknown.csv"}',
        "'keep'",
    ),
    "no such table": ('[models]\nn="a.onnx"\n[selections]\nt={csv="none.csv"}', "none.csv"),
    "an output that is no text": (f"output = 3\n{ONE}", "output"),
}

CELLS = {
    "all with all": (
        '[models]\nn="a.onnx"\nm="b.onnx"\n[selections]\nx="0"\ny="1"',
        ["n/x", "n/y", "m/x", "m/y"],
    ),
    "axes at the top": (
        f"precisions=['fp32','int8']\nformats=['onnx']\n{ONE}",
        ["net/x.onnx.fp32", "net/x.onnx.int8"],
    ),
    "any option is an axis": (
        f"{ONE}[matrix]\neach={{mode=['slice','mask'], keep-order=[false]}}",
        ["net/x.slice.false", "net/x.mask.false"],
    ),
    "lists in an axis": (
        f"{ONE}[matrix]\nformats=['onnx','c-array,tflite']",
        ["net/x.onnx", "net/x.c-array_tflite"],
    ),
    "a glob": ('[models]\nz="*.onnx"\n[selections]\nx="0"', ["a/x", "b/x"]),
    "equal stems get folders": (
        '[models]\nz=["zoo/**/*.onnx"]\n[selections]\nx="0"',
        ["a/x", "zoo-c.onnx/x", "zoo-deep-c.onnx/x"],
    ),
    "equal stems get suffixes": (
        '[models]\nz=["zoo/a.onnx", "zoo/d.tflite"]\n[selections]\nx="0"',
        ["a/x", "d/x"],
    ),
    "a list of files": ('[models]\nz="@models.txt"\n[selections]\nx="0"', ["a/x", "d/x"]),
    "a row for each customer": (
        '[models]\nn="a.onnx"\n[selections]\nall={csv="customers.csv"}',
        ["n/acme", "n/bolt"],
    ),
    "a glob of lists": (
        '[models]\nn="a.onnx"\n[selections]\nall={files="lists/*.txt"}',
        ["n/one", "n/two"],
    ),
    "a part of all": (
        (
            '[models]\nn="a.onnx"\nm="b.onnx"\n[selections]\nxa="0"\nxb="1"\ny="2"\n'
            '[[matrix]]\nmodels="n"\nselections=["x*"]\nexclude=["n/xb"]\n'
            '[[matrix]]\nmodels=["m"]\nselections=["y"]'
        ),
        ["n/xa", "m/y"],
    ),
    "groups by their key": (
        '[models]\nz="*.onnx"\nn="zoo/c.onnx"\n[selections]\nx="0"\n[[matrix]]\nmodels=["z"]',
        ["a/x", "b/x"],
    ),
    "own cells": (
        (
            f"{ONE}[[cell]]\nmodel='net'\nname='c'\nkeep='1'\n"
            "[[cell]]\nmodel='zoo/d.tflite'\nselection='x'\n"
        ),
        ["net/x", "net/c", "d/x"],
    ),
    "only own cells": ("[[cell]]\nmodel='a.onnx'\nname='c'\nkeep='1'", ["a/c"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_plan_cannot_say_is_refused(folder: Path, name: str) -> None:
    text, part = REFUSED[name]
    with pytest.raises(UsageError) as refused:
        plan_of(text, folder)
    assert part in str(refused.value)


@pytest.mark.parametrize("name", CELLS)
def test_cells(folder: Path, name: str) -> None:
    text, expected = CELLS[name]
    assert [cell.name for cell in plan_of(text, folder).cells] == expected


def options_of_cell(plan: Plan, name: str) -> dict[str, Any]:
    (cell,) = (cell for cell in plan.cells if cell.name == name)
    return merged(cell.layers)


def test_the_more_special_option_wins(folder: Path) -> None:
    text = """
    options = {samples = 1, mode = "zero", seed = 1, opset = 13, threads = 1, batch = 2}
    models = {n = {path = "a.onnx", seed = 3, opset = 14, threads = 3}}
    selections = {x = {keep = "0", opset = 15, threads = 4}}
    [matrix]
    mode = "mask"
    seed = 2
    each = {threads = [5]}
    """
    found = options_of_cell(plan_of(text, folder, samples=9), "n/x.5")
    expected = {"samples": 9, "mode": "mask", "seed": 3, "opset": 15, "threads": 5, "batch": 2}
    assert found == {"keep": "0", **expected}


def test_tables_of_customers(folder: Path) -> None:
    text = (
        '[models]\nn="a.onnx"\n[selections]\na={csv="customers.csv", max-size="1MB", seed=4}\n'
        'c={csv="options.tsv"}\nd={csv="semicolons.csv"}'
    )
    plan = plan_of(text, folder)
    assert options_of_cell(plan, "n/acme") == {"keep": "0-3", "max_size_bytes": 20_000, "seed": 4}
    expected = {"keep": "owl,hen", "max_size_bytes": 1_000_000, "seed": 4}
    assert options_of_cell(plan, "n/bolt") == expected
    assert options_of_cell(plan, "n/x") == {"keep": "0,1", "mode": "mask"}
    assert options_of_cell(plan, "n/y") == {"keep": "0,1"}


def test_a_row_for_each_unit(folder: Path) -> None:
    plan = plan_of('[models]\nn="a.onnx"\n[selections]\na={csv="units.csv"}', folder)
    assert options_of_cell(plan, "n/acme")["keep"] == ("=owl", "==hen")
    assert options_of_cell(plan, "n/bolt")["keep"] == (3,)


def test_a_mapping_is_a_plan() -> None:
    plan = read_plan({"models": {"n": "x.onnx"}, "selections": {"a": [0, "owl"]}}, {})
    assert [cell.name for cell in plan.cells] == ["n/a"]
    assert plan.cells[0].records()[0].keep == (0, "owl")


def test_an_error_of_a_record_names_the_cell() -> None:
    with pytest.raises(ExporterError, match="the cell n/a: samples is 0"):
        read_plan({"models": {"n": "x.onnx"}, "selections": {"a": "0"}}, {"samples": 0})


def test_the_plan_of_the_document(tmp_path: Path) -> None:
    text = DOCUMENT.read_text("utf-8").partition("```toml\n")[2].partition("```")[0]
    files = {
        **dict.fromkeys(("models/one.onnx", "digits.keras", "birds.tflite", "other.onnx"), ""),
        "models.txt": "other.onnx\n",
        "selections/first.txt": "owl\n",
        "customers.csv": "name,keep\nacme,0\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    plan = plan_of(text, tmp_path)
    assert plan.output == "results"
    of_formats = [f"{f}.{p}" for f in ("onnx", "tflite") for p in ("fp32", "int8")]
    assert [cell.name for cell in plan.cells] == [
        *(f"digits/low.{each}" for each in of_formats if not each.startswith("onnx")),
        *(f"digits/acme.{each}" for each in of_formats),
        *(f"one/{selection}.{each}" for selection in ("low", "acme") for each in of_formats),
        *(f"birds/{s}.{p}" for s in ("pair", "others") for p in ("renormalized", "absolute")),
        "digits/special",
    ]
