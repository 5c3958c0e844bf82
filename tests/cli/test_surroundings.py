"""Full disks, closed streams, folders without permission, names that are too long, URLs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import exporter as package
from exporter.cli.exit_codes import run_command
from exporter.cli.main import cli
from exporter.errors import UsageError
from exporter.planning.cut import plan_cut
from tests.builders.commands import Done, command, environment, exporter, listing
from tests.builders.onnx_models import node, numbers, proto

NOBODY = 65534
PRUNE = "prune net.onnx -o out.onnx --keep 1,2 --samples 2"

linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")


@pytest.fixture
def work(shelf: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copyfile(shelf / "net.onnx", folder / "net.onnx")
    return folder


def shell(line: str, folder: Path, *before: str, **more: str) -> Done:
    """Run a line of the shell, in which {exporter} is the command."""
    text = line.replace("{exporter}", shlex.join(command()))
    done = subprocess.run(
        [*before, "sh", "-c", text],
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def assert_one_error(done: Done, code: int, error: str, hint: str) -> None:
    assert done.code == code, done.err
    lines = [line for line in done.err.splitlines() if not line.endswith(" ...")]
    assert lines == [f"error: {error}", f"hint: {hint}"]


# --- streams ------------------------------------------------------------------------------------

# name -> redirection, exit code, error
STREAMS = {
    "stdout is closed": (">&-", 6, "cannot write the results to stdout: it is closed"),
    "stderr is full": ("2>/dev/full", 0, ""),
    "stderr is closed": ("2>&-", 0, ""),
    "all are closed": ("<&- >&- 2>&-", 6, ""),
}


@linux
@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str, work: Path) -> None:
    """The files are whole: nothing that was printed is in them."""
    redirection, code, error = STREAMS[name]
    done = shell(f"{{exporter}} {PRUNE} {redirection}", work)
    assert done.code == code
    if error:
        assert done.err.splitlines()[-2] == f"error: {error}"
    files = listing(work)
    assert set(files) == {"net.onnx", "out.onnx", "out.onnx.remap.json"}
    exporter("prune net.onnx -o again.onnx --keep 1,2 --samples 2 -q", work)
    assert (work / "again.onnx").read_bytes() == files["out.onnx"]


@linux
def test_an_error_keeps_its_exit_code_if_stderr_is_full(work: Path) -> None:
    assert shell("{exporter} inspect no.onnx 2>/dev/full", work).code == 2
    assert shell("{exporter} inspect no.onnx --debug 2>/dev/full", work).code == 2


# --- paths --------------------------------------------------------------------------------------


def test_urls(work: Path) -> None:
    hint = "use s3://, gs://, az://, https:// or a path; see docs/storage.md"
    for line in ("run net.onnx -o ftp://b/out --keep 1", "inspect ftp://x.org/net.onnx"):
        url = next(word for word in line.split() if "://" in word)
        error = f"{url} is a URL of a kind that is not supported here"
        assert_one_error(exporter(line, work), 2, error, hint)
    with pytest.raises(UsageError, match="is a URL"):
        package.run(work / "net.onnx", "hdfs://bucket/out", keep=[1])
    with pytest.raises(UsageError, match="is a URL"):
        package.inspect("hdfs://host/net.onnx")
    assert listing(work) == {"net.onnx": (work / "net.onnx").read_bytes()}


def test_long_name(work: Path) -> None:
    """The name of the model is short enough; the name of its remap is not."""
    for length in (250, 241):
        name = "n" * length
        done = exporter(f"prune net.onnx -o {name}.onnx --keep 1 -q", work)
        error = f"cannot write {name}.onnx.remap.json: File name too long"
        assert_one_error(done, 6, error, "choose a shorter name with -o")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the current folder")
def test_the_current_folder_was_removed(work: Path) -> None:
    (work / "gone").mkdir()
    line = f"cd gone && rmdir ../gone && {{exporter}} inspect {work}/net.onnx"
    done = shell(line, work)
    error = "the current folder cannot be used: No such file or directory"
    assert_one_error(done, 2, error, "change to another folder")


# --- permissions --------------------------------------------------------------------------------


@pytest.fixture
def as_nobody(work: Path) -> Sequence[str]:
    """The start of a command line that runs as a user without rights; () if we are one."""
    if os.name == "nt":
        pytest.skip("permissions of POSIX")
    if os.geteuid() != 0:
        return ()
    switch = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    for parent in (*list(work.parents)[:3], work):
        parent.chmod(0o755)
    if not shutil.which("setpriv") or run_as(switch, ["--version"], work).code:
        pytest.skip("setpriv cannot run the command as another user")
    return switch


def run_as(switch: Sequence[str], arguments: Sequence[str], folder: Path) -> Done:
    done = subprocess.run(
        [*switch, *command(*arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


PERMISSIONS = {
    "read in a folder": ("inspect locked/net.onnx", 2, "cannot read locked/net.onnx"),
    "write in a folder": (
        "prune net.onnx -o locked/o.onnx --keep 1 -q",
        6,
        "cannot write locked/o.onnx",
    ),
    "write a folder": ("run net.onnx -o locked/out --keep 1 -q", 6, "cannot write locked/out"),
    "write a selection": (
        "select net.onnx -o locked/s.json --counts counts.csv --min-count 1 -q",
        6,
        "cannot write locked/s.json",
    ),
}


@pytest.mark.parametrize("name", PERMISSIONS)
def test_a_folder_without_permission(name: str, work: Path, as_nobody: Sequence[str]) -> None:
    line, code, error = PERMISSIONS[name]
    (work / "locked").mkdir()
    shutil.copyfile(work / "net.onnx", work / "locked" / "net.onnx")
    (work / "locked").chmod(0o600)
    done = run_as(as_nobody, line.split(), work)
    (work / "locked").chmod(0o700)
    assert done.code == code, done.err
    first, second = done.err.splitlines()
    assert first == f"error: {error}: Permission denied"
    assert second.startswith("hint: ")
    assert set(listing(work)) == {"net.onnx", "locked/", "locked/net.onnx"}


# --- full disks ---------------------------------------------------------------------------------


def on_small_disk(line: str, folder: Path, size: str, **more: str) -> Done:
    """Run a line with a disk of this size, in memory, at `small`."""
    (folder / "small").mkdir()
    text = f"mount -t tmpfs -o size={size} tmpfs small || exit 99; {line}; code=$?; ls -A small"
    done = shell(f"{text}; exit $code", folder, "unshare", "--mount", **more)
    if done.code == 99 or "unshare" in done.err:
        pytest.skip("no disk can be mounted here")
    return done


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
def test_full_disk(work: Path) -> None:
    line = "{exporter} run net.onnx -o small/out --keep 1,2 -q --no-bench --samples 2"
    done = on_small_disk(line, work, "16k")
    assert done.code == 6
    assert done.out == "", "the disk is empty again"
    first, second = done.err.splitlines()
    assert first.startswith(f"error: cannot write {work}/small/out/")
    assert first.endswith(": No space left on device")
    assert second == "hint: free some space"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
def test_full_disk_of_temporary_files(work: Path) -> None:
    small = work / "small"
    line = "{exporter} quantize net.onnx -o q.onnx --precision fp16 -q --no-bench --samples 2"
    done = on_small_disk(
        f"head -c 4096 /dev/zero > small/full; {line}", work, "8k", TMPDIR=str(small)
    )
    assert done.code == 6, done.err
    assert done.out == "full\n"
    error = f"cannot write temporary files in {small}: No space left on device"
    hint = "free some space there, or set TMPDIR to another folder"
    assert_one_error(Done(done.code, "", done.err), 6, error, hint)
    assert not (work / "q.onnx").exists()


# --- files that change --------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_another_program_shortens_the_model(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are mapped: the kernel ends a process that reads what is no longer there."""
    source, printed = tmp_path / "net.onnx", tmp_path / "printed"
    model = proto([node("MatMul", ["x", "k"], ["y"], "head")], {"k": numbers(64, 6000)}, x=(1, 64))
    source.write_bytes(model.SerializeToString())

    def shorten(*arguments: Any, **options: Any) -> Any:
        os.truncate(source, 5000)
        return plan_cut(*arguments, **options)

    monkeypatch.setattr("exporter.jobs.prune.plan_cut", shorten)
    line = ["prune", str(source), "-o", str(tmp_path / "out.onnx"), "--keep", "1", *flags]
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(printed, os.O_CREAT | os.O_APPEND | os.O_WRONLY), stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # pytest replaced them
        os._exit(run_command(cli, line))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    words = "another program shortened a file while it was read"
    shown = [each for each in printed.read_text().splitlines() if not each.endswith(" ...")]
    if flags:
        (record,) = map(json.loads, shown)
        assert (record["error"], record["exit"]) == (words, 3)
    else:
        assert shown[0] == f"error: {words}"
        assert [each[:6] for each in shown[1:]] == ["hint: "]
    assert not (tmp_path / "out.onnx").exists()
