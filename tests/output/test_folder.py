"""Atomic folders and files, and the outputs that --force may replace."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.errors import OutputError, UsageError
from exporter.jobs.output_file import check_output_file
from exporter.output.draft import new_file, new_folder
from exporter.output.folder import REPORT, check_output_folder
from exporter.output.sidecar import read_sidecar, sidecar_path, write_artifact
from exporter.remap import HeadRemap, Origin, Remap
from tests.builders import tflite_builder
from tests.builders.commands import listing


def result(folder: Path) -> Path:
    """A result folder, as a run writes it."""
    folder.mkdir(parents=True)
    (folder / REPORT).write_text("{}")
    return folder


def foreign(folder: Path) -> Path:
    folder.mkdir()
    (folder / "diary.txt").write_text("dear diary")
    return folder


# --- refused ------------------------------------------------------------------------------------

NOT_RESULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda path: path.write_text("text"), "is not a folder"),
    "a foreign folder": (
        foreign,
        "contains no report.json: --force replaces only folders that a run wrote",
    ),
    "a folder of folders": (
        lambda path: foreign(foreign(path) / "inner"),
        "contains no report.json",
    ),
    "a web site": (
        lambda path: (foreign(path) / "diary.txt").rename(path / "index.html"),
        "contains no report.json",
    ),
    "variants and another file": (
        lambda path: (result(path / "a"), (path / "notes.txt").write_text("mine")),
        "contains no report.json",
    ),
}


@pytest.mark.parametrize("name", NOT_RESULTS)
def test_force_replaces_only_results(name: str, tmp_path: Path) -> None:
    make, message = NOT_RESULTS[name]
    target = tmp_path / "out"
    make(target)
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=r"out exists"), new_folder(target):
        pass
    with pytest.raises(OutputError, match=message), new_folder(target, force=True):
        pass
    assert listing(tmp_path) == before


@pytest.mark.parametrize("path", ["out/net.onnx", "out/deep/net.onnx", "out"])
def test_force_replaces_no_folder_with_an_input(path: str, tmp_path: Path) -> None:
    target = result(tmp_path / "out")
    with pytest.raises(UsageError, match=r"the input .* is in .*out"):
        check_output_folder(target, force=True, inputs=[tmp_path / path])
    check_output_folder(target, force=True, inputs=[tmp_path / "outside" / "net.onnx"])


def test_output_is_a_link_to_a_folder_with_an_input(tmp_path: Path) -> None:
    target = result(tmp_path / "out")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UsageError, match=r"is in .*link"):
        check_output_folder(tmp_path / "link", force=True, inputs=[target / "net.onnx"])


RESULTS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "an empty folder": lambda path: path.mkdir(),
    "a result": result,
    "variants": lambda path: (result(path / "a"), result(path / "b")),
    "variants with a manifest and an index": lambda path: (
        result(path / "a"),
        (path / "SHA256SUMS").write_text(""),
        (path / "index.html").write_text(""),
    ),
    "a link to a result": lambda path: path.symlink_to(result(path.with_name("elsewhere"))),
}


@pytest.mark.parametrize("name", RESULTS)
def test_force_replaces(name: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    RESULTS[name](target)
    with new_folder(target, force=True) as folder:
        (folder / "new.txt").write_text("new")
    assert listing(target) == {"new.txt": b"new"}
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "out"
    with new_folder(target) as folder:
        assert target.parent in folder.parents
        (folder / "new.txt").write_text("new")
        assert not target.exists()
    assert listing(tmp_path / "deep") == {"er/": b"", "er/out/": b"", "er/out/new.txt": b"new"}
    assert target.stat().st_mode & 0o777 == 0o755


def interrupted(target: Path, error: type[BaseException]) -> None:
    with new_folder(target, force=True) as folder:
        (folder / "new.txt").write_text("new")
        raise error("stop")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OutputError])
def test_nothing_appears_after_an_error(error: type[BaseException], tmp_path: Path) -> None:
    old = result(tmp_path / "old")
    before = listing(tmp_path)
    for target in (old, tmp_path / "deep" / "er" / "out"):
        with pytest.raises(error):
            interrupted(target, error)
        assert listing(tmp_path) == before


def test_output_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with (
        pytest.raises(OutputError, match="cannot write"),
        new_folder(tmp_path / "file" / "deep" / "out"),
    ):
        pass
    assert listing(tmp_path) == {"file": b"text"}


# --- a model file and its sidecar ---------------------------------------------------------------

REMAP = Remap(
    Origin("net.onnx", "0" * 64),
    None,
    (
        HeadRemap(
            name="y",
            output="y",
            axis=1,
            part=None,
            mode="slice",
            activation="linear",
            old_units=3,
            new_units=1,
            kept=(2,),
            new_to_old=(2,),
            labels=None,
        ),
    ),
)


def no_space(_path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_model(path: Path) -> None:
    path.write_bytes(b"model")


def write_files(path: Path, write: Callable[[Path], object], *, force: bool = False) -> None:
    with new_file(path, force=force) as draft:
        write_artifact(draft, write, REMAP)
        draft.publish()


def test_model_and_sidecar_appear_together(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    write_files(path, write_model)
    assert set(listing(tmp_path)) == {"small.onnx", "small.onnx.remap.json"}
    assert read_sidecar(path) == REMAP
    assert read_sidecar(tmp_path / "other.onnx") is None


def test_forms_appear_with_the_model(tmp_path: Path) -> None:
    content = tflite_builder.classifier().content("y")
    with new_file(tmp_path / "small.tflite", force=False) as draft:
        write_artifact(draft, lambda path: path.write_bytes(content), None, ["c-array"])
        draft.publish()
    assert set(listing(tmp_path)) == {"small.tflite", "small_tflite.c", "small_tflite.h"}


def test_no_sidecar_if_the_model_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left") as raised:
        write_files(tmp_path / "small.onnx", no_space)
    assert raised.value.hint == "free some space"
    assert listing(tmp_path) == {}


def test_no_model_if_the_sidecar_cannot_be_written(tmp_path: Path) -> None:
    sidecar_path(tmp_path / "small.onnx").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write_files(tmp_path / "small.onnx", write_model, force=True)
    assert listing(tmp_path) == {"small.onnx.remap.json/": b""}


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", json.dumps([1]).encode()])
def test_damaged_sidecar(content: bytes, tmp_path: Path) -> None:
    sidecar_path(tmp_path / "small.onnx").write_bytes(content)
    with pytest.raises(Exception, match=r"cannot read .*small\.onnx\.remap\.json: "):
        read_sidecar(tmp_path / "small.onnx")


def test_check_output_file(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    check_output_file(path, "onnx")
    with pytest.raises(UsageError, match=r"does not end in \.tflite"):
        check_output_file(path, "tflite")
    path.write_bytes(b"model")
    with pytest.raises(OutputError, match="exists"):
        check_output_file(path, "onnx")
    check_output_file(path, "onnx", force=True)
    (tmp_path / "link.onnx").symlink_to(path)
    with pytest.raises(UsageError, match="is the model itself"):
        check_output_file(tmp_path / "link.onnx", "onnx", (), path, force=True)
    check_output_file(tmp_path / "other.onnx", "onnx", (), path)
