"""Data that is larger than the memory: files are read in blocks, as often as they are used."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.data import arrays, stream
from exporter.data.files import hash_files
from exporter.data.read import read_samples
from exporter.data.samples import Samples, join_batches, synthetic_samples, to_model_inputs
from exporter.data.stream import Stream, first_samples, read_blocks, spread
from exporter.errors import UsageError
from exporter.graph import Array, Graph, Quantization, Tensor
from exporter.graph.normalization import Normalization

VALUES = np.arange(70, dtype=np.float32).reshape(10, 7)


def graph() -> Graph:
    return Graph((), {"x": Tensor("x", (None, 7), "float32")}, ("x",), ())


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples a block, and no array is small enough for the memory."""
    monkeypatch.setattr(stream, "BLOCK_BYTES", 3 * VALUES[0].nbytes)
    monkeypatch.setattr(arrays, "read_blocks", lambda first, again: read_blocks(first, again, 0))


def write(path: Path, form: str, values: Array = VALUES) -> Path:
    match form:
        case "npy":
            np.save(path, values)
        case "fortran":
            np.save(path, np.asfortranarray(values))
        case "stored":
            np.savez(path, x=values)
        case "compressed":
            np.savez_compressed(path, x=values)
    return next(path.parent.glob(f"{path.name}*"))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("form", ["npy", "fortran", "stored", "compressed"])
def test_large_arrays_stay_in_their_file(tmp_path: Path, form: str) -> None:
    samples = read_samples(write(tmp_path / "data", form), graph())
    values: Any = samples.values["x"]
    assert isinstance(values, Stream)
    assert samples.count == 10
    for _ in range(2):  # each pass starts again
        assert np.array_equal([feed["x"][0] for feed in samples.feeds()], VALUES)
    assert np.array_equal(values[7], VALUES[7:8])
    assert np.array_equal(values[2], VALUES[2:3])  # back to the start
    assert np.array_equal(values[1:8:3], VALUES[1:8:3, None])
    with pytest.raises(IndexError):
        values[10]


@pytest.mark.usefixtures("small_blocks")
def test_batches_of_a_stream_are_filled_up_from_its_start(tmp_path: Path) -> None:
    samples = read_samples(write(tmp_path / "data", "stored"), graph())
    joined = join_batches(samples, graph(), 4)
    got = [feed["x"] for feed in joined.feeds()]
    expected = VALUES[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]].reshape(3, 4, 7)
    assert np.array_equal(got, expected)
    with pytest.raises(IndexError):
        joined.values["x"][3]


@pytest.mark.parametrize("form", ["npy", "stored", "compressed"])
def test_a_limit_reads_no_further(tmp_path: Path, form: str) -> None:
    """The end of the file is damaged: only the whole file is refused."""
    values = np.random.default_rng(0).normal(size=(4000, 7)).astype(np.float32)
    path = write(tmp_path / "data", form, values)
    content = bytearray(path.read_bytes())
    if form == "npy":
        content = content[:-4]
    else:
        with zipfile.ZipFile(path) as archive:
            (member,) = archive.infolist()
        content[member.header_offset + member.compress_size - 200] ^= 0xFF
    path.write_bytes(content)
    assert np.array_equal(read_samples(path, graph(), 16).values["x"][:, 0], values[:16])
    with pytest.raises(UsageError, match="is not a readable"):
        read_samples(path, graph())


@pytest.mark.usefixtures("small_blocks")
def test_a_wrong_value_names_its_sample(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[8, 1] = np.nan
    with pytest.raises(UsageError, match="NaN or infinite: 1 in sample 8"):
        read_samples(write(tmp_path / "data", "npy", values), graph())
    assert read_samples(tmp_path / "data.npy", graph(), 8).count == 8


def test_a_negative_length_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data", "npy")
    path.write_bytes(path.read_bytes().replace(b"(10, 7)", b"(10,-7)"))
    with pytest.raises(UsageError, match="is not a readable"):
        read_samples(path, graph())


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, [3, 3, 2]), (2, [2]), (3, [3]), (4, [3, 1]), (8, [3, 3, 2]), (9, [3, 3, 2])],
)
def test_first_samples(limit: int | None, expected: list[int]) -> None:
    def blocks() -> Iterator[Array]:
        yield from (np.zeros((3, 1)), np.zeros((3, 1)), np.zeros((2, 1)))

    assert [len(block) for block in first_samples(blocks(), limit)] == expected


def test_spread() -> None:
    assert spread(10, None) == list(range(10))
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 9) == [0, 1, 2]


# --- few of many --------------------------------------------------------------------------------


def test_within_a_size(tmp_path: Path) -> None:
    samples = Samples({"x": VALUES[:, None]}, "mine", list("abcdefghij"))
    assert samples.within(10 * 28) is samples
    few = samples.within(4 * 28 + 27)
    assert (few.count, few.labels) == (4, ["a", "c", "f", "h"])
    assert few.source == "mine, 4 of 10 samples"
    assert np.array_equal([feed["x"][0] for feed in few.feeds()], VALUES[[0, 2, 5, 7]])
    assert samples.within(1).count == 1
    assert Samples({}, "none").within(1).count == 0


def test_progress_of_a_pass() -> None:
    seen: list[tuple[int, int]] = []
    samples = Samples({"x": VALUES}, "mine", on_sample=lambda *step: seen.append(step))
    assert len(list(samples.feeds())) == 10
    assert seen == [(i, 10) for i in range(11)]


def test_quantized_inputs_get_quantized_values() -> None:
    scaled = Quantization(np.array([0.5]), np.array([3]), 0, 255)
    tensors = {"x": Tensor("x", (1, 2), "uint8", quantization=scaled), "y": Tensor("y", (), "bool")}
    model = Graph((), tensors, ("x", "y"), ())
    feed = {"x": np.array([[1.0, -9.0]]), "y": np.array(True), "z": np.array([1.0])}
    found = to_model_inputs(feed, model)
    assert found["x"].tolist() == [[5, 0]]
    assert found["x"].dtype == np.uint8
    assert found["z"] is feed["z"]
    assert found["y"] is feed["y"]


# --- hashes -------------------------------------------------------------------------------------


def test_hashes_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "data", "stored")
    (found,) = hash_files(read_samples(path, graph()))
    assert found.path == path
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert hash_files(synthetic_samples(graph(), 2)) == []


# --- synthetic samples ----------------------------------------------------------------------------


def _drawn_at_once(count: int, seed: int) -> dict[str, Array]:
    """All values of the graph below in one piece, as `synthetic_samples` describes them."""
    random = np.random.default_rng(seed)
    half = count // 2
    noise = [random.normal(size=(count - half, 1, 50, 3)), random.uniform(size=(half, 1, 50, 3))]
    levels = np.sort(random.uniform(size=(2, count)), axis=0)
    levels[:, 0] = 0.0, 1.0
    low, high = levels.reshape(2, count, 1, 1, 1, 1)
    pictures = -1 + 2 * (low + (high - low) * random.uniform(size=(count, 1, 4, 4, 3)))
    return {
        "noise": np.concatenate(noise).astype(np.float32),
        "pictures": pictures.astype(np.float32),
        "bytes": random.integers(0, 255, (count, 1, 100), endpoint=True).astype(np.uint8),
        "last": random.integers(0, 1, (count, 1, 7), endpoint=True).astype(np.int64),
    }


@pytest.mark.parametrize(("in_memory", "block"), [(1 << 26, 8 << 20), (0, 8 << 20), (0, 9000)])
def test_synthetic_samples_are_the_same_in_blocks(
    in_memory: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.data.samples.IN_MEMORY_BYTES", in_memory)
    monkeypatch.setattr("exporter.data.stream.BLOCK_BYTES", block)
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "noise": ((1, 50, 3), "float32"),
        "pictures": ((1, 4, 4, 3), "float32"),
        "bytes": ((1, 100), "uint8"),
        "last": ((1, 7), "int64"),
    }
    tensors = {name: Tensor(name, shape, dtype) for name, (shape, dtype) in shapes.items()}
    scale = Normalization((127.5,), (127.5,))
    graph = Graph((), tensors, tuple(tensors), (), normalization={"pictures": scale})
    samples = synthetic_samples(graph, 31, 4)
    assert samples.in_memory == bool(in_memory)
    wanted = _drawn_at_once(31, 4)
    for _ in range(2):
        for i, feed in enumerate(samples.feeds()):
            for name, values in wanted.items():
                assert feed[name].dtype == values.dtype
                np.testing.assert_array_equal(feed[name], values[i])
