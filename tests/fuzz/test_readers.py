"""Mutated files of every kind: each is read, or refused with an error of this package.

`make fuzz` tries thousands of mutants for each reader, `make check` a few. Hypothesis chooses the
mutations, makes a failing mutant smaller, and prints the edits: the package is pure Python around
libraries whose crashes a fuzzer inside the process would not survive, so coverage feedback as
Atheris gives it would see little, and each mutant runs in a forked process here.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from exporter.conversion.process import Child
from exporter.conversion.remote import open_keras
from exporter.errors import ExporterError
from exporter.formats.isolation import Limits, isolated
from exporter.jobs.compare import verify_files
from exporter.jobs.inspect import inspect_file
from exporter.jobs.options import Job
from exporter.jobs.prune import prune_file
from exporter.planning.options import CutOptions
from exporter.remap import Remap
from exporter.selection.labels import read_labels
from tests.builders import onnx_precisions, shelf, tflite_precisions
from tests.builders.mutants import EDITS, Edit, mutant

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))  # for each reader
SLOW_S, LARGE_BYTES = 20.0, 10**9
FUZZ = settings(max_examples=EXAMPLES, deadline=None)


def _onnx_seeds() -> Iterator[bytes]:
    for build in shelf.ONNX.values():
        yield build().SerializeToString()
    for kind in onnx_precisions.FUNCTIONS:
        for precision in onnx_precisions.PRECISIONS:
            if model := onnx_precisions.built(kind, precision):
                yield model.to_bytes()


def _tflite_seeds() -> Iterator[bytes]:
    for build in shelf.TFLITE.values():
        yield build()
    for kind in tflite_precisions.FUNCTIONS:
        for precision in tflite_precisions.PRECISIONS:
            if model := tflite_precisions.built(kind, precision):
                yield model.content


def _cut(path: Path) -> None:
    """What the commands `inspect`, `prune` and `verify` do with a file."""
    job = Job(samples=2, timeout_s=SLOW_S / 2)
    inspect_file(path, job)
    out = path.with_stem("cut")
    prune_file(path, out, CutOptions(keep=[0, 2]), job)
    verify_files(path, out, job)


def _check(work: Callable[[], None]) -> None:
    """Run in a forked process, where it may raise an ExporterError, within time and memory."""
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "w") as report:
            try:
                with suppress(ExporterError):
                    work()
            except BaseException:  # noqa: BLE001 - the finding
                report.write(traceback.format_exc())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as report:
        found = report.read()
    _, status, used = os.wait4(child, 0)
    assert not found, found
    assert not os.WIFSIGNALED(status), signal.Signals(os.WTERMSIG(status)).name
    assert time.monotonic() - started < SLOW_S
    assert used.ru_maxrss * 1024 < LARGE_BYTES


def _is_whole(folder: Path, source: str) -> bool:
    """Is there no half file: nothing but the source, or a model with its remap?"""
    left = {path.name for path in folder.iterdir()} - {source}
    return not left or {name for name in left if name.startswith("cut.")} == left


@contextmanager
def _written(folder: Path, name: str, content: bytes) -> Iterator[Path]:
    for path in folder.iterdir():
        path.unlink()
    path = folder / name
    path.write_bytes(content)
    yield path


SEEDS = {".onnx": _onnx_seeds, ".tflite": _tflite_seeds}


@pytest.mark.parametrize("suffix", SEEDS)
def test_edge_files(suffix: str, tmp_path: Path) -> None:
    seeds = list(SEEDS[suffix]())

    @FUZZ
    @given(EDITS)
    def check(edits: list[Edit]) -> None:
        seed = seeds[edits[0].value % len(seeds)]
        with _written(tmp_path, f"net{suffix}", mutant(seed, edits)) as path:
            _check(lambda: _cut(path))
            assert _is_whole(tmp_path, path.name)

    check()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_files(suffix: str, keras_shelf: Path, tmp_path: Path) -> None:
    """One child opens all mutants; if a library crashes, the next one starts a new child."""
    seed = (keras_shelf / f"net{suffix}").read_bytes()

    @FUZZ
    @given(EDITS)
    def check(edits: list[Edit]) -> None:
        with _written(tmp_path, f"net{suffix}", mutant(seed, edits)) as path:
            started = time.monotonic()
            with suppress(ExporterError), isolated(Limits(SLOW_S / 2)):
                open_keras(path, child).graph()
            assert time.monotonic() - started < SLOW_S

    with Child(opening_timeout_s=SLOW_S / 2) as child:
        check()


def _read_remap(path: Path) -> None:
    Remap.from_json(path.read_text(encoding="utf-8", errors="replace"))


def _read_labels(path: Path) -> None:
    read_labels(path)


def _read_samples(path: Path) -> None:
    prune_file(
        path.parent.parent / "net.onnx", path.with_name("cut.onnx"), _OPTIONS, Job(data=path)
    )


_OPTIONS = CutOptions(keep=[0, 2])


@pytest.mark.parametrize("name", ["labels.txt", "samples.npz", "remap.json"])
def test_other_files(name: str, shelf: Path, tmp_path: Path) -> None:
    read = {"labels.txt": _read_labels, "samples.npz": _read_samples, "remap.json": _read_remap}
    (tmp_path / "net.onnx").write_bytes((shelf / "net.onnx").read_bytes())
    folder = tmp_path / "work"
    folder.mkdir()
    if name == "remap.json":
        out = tmp_path / "cut.onnx"
        prune_file(tmp_path / "net.onnx", out, _OPTIONS, Job(samples=2))
        seed = out.with_name("cut.onnx.remap.json").read_bytes()
    else:
        seed = (shelf / name).read_bytes()

    @FUZZ
    @given(EDITS)
    def check(edits: list[Edit]) -> None:
        with _written(folder, name, mutant(seed, edits)) as path:
            _check(lambda: read[name](path))

    check()


def test_the_check_finds_each_kind_of_fault() -> None:
    """Faults that the checks above must report."""

    def bug() -> None:
        raise KeyError

    def crash() -> None:
        faulthandler.disable()  # pytest would print where
        os.kill(os.getpid(), signal.SIGSEGV)

    def large() -> None:
        assert np.ones(LARGE_BYTES // 8).sum() > 1

    for work in (bug, crash, large):
        with pytest.raises(AssertionError):
            _check(work)
    _check(lambda: None)
