"""The first part of the runner that a device gets: it needs only Python.

It is sent over the connection and is not a file there. It makes a temporary folder, writes the
files that follow, starts the worker in it, and answers the host. When the connection ends, in
whatever way, it stops the worker and removes the folder. A small process next to it does the same
if this one is killed.

Both directions carry frames: the lengths of a header and of a payload, a JSON header, the payload.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any, Dict, Optional

Header = Dict[str, Any]

ARCHIVE = "runner.zip"  # the modules of the worker, among the files that are sent
MAGIC = b"exporter-device-1\n"  # a shell may print something before it
OLDEST = (3, 9)
_LENGTHS = struct.Struct(">IQ")
_CHUNK = 1 << 20
_PREFIX = "exporter-device-"
_RESERVE = 16 << 20  # bytes that stay free on the disk


def write_frame(stream: Any, header: Header, payload: bytes = b"") -> None:
    """Send a frame."""
    write_header(stream, header, len(payload))
    _write(stream, payload)
    stream.flush()


def write_header(stream: Any, header: Header, size: int) -> None:
    """Send the start of a frame; so many bytes follow."""
    text = json.dumps(header).encode()
    _write(stream, _LENGTHS.pack(len(text), size) + text)


def _write(stream: Any, content: bytes) -> None:
    rest = memoryview(content)
    while rest:  # a pipe without a buffer may take a part only
        rest = rest[stream.write(rest) :]


def read_header(stream: Any) -> tuple[Header, int]:
    """The header of the next frame, and the length of its payload (raises EOFError at the end)."""
    header, payload = _LENGTHS.unpack(read_exactly(stream, _LENGTHS.size))
    return json.loads(read_exactly(stream, header).decode()), payload


def read_exactly(stream: Any, count: int) -> bytes:
    """So many bytes (raises EOFError if there are fewer)."""
    parts = []
    while count:
        part = stream.read(min(count, 1 << 26))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_frame(stream: Any) -> tuple[Header, bytes]:
    """The header and the payload of the next frame (raises EOFError at the end)."""
    header, size = read_header(stream)
    return header, read_exactly(stream, size)


class RefusedError(Exception):
    """A request that cannot be done; its argument is the answer."""


class Server:
    """Answers the frames of one connection."""

    def __init__(self, stdin: Any, stdout: Any) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.folder, self.janitor = "", -1
        self.worker: Any = None

    def serve(self) -> None:
        """Answer until the connection ends."""
        self.stdout.write(MAGIC)
        if sys.version_info < OLDEST:
            write_frame(self.stdout, {"old": "%d.%d" % sys.version_info[:2]})
            return
        try:
            self.start()
            while True:
                header, size = read_header(self.stdin)
                answer: Optional[Header] = {"ok": True}
                if header["do"] == "end":
                    break
                try:
                    if header["do"] == "file":
                        self.write_file(header["name"], size)
                    else:
                        answer = self.call(header, read_exactly(self.stdin, size))
                except RefusedError as refused:
                    answer = refused.args[0]
                if answer:
                    write_frame(self.stdout, answer)
        except (EOFError, OSError):  # the host is gone
            pass
        finally:
            self.stop()

    def start(self) -> None:
        """Make the folder, on the disk with enough space if there is one."""
        header, _ = read_frame(self.stdin)
        candidates = [tempfile.gettempdir(), "/var/tmp", os.path.expanduser("~")]
        usable = [each for each in candidates if os.access(each, os.W_OK | os.X_OK)]
        enough = [each for each in usable if _free(each) > header["bytes"] + _RESERVE]
        best = enough or sorted(usable, key=_free, reverse=True)
        if not best:
            write_frame(
                self.stdout, {"space": 0, "needed": header["bytes"], "folder": candidates[0]}
            )
            raise EOFError
        _sweep(best[0])
        self.folder = tempfile.mkdtemp(prefix="%s%d-" % (_PREFIX, os.getpid()), dir=best[0])
        self.janitor = _start_janitor(self.folder)
        write_frame(self.stdout, {"python": sys.executable})

    def write_file(self, name: str, size: int) -> None:
        """Write the payload of a frame below the folder."""
        path = os.path.join(self.folder, *name.split("/"))
        problem = None
        if _free(self.folder) < size + _RESERVE:
            problem = {"space": _free(self.folder), "needed": size, "folder": self.folder}
        else:
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    while size:
                        part = read_exactly(self.stdin, min(size, _CHUNK))
                        size -= len(part)
                        file.write(part)
            except OSError as error:
                problem = {
                    "space": _free(self.folder),
                    "needed": size,
                    "folder": self.folder,
                    "reason": error.strerror,
                }
        if problem:
            while size:  # the rest is read and dropped, so that the answer can be sent
                size -= len(read_exactly(self.stdin, min(size, _CHUNK)))
            raise RefusedError(problem)

    def call(self, header: Header, payload: bytes) -> Optional[Header]:
        """Let the worker answer; its answers are passed on. None, or what became of the worker."""
        if self.worker is None:
            self._start_worker()
        try:
            write_frame(self.worker.stdin, header, payload)
        except BrokenPipeError:
            return self._died()
        while True:
            ready, _, _ = select.select([self.worker.stdout, self.stdin], [], [])
            if self.stdin in ready:  # the host waits for the answer: it can only be the end
                raise EOFError
            try:
                answer, data = read_frame(self.worker.stdout)
            except EOFError:
                return self._died()
            write_frame(self.stdout, answer, data)
            if "progress" not in answer:
                return None

    def _start_worker(self) -> None:
        self.worker = subprocess.Popen(
            [sys.executable, "-u", ARCHIVE],
            bufsize=0,  # else `select` would not see what is in the buffer
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.write(self.janitor, b"%d\n" % self.worker.pid)

    def _died(self) -> Header:
        try:
            status = self.worker.wait(5)
        except subprocess.TimeoutExpired:
            _kill(self.worker.pid)
            status = self.worker.wait()
        self.worker = None
        return {"died": status}

    def stop(self) -> None:
        """Stop the worker and remove the folder."""
        if self.worker is not None:
            _kill(self.worker.pid)
            self.worker.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def refuse_all(answer: Header) -> None:
    """Give one answer to every request of the host, in place of a worker."""
    with suppress(EOFError, BrokenPipeError):
        while True:
            read_frame(sys.stdin.buffer)
            write_frame(sys.stdout.buffer, answer)


def _free(folder: str) -> int:
    return shutil.disk_usage(folder).free


def _kill(group: int) -> None:
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def _start_janitor(folder: str) -> int:
    """A process that removes the folder when this one is gone; its pipe takes ids of workers."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        return writing
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # the connection must be able to end
            os.dup2(null, descriptor)
        os.close(writing)
        with os.fdopen(reading) as lines:
            workers = [int(line) for line in lines]
        if os.path.exists(folder):  # else the server removed it
            for worker in workers:
                _kill(worker)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os._exit(0)


def _sweep(parent: str) -> None:
    """Remove the folders of servers that lost power, or were killed together with the janitor."""
    for name in os.listdir(parent):
        process = name[len(_PREFIX) :].partition("-")[0]
        path = os.path.join(parent, name)
        if name.startswith(_PREFIX) and process.isdigit() and os.stat(path).st_uid == os.getuid():
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except OSError:
                pass


if __name__ == "__main__":
    Server(sys.stdin.buffer, sys.stdout.buffer).serve()
    sys.stdout.buffer.close()
    os._exit(0)
