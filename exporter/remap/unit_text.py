"""Many units as a short text: ranges such as "0-9,12", or one bit for each unit.

A table in a model file is stored like this: a list takes up to 13 bytes for each kept unit.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence

import numpy as np

_RANGES = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_BITS = "bits:"
_BITS_PER_LETTER = 6  # of base64
_MOST = 1 << 24  # units that a text may name: a damaged file must not fill the memory


def units_to_text(units: Sequence[int], count: int) -> str:
    """Ranges in the order of the units, or bits if the units ascend and bits are shorter.

    Args:
        units: at least one, each from 0 to count - 1.
        count: of all units.
    """
    numbers = np.asarray(units, np.int64)
    steps = np.diff(numbers)
    first = np.flatnonzero(np.append(True, steps != 1))
    if len(first) * len(str(count)) > count // _BITS_PER_LETTER and (steps > 0).all():
        present = np.zeros(count, bool)
        present[numbers] = True
        return _BITS + b64encode(np.packbits(present).tobytes()).decode()
    starts, stops = numbers[first], numbers[np.append(first[1:], len(numbers)) - 1]
    ranges = zip(starts.tolist(), stops.tolist(), strict=True)
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def units_of_text(text: str, count: int) -> tuple[int, ...]:
    """The units in a text that `units_to_text` wrote (raises ValueError).

    Args:
        count: of all units.
    """
    if text.startswith(_BITS):
        packed = np.frombuffer(b64decode(text.removeprefix(_BITS), validate=True), np.uint8)
        if len(packed) != -(-count // 8):
            raise ValueError(f"{len(packed)} bytes for {count} units")
        return tuple(np.flatnonzero(np.unpackbits(packed)).tolist())
    if not _RANGES.fullmatch(text):
        raise ValueError("neither ranges nor bits")
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    if any(each[-1] < each[0] for each in ends):
        raise ValueError("a range that ends before it starts")
    if sum(each[-1] - each[0] + 1 for each in ends) > min(count, _MOST):
        raise ValueError(f"more than {min(count, _MOST)} units")
    return tuple(unit for each in ends for unit in range(each[0], each[-1] + 1))
