"""Ask a server of `fork_server` for a fork; imports in a few milliseconds.

As a script it runs one command of the program; the tests of documents use it as `exporter`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LONGEST = 1 << 20  # bytes of a message
SERVERS = "EXPORTER_TEST_SERVERS"  # the variable with the descriptors of both servers


class Fork:
    """A process that is a fork of a server."""

    def __init__(
        self,
        servers: Sequence[socket.socket],
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        streams: Sequence[int],
    ) -> None:
        """Start it.

        Args:
            servers: the one to ask, and the one that it asks for a child that converts.
            arguments: a module, or the path of a script, and its arguments.
            streams: descriptors of its standard input, output and error.
        """
        self._answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        message = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
        with theirs:
            files = [theirs.fileno(), servers[1].fileno(), *streams]
            socket.send_fds(servers[0], [message], files)
        self.pid = self._answer()
        self._code: int | None = None

    def _answer(self) -> int:
        return int(json.loads(self._answers.recv(LONGEST)))

    def wait(self, timeout_s: float | None = None) -> int:
        """Return its exit code; negative if a signal ended it. Kill it if it takes too long."""
        if self._code is None:
            self._answers.settimeout(timeout_s)
            try:
                self._code = self._answer()
            except BaseException:
                os.kill(self.pid, signal.SIGKILL)
                raise
            finally:
                self._answers.close()
        return self._code


if __name__ == "__main__":
    servers = [socket.socket(fileno=int(each)) for each in os.environ.pop(SERVERS).split()]
    fork = Fork(servers, ["exporter", *sys.argv[1:]], Path.cwd(), os.environ, (0, 1, 2))
    code = fork.wait()
    sys.exit(code if code >= 0 else 128 - code)
