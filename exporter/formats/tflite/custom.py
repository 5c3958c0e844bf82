"""The options of custom operators: a flexbuffer with a map, where the operator keeps to the habit.

Flexbuffers come from files that nothing has verified; what cannot be read has no options.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from exporter.errors import ModelError
from exporter.graph import Array

# What the reader raises on bytes that are no flexbuffer.
_DAMAGED = (ValueError, LookupError, TypeError, OverflowError, RecursionError, struct.error)
_LARGEST = 1 << 16  # bytes; a map of settings has some hundred


def read_options(data: Array | None) -> Mapping[str, Any] | None:
    """The options by name; None where the bytes are not those of a map."""
    if data is None or not 0 < len(data) <= _LARGEST:
        return None
    try:
        options = flexbuffers.Loads(data.tobytes())
    except _DAMAGED:
        return None
    return options if isinstance(options, dict) else None


def set_option(operator: Any, name: str, value: Any) -> None:
    """Write the options again with one of them changed; ModelError if there is none of that name.

    Numbers may take more or fewer bytes than before: readers ask for them by name.
    """
    options = read_options(operator.customOptions)
    if options is None or name not in options:
        raise ModelError(f"the custom operator has no option {name!r}")
    written = flexbuffers.Dumps({**options, name: value})
    operator.customOptions = np.frombuffer(bytes(written), np.uint8)
