"""What is sent to devices runs there: old Python, NumPy, one runtime, nothing else."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from exporter.devices.archive import archive, bootstrap

OLDEST = (3, 9)
IMPORT_ALL = """
import json, sys, zipfile
sys.path.insert(0, sys.argv[1])
for name in zipfile.ZipFile(sys.argv[1]).namelist():
    if not name.startswith("__"):
        __import__(name[:-3].replace("/", ".").replace(".__init__", ""))
print(json.dumps({n: getattr(m, "__file__", "") or "" for n, m in sys.modules.items()}))
"""


def sources() -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(archive())) as packed:
        return {name: packed.read(name).decode() for name in packed.namelist()}


def test_sources_are_of_the_oldest_python() -> None:
    for name, source in {**sources(), "bootstrap": bootstrap().decode()}.items():
        ast.parse(source, name, feature_version=OLDEST)
        tree = ast.parse(source)
        later = {each.arg for each in ast.walk(tree) if isinstance(each, ast.keyword)}
        assert "strict" not in later, name  # zip(strict=) is of 3.10


def test_the_archive_needs_nothing_else_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "runner.zip"
    path.write_bytes(archive())
    done = subprocess.run(
        [sys.executable, "-I", "-c", IMPORT_ALL, str(path)], capture_output=True, check=True
    )
    modules = json.loads(done.stdout)
    ours = {name: file for name, file in modules.items() if name.split(".")[0] == "exporter"}
    assert len(ours) >= 10
    assert all(file.startswith(str(path)) for file in ours.values())
    assert not {"onnx", "click", "psutil", "ai_edge_litert", "filelock"} & modules.keys()


def test_the_bootstrap_imports_the_standard_library_only() -> None:
    tree = ast.parse(bootstrap())
    names = {
        alias.name
        for each in ast.walk(tree)
        if isinstance(each, ast.Import)
        for alias in each.names
    }
    names |= {each.module or "" for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_equal_archives_have_equal_bytes() -> None:
    first = archive()
    archive.cache_clear()
    assert archive() == first
    assert len(first) < 40_000
