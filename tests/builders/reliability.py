"""Commands with failing file calls, kills and second writers, and what they leave in a folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from exporter.output.draft import new_file
from exporter.output.manifest import check_manifest
from tests.builders.commands import environment, listing
from tests.builders.shelf import ONNX

HERE = Path(__file__).parent
SHIM = HERE / "shim.c"
COMPILERS = ("cc", "gcc", "clang")
_UNSTABLE = ("report.", "SHA256SUMS")  # starts of the names of files with times of measurements


@dataclass(frozen=True)
class Command:
    """A command that writes `out` or `out.onnx` from net.onnx, which is in the folder above.

    Attributes:
        arguments: without the units to keep and without --force.
        keep: the option and the units of the new result; quantizing keeps all.
        target: the name of its result.
    """

    arguments: tuple[str, ...]
    keep: tuple[str, ...]
    target: str

    def line(self, *, force: bool, keep: tuple[str, ...] | None = None) -> list[str]:
        kept = self.keep if keep is None or not self.keep else keep
        return [*self.arguments, *kept, *(["--force"] if force else [])]


_FAST = ("-q", "--samples", "2")
KEEP, OLD = ("--keep", "0,1"), ("--keep", "2,3,4")
PRUNE = Command(("prune", "../net.onnx", "-o", "out.onnx", *_FAST), KEEP, "out.onnx")
RUN = Command(("run", "../net.onnx", "-o", "out", "--no-bench", *_FAST), KEEP, "out")
QUANTIZE = Command(
    ("quantize", "../net.onnx", "-o", "out.onnx", "--precision", "fp16", "--no-bench", *_FAST),
    (),
    "out.onnx",
)
COMMANDS = {"prune": PRUNE, "run": RUN, "quantize": QUANTIZE}


def compiler() -> str | None:
    """The system's C compiler; None without one, or where LD_PRELOAD does not exist."""
    found = filter(None, map(shutil.which, COMPILERS))
    return next(found, None) if sys.platform == "linux" else None


class FaultServer:
    """A context manager for `fault_server.py` with the shim."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: for the shim, the model and the folders of the commands."""
        self.folder = folder.resolve()
        shim, self._log = self.folder / "shim.so", self.folder / "calls.txt"
        line = [str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(shim), str(SHIM), "-ldl"]
        subprocess.run(line, check=True)
        (self.folder / "net.onnx").write_bytes(ONNX["net.onnx"]().SerializeToString())
        (self.folder / "tmp").mkdir()
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fault_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(LD_PRELOAD=str(shim), TMPDIR=str(self.folder / "tmp")),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(
        self, *lines: list[str], nth: int = 0, error: int = 0, kill_after_s: float | None = None
    ) -> list[tuple[int, str, float]]:
        """Run commands together in the folder `work`; see `fault_server`."""
        common = {"folder": str(self.work), "nth": nth, "error": error, "log": str(self._log)}
        request = [{**common, "arguments": line, "kill_after_s": kill_after_s} for line in lines]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: list[tuple[int, str, float]] = json.loads(self._process.stdout.readline())
        return answer

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def prepare(self, files: Mapping[str, bytes]) -> None:
        """Empty the folder `work`, then write these files."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for name, content in files.items():
            if name.endswith("/"):
                (self.work / name).mkdir()
            else:
                (self.work / name).write_bytes(content)

    def calls(self) -> list[str]:
        """The names of the calls that the last command made."""
        return self._log.read_text().split() if self._log.exists() else []

    def forget_calls(self) -> None:
        self._log.unlink(missing_ok=True)


@dataclass(frozen=True)
class Scene:
    """A command with its old and its new result.

    Attributes:
        line: of the command.
        before, after: the content of the folder.
        calls: the names of the calls that change files, in order.
        seconds: that the command takes.
    """

    line: list[str]
    before: Mapping[str, bytes]
    after: Mapping[str, bytes]
    calls: list[str]
    seconds: float

    def state(self, work: Path) -> str:
        """Old, new, between (files are missing), or MIXED: files of two results."""
        found = {n: c for n, c in listing(work).items() if not n.startswith(".exporter-")}
        if found == self.before:
            return "old"
        if found.keys() == self.after.keys() and _stable(found) == _stable(self.after):
            folders = [work / n for n in found if n.endswith("/")]
            whole = all(check_manifest(folder).passed for folder in folders)
            return "new" if whole else "MIXED"
        results = (self.before, self.after)
        one = any(all(r.get(n) == c for n, c in _stable(found).items()) for r in results)
        return "between" if one else "MIXED"


def _stable(files: Mapping[str, bytes]) -> dict[str, bytes]:
    names = (name for name in files if not name.rpartition("/")[2].startswith(_UNSTABLE))
    return {name: files[name] for name in names}


def scene(server: FaultServer, command: Command, *, force: bool) -> Scene:
    """Run a command once without a failure, and record it."""
    before: Mapping[str, bytes] = {}
    server.prepare({})
    if force:
        if command is QUANTIZE:
            (server.work / "out.onnx").write_bytes(b"old")
        else:
            server.run(command.line(force=False, keep=OLD))
        before = listing(server.work)
    server.prepare(before)
    server.forget_calls()
    ((code, message, seconds),) = server.run(command.line(force=force))
    assert code == 0, message
    return Scene(command.line(force=force), before, listing(server.work), server.calls(), seconds)


def run_next(work: Path) -> None:
    """The next command that writes in the folder; its own result is removed again."""
    with new_file(work / "other.json") as draft:
        draft.write_text("{}")
        draft.publish()
    (work / "other.json").unlink()


def hidden(work: Path) -> list[str]:
    return [path.name for path in work.iterdir() if path.name.startswith(".")]
