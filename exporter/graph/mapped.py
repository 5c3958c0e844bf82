"""Map pages of a file into memory before they are read.

A file that is read through a map for the first time causes a page fault for each 64 KB. Together,
they take as long as copying the file; one call for many pages takes a hundredth of that.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from exporter.graph.graph import Array

_POPULATE_READ = 22  # MADV_POPULATE_READ, of Linux from 5.14 on; other systems do without
_PART_BYTES = 1 << 24


def map_pages(values: Array) -> None:
    """Map the pages of an array in C order, if it is a view of a mapped file.

    Nothing else changes: without this, or if it fails, pages are mapped when they are read.
    """
    owner: Any = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    owner = owner.obj if isinstance(owner, memoryview) else owner
    if sys.platform != "linux" or not isinstance(owner, mmap.mmap) or not values.nbytes:
        return
    first = np.frombuffer(owner, np.uint8)
    start = values.__array_interface__["data"][0] - first.__array_interface__["data"][0]
    before = start % mmap.PAGESIZE
    with suppress(OSError, ValueError):  # an older kernel, or the file is shorter now
        owner.madvise(_POPULATE_READ, start - before, values.nbytes + before)


def parts_of(content: memoryview) -> Iterator[memoryview]:
    """The bytes of a file, in parts that are mapped one after the other."""
    for start in range(0, len(content), _PART_BYTES):
        part = content[start : start + _PART_BYTES]
        map_pages(np.frombuffer(part, np.uint8))
        yield part
