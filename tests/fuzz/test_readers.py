"""Damaged files of every kind: each is read, or refused with an error of this package.

`make fuzz` tries thousands of mutants for each reader, `make check` a few. Hypothesis chooses the
mutations, makes a failing mutant smaller, and prints the edits: the package is pure Python around
libraries whose crashes a fuzzer inside the process would not survive, so coverage feedback as
Atheris gives it would see little, and each mutant runs in a forked process here.

`FUZZ_TABLE=FILE` appends one row per reader to a file: the table in docs/guarantees.md.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from exporter.conversion.process import Child
from exporter.conversion.remote import open_folder, open_keras
from exporter.errors import ExporterError
from exporter.formats.isolated_process import Limits
from exporter.formats.isolation import isolated
from tests.builders.fuzz_check import LARGE_BYTES, SLOW_S, Tally
from tests.builders.fuzz_readers import READERS, Files
from tests.builders.mutants import EDITS, Edit, mutant
from tests.fuzz.failures import FAILURES

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))  # for each reader
FUZZ = settings(max_examples=EXAMPLES, deadline=None)


def _write(folder: Path, files: Files) -> Path:
    """Write files into an empty folder; returns the path of the first."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / next(iter(files))


def _damaged(seeds: list[Files], edits: list[Edit]) -> Files:
    """One of the folders, with edits of one of its files."""
    seed = seeds[edits[0].value % len(seeds)]
    names = list(seed)
    name = names[edits[-1].value % len(names)]
    return {**seed, name: mutant(seed[name], edits)}


def _is_whole(folder: Path, files: Files) -> bool:
    """Is there no half file: nothing but the source, or a model with its remap?"""
    left = {path.name for path in folder.iterdir()} - {Path(name).parts[0] for name in files}
    return all(name.startswith("cut.") for name in left - {"SHA256SUMS"})  # of a result folder


@contextmanager
def _tally(name: str) -> Iterator[Tally]:
    tally = Tally(name)
    yield tally
    if table := os.environ.get("FUZZ_TABLE"):
        with Path(table).open("a") as file:
            file.write(tally.row() + "\n")


@pytest.mark.parametrize("name", READERS)
def test_reader(name: str, tmp_path: Path) -> None:
    reader, folder = READERS[name], tmp_path / "work"
    seeds = list(reader.seeds())
    reader.read(_write(folder, seeds[0]))  # an undamaged file is read

    with _tally(name) as tally:

        @FUZZ
        @given(EDITS)
        def check(edits: list[Edit]) -> None:
            files = _damaged(seeds, edits)
            path = _write(folder, files)
            tally.check(lambda: reader.read(path))
            assert _is_whole(folder, files)

        check()


def _check_keras(
    name: str, seed: Files, folder: Path, read: Callable[[Path, Child], object]
) -> None:
    """One child opens all mutants; if a library crashes, the next one starts a new child."""
    with _tally(name) as tally, Child(opening_timeout_s=SLOW_S) as child:

        @FUZZ
        @given(EDITS)
        def check(edits: list[Edit]) -> None:
            path = _write(folder, _damaged([seed], edits))
            started = time.monotonic()
            try:
                with isolated(Limits(60, processor_s=5)):
                    read(path, child)
            except ExporterError:
                tally.refused += 1
            tally.files += 1
            tally.slowest_s = max(tally.slowest_s, time.monotonic() - started)
            assert time.monotonic() - started < 3 * SLOW_S  # other programs run too

        check()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_files(suffix: str, keras_shelf: Path, tmp_path: Path) -> None:
    seed = {f"net{suffix}": (keras_shelf / f"net{suffix}").read_bytes()}
    folder = tmp_path / "work"
    _check_keras(suffix, seed, folder, lambda path, child: open_keras(path, child).graph())


def test_keras_members(keras_shelf: Path, tmp_path: Path) -> None:
    """Damaged members in a sound archive: an archive finds most damage by its checksums."""
    with zipfile.ZipFile(keras_shelf / "net.keras") as archive:
        seed = {name: archive.read(name) for name in archive.namelist()}

    def read(path: Path, child: Child) -> None:
        packed = tmp_path / "net.keras"
        with zipfile.ZipFile(packed, "w") as archive:
            for name in seed:
                archive.write(path.parent / name, name)
        open_keras(packed, child).graph()

    _check_keras("members of .keras", seed, tmp_path / "work", read)


def test_savedmodel(tmp_path: Path) -> None:
    from tests.builders.saved_models import save_scorer  # noqa: PLC0415 - imports TensorFlow

    source = save_scorer(tmp_path / "scorer", serving_default="scores")
    files = sorted(path for path in source.rglob("*") if path.is_file())
    seed = {str(path.relative_to(source)): path.read_bytes() for path in files}
    folder = tmp_path / "work"
    _check_keras("SavedModel", seed, folder, lambda _, child: open_folder(folder, child).graph())


@pytest.mark.parametrize("number", range(len(FAILURES)))
def test_failures_that_were_found(number: int, tmp_path: Path) -> None:
    """The smallest files that once failed."""
    name, files = FAILURES[number]
    path = _write(tmp_path / "work", files)
    Tally(name).check(lambda: READERS[name].read(path))


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
            Tally("").check(work)
    tally = Tally("")
    tally.check(lambda: None)
    with suppress(ExporterError):
        tally.check(_refuse)
    assert (tally.files, tally.refused) == (2, 1)


def _refuse() -> None:
    message = "no"
    raise ExporterError(message)
