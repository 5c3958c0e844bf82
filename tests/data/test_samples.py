"""Samples to run models on: synthetic ones from a seed, and the user's own."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.data.read import read_samples
from exporter.data.samples import Samples, join_batches, synthetic_samples
from exporter.errors import UsageError
from exporter.graph import Array, Graph, Node, Quantization, Shape, Tensor
from exporter.graph.lengths import Lengths
from exporter.graph.normalization import Normalization
from exporter.graph.operations import (
    Activation,
    Concat,
    Elementwise,
    Gather,
    Operation,
    Reshape,
    Split,
    Transpose,
)

Inputs = Mapping[str, tuple[str, Shape | None]]  # name -> dtype, shape


def graph(inputs: Inputs, nodes: Sequence[Node] = (), **tables: Shape | None) -> Graph:
    """A graph with these inputs, nodes, and tables of these shapes."""
    tensors = {name: Tensor(name, shape, dtype) for name, (dtype, shape) in inputs.items()}
    tensors |= {
        n: Tensor(n, shape, "float32", read=lambda: NOT_READ) for n, shape in tables.items()
    }
    return Graph(tuple(nodes), tensors, tuple(inputs), ())


NOT_READ: Any = None  # the values of a table are never read


def one(dtype: str = "float32", shape: Shape | None = (None, 3)) -> Graph:
    return graph({"x": (dtype, shape)})


def named(*symbols: str) -> Graph:
    """A graph with one input, whose open dimensions have these names."""
    model = one(shape=(None,) * len(symbols))
    return replace(model, tensors={"x": replace(model.tensors["x"], symbols=symbols)})


def node(operation: Operation, *inputs: str, to: str = "out") -> Node:
    return Node(f"make {to}", type(operation).__name__, operation, inputs, (to,))


def lookup(*path: Node, dtype: str = "int32", rows: int | None = 7) -> Graph:
    """The input x goes through the nodes of the path, and then indexes a table of `rows` rows."""
    at = path[-1].outputs[0] if path else "x"
    nodes = [*path, node(Gather(0), "table", at, to="rows")]
    return graph({"x": (dtype, (None, 4))}, nodes, table=(rows, 2))


# --- synthetic: refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "message", "hint"),
    [
        pytest.param(
            one(shape=(None, None, 3)),
            {},
            "input 'x' has the open shape [?, ?, 3]",
            "give the shape with numbers: --input-shape x=1,?,3",
            id="open dimension after the batch",
        ),
        pytest.param(
            one(shape=None),
            {},
            "input 'x' has an unknown rank",
            "give the shape with numbers: --input-shape x=1,...",
            id="unknown rank",
        ),
        pytest.param(
            one(),
            {"lengths": Lengths({"z": (1, 3), "other": (1,)})},
            "the model has no input 'other'",
            "its inputs are 'x'",
            id="shape for an unknown input",
        ),
        pytest.param(
            one(),
            {"lengths": Lengths({"x": (1, 4)})},
            "input 'x' has the shape [?, 3], not [1, 4]",
            "give numbers for its open dimensions (?) only",
            id="shape that contradicts a fixed dimension",
        ),
        pytest.param(
            one(),
            {"lengths": Lengths({"x": (3,)})},
            "input 'x' has the shape [?, 3], not [3]",
            "give numbers for its open dimensions (?) only",
            id="shape of another rank",
        ),
        pytest.param(
            one(),
            {"lengths": Lengths({"x": (0, 3)})},
            "the shape [0, 3] for input 'x' has no values",
            "give a batch of at least 1",
            id="batch of 0",
        ),
        pytest.param(
            one(shape=(None, None)),
            {"lengths": Lengths({"x": (1, -2)})},
            "the shape [1, -2] for input 'x' has no values",
            "give a batch of at least 1",
            id="negative dimension",
        ),
        pytest.param(
            named("", "width", "height"),
            {"lengths": Lengths(dims={"depth": 4})},
            "no input has an open dimension named 'depth'",
            "the names are height, width",
            id="length for an unknown name",
        ),
        pytest.param(
            one(),
            {"lengths": Lengths(dims={"width": 4})},
            "no input has an open dimension named 'width'",
            "use --input-shape",
            id="length for a name in a model without names",
        ),
        pytest.param(
            one("complex64"),
            {},
            "input 'x' has the dtype complex64, which no runtime of exporter takes",
            "split complex values into two float inputs before the model is exported",
            id="complex numbers",
        ),
        pytest.param(
            graph({}),
            {},
            "the model has no input, so that it cannot be run on samples",
            "",
            id="no input",
        ),
        pytest.param(
            one(),
            {"count": 0},
            "0 samples were asked for",
            "at least one is needed",
            id="no samples",
        ),
    ],
)
def test_synthetic_samples_refused(
    model: Graph, options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        synthetic_samples(model, **options)
    assert (caught.value.message, caught.value.hint) == (message, hint)


# --- synthetic: accepted ------------------------------------------------------------------------


def values_of_x(model: Graph, count: int = 400, **options: Any) -> Array:
    samples = synthetic_samples(model, count, **options)
    assert samples.count == count
    return np.asarray(samples.values["x"])


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        pytest.param((None, 3), None, (1, 3), id="open batch"),
        pytest.param((2, 3), None, (2, 3), id="fixed batch"),
        pytest.param((), None, (), id="a scalar"),
        pytest.param((None, None), (4, 5), (4, 5), id="given"),
        pytest.param((None, 3), (8, 3), (8, 3), id="given batch"),
        pytest.param(None, (2, 2, 2), (2, 2, 2), id="given for an unknown rank"),
    ],
)
def test_shape_of_a_sample(
    shape: Shape | None, given: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    shapes = {} if given is None else {"x": given}
    assert values_of_x(one(shape=shape), 3, lengths=Lengths(shapes)).shape == (3, *expected)


def test_lengths_of_named_dimensions() -> None:
    lengths = Lengths(dims={"height": 5, "width": 4})
    assert values_of_x(named("", "width", "height"), 3, lengths=lengths).shape == (3, 1, 4, 5)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("int4", -8, 7),
        ("uint4", 0, 15),
        ("int2", -2, 1),
        ("uint2", 0, 3),
        ("bool", 0, 1),
        ("bfloat16", -6, 6),
        ("float8_e4m3fn", -6, 6),
    ],
)
def test_dtypes_of_few_bits(dtype: str, low: int, high: int) -> None:
    values = values_of_x(one(dtype, (None, 500)))
    assert values.dtype.name == dtype
    assert (values.astype(np.float32) >= low).all()
    assert (values.astype(np.float32) <= high).all()
    assert len(np.unique(values.astype(np.float32))) > 1


def test_strings_are_words() -> None:
    values = values_of_x(one("string", (None, 500)))
    assert values.dtype.kind == "U"
    assert len(np.unique(values)) > 1


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("float32", 1.5),
        ("bool", True),
        ("int64", 1),
        ("string", "a"),
    ],
)
def test_a_scalar_is_an_array(dtype: str, given: Any, tmp_path: Path) -> None:
    """Runtimes refuse a NumPy scalar; generated samples, and those of a file."""
    np.save(tmp_path / "x.npy", np.array([given, given]))
    for samples in (
        synthetic_samples(one(dtype, ()), 2),
        read_samples(tmp_path / "x.npy", one(dtype, ())),
    ):
        for feed in samples.feeds():
            assert isinstance(feed["x"], np.ndarray)
            assert feed["x"].shape == ()


def test_single_samples_fill_a_fixed_batch(tmp_path: Path) -> None:
    """The first samples fill up the last feed; the labels remain those of the samples."""
    rows = np.arange(10 * 3, dtype=np.float32).reshape(10, 3)
    np.savez(tmp_path / "x.npz", x=rows, labels=np.arange(10))
    samples = read_samples(tmp_path / "x.npz", one(shape=(4, 3)))
    feeds = [feed["x"] for feed in samples.feeds()]
    np.testing.assert_array_equal(np.concatenate(feeds), rows[[*range(10), 0, 1]])
    assert [feed.shape for feed in feeds] == [(4, 3)] * 3
    assert len(samples.labels or ()) == 10


def test_texts_for_a_string_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array(["good", "bad"]))
    samples = read_samples(tmp_path / "x.npy", one("string", (None,)))
    assert [feed["x"].tolist() for feed in samples.feeds()] == [["good"], ["bad"]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 7, 16], ids=lambda n: f"{n} samples")
def test_floats_are_half_normal_half_uniform(dtype: str, count: int) -> None:
    values = values_of_x(one(dtype, (None, 500)), count)
    assert values.dtype == dtype
    normal, uniform = np.split(values.astype(np.float64), [count - count // 2])
    assert ((uniform >= 0) & (uniform <= 1)).all()
    assert all((sample < 0).any() and (np.abs(sample) > 1.5).any() for sample in normal)


def rescaled() -> Graph:
    """A model whose first layer divides pixels by 255."""
    return graph(
        {"x": ("float32", (None, 8, 8, 3))}, [node(Elementwise(function="rescaling"), "x")]
    )


@pytest.mark.parametrize(
    ("model", "ends"),
    [
        pytest.param(rescaled(), (0.0, 255.0), id="a first layer that rescales pixels"),
        pytest.param(
            replace(
                one(shape=(None, 8, 8, 3)),
                normalization={"x": Normalization((127.5,), (127.5,))},
            ),
            (-1.0, 1.0),
            id="metadata",
        ),
    ],
)
def test_floats_of_a_stated_range_differ_in_brightness(
    model: Graph, ends: tuple[float, float]
) -> None:
    values = values_of_x(model, 16).reshape(16, -1).astype(np.float64)
    shares = (values - ends[0]) / (ends[1] - ends[0])
    assert shares.min() >= 0.0
    assert shares.max() <= 1.0
    assert shares[0].min() < 0.05, "the first covers the whole range"
    assert shares[0].max() > 0.95
    means, spreads = shares.mean(axis=1), np.ptp(shares, axis=1)
    assert np.ptp(means) > 0.3
    assert np.ptp(spreads) > 0.3


def test_quantiles_of_both_halves() -> None:
    normal, uniform = np.split(values_of_x(one(shape=(None, 2000)), 16), 2)
    quantiles = (0.025, 0.16, 0.5, 0.84, 0.975)
    assert np.quantile(normal, quantiles) == pytest.approx([-1.96, -1, 0, 1, 1.96], abs=0.06)
    assert np.quantile(uniform, quantiles) == pytest.approx(quantiles, abs=0.03)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        pytest.param("uint8", range(256), id="uint8: the whole range"),
        pytest.param("int8", range(-128, 128), id="int8: the whole range"),
        pytest.param("bool", (0, 1), id="booleans"),
        pytest.param("int32", (0, 1), id="indices of an unknown table"),
        pytest.param("int64", (0, 1), id="64-bit indices of an unknown table"),
        pytest.param("uint16", (0, 1), id="unsigned indices of an unknown table"),
    ],
)
def test_integers_cover_their_range(dtype: str, expected: Sequence[int]) -> None:
    values = values_of_x(one(dtype, (None, 30)))
    assert values.dtype == dtype
    assert set(values.astype(np.int64).ravel().tolist()) == set(expected)


def test_quantized_values_cover_their_range() -> None:
    quantization = Quantization(np.array([0.1]), np.array([0]), low=-7, high=7)
    tensors = {"x": Tensor("x", (None, 30), "int16", quantization=quantization)}
    values = values_of_x(Graph((), tensors, ("x",), ()))
    assert values.dtype == np.int16
    assert set(values.ravel().tolist()) == set(range(-7, 8))


CAST = Elementwise(function="cast")


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        pytest.param(lookup(), 7, id="directly"),
        pytest.param(lookup(node(CAST, "x", to="c")), 7, id="through a cast"),
        pytest.param(lookup(node(Reshape(), "x", to="r")), 7, id="through a reshape"),
        pytest.param(lookup(node(Transpose((1, 0)), "x", to="t")), 7, id="through a transpose"),
        pytest.param(
            lookup(node(CAST, "x", to="c"), node(Reshape(), "c", to="r")), 7, id="through both"
        ),
        pytest.param(
            lookup(
                Node("s", "Split", Split(1), ("x",), ("a", "b")), node(Concat(1), "a", "b", to="c")
            ),
            7,
            id="through split and concat",
        ),
        pytest.param(lookup(node(Elementwise(), "x", to="i")), 7, id="through an identity"),
        pytest.param(
            lookup(node(Elementwise(function="add"), "x", to="sum")),
            2,
            id="not through a sum, which changes the values",
        ),
        pytest.param(
            lookup(node(Activation("relu"), "x", to="a")), 2, id="not through an activation"
        ),
        pytest.param(lookup(rows=None), 2, id="table of unknown length"),
        pytest.param(lookup(rows=1), 1, id="table of one row"),
        pytest.param(lookup(dtype="uint8"), 7, id="uint8 indices"),
        pytest.param(lookup(dtype="int8", rows=1000), 127, id="more rows than the dtype can index"),
        pytest.param(lookup(dtype="bool"), 2, id="boolean indices"),
        pytest.param(lookup(dtype="float32"), 7, id="float indices"),
        pytest.param(
            lookup(dtype="float16", rows=5000),
            1024,
            id="only indices that float16 represents exactly",
        ),
        pytest.param(
            graph(
                {"x": ("int64", (None, 4))},
                [node(Gather(0), "large", "x", to="a"), node(Gather(1), "small", "x", to="b")],
                large=(9, 2),
                small=(8, 3),
            ),
            3,
            id="two tables: the smaller one, along its axis",
        ),
        pytest.param(
            graph({"x": ("int64", (None, 4))}, [node(Gather(0), "wild", "x", to="a")], wild=None),
            2,
            id="table of unknown rank",
        ),
        pytest.param(
            graph({"x": ("int64", (None, 4))}, [node(Gather(0), "x", "which")], which=(3,)),
            2,
            id="the input is the table, not the index",
        ),
    ],
)
def test_indices_are_valid_in_the_smallest_table(model: Graph, rows: int) -> None:
    values = values_of_x(model, 3000)
    assert values.dtype == model.tensors["x"].dtype
    assert (values.min(), values.max()) == (0, rows - 1)
    assert np.array_equal(values, np.trunc(values))


def test_search_for_tables_ends_if_two_nodes_write_one_tensor() -> None:
    twice = [node(CAST, "x", to="c"), node(CAST, "x", to="c")]
    assert values_of_x(graph({"x": ("int32", (None, 4))}, twice)).max() == 1


def test_same_seed_gives_same_values() -> None:
    model = graph({"a": ("float32", (None, 3)), "b": ("uint8", (2, 2))})
    first, again, other = (synthetic_samples(model, seed=seed) for seed in (3, 3, 4))
    assert first.source == "synthetic, seed 3"
    assert first.count == 16
    assert all(np.array_equal(first.values[n], again.values[n]) for n in ("a", "b"))
    assert not any(np.array_equal(first.values[n], other.values[n]) for n in ("a", "b"))


def test_feeds_contain_one_sample_each() -> None:
    samples = synthetic_samples(graph({"a": ("float32", (None, 3)), "b": ("uint8", (2, 2))}), 5)
    feeds = list(samples.feeds())
    assert len(feeds) == 5
    for i, feed in enumerate(feeds):
        assert {name: values.shape for name, values in feed.items()} == {"a": (1, 3), "b": (2, 2)}
        assert np.array_equal(feed["b"], samples.values["b"][i])


def test_no_samples() -> None:
    assert Samples({}, "none").count == 0
    assert list(Samples({}, "none").feeds()) == []


# --- from a file: refused -----------------------------------------------------------------------


def npy(values: Any, *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values), allow_pickle=pickled)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    return file.getvalue()


class Trap:
    """Raises an error if it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return fail, ()


def fail() -> None:
    raise AssertionError("a pickle was loaded")


PAIR = graph({"a": ("float32", (None, 3)), "b": ("float32", (None, 2))})
UNREADABLE = "{path} is not a readable .npz or .npy file"
SAVE = "write it with numpy.savez, without objects"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        pytest.param(b"", UNREADABLE, SAVE, id="empty"),
        pytest.param(b"a,b\n1,2\n", UNREADABLE, SAVE, id="text"),
        pytest.param(npy([[1.0, 2, 3]])[:90], UNREADABLE, SAVE, id="truncated header"),
        pytest.param(npy([[1.0, 2, 3]])[:-4], UNREADABLE, SAVE, id="truncated values"),
        pytest.param(npz(x=np.ones((9, 3)))[:60], UNREADABLE, SAVE, id="truncated archive"),
        pytest.param(pickle.dumps(Trap()), UNREADABLE, SAVE, id="pickle"),
        pytest.param(npy([Trap()], pickled=True), UNREADABLE, SAVE, id="array of objects"),
        pytest.param(npz(x=np.array([Trap()], object)), UNREADABLE, SAVE, id="archive of objects"),
        pytest.param(archive(x=b"not an array"), UNREADABLE, SAVE, id="archive without arrays"),
        pytest.param(
            npy(np.ones(3)).replace(b"(3,), }", b"(3" + b"0" * 5), UNREADABLE, SAVE, id="no shape"
        ),
    ],
)
def test_unreadable_file_refused(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_samples(path, one())
    assert caught.value.message == message.format(path=path)
    assert caught.value.hint == hint


@pytest.mark.parametrize("content", [npy(np.ones((2, 3))), npz(x=np.ones((2, 3)))])
def test_file_with_one_changed_byte_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "inputs"
    random = np.random.default_rng(0)
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read = read_samples(path, one())
        except UsageError as error:
            assert str(path) in error.message  # noqa: PT017 - both outcomes are correct
        else:
            assert read.values["x"].shape[1:] == (1, 3)


def test_missing_file_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_samples(tmp_path / "none.npz", one())
    assert caught.value.message == f"there is no file {tmp_path / 'none.npz'}"


def test_folder_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains no data"):
        read_samples(tmp_path, one())


EACH = "write one entry per sample in each array"
FILL = "write at least one sample"
CONVERT = "convert the values to the dtype of the input"
CORRECT = "correct the values, or leave the sample out"
AXES = "save (samples, ...) with one sample of that shape each; a folder of images is resized to it"
ARRAY = "{path}: the array for input 'x' "


@pytest.mark.parametrize(
    ("model", "content", "message", "hint"),
    [
        pytest.param(
            PAIR,
            npz(a=np.ones((2, 3))),
            "{path} has no array for input 'b'",
            "it contains 'a'",
            id="input without an array",
        ),
        pytest.param(
            PAIR,
            archive(),
            "{path} has no array for input 'a'",
            "it contains nothing",
            id="empty archive",
        ),
        pytest.param(
            one(),
            npz(p=np.ones((2, 3)), q=np.ones((2, 3))),
            "{path} has no array for input 'x'",
            "it contains 'p', 'q'",
            id="two arrays with other names",
        ),
        pytest.param(
            one(),
            npz(x=np.ones((2, 3)), y=np.ones(2)),
            "{path}: the array 'y' is not an input of the model",
            "its inputs are 'x'; 'labels' may name the class of each sample",
            id="an array that is no input",
        ),
        pytest.param(
            one(),
            npz(x=np.ones((2, 3)), labels=np.ones(2)),
            "{path}: the array 'labels' has the shape [2] and dtype float64",
            "give one class name or unit index per sample: shape [2]; or 0 and 1 for each unit: "
            "shape [2, units]",
            id="labels that are neither names nor indices",
        ),
        pytest.param(
            one(),
            npz(x=np.ones((2, 3)), labels=np.arange(3)),
            "{path}: the array 'labels' has the shape [3] and dtype int64",
            "give one class name or unit index per sample: shape [2]; or 0 and 1 for each unit: "
            "shape [2, units]",
            id="more labels than samples",
        ),
        pytest.param(
            PAIR,
            npz(a=np.ones((2, 3)), b=np.ones((4, 2))),
            "{path}: the inputs differ in their number of samples: 2 of 'a', 4 of 'b'",
            EACH,
            id="different numbers of samples",
        ),
        pytest.param(one(), npy(np.ones((0, 3))), ARRAY + "is empty", FILL, id="no samples"),
        pytest.param(one(), npy(1.0), ARRAY + "is empty", FILL, id="a scalar"),
        pytest.param(
            one(),
            npy(np.array([["a", "b", "c"]])),
            ARRAY + "has dtype <U1, the input float32",
            CONVERT,
            id="strings",
        ),
        pytest.param(
            one(),
            npy(np.ones((2, 3), np.complex64)),
            ARRAY + "has dtype complex64, the input float32",
            CONVERT,
            id="complex numbers",
        ),
        pytest.param(
            one("int32"),
            npy(np.ones((2, 3))),
            ARRAY + "has dtype float64, the input int32",
            CONVERT,
            id="floats for integers",
        ),
        pytest.param(
            one("bool"),
            npy(np.ones((2, 3), np.int64)),
            ARRAY + "has dtype int64, the input bool",
            CONVERT,
            id="integers for booleans",
        ),
        pytest.param(
            one("string"),
            npy(np.ones((2, 3))),
            ARRAY + "has dtype float64, the input string",
            CONVERT,
            id="numbers for strings",
        ),
        pytest.param(
            one("int4"),
            npy(np.full((2, 3), 9, np.int8)),
            ARRAY + "contains values that int4 cannot represent: 3 in sample 0",
            "correct the values, or leave the sample out",
            id="values that 4 bits cannot represent",
        ),
        pytest.param(
            one("complex64"),
            npy(np.ones((2, 3), np.float32)),
            ARRAY + "has dtype float32, the input complex64",
            CONVERT,
            id="complex numbers",
        ),
        pytest.param(
            one(),
            npy([[1.0, np.nan, np.inf]]),
            ARRAY + "contains values that are NaN or infinite: 2 in sample 0",
            CORRECT,
            id="not finite",
        ),
        pytest.param(
            one("float16"),
            npy([[1.0, 1e5, -1e6]]),
            ARRAY + "contains values that float16 cannot represent: 2 in sample 0",
            CORRECT,
            id="too large for a float",
        ),
        pytest.param(
            one("uint8"),
            npy(np.array([[-1, 255, 256]])),
            ARRAY + "contains values that uint8 cannot represent: 2 in sample 0",
            CORRECT,
            id="out of range of uint8",
        ),
        pytest.param(
            one("int8"),
            npy(np.array([[127, 128, 255]], np.uint8)),
            ARRAY + "contains values that int8 cannot represent: 2 in sample 0",
            CORRECT,
            id="unsigned for signed",
        ),
        pytest.param(
            lookup(),
            npy(np.array([[0, 6, 7, 1]])),
            ARRAY + "contains the index 7",
            "the table that it indexes has 7 rows",
            id="index beyond the end of the table",
        ),
        pytest.param(
            one(),
            npy(np.ones((2, 4))),
            ARRAY + "has the shape [2, 4]; one sample is [?, 3]",
            AXES,
            id="another width",
        ),
        pytest.param(
            one(shape=()),
            npy(np.ones((2, 3))),
            ARRAY + "has the shape [2, 3]; one sample is []",
            AXES,
            id="vectors for a scalar",
        ),
    ],
)
def test_arrays_that_do_not_fit_refused(
    tmp_path: Path, model: Graph, content: bytes, message: str, hint: str
) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_samples(path, model)
    assert caught.value.message == message.format(path=path)
    assert caught.value.hint == hint


def test_limit_of_0_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^0 samples were asked for\n"):
        read_samples(tmp_path / "none.npz", one(), 0)


# --- from a file: accepted ----------------------------------------------------------------------


TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    ("model", "content", "expected"),
    [
        pytest.param(one(), npy(TABLE), TABLE[:, None], id=".npy, no batch"),
        pytest.param(one(), npy(TABLE[:, None]), TABLE[:, None], id=".npy, batch of 1"),
        pytest.param(
            one(), npy(TABLE.reshape(2, 2, 3)), TABLE.reshape(2, 2, 3), id=".npy, batch of 2"
        ),
        pytest.param(one(), npz(x=TABLE), TABLE[:, None], id=".npz, name of the input"),
        pytest.param(
            one(), npz(other=TABLE), TABLE[:, None], id=".npz, only array with another name"
        ),
        pytest.param(
            one(), npz(x=TABLE, labels=np.arange(4)), TABLE[:, None], id=".npz, with labels"
        ),
        pytest.param(one(shape=(1, 3)), npy(TABLE), TABLE[:, None], id="a fixed batch of 1"),
        pytest.param(
            one(shape=(2, 3)),
            npy(TABLE.reshape(2, 2, 3)),
            TABLE.reshape(2, 2, 3),
            id="a fixed batch of 2",
        ),
        pytest.param(one(shape=(None, None)), npy(TABLE), TABLE[:, None], id="open dimension"),
        pytest.param(one(shape=None), npy(TABLE), TABLE, id="unknown rank"),
        pytest.param(one(shape=()), npy(TABLE[0]), TABLE[0], id="scalars"),
        pytest.param(one(), npy(TABLE.astype(np.float64)), TABLE[:, None], id="wide floats"),
        pytest.param(one(), npy(TABLE.astype(np.uint8)), TABLE[:, None], id="uint8 for floats"),
        pytest.param(one("uint8"), npy(TABLE.astype(np.int64)), TABLE[:, None], id="wide integers"),
        pytest.param(one("bool"), npy(TABLE > 5), TABLE[:, None] > 5, id="booleans"),
        pytest.param(
            lookup(),
            npy(np.array([[0, 6, 3, 1]])),
            np.array([[[0, 6, 3, 1]]]),
            id="indices of the table",
        ),
    ],
)
def test_arrays_are_read(tmp_path: Path, model: Graph, content: bytes, expected: Array) -> None:
    path = tmp_path / "inputs.any"
    path.write_bytes(content)
    samples = read_samples(path, model)
    values = np.asarray(samples.values["x"])
    assert values.dtype == model.tensors["x"].dtype
    assert values.shape == expected.shape
    assert np.array_equal(values, expected)
    assert samples.source == "inputs.any"
    assert samples.count == len(expected)


def test_limit_does_not_hide_different_numbers_of_samples(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(npz(a=np.ones((2, 3)), b=np.ones((4, 2))))
    with pytest.raises(UsageError, match="2 of 'a', 4 of 'b'"):
        read_samples(path, PAIR, 1)


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (4, 4), (9, 4), (None, 4)])
def test_limit_takes_the_first_samples(tmp_path: Path, limit: int | None, count: int) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(npz(a=TABLE, b=TABLE[:, :2]))
    samples = read_samples(path, PAIR, limit)
    assert (samples.count, samples.source) == (count, "inputs.npz")
    assert np.array_equal(samples.values["b"], TABLE[:count, None, :2])


# --- batches ------------------------------------------------------------------------------------

GIVEN = np.arange(10.0).reshape(5, 1, 2)  # five samples
UNKNOWN = ("float32", None)
OPEN, FIXED = ("float32", (None, 2)), ("float32", (1, 2))

BATCHES: dict[str, tuple[tuple[str, Shape | None], Array, int, list[Any]]] = {
    "one": (OPEN, GIVEN, 1, GIVEN.tolist()),
    "a fixed batch": (FIXED, GIVEN, 2, GIVEN.tolist()),
    "samples that are batches already": (OPEN, GIVEN.reshape(1, 5, 2), 5, [GIVEN[:, 0].tolist()]),
    "scalars": (("float32", ()), np.arange(3.0), 2, [0.0, 1.0, 2.0]),
    "last batch filled up": (
        OPEN,
        GIVEN,
        2,
        [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [0, 1]]],
    ),
    "fewer than one batch": (OPEN, GIVEN[:1], 3, [[[0, 1], [0, 1], [0, 1]]]),
    "unknown rank": (UNKNOWN, GIVEN, 5, [GIVEN[:, 0].tolist()]),
}


@pytest.mark.parametrize(("kind", "given", "batch", "expected"), BATCHES.values(), ids=BATCHES)
def test_batches(
    kind: tuple[str, Shape | None], given: Array, batch: int, expected: list[Any]
) -> None:
    joined = join_batches(Samples({"x": given}, "mine"), graph({"x": kind}), batch)
    assert joined.values["x"].tolist() == expected
    assert joined.source == ("mine" if batch == 1 else f"mine, {batch} at a time")


def test_labels_come_with_the_samples(tmp_path: Path) -> None:
    path = tmp_path / "labeled.npz"
    np.savez(path, x=TABLE, labels=np.array(["owl", "hen", "owl", "7"]))
    samples = read_samples(path, one(), limit=3)
    assert samples.labels == ["owl", "hen", "owl"]
    assert list(next(samples.feeds())) == ["x"]


def test_any_number_of_labels_per_sample(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, x=TABLE, labels=np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]))
    assert read_samples(path, one()).labels == [(1, 2), (), (0,), (1,)]
    assert read_samples(path, one(), 2).labels == [(1, 2), ()]


def test_samples_that_do_not_fit_in_memory_are_refused() -> None:
    """A damaged length, or too large a number of samples; the largest that fits is made."""
    wide = graph({"x": ("float32", (None, 1 << 24))})
    assert synthetic_samples(wide, 1).values["x"].shape == (1, 1, 1 << 24)
    with pytest.raises(UsageError, match=r"64 samples of .* take 8\.59 GB of memory"):
        synthetic_samples(wide, 64)


def test_one_sample_of_gigabytes_is_not_generated() -> None:
    """A damaged file may state any batch."""
    wide = Graph((), {"x": Tensor("x", (1_179_649, 132), "float32")}, ("x",), ())
    with pytest.raises(UsageError, match=r"1 samples of .*1\.25 GB of memory"):
        synthetic_samples(wide, 1)
