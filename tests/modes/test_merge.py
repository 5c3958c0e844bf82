"""Merged units: one answer for a group, the sum of its members' probabilities.

Expected values are NumPy's, of the logits that a runtime gives for the whole model; of codes, of
the codes that the same head gives for the members while they stand alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import checker

from exporter.data.samples import synthetic_samples
from exporter.errors import ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.model import Model, RunOptions
from exporter.formats.tflite import from_bytes
from exporter.graph import Array, Quantization
from exporter.graph.edits import AddOutput, Plan
from exporter.modes import MODES, Semantics
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.trace import trace
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import mode_cells
from tests.builders import onnx_models as onnx
from tests.builders.commands import exporter, leftover_files
from tests.builders.shelf import LABELS
from tests.builders.tflite_builder import Builder

UNITS, COUNT = mode_cells.UNITS, 8
Places = Sequence[Sequence[int]]
built = cache(mode_cells.built)


def merged(model: Any, **choice: Any) -> tuple[Any, Cut]:
    cut = plan_cut(model, CutOptions(**choice))
    return model.apply(cut.plan), cut


def answers(model: Any, *inner: str) -> dict[str, Array]:
    """Every output and some inner tensors of the runtime for seeded samples."""
    shown = model.apply(Plan(tuple(AddOutput(name, name) for name in inner)))
    run = shown.runner(RunOptions())
    each = [run(feeds) for feeds in synthetic_samples(model.graph(), COUNT, 3).feeds()]
    return {name: np.concatenate([a[name] for a in each]) for name in each[0]}


def answer(model: Any) -> Array:
    (values,) = answers(model).values()
    return values


def failed(original: Any, pruned: Any, tables: Any) -> list[str]:
    job = VerifyOptions(synthetic_samples(original.graph(), COUNT, 3))
    done = verify_pair("cut", original, pruned, tables, job)
    assert done.checks
    return [f"{c.output}: {c.metric}" for c in done.checks if not c.passed]


def log_sum(values: Array, axis: int = 1) -> Array:
    top = values.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis))


def joined(head: str, values: Array, places: Places) -> Array:
    """The expected columns after merging, in float64, from one column for each unit."""
    wide = np.asarray(values, np.float64)
    join = (lambda v: v.sum(axis=1)) if head == "softmax" else log_sum
    return np.stack(
        [join(wide[:, list(p)]) if len(p) > 1 else wide[:, p[0]] for p in places], axis=1
    )


# --- the matrix -----------------------------------------------------------------------------------

CHOICES: dict[str, tuple[dict[str, Any], Places]] = {
    "alone": ({"merge": {"g": [4, 1]}}, [[0], [1, 4], [2], [3], [5]]),
    "with keep": ({"keep": [5, 2], "merge": {"g": "1,3-4"}}, [[1, 3, 4], [2], [5]]),
    "members kept too": ({"keep": [0, 1, 4], "merge": {"g": [1, 4]}}, [[0], [1, 4]]),
    "with remove": ({"remove": [0], "merge": {"g": [5, 2]}}, [[1], [2, 5], [3], [4]]),
    "two groups": ({"merge": {"h": [3, 5], "g": [0, 4]}}, [[0, 4], [1], [2], [3, 5]]),
    "nothing else": ({"keep": [1], "merge": {"g": [1, 2]}}, [[1, 2]]),
    "an order": (
        {"keep": [5, 4, 0], "keep_order": True, "merge": {"g": [0, 3]}},
        [[5], [4], [0, 3]],
    ),
}
MERGEABLE = ("softmax", "log_softmax", "linear")


def flat(places: Places) -> list[int]:
    return [unit for place in places for unit in place]


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("head", MERGEABLE)
def test_merged_float_units(head: str, kind: str, name: str) -> None:
    choice, places = CHOICES[name]
    model = built(head, kind, "float32")
    pruned, cut = merged(model, **choice)
    z = answers(model, *(() if head == "linear" else ("z",)))["z"].astype(np.float64)
    shared = [z - log_sum(z[:, flat(places)])[:, None], z][head == "linear"]
    expected = joined(head, np.exp(shared) if head == "softmax" else shared, places)
    np.testing.assert_allclose(answer(pruned), expected, atol=1e-6, rtol=1e-6)
    assert failed(model, pruned, cut.remap.heads) == []
    table = cut.remap.of()
    assert table.new_to_old == tuple(p[0] if len(p) == 1 else tuple(p) for p in places)
    assert table.new_units == len(places)
    assert sorted(table.kept) == sorted(flat(places))


@pytest.mark.parametrize("name", ["with keep", "an order"])
@pytest.mark.parametrize("precision", ["int8", "uint8"])
@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("head", MERGEABLE)
def test_merged_quantized_units_are_within_one_step(
    head: str, kind: str, precision: str, name: str
) -> None:
    choice, places = CHOICES[name]
    model = built(head, kind, precision)
    pruned, cut = merged(model, **choice)
    alone, _ = merged(model, keep=flat(places), keep_order=True)
    (output,) = pruned.graph().outputs
    tensor = alone.graph().tensors[output]
    scale, zero = codes(head, precision)
    columns = [list(range(i, i + len(p))) for i, p in zip(starts(places), places, strict=True)]
    expected = joined(head, tensor.dequantize(answer(alone)), columns)
    if tensor.quantization is None:  # dequantized values: their exact sum
        # between two files onnxruntime may join the product with other nodes, and round otherwise
        np.testing.assert_allclose(answer(pruned), expected, atol=scale * 1.01)
    else:
        bounds = np.iinfo(precision)
        wanted = np.clip(np.rint(expected / scale) + zero, bounds.min, bounds.max)
        assert answer(pruned).dtype == precision
        assert np.abs(answer(pruned).astype(int) - wanted).max() <= 1
    assert failed(model, pruned, cut.remap.heads) == []


def starts(places: Places) -> list[int]:
    return [sum(map(len, places[:i])) for i in range(len(places))]


def codes(head: str, precision: str) -> tuple[float, int]:
    low = 0 if precision == "uint8" else -128
    known = {"softmax": (1 / 256, low), "log_softmax": (1 / 16, low + 255)}
    return known.get(head, (0.1, low + 133))


@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("head", MERGEABLE)
def test_float16_weights(head: str, kind: str) -> None:
    model = built(head, kind, "float16 weights")
    pruned, cut = merged(model, keep=[0, 1], merge={"g": [2, 4]})
    alone, _ = merged(model, keep=[0, 1, 2, 4])
    expected = joined(head, answer(alone), [[0], [1], [2, 3]])
    np.testing.assert_allclose(answer(pruned), expected, atol=1e-6)
    assert failed(model, pruned, cut.remap.heads) == []


@pytest.mark.parametrize("precision", mode_cells.PRECISIONS)
@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("head", ["softmax", "log_softmax"])
def test_absolute_merged_units_match_the_original(head: str, kind: str, precision: str) -> None:
    model = built(head, kind, precision)
    choice = {"keep": [0], "merge": {"g": [2, 4]}, "probabilities": "absolute"}
    pruned, cut = merged(model, **choice)
    (output,) = model.graph().outputs
    tensor = model.graph().tensors[output]
    expected = joined(head, tensor.dequantize(answer(model)), [[0], [2, 4]])
    step = 1e-5 if tensor.quantization is None else tensor.quantization.scale.item()
    np.testing.assert_allclose(tensor.dequantize(answer(pruned)), expected, atol=step * 1.01)
    assert failed(model, pruned, cut.remap.heads) == []


def test_merged_quantized_sum_saturates() -> None:
    """A probability of 1.0 is 256 steps, but the largest quantized value is 255."""
    pruned, cut = merged(built("softmax", "tflite", "uint8"), merge={"all": "0-5"})
    assert (answer(pruned) >= 254).all()
    assert (answer(pruned) == 255).any()
    assert cut.warnings == ("softmax over one unit always returns 1.0",)


@pytest.mark.parametrize("kind", mode_cells.KINDS)
def test_large_logits_do_not_overflow(kind: str) -> None:
    bias = np.array([1000, 1000, -1000, 0, 5, 6], np.float32)
    if kind == "onnx":
        nodes = [onnx.node("Add", ["x", "bias"], ["n"], "add"), _gemm("n", "y")]
        constants = {"bias": bias, "k": np.eye(6, dtype=np.float32)}
        model: Model = onnx.model(nodes, {**constants, "b": np.zeros(6, np.float32)})
    else:
        builder = Builder()
        inputs = [builder.feed("x", 1, 6), builder.constant("k", np.eye(6, dtype=np.float32))]
        inputs.append(builder.constant("b", bias))
        builder.op("FULLY_CONNECTED", inputs, (1, 6), "y", "FullyConnectedOptions")
        model = from_bytes(builder.content("y"), "large.tflite")
    pruned, _ = merged(model, merge={"g": [0, 1, 2]})
    whole = answer(model)
    np.testing.assert_allclose(answer(pruned)[:, 0], log_sum(whole[:, :3]), rtol=1e-6)


def _gemm(source: str, result: str) -> Any:
    return onnx.node("Gemm", [source, "k", "b"], [result], "gemm")


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", ""])
def test_operator_forms_of_each_opset(operator: str, opset: int) -> None:
    nodes = [_gemm("x", "z" if operator else "y")]
    nodes += [onnx.node(operator, ["z"], ["y"], "last", axis=1)] if operator else []
    constants = {"k": onnx.numbers(6, 5), "b": onnx.numbers(5)}
    model = onnx.model(nodes, constants, opset=opset)
    pruned, cut = merged(model, keep=[1], merge={"g": [0, 3]})
    checker.check_model(pruned.proto, full_check=True)
    assert failed(model, pruned, cut.remap.heads) == []
    sums = [node for node in pruned.proto.graph.node if node.op_type == "ReduceSum"]
    assert [len(node.input) for node in sums] == [1 if opset < 13 else 2]


@pytest.mark.parametrize("name", ["net.onnx", "net.tflite"])
def test_size_of_a_merged_file(name: str, shelf: Path) -> None:
    """The added operations need no matrix, only indices."""
    model = open_model(shelf / name)
    pruned, _ = merged(model, merge={"g": [0, 2, 3]})
    before = {t.name for t in model.graph().tensors.values()}
    added = [
        t for t in pruned.graph().tensors.values() if t.read is not None and t.name not in before
    ]
    assert sum(t.read().size for t in added if t.read) <= 2 * len(LABELS) + 2


# --- readers of the units -------------------------------------------------------------------------


def test_ranking_after_the_output_ranks_the_groups() -> None:
    last = onnx.node("Softmax", ["z"], ["p"], "last", axis=1)
    top = onnx.node("ArgMax", ["p"], ["y"], "top", axis=1)
    constants = {"k": onnx.numbers(6, 5), "b": onnx.numbers(5)}
    model = onnx.model([_gemm("x", "z"), last, top], constants, outputs={"p": None, "y": None})
    pruned, cut = merged(model, merge={"g": [0, 3]})
    result = answers(pruned)
    lowest = np.array([0, 1, 2, 4])
    np.testing.assert_array_equal(result["y"][:, 0], lowest[result["p"].argmax(1)])
    assert failed(model, pruned, cut.remap.heads) == []


def test_merged_channels_with_other_channels() -> None:
    """A softmax over channels of an image: the unit axis is not the last axis."""
    nodes = [
        onnx.node("Conv", ["x", "k"], ["z"], "conv"),
        onnx.node("Softmax", ["z"], ["y"], "last", axis=1),
    ]
    model = onnx.model(nodes, {"k": onnx.numbers(5, 3, 1, 1)}, x=("batch", 3, 4, 4))
    every = {"allow_remove_special": True}  # the first unit may be a background
    pruned, cut = merged(model, keep=[4], merge={"g": [3, 1]}, **every)
    alone, _ = merged(model, keep=[1, 3, 4], **every)
    members = answer(alone)
    expected = np.stack([members[:, 0] + members[:, 1], members[:, 2]], axis=1)
    np.testing.assert_allclose(answer(pruned), expected, atol=1e-6)
    assert failed(model, pruned, cut.remap.heads) == []


# --- refused --------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a member that is removed": (
        {"remove": [1, 2], "merge": {"g": [1, 3]}},
        "unit 1, 'owl', is removed",
    ),
    "like a label": ({"merge": {"hen": [0, 1]}}, "has the label of unit 2"),
    "two groups": ({"merge": {"g": [0, 1], "h": [1, 2]}}, "a member of 'g' and of 'h'"),
    "one member": ({"merge": {"g": ["owl"]}}, "has 1 units"),
    "one member twice": ({"merge": {"g": [1, "owl"]}}, "has 1 units"),
    "no member": ({"merge": {"g": []}}, "has 0 units"),
    "an empty SPEC": ({"merge": {"g": " "}}, "merge g is empty"),
    "no such unit": ({"merge": {"g": [1, 70]}}, "there is no unit 70"),
    "no such label": ({"merge": {"g": ["owl", "emu"]}}, "emu"),
    "no name": ({"merge": {" ": [1, 2]}}, "cannot be named ' '"),
    "a name of two lines": ({"merge": {"a\nb": [1, 2]}}, "cannot be named"),
    "zero": ({"keep": [1], "mode": "zero", "merge": {"g": [1, 2]}}, "no meaning with mode zero"),
    "mask": ({"keep": [1], "mode": "mask", "merge": {"g": [1, 2]}}, "no meaning with mode mask"),
    "restored width": (
        {"keep": [1], "restore_width": True, "merge": {"g": [1, 2]}},
        "no meaning with restore_width",
    ),
    "no sequence": ({"merge": {"g": 5}}, "merge g is 5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_refused(name: str, shelf: Path) -> None:
    choice, message = REFUSED[name]
    model = open_model(shelf / "net.onnx")
    with pytest.raises(UsageError, match=message):
        plan_cut(model, CutOptions(labels=LABELS, **choice))


@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("head", ["sigmoid", "relu"])
def test_units_without_a_common_probability_are_refused(head: str, kind: str) -> None:
    with pytest.raises(UsageError, match=rf"their probabilities do not add up \({head}\)"):
        plan_cut(built(head, kind, "float32"), CutOptions(merge={"g": [0, 1]}))


def _model(*tail: Any, outputs: Sequence[str], **constants: Array) -> Model:
    known = {"k": onnx.numbers(6, 5), "b": onnx.numbers(5), **constants}
    return onnx.model([_gemm("x", "z"), *tail], known, outputs=dict.fromkeys(outputs))


SOFTMAX = onnx.node("Softmax", ["z"], ["p"], "last", axis=1)
MODELS: dict[str, tuple[Callable[[], Model], str]] = {
    "logits and probabilities": (lambda: _model(SOFTMAX, outputs=["p", "z"]), "returns them too"),
    "a ranking of the logits": (
        lambda: _model(
            SOFTMAX, onnx.node("ArgMax", ["z"], ["i"], "top", axis=1), outputs=["p", "i"]
        ),
        "ranks them before 'p'",
    ),
    "more ranks than places": (
        lambda: _model(
            SOFTMAX,
            onnx.node("TopK", ["p", "n"], ["v", "i"], "top", axis=1),
            outputs=["p", "i"],
            n=np.array([5], np.int64),
        ),
        "returns 5 units, but only 4 would",
    ),
    "a maximum over time after the softmax": (
        lambda: onnx.model(
            [
                onnx.node("Conv", ["x", "k"], ["z"], "conv"),
                onnx.node("Softmax", ["z"], ["p"], "last", axis=1),
                onnx.node("ReduceMax", ["p"], ["y"], "over time", axes=[2, 3], keepdims=0),
            ],
            {"k": onnx.numbers(5, 3, 1, 1)},
            x=("batch", 3, 4, 4),
        ),
        "cannot be merged: ReduceMax",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_units_with_other_readers_are_refused(name: str) -> None:
    build, message = MODELS[name]
    with pytest.raises(ModelError, match=message):
        plan_cut(build(), CutOptions(merge={"g": [0, 3]}))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"dtype": "bfloat16"}, "is bfloat16"),
        (
            {"dtype": "uint16", "quantization": Quantization(np.ones(1), np.zeros(1), 0, 65535)},
            "is uint16",
        ),
        (
            {"dtype": "uint8", "quantization": Quantization(np.ones(6), np.zeros(6), 0, 255, 1)},
            "has a scale for each unit",
        ),
    ],
    ids=["bfloat16", "unsigned 16-bit values", "a scale for each unit"],
)
def test_values_that_no_kernel_adds_are_refused(found: dict[str, Any], reason: str) -> None:
    head = trace(built("softmax", "onnx", "float32").graph()).head()
    tensors = tuple(replace(t, **found) if t.name == head.output else t for t in head.tensors)
    meaning = Semantics(merge={"g": (0, 1)})
    with pytest.raises(ModelError, match=f"cannot be merged: .* {reason}"):
        MODES["slice"].edits(replace(head, tensors=tensors), range(UNITS), meaning)


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net.onnx", "net.tflite"])
def test_merged_unit_has_the_name_of_its_group(name: str, shelf: Path) -> None:
    _, cut = merged(
        open_model(shelf / name), keep="macaw", labels=LABELS, merge={"bird": "gull,*w*,=owl"}
    )
    table = cut.remap.of()
    assert table.labels == ("bird",)
    assert table.new_to_old == ((0, 1, 5, 6),)
    assert table.options["merge"] == {"bird": (0, 1, 5, 6)}
    assert table.to_original([0]).tolist() == [0]
    assert table.to_new([0, 1, 2, 6]).tolist() == [0, 0, -1, 0]


@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_cut_file_is_merged_and_verified_against_both_originals(kind: str, precision: str) -> None:
    """The first cut reorders the units; the group of the second cut follows that order."""
    model = built("softmax", kind, precision)
    once, _ = merged(model, keep=[5, 1, 3, 0], keep_order=True)
    twice, cut = merged(once, keep=[3], merge={"g": [0, 1]})
    table = cut.remap.of()
    assert table.new_to_old == ((1, 5), 0)
    assert table.options["merge"] == {"g": (1, 5)}
    assert failed(once, twice, cut.remap.heads) == []
    assert failed(model, twice, cut.remap.heads) == []


@pytest.mark.parametrize("kind", mode_cells.KINDS)
def test_merged_file_cannot_be_cut_again(kind: str) -> None:
    pruned, _ = merged(built("softmax", kind, "float32"), merge={"g": [0, 1]})
    with pytest.raises(ModelError, match="was cut before with merge = g"):
        plan_cut(pruned, CutOptions(keep=[0]))


def test_zeroed_file_cannot_be_merged() -> None:
    zeroed, _ = merged(built("softmax", "onnx", "float32"), keep=[0, 1, 2], mode="zero")
    with pytest.raises(UsageError, match="removed with mode zero"):
        plan_cut(zeroed, CutOptions(keep=[0], merge={"g": [1, 5]}))
    pruned, cut = merged(zeroed, keep=[0], merge={"g": [1, 2]})
    assert failed(zeroed, pruned, cut.remap.heads) == []


@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("precision", ["float32", "uint8"])
def test_wrong_group_fails_verification(kind: str, precision: str) -> None:
    """Sabotage: the remap contains another group than the file."""
    model = built("softmax", kind, precision)
    pruned, cut = merged(model, merge={"g": [0, 1]})
    (table,) = cut.remap.heads
    other = replace(
        table,
        new_to_old=((0, 2), *[u for u in range(UNITS) if u not in {0, 2}]),
        kept=(0, 2, 1, 3, 4, 5),
        options={**table.options, "merge": {"g": (0, 2)}},
    )
    assert failed(model, pruned, [other])


@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("choice", [{}, {"probabilities": "absolute"}], ids=["", "absolute"])
def test_z_of_a_merged_file_is_found_by_tracing(kind: str, choice: dict[str, Any]) -> None:
    """As for a converted file, which has other tensor names."""
    model = built("softmax", kind, "float32")
    pruned, cut = merged(model, keep=[2], merge={"g": [0, 4]}, **choice)
    job = VerifyOptions(synthetic_samples(model.graph(), COUNT, 3))
    done = verify_pair("export", model, pruned, cut.remap.heads, job)
    assert {c.output for c in done.checks} == {"y (z)", "y (members)", "y"}
    assert all(c.passed for c in done.checks)


def test_remap_with_groups_on_an_unmerged_file_fails() -> None:
    model = built("softmax", "onnx", "float32")
    _, cut = merged(model, merge={"g": [0, 4]})
    with pytest.raises(ModelError, match="does not show how its units were merged"):
        failed(model, model, cut.remap.heads)


# --- the commands ---------------------------------------------------------------------------------


def test_merge_on_the_command_line(shelf: Path, tmp_path: Path) -> None:
    for suffix in ("onnx", "tflite"):
        source, out = shelf / f"net.{suffix}", f"birds.{suffix}"
        done = exporter(
            [
                *("prune", str(source), "-o", out, "--labels", str(shelf / "labels.txt")),
                *("--merge", "big=macaw,owl", "--merge", "small=3-4", "--json"),
            ],
            tmp_path,
        )
        assert done.code == 0, done.err
        (table,) = done.record["remap"]["heads"]
        assert table["labels"] == ["big", "hen", "small", "crow", "gull"]
        assert table["new_to_old"] == [[0, 1], 2, [3, 4], 5, 6]
        done = exporter(["verify", str(source), out], tmp_path)
        assert done.code == 0, done.out + done.err


def test_merge_of_a_keras_model(keras_shelf: Path, tmp_path: Path) -> None:
    """The output of the files matches the merged output of the Keras model."""
    source = str(keras_shelf / "net.keras")
    merge = ["--merge", "g=1,3", "--keep", "0", "--no-bench"]
    done = exporter(["run", source, "-o", "out", *merge, "--json"], tmp_path)
    assert done.code == 0, done.out + done.err
    stages = {(c["stage"], c["artifact"]) for c in done.record["checks"]}
    assert {stage for stage, _ in stages} == {"cut", "export"}


WRONG: Mapping[str, str] = {
    "--merge g=macaw": "a group needs at least two members",
    "--merge g=macaw,owl --merge g=hen,crow": "names the group 'g' twice",
    "--merge owl=macaw,hen": "has the label of unit 1",
    "--merge g=": "merge g is empty",
    "--merge macaw,owl": "is not of the form NAME=SPEC",
    "--remove owl --merge g=macaw,owl": "is removed",
    "--keep owl --remove hen --merge g=macaw,owl": "give either --keep SPEC, --remove SPEC",
    "--merge g=0-1 --merge h=1-2": "a unit can be in one group",
    "--mode zero --merge g=0-1": "no meaning with mode zero",
    "--restore-width --merge g=0-1": "no meaning with restore_width",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_command_writes_nothing(arguments: str, shelf: Path, tmp_path: Path) -> None:
    fixed = ["prune", str(shelf / "net.onnx"), "-o", "out.onnx"]
    done = exporter([*fixed, "--labels", str(shelf / "labels.txt"), *arguments.split()], tmp_path)
    assert done.code == 2, done.out + done.err
    assert WRONG[arguments] in done.err.replace("\n", " ")
    assert leftover_files(tmp_path) == []


# --- published networks ---------------------------------------------------------------------------

BIRDS = (88, 91, 94)  # African gray, lorikeet, hornbill


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_merge_in_a_published_network(suffix: str, zoo: Path) -> None:
    model = open_model(zoo / f"mobilenet_v1_025_224_float.{suffix}")
    pruned, cut = merged(model, merge={"bird": BIRDS})
    whole, answered = answer(model).astype(np.float64), answer(pruned)
    expected = np.delete(whole, BIRDS[1:], axis=1)
    expected[:, BIRDS[0]] = whole[:, BIRDS].sum(axis=1)
    np.testing.assert_allclose(answered, expected, atol=1e-6)
    assert failed(model, pruned, cut.remap.heads) == []


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1_025_224_uint8_metadata.tflite",
        "mobilenet_v2_100_224_uint8_logits.tflite",
        "mobilenet_v2_100_224_qdq_logits.onnx",
    ],
)
def test_merge_in_a_published_quantized_network(name: str, zoo: Path) -> None:
    model = open_model(zoo / name)
    (output,) = model.graph().outputs
    tensor = model.graph().tensors[output]
    head = "softmax" if "metadata" in name else "linear"
    pruned, cut = merged(model, merge={"bird": BIRDS})
    whole = tensor.dequantize(answer(model))
    places = [[u] if u != BIRDS[0] else list(BIRDS) for u in range(1001) if u not in BIRDS[1:]]
    assert tensor.quantization is not None
    scale = tensor.quantization.scale.item()
    highest = tensor.quantization.dequantize(np.array(255)).item()
    expected = np.minimum(joined(head, whole, places), highest)
    np.testing.assert_allclose(tensor.dequantize(answer(pruned)), expected, atol=scale * 1.01)
    assert failed(model, pruned, cut.remap.heads) == []
