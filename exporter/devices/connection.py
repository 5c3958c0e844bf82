"""A connection to a device over the system's ssh.

The user's configuration of ssh applies. All files go through the one connection, so that one login
is enough and nothing stays on the device when the connection breaks. EXPORTER_SSH may name another
program, with options: "ssh -F other_config". Its options win over those here.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from exporter import errors
from exporter.devices.address import Address
from exporter.devices.archive import archive, bootstrap
from exporter.errors import DeviceError
from exporter.ondevice import serve

PROGRAM = "EXPORTER_SSH"
# A device that does not answer for so long is gone.
_OPTIONS = ("ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=8")
_NOISE = 1 << 16  # bytes that a shell may print before the runner answers
_FAILED, _NOT_FOUND, _KILLED = 255, 127, -9
_PACKAGES = {"ai_edge_litert": "ai-edge-litert"}


class Connection:
    """The runner on a device.

    Raises (each function):
        DeviceError: the device cannot be reached, lacks something, or its runner ended.
    """

    def __init__(self, address: Address, needed_bytes: int) -> None:
        """Start the runner there.

        Args:
            needed_bytes: of files that will be sent.
        """
        self.address, self._python = address, address.program or "python3"
        self._log: Any = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection
        self._process: Any = None
        source = bootstrap()
        start = f"import sys;exec(sys.stdin.buffer.read({len(source)}))"
        words = [*_ssh(address), f"{shlex.quote(self._python)} -u -c '{start}'"]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's ssh
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
        except OSError as error:
            self.close()
            raise DeviceError(
                f"{words[0]} cannot be started: {error.strerror}",
                f"install ssh, or name another program in {PROGRAM}",
            ) from error
        try:
            with suppress(BrokenPipeError):  # the cause is found when the answer is missing
                self._process.stdin.write(source)
                serve.write_frame(self._process.stdin, {"bytes": needed_bytes + len(archive())})
            self._skip_noise()
            answer, _ = self._answer()
            self._python = answer["python"]
            self._send([(serve.ARCHIVE, archive())])
        except BaseException:
            self.close()
            raise

    def call(
        self,
        do: str,
        arguments: Mapping[str, Any],
        payload: bytes = b"",
        progress: Callable[[str], None] = lambda _: None,
    ) -> tuple[dict[str, Any], bytes]:
        """The answer of a function of `exporter.ondevice.worker`, and its payload."""
        self._write({"do": do, **arguments}, payload)
        while True:
            answer, content = self._answer()
            if "progress" not in answer:
                return answer, content
            progress(answer["progress"])

    def send(self, files: Iterable[tuple[str, Path]]) -> None:
        """Send files.

        Args:
            files: name in the folder of the runner, and the file.
        """
        self._send(files)

    def close(self) -> None:
        """End the runner, which removes what it wrote."""
        if self._process is not None:
            with suppress(OSError, ValueError):
                # Forked copies of this process may hold the pipe, so that closing it is no end.
                serve.write_frame(self._process.stdin, {"do": "end"})
            with suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
        self._log.close()

    # --- frames -----------------------------------------------------------------------------------

    def _send(self, files: Iterable[tuple[str, Path | bytes]]) -> None:
        for name, source in files:
            if isinstance(source, bytes):
                self._write({"do": "file", "name": name}, source)
            else:
                self._write_file(name, source)
            self._answer()

    def _write_file(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                stream = self._process.stdin
                serve.write_header(stream, {"do": "file", "name": name}, size)
                while chunk := file.read(1 << 20):
                    stream.write(chunk)
                stream.flush()
            except OSError:
                self._broken()

    def _write(self, header: Mapping[str, Any], payload: bytes) -> None:
        try:
            serve.write_frame(self._process.stdin, dict(header), payload)
        except OSError:
            self._broken()

    def _answer(self) -> tuple[dict[str, Any], bytes]:
        try:
            answer, payload = serve.read_frame(self._process.stdout)
        except (EOFError, OSError):
            self._broken()
        self._check(answer)
        return answer, payload

    def _check(self, answer: Mapping[str, Any]) -> None:
        """Raise the error that an answer states."""
        name = self.address.name
        if "old" in answer:
            raise DeviceError(
                f"{name} has Python {answer['old']}, and 3.9 or newer is needed",
                f"name another one: --on {self.address.url}/usr/bin/python3.11",
            )
        if "space" in answer:
            raise DeviceError(
                f"there is not enough space on {name}: {answer['folder']} has "
                f"{answer['space'] / 1e6:.0f} MB free, and {answer['needed'] / 1e6:.0f} MB are "
                "needed",
                f"free some space on {name}",
            )
        if "missing" in answer:
            self._missing(answer["missing"], answer["reason"])
        if "error" in answer:
            kind, message, hint = answer["error"]
            raise getattr(errors, kind)(f"on {name}: {message}", hint)
        if "died" in answer:
            raise died(name, answer["died"], answer.get("failed", ""))

    def _missing(self, module: str, reason: str) -> NoReturn:
        package = _PACKAGES.get(module, module) or "numpy"
        is_missing = "No module" in reason or module in _PACKAGES
        state = "is not installed" if is_missing else f"cannot be imported ({reason})"
        ssh = shlex.join([word for word in _ssh(self.address) if word not in _quiet()])
        raise DeviceError(
            f"{package} {state} on {self.address.name} for {self._python}",
            f"install it: {ssh} {self._python} -m pip install {package}; or name the Python of "
            f"an environment that has it: --on {self.address.url}/path/to/python",
        )

    # --- the end ----------------------------------------------------------------------------------

    def _skip_noise(self) -> None:
        """Read until the runner answers: a login may print a greeting."""
        seen = b""
        while not seen.endswith(serve.MAGIC):
            byte = self._process.stdout.read(1)
            if not byte or len(seen) > _NOISE:
                self._broken(started=False)
            seen += byte

    def _broken(self, *, started: bool = True) -> NoReturn:
        """The connection ended by itself: say why."""
        name, python = self.address.name, self._python
        with suppress(OSError):
            self._process.stdin.close()
        try:
            status = self._process.wait(10)
        except subprocess.TimeoutExpired:
            status = None
        said = self._last_line()
        if started:
            raise DeviceError(
                f"the connection to {name} broke{f': {said}' if said else ''}",
                "its runner ends and removes its files by itself; start the command again",
            )
        if status == _NOT_FOUND:
            raise DeviceError(
                f"{python} was not found on {name}",
                "install Python 3.9 or newer there, or name it: "
                f"--on {self.address.url}/path/to/python",
            )
        if status == _FAILED:
            ssh = shlex.join([word for word in _ssh(self.address) if word not in _quiet()])
            raise DeviceError(
                f"{name} cannot be reached: {said or 'ssh says no reason'}",
                f"try `{ssh} true`: it must work first",
            )
        raise DeviceError(
            f"{python} did not start the runner on {name}{f': {said}' if said else ''}",
            f"name another Python: --on {self.address.url}/path/to/python",
        )

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        found = [" ".join(line.split()) for line in lines if line.strip()]
        return found[-1][:300] if found else ""


def died(name: str, status: int, said: str) -> DeviceError:
    """The error for a process that ended on a device.

    Args:
        status: negative for a signal.
        said: by the process.
    """
    if status == _KILLED:
        return DeviceError(
            f"the system of {name} killed the process that runs the model: most likely its memory "
            "is full",
            f"end other programs on {name}, use a smaller --batch, or cut or quantize further",
        )
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return DeviceError(
        f"the process that runs the model on {name} {how}{f': {said}' if said else ''}",
        "the runtime there may not support this file: try another version of it",
    )


def _ssh(address: Address) -> list[str]:
    """The command, without that of the device."""
    options = [word for option in _OPTIONS for word in ("-o", option)]
    port = ["-p", str(address.port)] if address.port else []
    return [*shlex.split(os.environ.get(PROGRAM) or "ssh"), *options, *port, address.target]


def _quiet() -> set[str]:
    return {"-o", *_OPTIONS}
