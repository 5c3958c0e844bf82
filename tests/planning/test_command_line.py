"""A call of a Python function as a command: the command line reads the same options from it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import options
from exporter.cli.main import cli
from exporter.cli.progress import Progress
from exporter.jobs.job import Job
from exporter.planning.command_line import command_line, option_values
from exporter.planning.options import CutOptions
from exporter.selection import Selection

CUTS: list[Any] = [
    pytest.param({"keep": (1, 4)}, "--keep 1,4", id="indices"),
    pytest.param({"keep": "0-3,owl"}, "--keep 0-3,owl", id="a text"),
    pytest.param({"keep": ("owl", 5)}, "--keep owl,5", id="labels"),
    pytest.param({"keep": Selection(9, (1, 4))}, "--keep 1,4", id="a selection"),
    pytest.param({"keep": Selection(9, (4, 1))}, "--keep 4,1 --keep-order", id="its order"),
    pytest.param({"keep": ("salt, pepper",)}, """--keep '"salt, pepper"'""", id="a comma"),
    pytest.param({"keep": ("=5",)}, "--keep =5", id="a literal label"),
    pytest.param({"keep": ('a "b", c',)}, None, id="quotes and a comma"),
    pytest.param({"remove": "@f.txt"}, "--remove @f.txt", id="a file"),
    pytest.param(
        {"merge": {"pair": (1, 2)}, "labels": Path("l.txt")},
        "--labels l.txt --merge pair=1,2",
        id="groups",
    ),
    pytest.param(
        {"cuts": {"age": (0, 2), "pose": "owl"}, "drop_outputs": ("a", "b")},
        "--cut age=0,2 --cut pose=owl --drop-output a --drop-output b",
        id="several heads",
    ),
    pytest.param({"keep": (0,), "mode": "mask"}, "--keep 0 --mode mask", id="mode"),
    pytest.param({"keep": (0,), "keep_order": True}, "--keep 0 --keep-order", id="a flag"),
]

JOBS: list[Any] = [
    pytest.param({}, "", id="defaults"),
    pytest.param({"verify": False}, "--no-verify", id="a switch that is on by default"),
    pytest.param({"to": ("onnx", "tflite")}, "--to onnx,tflite", id="kinds"),
    pytest.param(
        {"input_shapes": {"x": (1, 16), "y": (1, 2)}},
        "--input-shape x=1,16 --input-shape y=1,2",
        id="a repeated option",
    ),
    pytest.param({"precisions": ("fp32", "int8")}, "--precision fp32,int8", id="another flag"),
    pytest.param(
        {"data": Path("my data.npz"), "tolerance": 0.5},
        "--data 'my data.npz' --tolerance 0.5",
        id="values",
    ),
    pytest.param({"memory_limit_bytes": 4_000_000}, "--memory-limit 4000000", id="a size"),
]


def read(line: str) -> tuple[CutOptions, Job]:
    """The options as the command line reads them."""
    _, name, *words = shlex.split(line)
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    with command.make_context(name, words) as context:
        job = options.make_job(context.params, Progress(print, print, print))
        return options.make_cut_options(context.params), job


@pytest.mark.parametrize(("given", "words"), CUTS)
def test_a_cut_as_a_command(given: dict[str, Any], words: str | None) -> None:
    cut = CutOptions(**given)
    line = command_line("run", ("net.onnx", "-o", Path("out")), cut, Job())
    if words is not None:
        assert line == f"exporter run net.onnx -o out {words}"
    again = read(line)[0]
    for name in ("mode", "keep_order"):
        assert getattr(again, name) == getattr(cut, name)
    assert command_line("run", ("net.onnx", "-o", "out"), again, Job()) == line


@pytest.mark.parametrize(("given", "words"), JOBS)
def test_a_job_as_a_command(given: dict[str, Any], words: str) -> None:
    cut, job = CutOptions(keep="1"), Job(**given)
    line = command_line("run", ("net.onnx", "-o", "out"), cut, job)
    assert line == f"exporter run net.onnx -o out --keep 1 {words}".rstrip()
    again = read(line)[1]
    for name in given:
        assert getattr(again, name) == getattr(job, name)


def test_labels_in_a_list_have_no_command() -> None:
    cut = CutOptions(keep="owl", labels=("owl", "crow"))
    assert command_line("run", ("net.onnx",), cut, Job()) == ""


def test_changed_options_replace_those_of_the_record() -> None:
    job = Job(samples=4, tolerance=0.5)
    line = command_line("verify", ("a", "b"), job, data=Path("w.npz"), samples=None)
    assert line == "exporter verify a b --data w.npz --tolerance 0.5"


def test_every_option_has_a_value() -> None:
    values = option_values("run", CutOptions(keep=(1, 4), merge={"a": (1, 4)}), Job())
    assert (values["keep"], values["merge"]) == ([1, 4], {"a": [1, 4]})
    assert (values["threads"], values["data"], values["verify"]) == (1, None, True)
    assert "progress" not in values, "options of Python only are no settings"
    assert "calibration" not in option_values("verify", Job())
