"""The addresses of devices: ssh://USER@HOST:PORT/PYTHON and adb://SERIAL/BENCHMARK_MODEL."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from exporter.errors import UsageError

_WORD = re.compile(r"[\w.%:][\w.%:-]*")  # no option of ssh or adb begins so
_SHELL = re.compile(r"[\w./+-]+")
SCHEMES = {"ssh": "ssh://pi@greenhouse", "adb": "adb://SERIAL"}


class Address(NamedTuple):
    """The address of a device.

    Attributes:
        scheme: "ssh" or "adb".
        target: USER@HOST or HOST for ssh, which its configuration may explain; the serial number
            for adb.
        port: None for the port that the configuration states.
        program: on the device: Python for ssh, benchmark_model for adb; "" for the default.
        name: for reports: without the user.
    """

    scheme: str
    target: str
    port: int | None
    program: str
    name: str

    @property
    def url(self) -> str:
        """The address without the program."""
        return f"{self.scheme}://{self.target}{f':{self.port}' if self.port else ''}"


def parse_address(text: str) -> Address:
    """Read an address.

    Raises:
        UsageError: it is none, or contains a password, which would be in reports.
    """
    example = f"write {' or '.join(SCHEMES.values())}"
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise UsageError(f"{_without_password(text)!r} is not the address of a device", example)
    user, _, host = parts.netloc.rpartition("@")
    if ":" in user:
        raise UsageError(
            f"the address of {host} contains a password",
            "leave it out: use a key, or ssh asks for it",
        )
    if parts.query or parts.fragment:
        raise UsageError(f"{text!r} has options, which addresses do not have", example)
    program = unquote(parts.path if parts.path != "/" else "")
    if program and not _SHELL.fullmatch(program):
        raise UsageError(f"{program!r} cannot name a program on {host}", "use a simple path")
    if parts.scheme == "adb":
        if not _WORD.fullmatch(host) or user:
            raise UsageError(f"{text!r} is not the address of a device", example)
        return Address("adb", host, None, program, host)
    name, port = host, None
    if match := re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:]+):([0-9]{1,5})", host):
        name, port = match[1], int(match[2])
    name = name.strip("[]")
    if not _WORD.fullmatch(name) or (user and not re.fullmatch(r"[\w.][\w.+-]*", user)):
        raise UsageError(f"{text!r} is not the address of a device", example)
    target = f"{user}@{name}" if user else name
    return Address("ssh", target, port, program, f"{name}:{port}" if port else name)


def _without_password(text: str) -> str:
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1@", text)
