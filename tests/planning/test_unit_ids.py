"""Outputs with unit indices: those that a cut adds, and those of the original model.

Expected ids are computed in NumPy from the other outputs of the models; the tables below list the
original unit of each position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto, TensorProto

from exporter.data.samples import synthetic_samples
from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model, RunOptions
from exporter.formats.tflite import TfliteModel, from_bytes
from exporter.graph import Array
from exporter.graph.edits import Insert
from exporter.planning.cut import CutOptions, plan_cut
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import mode_cells
from tests.builders import onnx_models as onnx
from tests.builders.commands import exporter, leftover_files
from tests.builders.mode_cells import UNITS
from tests.builders.onnx_models import classifier, node, numbers, softmax
from tests.builders.tflite_builder import Builder, read

KEPT = [1, 2, 4, 5]
built = cache(mode_cells.built)


def run_rows(model: Model, x: Array | None = None) -> dict[str, Array]:
    """The outputs of a model for 16 rows, one by one."""
    if x is None:
        random = np.random.default_rng(3)
        dtype = model.graph().tensors["x"].dtype
        real = random.normal(size=(16, mode_cells.FEATURES)).astype(np.float32)
        x = real if dtype == "float32" else random.integers(0, 127, real.shape).astype(dtype)
    runner = model.runner(RunOptions())
    answers = [runner({"x": row[None]}) for row in x]
    return {name: np.concatenate([each[name] for each in answers]) for name in answers[0]}


def cut(model: Model, **options: Any) -> Any:
    """The pruned model and its recorded options; its check has passed."""
    done = plan_cut(model, CutOptions(**options))
    pruned = model.apply(done.plan)
    job = VerifyOptions(synthetic_samples(model.graph(), 4, 1))
    checks = verify_pair("cut", model, pruned, done.remap.heads, job).checks
    assert [check for check in checks if not check.passed] == []
    return pruned, done.remap.of().options


def first(values: Array, count: int, axis: int = 1) -> Array:
    order = np.argsort(-values.astype(np.float64), axis=axis, kind="stable")
    return np.take(order, np.arange(count), axis=axis)


# --- added ---------------------------------------------------------------------------------------

ALL = list(range(UNITS))

CUTS: Mapping[str, tuple[dict[str, Any], list[int]]] = {
    "slice": ({"keep": KEPT}, KEPT),
    "in another order": ({"keep": [5, 1, 4, 2], "keep_order": True}, [5, 1, 4, 2]),
    "absolute": ({"keep": KEPT, "probabilities": "absolute"}, KEPT),
    "restored width": ({"keep": KEPT, "restore_width": True}, ALL),
    "mask": ({"keep": KEPT, "mode": "mask"}, ALL),
    "zero": ({"keep": KEPT, "mode": "zero"}, ALL),
    "gate": ({"gate": "top:4"}, ALL),
    "merged": ({"keep": [2], "merge": {"odd": [1, 5], "even": [0, 4]}}, [0, 1, 2]),
    "all": ({"keep": ALL}, ALL),
}


@pytest.mark.parametrize("count", [None, 3], ids=["ids", "ids:3"])
@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("name", CUTS)
def test_the_added_output_returns_original_indices(name: str, kind: str, count: int | None) -> None:
    options, units = CUTS[name]
    model = built("softmax", kind, "float32")
    emit = "ids" if count is None else f"ids:{count}"
    pruned, recorded = cut(model, emit=emit, **options)
    assert recorded["emit"] == {"output": "ids", "count": count}
    found = run_rows(pruned)
    assert list(found) == ["y", "ids"]
    expected = np.asarray(units)[first(found["y"], count or 1)]
    np.testing.assert_array_equal(found["ids"], expected if count else expected[:, 0])
    assert found["ids"].dtype == np.int32
    plain, _ = cut(model, **options)
    np.testing.assert_array_equal(found["y"], run_rows(plain)["y"])


@pytest.mark.parametrize("precision", mode_cells.PRECISIONS)
@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("emit", ["ids", "ids:2"])
def test_ids_are_added_in_every_precision(kind: str, precision: str, emit: str) -> None:
    pruned, _ = cut(built("linear", kind, precision), keep=KEPT, emit=emit)
    found = run_rows(pruned)
    expected = np.asarray(KEPT)[first(found["z"], 2)]
    np.testing.assert_array_equal(found["ids"], expected if emit == "ids:2" else expected[:, 0])


def int16() -> TfliteModel:
    builder = Builder()
    builder.quantize(builder.feed("x", 1, 8, dtype="int16"), 2e-4, 0)
    builder.constant("kernel", builder.random.integers(-127, 128, (UNITS, 8)).astype(np.int8))
    builder.quantize("kernel", 0.02, 0)
    shape, options = (1, UNITS), "FullyConnectedOptions"
    builder.op("FULLY_CONNECTED", ["x", "kernel", ""], shape, "z", options, "int16", 4)
    builder.quantize("z", 1e-3, 0)
    return from_bytes(builder.content("z"), "int16.tflite")


@pytest.mark.parametrize("emit", ["ids", "ids:2"])
def test_types_that_no_kernel_ranks_are_dequantized_first(emit: str) -> None:
    pruned, _ = cut(int16(), keep=KEPT, emit=emit)
    found = run_rows(
        pruned, np.random.default_rng(3).integers(-9999, 9999, (5, 8)).astype(np.int16)
    )
    expected = np.asarray(KEPT)[first(found["z"], 2)]
    np.testing.assert_array_equal(found["ids"], expected if emit == "ids:2" else expected[:, 0])


@pytest.mark.parametrize(
    ("precision", "emit", "written"),
    [
        ("float32", "ids", ("ARG_MAX", 1)),
        ("uint8", "ids", ("ARG_MAX", 1)),
        ("int8", "ids", ("ARG_MAX", 2)),
        ("float32", "ids:2", ("TOPK_V2", 1)),
        ("int8", "ids:2", ("TOPK_V2", 2)),
    ],
)
def test_operators_and_signatures_of_the_edge_runtime(
    precision: str, emit: str, written: tuple[str, int]
) -> None:
    pruned, _ = cut(built("linear", "tflite", precision), keep=KEPT, emit=emit)
    file = read(pruned.content)
    operator, version = written
    codes = {(code.builtinCode, code.version) for code in file.operatorCodes}
    assert (int(getattr(schema.BuiltinOperator, operator)), version) in codes
    (signature,) = file.signatureDefs
    assert [end.name.decode() for end in signature.outputs] == ["z", "ids"]
    main = file.subgraphs[0]
    assert [end.tensorIndex for end in signature.outputs] == list(main.outputs)
    assert main.tensors[main.outputs[1]].quantization is None


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("kind", mode_cells.KINDS)
def test_a_file_that_emits_is_cut_again(kind: str, precision: str) -> None:
    """The table of the ids is cut with the units; the remap still records the output."""
    model = built("softmax", kind, precision)
    once, _ = cut(model, keep=KEPT, emit="ids")
    twice, options = cut(once, keep=[0, 2, 3])
    assert options["emit"] == {"output": "ids", "count": None}
    found = run_rows(twice)
    expected = np.asarray([1, 4, 5])[found["y"].argmax(axis=1)]
    np.testing.assert_array_equal(found["ids"], expected)
    job = VerifyOptions(synthetic_samples(model.graph(), 4, 1))
    checks = verify_pair("cut", model, twice, twice.remap.heads, job).checks
    assert {check.output for check in checks} >= {"y", "ids"}
    assert all(check.passed for check in checks)


@pytest.mark.parametrize("kind", mode_cells.KINDS)
def test_a_wrong_table_fails_the_check(kind: str) -> None:
    model = built("softmax", kind, "float32")
    done = plan_cut(model, CutOptions(keep=KEPT, emit="ids"))
    for edit in done.plan.edits:
        if isinstance(edit, Insert) and edit.operation == "look_up":
            (table,) = edit.operands
            assert isinstance(table, np.ndarray)
            table[:] = np.roll(table, 1)
    job = VerifyOptions(synthetic_samples(model.graph(), 4, 1))
    checks = verify_pair("cut", model, model.apply(done.plan), done.remap.heads, job).checks
    assert [check.output for check in checks if not check.passed] == ["ids"]


def test_a_missing_output_fails_the_check() -> None:
    model = built("softmax", "onnx", "float32")
    done = plan_cut(model, CutOptions(keep=KEPT, emit="ids"))
    silent = model.apply(plan_cut(model, CutOptions(keep=KEPT)).plan)
    job = VerifyOptions(synthetic_samples(model.graph(), 4, 1))
    checks = verify_pair("cut", model, silent, done.remap.heads, job).checks
    assert "ids" in {check.output for check in checks if not check.passed}


def test_the_added_output_gets_a_free_name() -> None:
    """Here an inner tensor has the name; inputs of text models have it too."""
    nodes = (
        node("Identity", ["x"], ["ids"], "tokens"),
        node("Gemm", ["ids", "kernel", "bias"], ["z"], "gemm"),
    )
    constants = {"kernel": numbers(6, 5), "bias": numbers(5)}
    model = onnx.model(nodes, constants, outputs={"z": None})
    pruned, options = cut(model, keep=[0, 3], emit="ids")
    assert options["emit"]["output"] == "z_ids"
    assert list(pruned.graph().outputs) == ["z", "z_ids"]
    with pytest.raises(ModelError, match="already has outputs 'ids' and 'z_ids'"):
        plan_cut(pruned, CutOptions(keep=[0], emit="ids"))


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "no such output": ({"keep": KEPT, "emit": "scores"}, "no output 'scores'"),
    "none at all": ({"keep": KEPT, "emit": "ids:0"}, "no output 'ids:0'"),
    "more than are kept": ({"keep": KEPT, "emit": "ids:5"}, "than the 4 that are kept"),
    "more than a mask keeps": ({"keep": KEPT, "mode": "mask", "emit": "ids:5"}, "than the 4"),
    "new ids without ids": ({"keep": KEPT, "new_ids": True}, "has no output with indices"),
    "new ids where units keep their positions": (
        {"keep": KEPT, "mode": "mask", "new_ids": True},
        "new_ids has no meaning with mode mask",
    ),
    "new and original ids": (
        {"keep": KEPT, "new_ids": True, "restore_ids": True},
        "exclude each other",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    options, reason = REFUSED[name]
    with pytest.raises(UsageError, match=reason):
        plan_cut(built("softmax", "onnx", "float32"), CutOptions(**options))


def test_ids_of_units_that_share_their_axis_are_refused() -> None:
    constants = {"kernel": numbers(6, 5), "bias": numbers(5)}
    gemm = node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm")
    model = onnx.model([gemm], constants, outputs={"z": None})
    with pytest.raises(ModelError, match="shares its axis"):
        plan_cut(model, CutOptions(keep=[0, 2], units="2:5", emit="ids"))


WRONG: Mapping[str, str] = {
    "--keep 0-2 --emit scores": "there is no output 'scores' to emit",
    "--keep 0-2 --emit ids:4": "more units than the 3 that are kept",
    "--keep 0-2 --new-ids": "has no output with indices",
    "--keep 0-2 --mode zero --new-ids": "no meaning with mode zero",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_writes_nothing(arguments: str, shelf: Path, tmp_path: Path) -> None:
    fixed = ["prune", str(shelf / "net.onnx"), "-o", "out.onnx"]
    done = exporter([*fixed, *arguments.split()], tmp_path)
    assert done.code == 2, done.out + done.err
    assert WRONG[arguments] in done.err.replace("\n", " ")
    assert leftover_files(tmp_path) == []


@pytest.fixture
def upright(tmp_path: Path) -> Path:
    """A file with its units on axis 1 of [1, 5, 1], after a softmax over them."""
    builder = Builder(3)
    builder.dense(builder.feed("x", 1, 6), 5, "z")
    builder.softmax("z", "p")
    to = np.array([1, 5, 1], np.int32)
    builder.op("RESHAPE", ["p", builder.constant("to", to)], (1, 5, 1), "y")
    path = tmp_path / "upright.tflite"
    path.write_bytes(builder.content("y"))
    return path


def test_the_best_unit_is_emitted_on_any_axis(upright: Path) -> None:
    folder = upright.parent
    command = ["prune", "upright.tflite", "-o", "small.tflite", "--keep", "0,3-4", "--emit", "ids"]
    assert exporter(command, folder).code == 0
    assert exporter(["verify", "upright.tflite", "small.tflite"], folder).code == 0
    small = from_bytes((folder / "small.tflite").read_bytes(), "small.tflite")
    answers = small.runner(RunOptions())({"x": numbers(1, 6)})
    expected = np.array([0, 3, 4])[answers["y"].argmax(axis=1)]
    assert np.array_equal(answers["ids"], expected)


def test_several_ids_on_another_axis_are_refused(upright: Path) -> None:
    folder = upright.parent
    command = ["prune", "upright.tflite", "-o", "small.tflite", "--keep", "0,3-4"]
    done = exporter([*command, "--emit", "ids:2"], folder)
    assert done.code == 3
    assert "top-k cannot be inserted after 'y': TFLite computes it along the last" in done.err
    assert "--emit ids, without a number, works along any axis" in done.err
    assert [path.name for path in folder.iterdir()] == ["upright.tflite"]


# --- of the original model -----------------------------------------------------------------------

X = numbers(7, 6, seed=1)
Z = X @ numbers(6, 5) + numbers(5)
LEFT = [4, 0, 2]
SOFT = node("Softmax", ["z"], ["p"], "softmax")
RANKED: Mapping[str, tuple[tuple[NodeProto, ...], Callable[[Array], Array], dict[str, Any]]] = {
    "ArgMax alone": (
        (node("ArgMax", ["z"], ["y"], "rank", axis=1, keepdims=0),),
        lambda places: places[first(Z[:, places], 1)][:, 0],
        {"outputs": {"y": None}},
    ),
    "ArgMax, moved twice": (
        (
            node("ArgMax", ["z"], ["i"], "rank", axis=1),
            node("Cast", ["i"], ["y"], "cast", to=TensorProto.INT32),
        ),
        lambda places: places[first(Z[:, places], 1)],
        {"outputs": {"i": None, "y": None}},
    ),
    "TopK, with its values": (
        (SOFT, node("TopK", ["p", "k"], ["v", "y"], "rank")),
        lambda places: places[first(Z[:, places], 3)],
        {"outputs": {"p": None, "v": None, "y": None}, "constants": {"k": np.array([3])}},
    ),
}


@pytest.mark.parametrize("name", RANKED)
def test_returned_ids_stay_original_ones(name: str) -> None:
    nodes, expected, options = RANKED[name]
    model = classifier(*nodes, **options)
    pruned, recorded = cut(model, keep=LEFT)
    assert (recorded["restore_ids"], recorded["ids"]) == (True, None)
    before, after = run_rows(model, X), run_rows(pruned, X)
    assert list(before) == list(after)
    np.testing.assert_array_equal(after["y"], expected(np.array([0, 2, 4])))
    assert after["y"].dtype == before["y"].dtype
    if "i" in after:
        np.testing.assert_array_equal(after["i"], after["y"])
    if "v" in after:
        wide = np.sort(softmax(Z[:, [0, 2, 4]]), axis=1)[:, ::-1]
        np.testing.assert_allclose(after["v"], wide, atol=1e-6)


@pytest.mark.parametrize("name", RANKED)
def test_new_ids_are_indices_of_the_kept_units(name: str) -> None:
    nodes, expected, options = RANKED[name]
    pruned, recorded = cut(classifier(*nodes, **options), keep=LEFT, new_ids=True)
    assert recorded["restore_ids"] is None
    assert set(recorded["ids"]) == {"y", "i"} & set(options["outputs"])
    np.testing.assert_array_equal(
        run_rows(pruned, X)["y"], np.searchsorted([0, 2, 4], expected(np.array([0, 2, 4])))
    )


@pytest.mark.parametrize("name", RANKED)
def test_a_second_cut_cuts_the_table(name: str) -> None:
    nodes, expected, options = RANKED[name]
    model = classifier(*nodes, **options)
    for new_ids in (False, True):  # the second cut restores the indices that the first one changed
        once, _ = cut(model, keep=[0, 2, 3, 4], new_ids=new_ids)
        twice, recorded = cut(once, keep=[0, 1, 3])
        assert (recorded["restore_ids"], recorded["ids"]) == (True, None)
        np.testing.assert_array_equal(run_rows(twice, X)["y"], expected(np.array([0, 2, 4])))
        job = VerifyOptions(synthetic_samples(model.graph(), 4, 1))
        checks = verify_pair("cut", model, twice, twice.remap.heads, job).checks
        assert all(check.passed for check in checks)


def test_new_ids_after_a_cut_that_kept_original_ids() -> None:
    nodes, _, options = RANKED["ArgMax alone"]
    once, _ = cut(classifier(*nodes, **options), keep=LEFT)
    with pytest.raises(UsageError, match="has no output with indices that a cut changes"):
        plan_cut(once, CutOptions(keep=[0, 1], new_ids=True))


def test_keeping_all_units_edits_no_ids() -> None:
    nodes, _, options = RANKED["ArgMax alone"]
    done = plan_cut(classifier(*nodes, **options), CutOptions(keep=range(5)))
    assert done.plan.edits == ()


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_the_argmax_of_tflite_returns_original_ids(dtype: str) -> None:
    builder = Builder()
    builder.dense(builder.feed("x", 1, 6), 5, "z")
    builder.constant("axis", np.array([1], np.int32))
    kind = getattr(schema.TensorType, dtype.upper())
    builder.op("ARG_MAX", ["z", "axis"], (1,), "y", "ArgMaxOptions", dtype, outputType=kind)
    builder.signature({"x": "x"}, {"best": "y"})
    model = from_bytes(builder.content("y"), "argmax.tflite")
    pruned, recorded = cut(model, keep=[1, 3, 4])
    assert recorded["restore_ids"] is True
    z = X @ builder.constants["z/kernel"].T + builder.constants["z/bias"]
    left = np.array([1, 3, 4])
    found = run_rows(pruned, X)
    np.testing.assert_array_equal(found["best"], left[z[:, left].argmax(axis=1)])
    assert found["best"].dtype == np.dtype(dtype)


def test_a_lookup_table_of_the_model_is_cut_with_its_units() -> None:
    """An entry for each class, which a cut does not change."""
    table = np.array([70, 30, 90, 10, 50], np.int32)
    nodes = (
        SOFT,
        node("ArgMax", ["p"], ["i"], "best", axis=1, keepdims=0),
        node("Gather", ["table", "i"], ["t"], "look up"),
        node("Cast", ["t"], ["y"], "cast", to=TensorProto.INT64),
    )
    model = classifier(*nodes, outputs={"p": None, "y": None}, constants={"table": table})
    pruned, recorded = cut(model, keep=LEFT)
    assert recorded["ids"] is None
    assert recorded["restore_ids"] is None
    left = np.array([0, 2, 4])
    np.testing.assert_array_equal(run_rows(pruned, X)["y"], table[left[Z[:, left].argmax(axis=1)]])
    (held,) = (t for t in pruned.proto.graph.initializer if t.name == "table")
    assert list(held.dims) == [3]
