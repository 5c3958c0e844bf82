"""Build the files of every producer, each in an environment of its own.

Usage: `python build.py ENVIRONMENTS FILES [NAME ...]`. An environment is a folder of ENVIRONMENTS
with the exact versions of `requirements/field/NAME.txt`; its builder writes to `FILES/NAME`. An
environment whose files exist is not built again. What cannot be built is recorded in
`FILES/not_built.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
QUIET = ["-qq", "--disable-pip-version-check"]


def environments() -> list[dict[str, Any]]:
    """The rows of `environments.toml`, in the order in which they must be built."""
    rows: list[dict[str, Any]] = tomllib.loads((HERE / "environments.toml").read_text())[
        "environment"
    ]
    return rows


def requirements_of(row: Mapping[str, Any]) -> Path:
    """Several environments can have the same requirements."""
    return PROJECT / "requirements" / "field" / f"{row.get('requirements', row['name'])}.txt"


def interpreter(version: str) -> str:
    """The program of this version of Python: one that pyenv installed, else one on the path.

    Raises:
        FileNotFoundError: this machine does not have it.
    """
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob(f"versions/{version}.*/bin/python"))
    name = str(found[-1]) if found else shutil.which(f"python{version}")
    if name is None:
        raise FileNotFoundError(f"Python {version} is not on this machine")
    return name


def prepare(row: Mapping[str, Any], place: Path) -> Path:
    """Make the environment, and return its Python.

    Raises:
        FileNotFoundError: this machine does not have the version of Python.
        subprocess.CalledProcessError: pip cannot install the versions.
    """
    folder = place / str(row.get("requirements", row["name"]))
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        subprocess.run([interpreter(row["python"]), "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", *QUIET, "-r", str(requirements_of(row))]
        subprocess.run(install + ["--no-deps"] * row.get("alone", False), check=True)
        ready.touch()
    return python


def build(row: Mapping[str, Any], place: Path, files: Path) -> None:
    """Run the builder of one environment, if its files do not exist."""
    target = files / row["name"]
    if (target / "files.jsonl").exists():
        return
    print(f"== {row['name']}", flush=True)
    python = prepare(row, place)
    target.mkdir(parents=True, exist_ok=True)
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [str(python), str(HERE / "builders" / row["builder"]), str(target.resolve())],
        env={**os.environ, **variables, **row.get("variables", {})},
        cwd=target,
        check=True,
    )


def main() -> None:
    place, files, names = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), set(sys.argv[3:])
    failures = {}
    for row in environments():
        if names and row["name"] not in names:
            continue
        try:
            build(row, place, files)
        except (OSError, subprocess.CalledProcessError) as error:
            failures[row["name"]] = str(error)
            print(f"{row['name']} is not built: {error}", flush=True)
    (files / "not_built.json").write_text(json.dumps(failures, indent=1) + "\n")


if __name__ == "__main__":
    main()
