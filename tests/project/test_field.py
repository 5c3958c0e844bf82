"""The harness of `make field` finds right and wrong cuts, and its page follows its rows."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

PROJECT = Path(__file__).parents[2]
FIELD = PROJECT / "tools" / "field"
UNITS, KEPT = 5, [0, 2, 4]
KERNEL = np.random.default_rng(3).normal(size=(3, UNITS)).astype(np.float32)


def tool(name: str) -> ModuleType:
    """A script of tools/field as a module."""
    spec = importlib.util.spec_from_file_location(f"field_{name}", FIELD / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


def write(path: Path, kernel: Any, *, softmax: bool = True) -> Path:
    """A matrix product, and a softmax over its columns."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z" if softmax else "y"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", kernel.shape[1]])],
        [numpy_helper.from_array(kernel, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def verdict(folder: Path, cut: Path, table: list[int], units: int = UNITS) -> str:
    """The problem that check.py reports."""
    row, remap = folder / "row.json", folder / "remap.json"
    row.write_text(json.dumps({"units": units, "kept": KEPT}))
    remap.write_text(json.dumps({"heads": [{"new_to_old": table}]}))
    arguments = [FIELD / "check.py", row, folder / "net.onnx", cut, remap]
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    problem: str = json.loads(done.stdout)["problem"]
    return problem


@pytest.mark.parametrize(
    ("columns", "table", "softmax", "problem"),
    [
        ([0, 2, 3], KEPT, True, "differs by"),
        ([0, 2, 4], [0, 2, 3], True, "the remap lists"),
        ([0, 2, 4], KEPT, False, "differs by"),
        ([0, 2], KEPT, True, "shape"),
        ([0, 1, 2, 3, 4], KEPT, True, "no output became narrower"),
        ([0, 2, 4], KEPT, True, ""),
    ],
    ids=["wrong unit", "wrong table", "no softmax", "too few", "not cut", "right"],
)
def test_a_cut_is_checked_without_the_program(
    tmp_path: Path, columns: list[int], table: list[int], softmax: bool, problem: str
) -> None:
    write(tmp_path / "net.onnx", KERNEL)
    cut = write(tmp_path / "cut.onnx", KERNEL[:, columns], softmax=softmax)
    found = verdict(tmp_path, cut, table)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_the_checker_does_not_import_the_program() -> None:
    tree = ast.parse((FIELD / "check.py").read_text("utf-8"))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names
    assert not [name for name in names if name.split(".")[0] == "exporter"]


def test_one_file_is_cut_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = tool("cut")
    folder = tmp_path / "files" / "numpy"
    folder.mkdir(parents=True)
    write(folder / "net.onnx", KERNEL)
    row = {
        "producer": "onnx",
        "version": "1",
        "file": "net.onnx",
        "head": "softmax",
        "units": UNITS,
    }
    (folder / "files.jsonl").write_text(json.dumps(row) + "\n")
    target = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["cut.py", str(tmp_path / "files"), str(target)])
    cut.main()
    (result,) = json.loads(target.read_text())
    assert result["outcome"] == "cut and proved"
    assert result["kept"] == KEPT
    assert result["error"] < 1e-6
    assert result["problem"] == ""


def test_the_page_follows_its_rows() -> None:
    page = tool("page")
    results = json.loads((FIELD / "results.json").read_text("utf-8"))
    assert page.page(results) == (PROJECT / "docs" / "compatibility.md").read_text("utf-8")
    assert not [row["file"] for row in results["rows"] if row["outcome"] == "WRONG"]
    for row in results["rows"]:
        assert row["outcome"].startswith("cut") or row.get("sentence") or row.get("problem"), row


@pytest.mark.parametrize(
    "row",
    tomllib.loads((FIELD / "environments.toml").read_text("utf-8"))["environment"],
    ids=lambda row: row["name"],
)
def test_an_environment_has_a_builder_and_exact_versions(row: dict[str, Any]) -> None:
    assert (FIELD / "builders" / row["builder"]).is_file()
    versions = tool("build").requirements_of(row).read_text("utf-8").split("\n")
    for line in filter(None, versions):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line), line
