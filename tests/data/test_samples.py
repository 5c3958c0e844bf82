"""Inputs to compare models on: made up from a seed, or the user's own."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.data.samples import Samples, join_batches, read_samples, synthetic_samples
from exporter.errors import UsageError
from exporter.graph import Array, Graph, Node, Quantization, Shape, Tensor
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
    """Inputs, nodes that read them, and tables of these shapes."""
    tensors = {name: Tensor(name, shape, dtype) for name, (dtype, shape) in inputs.items()}
    tensors |= {n: Tensor(n, shape, "float32", read=lambda: NEVER) for n, shape in tables.items()}
    return Graph(tuple(nodes), tensors, tuple(inputs), ())


NEVER: Any = None  # the values of a table are not looked at


def one(dtype: str = "float32", shape: Shape | None = (None, 3)) -> Graph:
    return graph({"x": (dtype, shape)})


def node(operation: Operation, *inputs: str, to: str = "out") -> Node:
    return Node(f"make {to}", type(operation).__name__, operation, inputs, (to,))


def looked_up(*path: Node, dtype: str = "int32", rows: int | None = 7) -> Graph:
    """The ids x, the nodes of the path, and a table of so many rows that `ids` indexes."""
    at = path[-1].outputs[0] if path else "x"
    nodes = [*path, node(Gather(0), "table", at, to="rows")]
    return graph({"x": (dtype, (None, 4))}, nodes, table=(rows, 2))


# --- synthetic: must be refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "message", "hint"),
    [
        pytest.param(
            one(shape=(None, None, 3)),
            {},
            "input 'x' has the open shape [?, ?, 3]",
            "give it, with numbers: --input-shape x=1,?,3",
            id="a dimension behind the batch is open",
        ),
        pytest.param(
            one(shape=None),
            {},
            "input 'x' has an unknown rank",
            "give it, with numbers: --input-shape x=1,...",
            id="the rank is unknown",
        ),
        pytest.param(
            one(),
            {"shapes": {"z": (1, 3), "other": (1,)}},
            "the model has no input 'other'",
            "its inputs are 'x'",
            id="a shape for no input",
        ),
        pytest.param(
            one(),
            {"shapes": {"x": (1, 4)}},
            "input 'x' has the shape [?, 3], not [1, 4]",
            "",
            id="a shape that contradicts a fixed dimension",
        ),
        pytest.param(
            one(),
            {"shapes": {"x": (3,)}},
            "input 'x' has the shape [?, 3], not [3]",
            "",
            id="a shape of another rank",
        ),
        pytest.param(
            one(),
            {"shapes": {"x": (0, 3)}},
            "the shape [0, 3] for input 'x' holds no value",
            "",
            id="a batch of nothing",
        ),
        pytest.param(
            one(shape=(None, None)),
            {"shapes": {"x": (1, -2)}},
            "the shape [1, -2] for input 'x' holds no value",
            "",
            id="a negative dimension",
        ),
        pytest.param(
            one("string"),
            {},
            "no values can be made up for input 'x' of dtype string",
            "use --data",
            id="strings",
        ),
        pytest.param(
            one("float8_e4m3fn"),
            {},
            "no values can be made up for input 'x' of dtype float8_e4m3fn",
            "use --data",
            id="a float that NumPy does not know",
        ),
        pytest.param(
            one("int4"),
            {},
            "no values can be made up for input 'x' of dtype int4",
            "use --data",
            id="an integer that NumPy does not know",
        ),
        pytest.param(
            graph({}),
            {},
            "the model has no input, so that there is nothing to run it on",
            "",
            id="no input",
        ),
        pytest.param(
            one(), {"count": 0}, "0 samples were asked for", "at least one is needed", id="none"
        ),
    ],
)
def test_samples_are_not_made_up(
    model: Graph, options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        synthetic_samples(model, **options)
    assert (caught.value.message, caught.value.hint) == (message, hint)


# --- synthetic: accepted ------------------------------------------------------------------------


def made(model: Graph, count: int = 400, **options: Any) -> Array:
    samples = synthetic_samples(model, count, **options)
    assert samples.count == count
    return np.asarray(samples.values["x"])


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        pytest.param((None, 3), None, (1, 3), id="an open batch is 1"),
        pytest.param((2, 3), None, (2, 3), id="a fixed batch stays"),
        pytest.param((), None, (), id="a scalar"),
        pytest.param((None, None), (4, 5), (4, 5), id="given"),
        pytest.param((None, 3), (8, 3), (8, 3), id="the batch given"),
        pytest.param(None, (2, 2, 2), (2, 2, 2), id="given, of unknown rank"),
    ],
)
def test_each_sample_has_the_whole_shape(
    shape: Shape | None, given: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    shapes = {} if given is None else {"x": given}
    assert made(one(shape=shape), 3, shapes=shapes).shape == (3, *expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 7, 16], ids=lambda n: f"{n} samples")
def test_floats_are_half_normal_half_uniform(dtype: str, count: int) -> None:
    values = made(one(dtype, (None, 500)), count)
    assert values.dtype == dtype
    normal, uniform = np.split(values.astype(np.float64), [count - count // 2])
    assert ((uniform >= 0) & (uniform <= 1)).all()
    assert all((sample < 0).any() and (np.abs(sample) > 1.5).any() for sample in normal)


def test_the_halves_are_what_they_are_called() -> None:
    normal, uniform = np.split(made(one(shape=(None, 2000)), 16), 2)
    quantiles = (0.025, 0.16, 0.5, 0.84, 0.975)
    assert np.quantile(normal, quantiles) == pytest.approx([-1.96, -1, 0, 1, 1.96], abs=0.06)
    assert np.quantile(uniform, quantiles) == pytest.approx(quantiles, abs=0.03)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        pytest.param("uint8", range(256), id="pictures: the whole byte"),
        pytest.param("int8", range(-128, 128), id="signed: the whole byte"),
        pytest.param("bool", (0, 1), id="truth values"),
        pytest.param("int32", (0, 1), id="ids of a table that is not found"),
        pytest.param("int64", (0, 1), id="likewise, of 64 bits"),
        pytest.param("uint16", (0, 1), id="likewise, unsigned"),
    ],
)
def test_integers_cover_their_range(dtype: str, expected: Sequence[int]) -> None:
    values = made(one(dtype, (None, 30)))
    assert values.dtype == dtype
    assert set(values.astype(np.int64).ravel().tolist()) == set(expected)


def test_codes_cover_the_range_of_their_quantization() -> None:
    coded = Quantization(np.array([0.1]), np.array([0]), low=-7, high=7)
    tensors = {"x": Tensor("x", (None, 30), "int16", quantization=coded)}
    values = made(Graph((), tensors, ("x",), ()))
    assert values.dtype == np.int16
    assert set(values.ravel().tolist()) == set(range(-7, 8))


CAST = Elementwise(function="cast")


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        pytest.param(looked_up(), 7, id="straight"),
        pytest.param(looked_up(node(CAST, "x", to="c")), 7, id="through a cast"),
        pytest.param(looked_up(node(Reshape(), "x", to="r")), 7, id="through a reshape"),
        pytest.param(looked_up(node(Transpose((1, 0)), "x", to="t")), 7, id="through a transpose"),
        pytest.param(
            looked_up(node(CAST, "x", to="c"), node(Reshape(), "c", to="r")), 7, id="through both"
        ),
        pytest.param(
            looked_up(
                Node("s", "Split", Split(1), ("x",), ("a", "b")), node(Concat(1), "a", "b", to="c")
            ),
            7,
            id="taken apart and joined again",
        ),
        pytest.param(looked_up(node(Elementwise(), "x", to="i")), 7, id="through an identity"),
        pytest.param(
            looked_up(node(Elementwise(function="add"), "x", to="sum")),
            2,
            id="not through a sum, whose ids are others",
        ),
        pytest.param(
            looked_up(node(Activation("relu"), "x", to="a")), 2, id="not through an activation"
        ),
        pytest.param(looked_up(rows=None), 2, id="a table of unknown length"),
        pytest.param(looked_up(rows=1), 1, id="one row"),
        pytest.param(looked_up(dtype="uint8"), 7, id="bytes that are ids"),
        pytest.param(looked_up(dtype="int8", rows=1000), 127, id="more rows than the dtype counts"),
        pytest.param(looked_up(dtype="bool"), 2, id="truth values that are ids"),
        pytest.param(looked_up(dtype="float32"), 7, id="floats that are cast to ids"),
        pytest.param(
            looked_up(dtype="float16", rows=5000), 1024, id="no float is rounded to another id"
        ),
        pytest.param(
            graph(
                {"x": ("int64", (None, 4))},
                [node(Gather(0), "large", "x", to="a"), node(Gather(1), "small", "x", to="b")],
                large=(9, 2),
                small=(8, 3),
            ),
            3,
            id="two tables: the smaller, along its own axis",
        ),
        pytest.param(
            graph({"x": ("int64", (None, 4))}, [node(Gather(0), "wild", "x", to="a")], wild=None),
            2,
            id="a table of unknown rank",
        ),
        pytest.param(
            graph({"x": ("int64", (None, 4))}, [node(Gather(0), "x", "which")], which=(3,)),
            2,
            id="the input is the table, not the ids",
        ),
    ],
)
def test_ids_stay_below_the_smallest_table(model: Graph, rows: int) -> None:
    values = made(model, 3000)
    assert values.dtype == model.tensors["x"].dtype
    assert (values.min(), values.max()) == (0, rows - 1)
    assert np.array_equal(values, np.trunc(values))


def test_a_loop_of_shared_tensors_ends() -> None:
    twice = [node(CAST, "x", to="c"), node(CAST, "x", to="c")]
    assert made(graph({"x": ("int32", (None, 4))}, twice)).max() == 1


def test_one_seed_gives_one_set_of_values() -> None:
    model = graph({"a": ("float32", (None, 3)), "b": ("uint8", (2, 2))})
    first, again, other = (synthetic_samples(model, seed=seed) for seed in (3, 3, 4))
    assert first.source == "synthetic, seed 3"
    assert first.count == 16
    assert all(np.array_equal(first.values[n], again.values[n]) for n in ("a", "b"))
    assert not any(np.array_equal(first.values[n], other.values[n]) for n in ("a", "b"))


def test_samples_are_fed_one_by_one() -> None:
    samples = synthetic_samples(graph({"a": ("float32", (None, 3)), "b": ("uint8", (2, 2))}), 5)
    feeds = list(samples.feeds())
    assert len(feeds) == 5
    for i, feed in enumerate(feeds):
        assert {name: values.shape for name, values in feed.items()} == {"a": (1, 3), "b": (2, 2)}
        assert np.array_equal(feed["b"], samples.values["b"][i])


def test_nothing_to_feed() -> None:
    assert Samples({}, "nothing").count == 0
    assert list(Samples({}, "nothing").feeds()) == []


# --- from a file: must be refused ---------------------------------------------------------------


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
    """Says so if it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return spring, ()


def spring() -> None:
    raise AssertionError("a pickle was loaded")


PAIR = graph({"a": ("float32", (None, 3)), "b": ("float32", (None, 2))})
UNREADABLE = "{path} is not a readable .npz or .npy file"
SAVE = "write it with numpy.savez, no objects"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        pytest.param(b"", UNREADABLE, SAVE, id="empty"),
        pytest.param(b"a,b\n1,2\n", UNREADABLE, SAVE, id="text"),
        pytest.param(npy([[1.0, 2, 3]])[:90], UNREADABLE, SAVE, id="cut short in the header"),
        pytest.param(npy([[1.0, 2, 3]])[:-4], UNREADABLE, SAVE, id="cut short in the values"),
        pytest.param(npz(x=np.ones((9, 3)))[:60], UNREADABLE, SAVE, id="an archive cut short"),
        pytest.param(pickle.dumps(Trap()), UNREADABLE, SAVE, id="a pickle"),
        pytest.param(npy([Trap()], pickled=True), UNREADABLE, SAVE, id="an array of objects"),
        pytest.param(
            npz(x=np.array([Trap()], object)), UNREADABLE, SAVE, id="an archive of objects"
        ),
        pytest.param(
            archive(x=b"not an array"), UNREADABLE, SAVE, id="an archive of something else"
        ),
        pytest.param(
            npy(np.ones(3)).replace(b"(3,), }", b"(3" + b"0" * 5), UNREADABLE, SAVE, id="no shape"
        ),
    ],
)
def test_a_file_that_holds_no_arrays_is_refused(
    tmp_path: Path, content: bytes, message: str, hint: str
) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_samples(path, one())
    assert caught.value.message == message.format(path=path)
    assert caught.value.hint == hint


@pytest.mark.parametrize("content", [npy(np.ones((2, 3))), npz(x=np.ones((2, 3)))])
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "inputs"
    random = np.random.default_rng(0)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read = read_samples(path, one())
        except UsageError as error:
            assert str(path) in error.message  # noqa: PT017 - either of the two is right
        else:
            assert read.values["x"].shape[1:] == (1, 3)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_samples(tmp_path / "none.npz", one())
    assert caught.value.message == f"there is no file {tmp_path / 'none.npz'}"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a readable"):
        read_samples(tmp_path, one())


ARRAY = "{path}: the array for input 'x' "


@pytest.mark.parametrize(
    ("model", "content", "message", "hint"),
    [
        pytest.param(
            PAIR,
            npz(a=np.ones((2, 3))),
            "{path} has no array for input 'b'",
            "it holds 'a'",
            id="an input without an array",
        ),
        pytest.param(
            PAIR,
            archive(),
            "{path} has no array for input 'a'",
            "it holds nothing",
            id="an empty archive",
        ),
        pytest.param(
            one(),
            npz(p=np.ones((2, 3)), q=np.ones((2, 3))),
            "{path} has no array for input 'x'",
            "it holds 'p', 'q'",
            id="two arrays, neither under the input's name",
        ),
        pytest.param(
            PAIR,
            npz(a=np.ones((2, 3)), b=np.ones((4, 2))),
            "{path}: the inputs differ in their number of samples: 2 of 'a', 4 of 'b'",
            "",
            id="numbers of samples that differ",
        ),
        pytest.param(one(), npy(np.ones((0, 3))), ARRAY + "is empty", "", id="no sample"),
        pytest.param(one(), npy(1.0), ARRAY + "is empty", "", id="a scalar"),
        pytest.param(
            one(),
            npy(np.array([["a", "b", "c"]])),
            ARRAY + "is of dtype <U1, the input of float32",
            "",
            id="strings",
        ),
        pytest.param(
            one(),
            npy(np.ones((2, 3), np.complex64)),
            ARRAY + "is of dtype complex64, the input of float32",
            "",
            id="complex numbers",
        ),
        pytest.param(
            one("int32"),
            npy(np.ones((2, 3))),
            ARRAY + "is of dtype float64, the input of int32",
            "",
            id="floats for integers",
        ),
        pytest.param(
            one("bool"),
            npy(np.ones((2, 3), np.int64)),
            ARRAY + "is of dtype int64, the input of bool",
            "",
            id="numbers for truth values",
        ),
        pytest.param(
            one("string"),
            npy(np.ones((2, 3))),
            ARRAY + "is of dtype float64, the input of string",
            "",
            id="numbers for strings",
        ),
        pytest.param(
            one("int4"),
            npy(np.ones((2, 3), np.int8)),
            ARRAY + "is of dtype int8, the input of int4",
            "",
            id="for a dtype that NumPy does not know",
        ),
        pytest.param(
            one(),
            npy([[1.0, np.nan, np.inf]]),
            ARRAY + "holds 2 values that are NaN or infinite",
            "",
            id="not finite",
        ),
        pytest.param(
            one("float16"),
            npy([[1.0, 1e5, -1e6]]),
            ARRAY + "holds 2 values that float16 cannot hold",
            "",
            id="too large for a float",
        ),
        pytest.param(
            one("uint8"),
            npy(np.array([[-1, 255, 256]])),
            ARRAY + "holds 2 values that uint8 cannot hold",
            "",
            id="too large for a byte",
        ),
        pytest.param(
            one("int8"),
            npy(np.array([[127, 128, 255]], np.uint8)),
            ARRAY + "holds 2 values that int8 cannot hold",
            "",
            id="unsigned for signed",
        ),
        pytest.param(
            looked_up(),
            npy(np.array([[0, 6, 7, 1]])),
            ARRAY + "holds the id 7",
            "the table that it indexes has 7 rows",
            id="an id behind the table's end",
        ),
        pytest.param(
            one(),
            npy(np.ones((2, 4))),
            ARRAY + "has the shape [2, 4]; one sample is [?, 3]",
            "",
            id="another width",
        ),
        pytest.param(
            one(shape=(8, 3)),
            npy(np.ones((2, 3))),
            ARRAY + "has the shape [2, 3]; one sample is [8, 3]",
            "",
            id="no batch where the model's is not 1",
        ),
        pytest.param(
            one(shape=()),
            npy(np.ones((2, 3))),
            ARRAY + "has the shape [2, 3]; one sample is []",
            "",
            id="vectors for a scalar",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, model: Graph, content: bytes, message: str, hint: str
) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_samples(path, model)
    assert caught.value.message == message.format(path=path)
    assert caught.value.hint == hint


def test_a_limit_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^0 samples were asked for$"):
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
        pytest.param(one(), npz(x=TABLE), TABLE[:, None], id=".npz, the input's name"),
        pytest.param(one(), npz(other=TABLE), TABLE[:, None], id=".npz, the only array"),
        pytest.param(
            one(), npz(x=TABLE, labels=np.ones(9)), TABLE[:, None], id=".npz, further arrays"
        ),
        pytest.param(one(shape=(1, 3)), npy(TABLE), TABLE[:, None], id="a fixed batch of 1"),
        pytest.param(
            one(shape=(2, 3)),
            npy(TABLE.reshape(2, 2, 3)),
            TABLE.reshape(2, 2, 3),
            id="a fixed batch of 2",
        ),
        pytest.param(
            one(shape=(None, None)), npy(TABLE), TABLE[:, None], id="an open dimension takes any"
        ),
        pytest.param(one(shape=None), npy(TABLE), TABLE, id="an unknown rank takes any"),
        pytest.param(one(shape=()), npy(TABLE[0]), TABLE[0], id="scalars"),
        pytest.param(one(), npy(TABLE.astype(np.float64)), TABLE[:, None], id="wide floats"),
        pytest.param(one(), npy(TABLE.astype(np.uint8)), TABLE[:, None], id="bytes for floats"),
        pytest.param(one("uint8"), npy(TABLE.astype(np.int64)), TABLE[:, None], id="wide integers"),
        pytest.param(one("bool"), npy(TABLE > 5), TABLE[:, None] > 5, id="truth values"),
        pytest.param(
            looked_up(),
            npy(np.array([[0, 6, 3, 1]])),
            np.array([[[0, 6, 3, 1]]]),
            id="ids that the table has",
        ),
    ],
)
def test_arrays_are_read_as_they_are(
    tmp_path: Path, model: Graph, content: bytes, expected: Array
) -> None:
    path = tmp_path / "inputs.any"
    path.write_bytes(content)
    samples = read_samples(path, model)
    values = np.asarray(samples.values["x"])
    assert values.dtype == model.tensors["x"].dtype
    assert values.shape == expected.shape
    assert np.array_equal(values, expected)
    assert samples.source == "inputs.any"
    assert samples.count == len(expected)


def test_a_limit_does_not_hide_numbers_of_samples_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(npz(a=np.ones((2, 3)), b=np.ones((4, 2))))
    with pytest.raises(UsageError, match="2 of 'a', 4 of 'b'"):
        read_samples(path, PAIR, 1)


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (4, 4), (9, 4), (None, 4)])
def test_a_limit_takes_from_the_front(tmp_path: Path, limit: int | None, count: int) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(npz(a=TABLE, b=TABLE[:, :2]))
    samples = read_samples(path, PAIR, limit)
    assert (samples.count, samples.source) == (count, "inputs.npz")
    assert np.array_equal(samples.values["b"], TABLE[:count, None, :2])


# --- several at a time --------------------------------------------------------------------------

GIVEN = np.arange(10.0).reshape(5, 1, 2)  # five samples
UNKNOWN = ("float32", None)
OPEN, FIXED = ("float32", (None, 2)), ("float32", (1, 2))

BATCHES: dict[str, tuple[tuple[str, Shape | None], Array, int, list[Any]]] = {
    "one": (OPEN, GIVEN, 1, GIVEN.tolist()),
    "a fixed batch": (FIXED, GIVEN, 2, GIVEN.tolist()),
    "a batch of their own": (OPEN, GIVEN.reshape(1, 5, 2), 5, [GIVEN[:, 0].tolist()]),
    "numbers": (("float32", ()), np.arange(3.0), 2, [0.0, 1.0, 2.0]),
    "filled up": (OPEN, GIVEN, 2, [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [0, 1]]]),
    "fewer than one batch": (OPEN, GIVEN[:1], 3, [[[0, 1], [0, 1], [0, 1]]]),
    "all": (UNKNOWN, GIVEN, 5, [GIVEN[:, 0].tolist()]),
}


@pytest.mark.parametrize(("kind", "given", "batch", "expected"), BATCHES.values(), ids=BATCHES)
def test_batches(
    kind: tuple[str, Shape | None], given: Array, batch: int, expected: list[Any]
) -> None:
    made = join_batches(Samples({"x": given}, "mine"), graph({"x": kind}), batch)
    assert made.values["x"].tolist() == expected
    assert made.source == ("mine" if batch == 1 else f"mine, {batch} at a time")
