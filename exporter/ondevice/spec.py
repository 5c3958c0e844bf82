"""How a model file is run, and how the process is set up that measures its memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

RETURNED_AT_ONCE = 1 << 16  # bytes; differences below the size of such a block are noise
_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")  # of glibc; see mallopt(3)
# Set in the process that is measured; see `exporter.performance.memory`.
ENVIRONMENT = dict.fromkeys(_MALLOC, str(RETURNED_AT_ONCE))
NAME_PREFIX = "="  # of names in the archive: `numpy.savez` has its own argument "file"


class Spec(NamedTuple):
    """A model file, and how it is run.

    Attributes:
        kind: "onnx" or "tflite".
        inputs, outputs: of a TFLite file: name -> tensor index. Empty to feed in the order of the
            file.
    """

    kind: str
    path: str
    threads: int = 1
    provider: str = ""
    inputs: Mapping[str, int] = {}
    outputs: Mapping[str, int] = {}
