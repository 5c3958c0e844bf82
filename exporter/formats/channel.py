"""Pass arrays between a process and its forked copy: values in shared memory, the rest in a pipe.

A message is a list of samples, each of them arrays by name. Its header is JSON: nothing that the
other process sends is executed here, even if a file took it over.

Each direction has two buffers in turn, so that one side writes a message while the other side works
on the one before. At most `DEPTH` requests may wait for their answers.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from exporter import errors
from exporter.errors import ExporterError
from exporter.graph import Array

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Arrays = Mapping[str, Array]

DEPTH = 2  # requests that wait for their answers
BUFFER_BYTES = 4 << 20
_ALIGNED = 64  # bytes: runtimes copy values that are aligned less; the first ones are a counter
_HEADER_BYTES = 1 << 15  # that a pipe takes although nobody reads


@dataclass(frozen=True)
class Message:
    """A message whose values are in the buffer, as far as they fit.

    Attributes:
        blobs: further values.
    """

    header: bytes
    blobs: Sequence[Array] = ()

    @property
    def is_small(self) -> bool:
        """A pipe takes it although nobody reads."""
        return not self.blobs and len(self.header) <= _HEADER_BYTES


class Channel:
    """One end of a connection between two processes."""

    def __init__(self, connection: Connection, sent: mmap.mmap, received: mmap.mmap) -> None:
        self._connection = connection
        self._buffers = sent, received
        self._packed = 0

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Both ends. A process forks after this, and each side then uses one of them."""
        from multiprocessing import Pipe  # noqa: PLC0415 - a cut without its check forks nothing

        first, second = Pipe()
        here, there = (mmap.mmap(-1, _ALIGNED + DEPTH * BUFFER_BYTES) for _ in range(2))
        return cls(first, here, there), cls(second, there, here)

    def close(self) -> None:
        self._connection.close()

    def keep(self) -> None:
        """Do not share the buffers with processes that are forked later."""
        for buffer in self._buffers:
            buffer.madvise(mmap.MADV_DONTFORK)

    def poll(self, seconds: float) -> bool:
        """Whether a message arrives in this time."""
        return self._connection.poll(seconds)

    def count_run(self) -> None:
        """Tell the other side that one more sample was run."""
        counter = np.frombuffer(self._buffers[0], np.uint64, 1)
        counter += np.uint64(1)

    @property
    def runs(self) -> int:
        """How many samples the other side has run."""
        return int(np.frombuffer(self._buffers[1], np.uint64, 1)[0])

    # --- sending ----------------------------------------------------------------------------------

    def pack(self, samples: Iterable[Arrays]) -> Message:
        """Write the values of a message into the next buffer."""
        free = _ALIGNED + BUFFER_BYTES * (self._packed % DEPTH)
        end = free + BUFFER_BYTES
        self._packed += 1
        header: list[Any] = []
        blobs: list[Array] = []
        for arrays in samples:
            rows: list[list[Any]] = []
            header.append(rows)
            for name, value in arrays.items():
                array = np.asarray(value)
                if array.dtype.kind in "OU":  # text, as onnxruntime returns it
                    texts = [str(each) for each in array.flat]
                    rows.append([name, "text", array.shape, texts])
                    continue
                place = -1
                if free + array.nbytes <= end:
                    place, free = free, free + aligned(array.nbytes)
                    self._view(0, array.dtype, array.shape, place)[...] = array
                else:
                    blobs.append(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
                rows.append([name, array.dtype.name, array.shape, place])
        return Message(json.dumps({"samples": header}).encode(), blobs)

    def post(self, message: Message) -> None:
        """Send a message that was packed, or `of_error` made."""
        self._connection.send_bytes(message.header)
        for blob in message.blobs:
            self._connection.send_bytes(blob.reshape(-1).view(np.uint8).data)

    def _view(self, direction: int, dtype: Any, shape: Sequence[int], place: int) -> Array:
        count = math.prod(shape)
        if not count:
            return np.empty(shape, dtype)
        return np.frombuffer(self._buffers[direction], dtype, count, place).reshape(shape)

    # --- receiving --------------------------------------------------------------------------------

    def receive(self, *, copy: bool = True) -> list[dict[str, Array]]:
        """The next message.

        Args:
            copy: else the values are in the buffer, until the answer to this message was sent.

        Raises:
            ExporterError: the other side sent it.
            EOFError, OSError: the other side has ended.
        """
        header = json.loads(self._connection.recv_bytes())
        if "error" in header:
            raise _error_of(*header["error"])
        return [
            {name: self._received(*facts, copy=copy) for name, *facts in rows}
            for rows in header["samples"]
        ]

    def _received(self, dtype: str, shape: Sequence[int], place: Any, *, copy: bool) -> Array:
        if dtype == "text":
            return np.array(place, object).reshape(shape)
        if place >= 0:
            values = self._view(1, dtype, shape, place)
            return values.copy() if copy else values
        return np.frombuffer(bytearray(self._connection.recv_bytes()), dtype).reshape(shape)


def aligned(size: int) -> int:
    """The bytes that an array of this size takes in a buffer."""
    return -(-size // _ALIGNED) * _ALIGNED


def of_error(error: ExporterError) -> Message:
    """The message that raises an error on the other side; nothing of it is in a buffer."""
    notes = "".join(getattr(error, "__notes__", ()))
    content = [type(error).__name__, error.message, error.hint, notes]
    return Message(json.dumps({"error": content}).encode())


def _error_of(name: str, message: str, hint: str, notes: str) -> ExporterError:
    error: ExporterError = getattr(errors, name)(message, hint)
    if notes:
        error.add_note(notes)
    return error
