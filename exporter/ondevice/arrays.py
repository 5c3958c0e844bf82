"""Arrays as bytes: a description for JSON, and the values one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.errors import ModelError


def pack(arrays: Mapping[str, Any]) -> tuple[list[Any], bytes]:
    """The description [[name, dtype, shape], ...], and the values.

    Raises:
        ModelError: values that are no array, or of a dtype that NumPy itself does not have.
    """
    described, parts = [], []
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.kind == "O" and all(isinstance(each, str) for each in array.flat):
            array = array.astype(str)
        if array.dtype.kind not in "biufcU":
            raise ModelError(
                f"the values of {name!r} are {array.dtype}, which are not sent to or from a device",
                "compare the files on this machine, without --on",
            )
        described.append([name, array.dtype.str, array.shape])
        parts.append(np.ascontiguousarray(array).tobytes())
    return described, b"".join(parts)


def unpack(described: Sequence[Any], content: bytes) -> dict[str, Any]:
    """Name -> array; see `pack`."""
    found, place = {}, 0
    for name, dtype, shape in described:
        kind, count = np.dtype(dtype), math.prod(shape)
        if count:
            found[name] = np.frombuffer(content, kind, count, place).reshape(shape)
        else:
            found[name] = np.empty(shape, kind)
        place += count * kind.itemsize
    return found
