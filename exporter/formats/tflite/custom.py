"""The options of custom operators, which most of them store as a flexbuffer map.

Nothing has verified the flexbuffers. One that cannot be read counts as no options.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from exporter.errors import ModelError
from exporter.graph import Array

# The reader raises these on bytes that are not a flexbuffer.
_DAMAGED = (ValueError, LookupError, TypeError, OverflowError, RecursionError, struct.error)
_MAX_BYTES = 1 << 16  # a map of settings has a few hundred


def read_options(data: Array | None) -> Mapping[str, Any] | None:
    """The options by name; None if the bytes are not a map."""
    if data is None or not 0 < len(data) <= _MAX_BYTES:
        return None
    try:
        options = flexbuffers.Loads(data.tobytes())
    except _DAMAGED:
        return None
    return options if isinstance(options, dict) else None


def set_option(operator: Any, name: str, value: Any) -> None:
    """Change one option; ModelError if there is none of that name.

    Numbers may take more or fewer bytes than before, since runtimes look options up by name.
    """
    options = read_options(operator.customOptions)
    if options is None or name not in options:
        raise ModelError(f"the custom operator has no option {name!r}")
    written = flexbuffers.Dumps({**options, name: value})
    operator.customOptions = np.frombuffer(bytes(written), np.uint8)
