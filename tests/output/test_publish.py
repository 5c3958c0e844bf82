"""Content appears whole or not at all: failing calls, killed processes, two writers."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filelock import FileLock

from exporter.errors import OutputError
from exporter.output import publish, rename
from exporter.output.draft import new_file, new_folder
from exporter.output.files import writing
from exporter.output.place import Place
from tests.builders.commands import listing
from tests.builders.faults import Killed, failing

Files = Mapping[str, bytes]

OLD = {"m.onnx": b"old", "m.onnx.remap.json": b"old", "m-1.data": b"old"}
NEW = {"m.onnx": b"new", "m.onnx.remap.json": b"new", "m-2.data": b"new"}
NEIGHBOR = {"notes.txt": b"mine"}


def write(folder: Path, files: Files) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_model(path: Path) -> None:
    path.write_bytes(b"new")
    path.with_name("m-2.data").write_bytes(b"new")


def publish_files(folder: Path, *, force: bool) -> None:
    """A model with its weights in a second file, and with its remap."""
    with new_file(folder / "m.onnx", force=force) as draft:
        draft.write(write_model)
        draft.add_text("m.onnx.remap.json", "new")
        draft.publish()


def publish_file(folder: Path, *, force: bool) -> None:
    with new_file(folder / "m.onnx", force=force) as draft:
        draft.write_text("new")
        draft.publish()


def publish_folder(folder: Path, *, force: bool) -> None:
    with new_folder(folder / "out", force=force) as new, writing(folder / "out"):
        (new / "report.json").write_bytes(b"new")
        (new / "m.onnx").write_bytes(b"new")


def result(content: bytes) -> Files:
    names = ("report.json", "m.onnx")
    return {"out/": b"", **{f"out/{name}": content for name in names}}


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory if possible: some disks need milliseconds to remove a folder."""
    memory = Path("/dev/shm")  # noqa: S108 - a new folder in it is used
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushes change no file, and take most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@dataclass(frozen=True)
class Job:
    """A way to publish, and the content of the folder before and after it."""

    publish: Callable[..., None]
    before: Files
    after: Files
    force: bool

    def prepare(self, folder: Path) -> None:
        folder.mkdir()
        for name, content in {**self.before, **NEIGHBOR}.items():
            if name.endswith("/"):
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content)

    def run(self, folder: Path) -> None:
        self.publish(folder, force=self.force)


JOBS = {
    "file": Job(publish_file, {}, {"m.onnx": b"new"}, force=False),
    "file, --force": Job(publish_file, {"m.onnx": b"old"}, {"m.onnx": b"new"}, force=True),
    "files": Job(publish_files, {}, NEW, force=False),
    "files, --force": Job(publish_files, OLD, {**OLD, **NEW}, force=True),
    "files, --force, nothing there": Job(publish_files, {}, NEW, force=True),
    "folder": Job(publish_folder, {}, result(b"new"), force=False),
    "folder, --force": Job(publish_folder, result(b"old"), result(b"new"), force=True),
}


@pytest.fixture(params=["renameat2", "links", "renames"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Linux; a platform without its system call; one that has no hard links either."""
    if request.param == "links":
        monkeypatch.setattr(rename, "_renameat2", lambda: refuse_rename)
    if request.param == "renames":
        monkeypatch.setattr(rename, "_renameat2", lambda: None)
        monkeypatch.setattr(os, "link", refuse_link)
    return str(request.param)


def refuse_rename(*_arguments: object) -> int:
    """As a file system that has no such renames."""
    ctypes.set_errno(errno.EINVAL)
    return -1


def refuse_link(*_arguments: object, **_keywords: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def state(folder: Path) -> Files:
    """The content without places."""
    found = listing(folder)
    return {name: found[name] for name in found if not name.startswith(".exporter-")}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def run_next(folder: Path) -> None:
    """Another command that writes in the folder; its result is removed again."""
    with new_file(folder / "other.json") as draft:
        draft.write_text("{}")
        draft.publish()
    (folder / "other.json").unlink()


# --- nothing fails ------------------------------------------------------------------------------


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("name", JOBS)
def test_new_content_appears(name: str, tmp_path: Path) -> None:
    job = JOBS[name]
    job.prepare(tmp_path / "work")
    job.run(tmp_path / "work")
    assert listing(tmp_path / "work") == {**job.after, **NEIGHBOR}


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("publish", [publish_file, publish_files, publish_folder])
def test_nothing_that_appears_meanwhile_is_replaced(
    publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program writes the target after the check at the start."""
    name = "out" if publish is publish_folder else "m.onnx"

    def appear(*_arguments: object) -> None:
        (tmp_path / name).write_bytes(b"of another program")

    monkeypatch.setattr("exporter.output.publish.flush_tree", appear)
    with pytest.raises(OutputError, match=f"{name} exists"):
        publish(tmp_path, force=False)
    assert listing(tmp_path) == {name: b"of another program"}


@pytest.mark.parametrize("name", ["m.onnx", "m.onnx.remap.json", "m-2.data"])
def test_a_folder_is_not_replaced_by_a_file(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, {"diary.txt": b"dear diary"})
    before = listing(tmp_path)
    with pytest.raises(OutputError, match="Is a directory"):
        publish_files(tmp_path, force=True)
    assert listing(tmp_path) == before


def test_weights_that_are_there_are_shared(tmp_path: Path) -> None:
    """Two models with equal weights: the file of the weights belongs to both."""
    write(tmp_path, {"m-2.data": b"new"})
    inode = (tmp_path / "m-2.data").stat().st_ino
    publish_files(tmp_path, force=False)
    assert listing(tmp_path) == NEW
    assert (tmp_path / "m-2.data").stat().st_ino == inode


def test_other_weights_with_the_same_name_are_not_used(tmp_path: Path) -> None:
    write(tmp_path, {"m-2.data": b"other"})
    with pytest.raises(OutputError, match=r"m-2\.data exists"):
        publish_files(tmp_path, force=False)
    assert listing(tmp_path) == {"m-2.data": b"other"}
    publish_files(tmp_path, force=True)
    assert listing(tmp_path) == NEW


def test_force_keeps_data_that_another_model_names(tmp_path: Path) -> None:
    found = {"m-2.data": b"other", "n.onnx": b"reads m-2.data", "o.onnx": b""}
    write(tmp_path, found)
    (tmp_path / "p.onnx").mkdir()
    with pytest.raises(OutputError, match=r"m-2\.data belongs to n\.onnx too"):
        publish_files(tmp_path, force=True)
    (tmp_path / "p.onnx").rmdir()
    assert listing(tmp_path) == found


def test_force_replaces_data_that_no_other_model_names(tmp_path: Path) -> None:
    write(tmp_path, {"m.onnx": b"m-2.data", "m-2.data": b"other", "n.onnx": b"alone"})
    publish_files(tmp_path, force=True)
    assert listing(tmp_path) == {**NEW, "n.onnx": b"alone"}


def test_force_accepts_equal_data_of_another_model(tmp_path: Path) -> None:
    write(tmp_path, {"m-2.data": b"new", "n.onnx": b"reads m-2.data"})
    publish_files(tmp_path, force=True)
    assert listing(tmp_path) == {**NEW, "n.onnx": b"reads m-2.data"}


# --- a call fails -------------------------------------------------------------------------------


ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


def count_calls(job: Job, folder: Path) -> int:
    job.prepare(folder)
    with failing(0) as calls:
        job.run(folder)
    return calls.count


@pytest.mark.parametrize("name", JOBS)
def test_a_failing_call(name: str, platform: str, tmp_path: Path) -> None:
    """Either an OutputError and the old content, or no error and the new content."""
    job = JOBS[name]
    for nth in range(1, count_calls(job, tmp_path / "count") + 1):
        folder = tmp_path / str(nth)
        job.prepare(folder)
        with failing(nth, ERRORS[nth % len(ERRORS)]) as calls:
            try:
                job.run(folder)
                expected = job.after
            except OutputError:
                expected = job.before
        assert state(folder) == {**expected, **NEIGHBOR}, (platform, nth, calls.names)
        run_next(folder)
        assert listing(folder) == {**expected, **NEIGHBOR}, (platform, nth, calls.names)


# --- the process is killed ----------------------------------------------------------------------


def contradicts(found: Files) -> bool:
    """An old model with a new remap, or the reverse, or a model without its weights."""
    model, remap = found.get("m.onnx"), found.get("m.onnx.remap.json")
    if model == b"new" and "m-2.data" not in found and remap is not None:
        return True
    return None not in (model, remap) and model != remap


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_process(name: str, platform: str, tmp_path: Path) -> None:
    """The next command in the folder finds the old or the new content, or makes it whole."""
    job = JOBS[name]
    outcomes = set()
    for nth in range(1, count_calls(job, tmp_path / "count") + 1):
        folder = tmp_path / str(nth)
        job.prepare(folder)
        with failing(nth), suppress(Killed):
            job.run(folder)
        assert not contradicts(state(folder)), nth
        if platform == "renameat2" and job.publish is not publish_files:
            assert any(state(folder) == {**each, **NEIGHBOR} for each in (job.before, job.after))
        run_next(folder)
        found = listing(folder)
        is_new = found == {**job.after, **NEIGHBOR}
        assert is_new or found == {**job.before, **NEIGHBOR}, (platform, nth)
        outcomes.add(is_new)
    assert outcomes == {False, True}


def test_a_second_kill_while_the_rest_is_carried_out(tmp_path: Path) -> None:
    job = JOBS["files, --force"]
    total = count_calls(job, tmp_path / "count")
    for nth in range(1, total + 1):
        for second in range(1, 40, 3):
            folder = tmp_path / f"{nth}-{second}"
            job.prepare(folder)
            with failing(nth), suppress(Killed):
                job.run(folder)
            with failing(second), suppress(Killed):
                run_next(folder)
            assert not contradicts(state(folder)), (nth, second)
            (folder / "other.json").unlink(missing_ok=True)
            run_next(folder)
            found = listing(folder)
            assert found in ({**job.after, **NEIGHBOR}, {**job.before, **NEIGHBOR}), (nth, second)


def test_a_kill_while_renames_are_undone(tmp_path: Path) -> None:
    """The last flush fails, and the process is killed at each call after it."""
    job = JOBS["files, --force"]
    job.prepare(tmp_path / "count")
    with failing(0) as calls:
        job.run(tmp_path / "count")
    last_flush = max(i for i, name in enumerate(calls.names, 1) if name == "fsync")
    for later in range(1, 12):
        folder = tmp_path / str(later)
        job.prepare(folder)
        with (
            suppress(Killed, OutputError),
            failing(last_flush + later),
            failing(last_flush, errno.EIO),
        ):
            job.run(folder)
        assert not contradicts(state(folder)), later
        run_next(folder)
        assert listing(folder) in ({**job.after, **NEIGHBOR}, {**job.before, **NEIGHBOR}), later


def test_a_file_of_someone_else_survives_the_recovery(tmp_path: Path) -> None:
    """After a kill between the remap and the model, another program writes the model."""
    job = JOBS["files"]
    total = count_calls(job, tmp_path / "count")
    seen = False
    for nth in range(1, total + 1):
        folder = tmp_path / str(nth)
        job.prepare(folder)
        with failing(nth), suppress(Killed):
            job.run(folder)
        if (folder / "m.onnx").exists():
            continue
        seen = seen or (folder / "m.onnx.remap.json").exists()
        (folder / "m.onnx").write_bytes(b"theirs")
        run_next(folder)
        assert (folder / "m.onnx").read_bytes() == b"theirs"
        assert hidden(folder) == []
    assert seen


# --- two writers --------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_a_second_writer_is_refused(force: bool, tmp_path: Path) -> None:
    with new_file(tmp_path / "m.onnx") as draft:
        draft.write_text("first")
        with pytest.raises(OutputError, match=r"another exporter is writing .*m\.onnx"):
            publish_files(tmp_path, force=force)
        draft.publish()
    assert listing(tmp_path) == {"m.onnx": b"first"}


def test_writers_of_two_targets_do_not_disturb_each_other(tmp_path: Path) -> None:
    with new_file(tmp_path / "m.onnx") as draft:
        draft.write_text("first")
        publish_folder(tmp_path, force=False)
        draft.publish()
    assert listing(tmp_path) == {"m.onnx": b"first", **result(b"new")}


def missing(*_arguments: object, **_keywords: object) -> None:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def test_a_writer_waits_while_the_place_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place disappears between the call that makes it and the call that locks it."""
    place = Place.of(tmp_path / "m.onnx")
    check = Place._refuse_foreign

    def remove_once(self: Place) -> None:
        check(self)
        monkeypatch.setattr(Place, "_refuse_foreign", check)
        self.path.rmdir()

    monkeypatch.setattr(Place, "_refuse_foreign", remove_once)
    publish_file(tmp_path, force=False)
    assert listing(tmp_path) == {"m.onnx": b"new"}
    monkeypatch.setattr(FileLock, "acquire", missing)
    with pytest.raises(OutputError, match="another exporter is writing"):
        publish_file(tmp_path, force=True)
    assert not place.path.exists()


def test_a_place_of_someone_else_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    place = Place.of(tmp_path / "m.onnx").path
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is not a folder that you made"):
        publish_file(tmp_path, force=False)
    assert listing(tmp_path / "elsewhere") == {}


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be written: then nothing of other commands is looked for."""

    def deny(_folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("exporter.output.publish.places_in", deny)
    publish_files(tmp_path, force=False)
    assert listing(tmp_path) == NEW


def test_long_names(tmp_path: Path) -> None:
    """The names of places are short; a name that is too long is refused before any work."""
    for name in ("n" * 255, "ü" * 127):
        with new_folder(tmp_path / name) as folder:
            (folder / "report.json").touch()
    for name in ("n" * 256, "ü" * 128):
        with pytest.raises(OutputError, match="File name too long") as raised:
            new_file(tmp_path / name).__enter__()
        assert raised.value.hint == "choose a shorter name with -o"


def test_a_platform_without_the_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rename._renameat2.__wrapped__() is not None or os.name == "nt"

    def no_library(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.ENOENT, "no such library")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert rename._renameat2.__wrapped__() is None


# --- bodies, which several files read -----------------------------------------------------------

BODY = "body-0123456789abcdef.data"


def publish_with_body(folder: Path, *, force: bool = False) -> None:
    with new_folder(folder / "cell", force=force) as new, writing(folder / "cell"):
        (new / "report.json").write_bytes(b"new")
        new.with_name("cell.onnx").write_bytes(b"new")
        new.with_name(BODY).write_bytes(b"body")


WITH_BODY = {"cell/report.json": b"new", "cell.onnx": b"new", BODY: b"body"}


def files_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_folder_appears_with_its_model_and_its_body(tmp_path: Path) -> None:
    publish_with_body(tmp_path)
    assert files_in(tmp_path) == WITH_BODY
    publish_with_body(tmp_path, force=True)
    assert files_in(tmp_path) == WITH_BODY


def test_a_body_stays_if_a_later_rename_fails(tmp_path: Path) -> None:
    """Another process may have published a model that reads it."""
    (tmp_path / "cell.onnx").write_bytes(b"someone else's")
    with pytest.raises(OutputError, match="exists"):
        publish_with_body(tmp_path)
    assert files_in(tmp_path) == {"cell.onnx": b"someone else's", BODY: b"body"}


def link(target: Path, path: Path) -> None:
    path.hardlink_to(target)


@pytest.mark.parametrize("make", [link, lambda target, path: path.symlink_to(target)])
def test_a_link_is_no_body(make: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """Models that read it would be refused."""
    folder, target = tmp_path / "out", tmp_path / "elsewhere"
    folder.mkdir()
    target.write_bytes(b"body")
    make(target, folder / BODY)
    with pytest.raises(OutputError, match=f"{BODY} exists"):
        publish_with_body(folder)
    publish_with_body(folder, force=True)
    assert files_in(folder) == WITH_BODY
    found = (folder / BODY).lstat()
    assert (stat.S_ISREG(found.st_mode), found.st_nlink) == (True, 1)
    assert target.read_bytes() == b"body"


def test_a_body_with_other_content_is_no_body(tmp_path: Path) -> None:
    (tmp_path / BODY).write_bytes(b"damaged")
    with pytest.raises(OutputError, match=f"{BODY} exists"):
        publish_with_body(tmp_path)
    assert files_in(tmp_path) == {BODY: b"damaged"}
    publish_with_body(tmp_path, force=True)
    assert files_in(tmp_path) == WITH_BODY


@pytest.mark.parametrize("other", [b"body", b"other"])
def test_two_processes_put_a_body_there(
    other: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(source: Path, target: Path) -> None:
        if target.name == BODY:
            target.write_bytes(other)  # the other process was faster
        rename.move(source, target)

    monkeypatch.setattr(publish, "move", move)
    if other == b"body":
        publish_with_body(tmp_path)
        assert files_in(tmp_path) == WITH_BODY
    else:
        with pytest.raises(OutputError, match="exists"):
            publish_with_body(tmp_path)
        assert files_in(tmp_path) == {BODY: other}


def test_a_kill_at_each_call(tmp_path: Path) -> None:
    """A new model is never without its body, and the next writer makes the result whole."""
    old = {"cell/report.json": b"old", "cell.onnx": b"old"}

    def prepare(folder: Path) -> None:
        write(folder, {"cell.onnx": b"old"})
        write(folder / "cell", {"report.json": b"old"})

    prepare(tmp_path / "count")
    with failing(0) as calls:
        publish_with_body(tmp_path / "count", force=True)
    outcomes = set()
    for nth in range(1, calls.count + 1):
        folder = tmp_path / str(nth)
        prepare(folder)
        with failing(nth), suppress(Killed):
            publish_with_body(folder, force=True)
        assert files_in(folder).get("cell.onnx") != b"new" or (folder / BODY).exists(), nth
        run_next(folder)
        found = {n: c for n, c in files_in(folder).items() if n not in {"other.json", BODY}}
        is_new = found == dict.fromkeys(old, b"new")
        assert is_new or found == old, nth
        outcomes.add(is_new)
    assert outcomes == {False, True}
