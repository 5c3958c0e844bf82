"""Pages of mapped files are mapped in advance, and nothing else changes."""

from __future__ import annotations

import mmap
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from exporter.graph import gathered
from exporter.graph.gathered import Gathered
from exporter.graph.mapped import map_pages, parts_of

SIZE = 1 << 23


def mapped(folder: Path, content: bytes) -> mmap.mmap:
    path = folder / "content"
    path.write_bytes(content)
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.skipif(sys.platform != "linux", reason="other systems map pages when they are read")
def test_reading_mapped_pages_causes_few_faults(tmp_path: Path) -> None:
    found = []
    for advance in (False, True):
        values = np.frombuffer(mapped(tmp_path, bytes(SIZE)), np.uint8)[1000:-1000]
        if advance:
            map_pages(values)
        before = faults()
        assert not values[::512].any()
        found.append(faults() - before)
    if found[0] < 8:
        pytest.skip("this file system maps all pages at once")
    assert found[1] < found[0] / 4


def test_parts_are_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.graph.mapped._PART_BYTES", 10_000)
    content = np.random.default_rng(0).bytes(25_001)
    view = memoryview(mapped(tmp_path, content))
    for start in (0, 1, 9_999, 25_000, 25_001):
        parts = [bytes(part) for part in parts_of(view[start:])]
        assert b"".join(parts) == content[start:]
        assert max(map(len, parts), default=0) <= 10_000


def test_arrays_that_are_not_mapped() -> None:
    for values in (np.arange(3), np.frombuffer(bytes(8), np.uint8), np.zeros((0, 4))):
        map_pages(values)


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    """Reading these pages would end the process; asking for them does not."""
    values = np.frombuffer(mapped(tmp_path, bytes(SIZE)), np.uint8)
    with (tmp_path / "content").open("r+b") as file:
        file.truncate(4096)
    map_pages(values)


# shape, axis, number of positions in the middle -> how many positions around them are mapped
AROUND: tuple[tuple[tuple[int, ...], int, int, int], ...] = (
    ((1000, 8), 0, 40, 40),
    ((30, 1000), 1, 20, 0),  # most of each line is not read
    ((30, 1000), 1, 100, 1000),
)


@pytest.mark.parametrize(("shape", "axis", "count", "expected"), AROUND)
def test_only_what_is_read_is_mapped(
    shape: tuple[int, ...], axis: int, count: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped_widths = set[int]()
    monkeypatch.setattr(gathered, "map_pages", lambda part: mapped_widths.add(part.shape[1]))
    positions = np.arange(500, 500 + count)
    blocks = [block.copy() for block in Gathered(np.zeros(shape), axis, positions).blocks()]
    assert sum(map(len, blocks)) == 8 * np.prod(shape) // shape[axis] * count
    assert mapped_widths == ({expected} if expected else set())
