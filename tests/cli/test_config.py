"""Options from exporter.toml and pyproject.toml."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import COMMANDS, config
from exporter.cli.exit_codes import run_command
from exporter.cli.main import cli
from exporter.jobs.options import JobOptions
from exporter.planning.option import options_of
from exporter.planning.options import CutOptions
from tests.builders import shelf


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shelf.fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exporter(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run_command(cli, line.split())
    return code, *capsys.readouterr()


RUN = """
model = "net.onnx"
output = "out"
keep = [1, "macaw", "4-5"]
labels = "labels.txt"
samples = 4

[run]
verify = true
bench = false
"""


def test_run_alone_does_the_job(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "exporter.toml").write_text(RUN)
    code, out, err = exporter("run", capsys)
    assert (code, err.splitlines()[0]) == (0, "options from exporter.toml")
    assert "4 of 7 units kept" in out
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["inputs"]["samples"] == 4
    assert report["remap"]["heads"][0]["labels"] == ["macaw", "owl", "finch", "crow"]
    # the file may change: the command in the report states its options
    assert report["command"].startswith("exporter run net.onnx -o out --keep 1,macaw,4-5")


def shown(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `--print-config` prints, without the defaults."""
    code, out, err = exporter(f"{line} --print-config", capsys)
    assert (code, err) == (0, "")
    return tomllib.loads(out)


CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "the command line wins": ("samples = 4", "run --samples 5", {"samples": 5}),
    "over a list": ("to = ['onnx']", "run --to tflite", {"to": ["tflite"]}),
    "over a flag": ("bench = false", "run --bench", {"bench": True}),
    "keep excludes the file's remove": ("remove = 'a'", "run --keep b", {"keep": "b"}),
    "and its variants": ("variant = {a = 1}", "run --remove b", {"remove": "b"}),
    "a cut excludes the file's head": ("head = 'a'\nunits = '0:3'\nprotect = 1\nmerge = {c = 1}",
                                       "run --cut b=1", {"cut": {"b": "1"}}),
    "the file's cut is excluded": ("cut = {a = [1, 2]}", "run --keep 1 --head b",
                                   {"keep": "1", "head": "b"}),
    "the table of a command wins": ("seed = 1\n[run]\nseed = 2", "run", {"seed": 2}),
    "it counts for its command only": ("[run]\nseed = 2", "bench", {}),
    "an option of another command": ("min-f1 = 0.5", "run", {}),
    "underscores": ("max_size = '300kB'", "run", {"max-size": 300_000}),
    "a number with a unit": ("max-latency = '0.2s'", "run", {"max-latency": 200.0}),
    "a table of pairs": ("dim = {batch = 2, n = 3}", "run", {"dim": {"batch": 2, "n": 3}}),
    "pairs as text": ("dim = ['batch=2', 'n=3']", "run", {"dim": {"batch": 2, "n": 3}}),
    "shapes": ("input-shape = {x = [1, 6]}", "run", {"input-shape": {"x": [1, 6]}}),
    "groups": ("merge = {big = ['a', 'b']}", "run", {"merge": {"big": "a,b"}}),
    "variants": ("variant = {a = 1, b = [2, 3]}", "run", {"variant": ["a=1", "b=2,3"]}),
    "a label with a comma": ("keep = ['a, b', 'c']", "run", {"keep": '"a, b",c'}),
    "names or all": ("integer-io = true\nfloat-io = ['y']", "run",
                     {"integer-io": True, "float-io": ["y"]}),
    "the output is that of run": ("output = 'o'", "prune", {}),
    "an output of its own": ("[prune]\noutput = 'o.onnx'", "prune", {"output": "o.onnx"}),
    "the demo is not about a model": ("output = 'o'\ntimeout = 9", "demo", {}),
    "messages": ("quiet = true", "inspect", {"quiet": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_values(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, line, expected = CONFIGS[name]
    (folder / "exporter.toml").write_text(text)
    assert shown(line, capsys) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_printed_is_a_file(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It sets every option of the tables, and reading it changes nothing."""
    _, out, _ = exporter(f"{name} --print-config", capsys)
    keys = {line.removeprefix("# ").partition(" =")[0] for line in out.splitlines()}
    declared = (each for record in (CutOptions, JobOptions) for each in options_of(record, name))
    flags = {str(each.flag)[2:] for each in declared if each.flag}
    assert flags <= keys
    (folder / "exporter.toml").write_text(f"[{name}]\n{out}")
    assert exporter(f"{name} --print-config", capsys)[1] == out


def test_paths_are_relative_to_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "model = 'net.onnx'\nkeep = ['@three.txt', 'crow']\nlabels = '/abs.txt'\ndata = 'd'\n"
    text += "[run.merge]\nbig = '@three.txt'"
    (folder / "exporter.toml").write_text(text)
    (folder / "sub").mkdir()
    (folder / "moved.toml").write_text((folder / "exporter.toml").read_text())
    assert shown("run", capsys)["keep"] == "@three.txt,crow"
    other = folder / "sub" / "of.toml"
    other.write_text(text)
    assert shown("run --config sub/of.toml", capsys) == {
        "model": "sub/net.onnx",
        "keep": "@sub/three.txt,crow",
        "merge": {"big": "@sub/three.txt"},
        "labels": "/abs.txt",
        "data": "sub/d",
    }


def test_pyproject(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pyproject.toml").write_text(
        "[tool.exporter]\nseed = 3\n[tool.exporter.run]\nbatch=2"
    )
    assert shown("run", capsys) == {"seed": 3, "batch": 2}
    (folder / "exporter.toml").write_text("seed = 4")
    assert shown("run", capsys) == {"seed": 4}
    assert shown("run --config pyproject.toml", capsys) == {"seed": 3, "batch": 2}
    (folder / "exporter.toml").unlink()
    (folder / "pyproject.toml").write_text("[tool.other]\nexporter = 3")
    assert shown("run", capsys) == {}
    (folder / "pyproject.toml").write_text("not TOML: of another tool")
    assert shown("run", capsys) == {}


REFUSED = {
    "keeep = 'a'": ("exporter.toml has the key 'keeep', which is no option", "'keep'?"),
    "[run]\nmin-f2 = 1": ("[run] has the key 'min-f2', which is no option", "all keys"),
    "[rum]\nkeep = 'a'": ("has the key 'rum', which is no option", "'run'?"),
    "[prune]\nvariants = 'a=1'": ("[prune] has the key 'variants'", "exporter run --print-config"),
    "samples = 'x'": ("'--samples': 'x' is not a whole number (in exporter.toml)", "--help"),
    "samples = true": ("samples in exporter.toml is True", "what --samples takes"),
    "force = 'yes'": ("force in exporter.toml is 'yes'", "true or false"),
    "samples = 1979-05-27": ("samples in exporter.toml is datetime.date", "what --samples takes"),
    "keep = {a = 1}": ("keep in exporter.toml is {'a': 1}", "what --keep takes"),
    "output = ['a', 'b']": ("output in exporter.toml is ['a', 'b']", "give one path, in quotes"),
    "labels = 3": ("labels in exporter.toml is 3", "give one path, in quotes"),
    "to = 'png'": ("'png' is not one of keras, onnx, tflite", "--help"),
    "keep = ": ("exporter.toml is not TOML", "docs/configuration.md"),
    "print-config = true": ("has the key 'print-config'", ""),
}


@pytest.mark.parametrize("text", REFUSED)
def test_refusals(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "exporter.toml").write_text(text)
    code, out, err = exporter("run net.onnx", capsys)
    message, hint = REFUSED[text]
    assert (code, out) == (2, "")
    assert message in err.splitlines()[0]
    assert hint in err.splitlines()[1]


def test_a_file_that_does_not_exist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = exporter("run --config absent.toml", capsys)
    assert code == 2
    assert "absent.toml" in err


def test_help_needs_no_valid_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "exporter.toml").write_text("keeep = 1")
    assert exporter("run --help", capsys)[0] == 0


def test_a_file_is_looked_for_in_the_current_folder_only(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that somebody else put into /tmp must not set options."""
    (folder / "exporter.toml").write_text("seed = 4")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert config.find_config(None) is None
