"""Units that are mixed before the output: a Gather takes the kept ones as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto

from exporter.cli.exit_codes import run_command
from exporter.cli.main import cli
from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError, ModelError
from exporter.formats.model import RunOptions
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.graph.edits import Insert
from exporter.jobs.inspect import inspect_model
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.proof.probe import probe
from exporter.proof.prove import prove
from exporter.remap import Remap
from exporter.trace import trace, trace_recorded
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders.onnx_models import model, node, numbers
from tests.builders.several_heads import five_heads
from tests.builders.tflite_builder import Builder

KEPT = [1, 3]
OFFER = "--allow-gather takes the kept units from the output, at no gain in size"
MEMBERS = [
    *(node("Gemm", ["x", f"w{i}", f"v{i}"], [f"z{i}"], f"gemm{i}") for i in "ab"),
    *(node("Softmax", [f"z{i}"], [f"p{i}"], f"softmax{i}", axis=1) for i in "ab"),
]
MEAN = [*MEMBERS, node("Mean", ["pa", "pb"], ["p"], "mean")]
CONSTANTS = {f"{kind}{i}": numbers(*shape, seed=ord(i)) for i in "ab"
             for kind, shape in (("w", (6, 5)), ("v", (5,)))}  # fmt: skip
ARGMAX = node("ArgMax", ["p"], ["id"], "best", axis=1, keepdims=0)
CALIBRATED = [  # by a temperature that all logits decide
    MEMBERS[0],
    node("ReduceMax", ["za"], ["top"], "top", axes=[1]),
    node("Div", ["za", "top"], ["scaled"], "scale"),
    node("Softmax", ["scaled"], ["p"], "softmax", axis=1),
]
HIERARCHY = [  # fine = P(coarse) * P(fine | coarse), for five fine and three coarse classes
    *MEMBERS[:3],
    node("Gemm", ["x", "coarse"], ["zc"], "coarse_gemm"),
    node("Softmax", ["zc"], ["c"], "coarse", axis=1),
    node("MatMul", ["c", "groups"], ["of_group"], "of_group"),
    node("Mul", ["pa", "of_group"], ["p"], "fine"),
]
OF_HIERARCHY = {"coarse": numbers(6, 3), "groups": np.eye(3, 5, dtype=np.float32)}
MAPS = [
    *(node("Conv", ["x", f"k{i}"], [f"m{i}"], f"conv{i}") for i in "ab"),
    *(node("Softmax", [f"m{i}"], [f"s{i}"], f"soft{i}", axis=1) for i in "ab"),
    node("Mean", ["sa", "sb"], ["p"], "mean"),
]
OF_MAPS = {f"k{i}": numbers(5, 3, 1, 1, seed=ord(i)) for i in "ab"}
STEPS = [
    *(node("MatMul", ["x", f"w{i}"], [f"z{i}"], f"matmul{i}") for i in "ab"),
    *(node("Softmax", [f"z{i}"], [f"p{i}"], f"soft{i}", axis=-1) for i in "ab"),
    node("Max", ["pa", "pb"], ["p"], "largest"),
]


def network(nodes: Sequence[NodeProto], *outputs: str, labels: str = "", **options: Any) -> Any:
    constants = CONSTANTS | options.pop("constants", {})
    read = {name for each in nodes for name in each.input}
    constants = {name: constants[name] for name in constants if name in read}
    made = model(nodes, constants, outputs=dict.fromkeys(outputs or ("p",)), **options)
    if labels:
        made.proto.metadata_props.add(key="names", value=repr(labels.split()))
        made = type(made)(made.proto, made.name)
    return made


def of_integers() -> Any:
    """An int8 network of TFLite: the sum of the probabilities of two heads."""
    builder = Builder()
    x = builder.quantize(builder.feed("x", 1, 6, dtype="int8"), 0.05, 0)
    for i in "ab":
        kernel = builder.random.integers(-127, 128, (5, 6)).astype(np.int8)
        builder.quantize(builder.constant(f"k{i}", kernel), 0.01, 0)
        builder.quantize(builder.constant(f"b{i}", np.zeros(5, np.int32)), 0.0005, 0)
        inputs = [x, f"k{i}", f"b{i}"]
        builder.op("FULLY_CONNECTED", inputs, (1, 5), f"z{i}", "FullyConnectedOptions", "int8", 4)
        builder.quantize(f"z{i}", 0.1, 0)
        builder.op("SOFTMAX", [f"z{i}"], (1, 5), f"p{i}", "SoftmaxOptions", "int8", 2, beta=1.0)
        builder.quantize(f"p{i}", 1 / 256, -128)
    builder.op("ADD", ["pa", "pb"], (1, 5), "p", "AddOptions", "int8", 2)
    builder.quantize("p", 1 / 128, -128)
    return from_bytes(builder.content("p"), "integers.tflite")


def of_floats() -> Any:
    builder = Builder()
    x = builder.feed("x", 1, 6)
    for i in "ab":
        builder.softmax(builder.dense(x, 5, f"z{i}"), f"p{i}")
    builder.op("ADD", ["pa", "pb"], (1, 5), "p", "AddOptions")
    builder.op("ARG_MAX", ["p", builder.constant("axis", np.array(1, np.int32))], (1,), "id",
               "ArgMaxOptions", "int64", outputType=4)  # fmt: skip
    return from_bytes(builder.content("p", "id"), "floats.tflite")


IDS = np.array(KEPT)  # the original's indices of the new units
CASES: Mapping[str, tuple[Any, Mapping[str, Any], Mapping[str, int]]] = {
    # the model, options, output -> axis of the kept units
    "ensemble": (network(MEAN), {}, {"p": 1}),
    "calibrated": (network(CALIBRATED), {}, {"p": 1}),
    "hierarchy": (network(HIERARCHY, "p", "c", constants=OF_HIERARCHY), {"head": "p"}, {"p": 1}),
    "steps of a text": (network(STEPS, x=(1, 4, 6)), {}, {"p": 2}),
    "channels before places": (network(MAPS, constants=OF_MAPS, x=(1, 3, 4, 4)), {}, {"p": 1}),
    "another axis": (
        network(MAPS, constants=OF_MAPS, x=(1, 3, 4, 4)),
        {"head": "p:3"},
        {"p": 3},
    ),
    "labels": (
        network(MEAN, labels="ant bee cat dog emu"),
        {"keep": ["bee", "dog"]},
        {"p": 1},
    ),
    "logarithm follows": (
        network([*MEAN, node("Log", ["p"], ["l"], "log")], "p", "l"),
        {"head": "p"},
        {"p": 1, "l": 1},
    ),
    "a factor for each class follows": (
        network(
            [*MEAN, node("Mul", ["p", "f"], ["q"], "scale")], "p", "q",
            constants={"f": numbers(5)},
        ),
        {"head": "q"},
        {"q": 1},
    ),
    "a second softmax keeps all": (
        network([*MEAN, node("Softmax", ["p"], ["q"], "again", axis=1)], "p", "q"),
        {"head": "p"},
        {"p": 1},
    ),
    "a difference to a member keeps all": (
        network([*MEAN, node("Sub", ["p", "pa"], ["d"], "difference")], "p", "d"),
        {"head": "p"},
        {"p": 1},
    ),
    "a shape that a constant states": (
        network([*MEAN, node("Reshape", ["p", "shape"], ["r"], "reshape")], "p", "r",
                constants={"shape": np.array([-1, 1, 5])}),
        {"head": "p"},
        {"p": 1, "r": 2},
    ),
    "parts of the units keep all": (
        network([*MEAN, node("Split", ["p", "sizes"], ["l", "r"], "split", axis=1)], "p", "l", "r",
                constants={"sizes": np.array([2, 3])}),
        {"head": "p"},
        {"p": 1},
    ),
    "another order keeps all": (
        network([*MEAN, node("Split", ["p", "sizes"], ["l", "r"], "split", axis=1),
                 node("Concat", ["r", "l"], ["q"], "swap", axis=1)], "p", "q",
                constants={"sizes": np.array([2, 3])}),
        {"head": "p"},
        {"p": 1},
    ),
    "a member of the ensemble": (network(MEAN, "p", "pa"), {"head": "pa"}, {"pa": 1}),
    "two heads": (
        network(MEAN, "p", "pa"),
        {"cuts": {"p": KEPT, "pa": KEPT}},
        {"p": 1, "pa": 1},
    ),
    "float TFLite": (of_floats(), {"head": "p"}, {"p": 1}),
    "int8 TFLite": (of_integers(), {}, {"p": 1}),
}  # fmt: skip


def planned(original: Any, **options: Any) -> Cut:
    if "keep" not in options and "cuts" not in options:
        options["keep"] = KEPT
    return plan_cut(original, CutOptions(allow_gather=True, **options))


def answers(opened: Any, batch: int = 1) -> dict[str, Array]:
    feeds = synthetic_samples(opened.graph(), 3, 1).feeds()
    run = opened.runner(RunOptions(batch=batch))
    rows = [run(feed) for feed in feeds]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("name", CASES)
def test_the_output_is_the_originals_at_the_kept_units(name: str) -> None:
    original, options, axes = CASES[name]
    cut = planned(original, **options)
    pruned = original.apply(cut.plan)
    before, after = answers(original), answers(pruned)
    assert before.keys() == after.keys()
    for output, values in before.items():
        if output in axes:
            values = np.take(values, KEPT, axes[output])  # noqa: PLW2901
        if output == "id":
            values = IDS[np.take(before["p"], KEPT, 1).argmax(1)]  # noqa: PLW2901
        assert after[output].dtype == values.dtype
        np.testing.assert_array_equal(after[output], values)
    for table in cut.remap.heads:
        assert table.options["gather"]
        assert (table.kept, table.new_units) == (tuple(KEPT), 2)
    shapes = {name: tensor.shape for name, tensor in pruned.graph().tensors.items()}
    assert all(shapes[output][axis] == len(KEPT) for output, axis in axes.items())
    assert all("the file does not get smaller" in text for text in cut.warnings)


@pytest.mark.parametrize("name", CASES)
def test_it_is_proved_and_verified(name: str) -> None:
    original, options, _ = CASES[name]
    cut = planned(original, **options)
    pruned = original.apply(cut.plan)
    written = Remap.from_json(pruned.remap.to_json(short=True))
    assert prove(original, pruned, written).result == "proved"
    compare = VerifyOptions(synthetic_samples(original.graph(), 3, 0))
    done = verify_pair("cut", original, pruned, written.heads, compare)
    assert {check.output for check in done.checks} == set(original.graph().outputs)
    assert all(check.passed for check in done.checks)
    assert "no weight is removed" in probe(original, pruned, written.heads).text


@pytest.mark.parametrize("name", ["ensemble", "int8 TFLite", "a second softmax keeps all"])
def test_other_units_are_found(name: str) -> None:
    original, options, _ = CASES[name]
    cut = planned(original, **options)
    wrong = original.apply(planned(original, **{**options, "keep": [1, 4]}).plan)
    assert prove(original, wrong, cut.remap).result == "different"
    compare = VerifyOptions(synthetic_samples(original.graph(), 3, 0))
    checks = verify_pair("cut", original, wrong, cut.remap.heads, compare).checks
    assert not all(check.passed for check in checks)


def test_an_argmax_ranks_the_kept_units_only() -> None:
    both, alone = network([*MEAN, ARGMAX], "p", "id"), network([*MEAN, ARGMAX], "id")
    expected = IDS[answers(both)["p"][:, KEPT].argmax(1)]
    for original, head in ((both, "p"), (alone, None)):
        pruned = original.apply(planned(original, head=head).plan)
        np.testing.assert_array_equal(answers(pruned)["id"], expected)
        assert prove(original, pruned, pruned.remap).result == "proved"


def test_it_is_cut_again() -> None:
    original = network(MEAN, labels="ant bee cat dog emu")
    once = original.apply(planned(original, keep=[4, 1, 3], keep_order=True).plan)
    np.testing.assert_array_equal(answers(once)["p"], answers(original)["p"][:, [4, 1, 3]])
    twice = once.apply(planned(once, keep=["dog", "emu"]).plan)
    np.testing.assert_array_equal(answers(twice)["p"], answers(original)["p"][:, [4, 3]])
    assert twice.remap.heads[0].labels == ("emu", "dog")
    for before in (original, once):
        assert prove(before, twice, twice.remap).result == "proved"
    with pytest.raises(ModelError, match="selects units by position"):
        plan_cut(once, CutOptions(keep=[0]))


def test_a_range_of_the_axis() -> None:
    """Three classes after two values that are no classes."""
    original = network(MEAN)
    cut = planned(original, units="2:5", keep=[0, 2])
    pruned = original.apply(cut.plan)
    np.testing.assert_array_equal(answers(pruned)["p"], answers(original)["p"][:, [0, 1, 2, 4]])
    assert cut.remap.heads[0].part == (2, 4)
    assert prove(original, pruned, pruned.remap).result == "proved"


def test_all_units_change_nothing() -> None:
    cut = planned(network(MEAN), keep=range(5))
    assert (cut.plan.every_edit, cut.warnings) == ((), ())


def test_an_emitted_output_ranks_the_kept_units() -> None:
    original = network(MEAN)
    pruned = original.apply(planned(original, emit="ids:2").plan)
    order = np.argsort(-answers(original)["p"][:, KEPT], axis=1)
    np.testing.assert_array_equal(answers(pruned)["ids"], IDS[order])


def test_a_head_that_can_be_cut_is_cut() -> None:
    cuts = {"age": [1, 2], "pose": [0]}
    plans = [
        plan_cut(five_heads(), CutOptions(cuts=cuts, allow_gather=allow)) for allow in (False, True)
    ]
    assert str(plans[0].plan) == str(plans[1].plan)
    assert not any(table.options["gather"] for table in plans[1].remap.heads)


def test_an_output_that_cannot_follow_keeps_all_units() -> None:
    """Probabilities whose sum with others is an output: the head alone could be cut."""
    nodes = [*MEMBERS[::2], node("ReduceL2", ["pa"], ["norm"], "norm", axes=[1])]
    original = network(nodes, "pa", "norm")
    with pytest.raises(ExporterError, match="norm"):
        plan_cut(original, CutOptions(keep=KEPT))
    pruned = original.apply(planned(original).plan)
    before, after = answers(original), answers(pruned)
    np.testing.assert_array_equal(after["pa"], before["pa"][:, KEPT])
    np.testing.assert_array_equal(after["norm"], before["norm"])


REFUSED: Mapping[str, tuple[Any, dict[str, Any], str]] = {
    "mode": (network(MEAN), {"mode": "mask"}, "without mode mask"),
    "gate": (network(MEAN), {"gate": "top:1"}, "without mode gate"),
    "width": (network(MEAN), {"restore_width": True}, "without --restore-width"),
    "merge": (network(MEAN), {"merge": {"a": [1, 3]}}, "without --merge"),
    "absolute": (network(MEAN), {"probabilities": "absolute"}, "without --probabilities absolute"),
    "vocabulary": (network(MEAN), {"vocabulary": "both"}, "vocabulary"),
    "several": (network(MEAN, "p", "pa"), {}, "choose one with --head NAME"),
    "unknown": (network(MEAN), {"head": "q"}, "no head is named 'q'"),
    "a unit that is not there": (network(MEAN), {"keep": [5]}, "5"),
    "range": (network(MEAN), {"units": "2:9"}, "2:9"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gather_cannot_do_is_refused(name: str) -> None:
    original, options, message = REFUSED[name]
    with pytest.raises(ExporterError) as caught:
        planned(original, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["ensemble", "hierarchy", "float TFLite", "int8 TFLite"])
def test_the_refusal_offers_it(name: str) -> None:
    original, options, _ = CASES[name]
    with pytest.raises(ExporterError) as caught:
        plan_cut(original, CutOptions(keep=KEPT, **options))
    assert caught.value.hint.endswith(OFFER)
    assert inspect_model(original).refused[0].hint.endswith(OFFER)


def test_steps_of_an_open_number_are_no_units() -> None:
    """A softmax over the words of a text, as for the start of an answer."""
    words = [
        node("MatMul", ["x", "w"], ["rows"], "matmul"),
        node("Squeeze", ["rows", "last"], ["z"], "squeeze"),
        node("Softmax", ["z"], ["p"], "softmax", axis=1),
    ]
    constants = {"w": numbers(6, 1), "last": np.array([2])}
    for steps in ("steps", 4):
        original = network(words, constants=constants, x=("batch", steps, 6))
        with pytest.raises(ModelError) as caught:
            plan_cut(original, CutOptions(keep=KEPT))
        assert ("allow-gather" in caught.value.hint) == (steps == 4)
    assert planned(original).remap.heads[0].old_units == 4
    with pytest.raises(ModelError, match="no head can be cut"):
        planned(network(words, constants=constants, x=("batch", "steps", 6)))


def test_it_is_not_offered_for_boxes() -> None:
    nodes = [node("Softmax", ["x"], ["y"], "softmax", axis=2)]
    with pytest.raises(ModelError) as caught:
        plan_cut(model(nodes, {}, x=(1, 8, 4)), CutOptions(keep=[0]))
    assert "allow-gather" not in caught.value.hint


def test_a_recorded_gather_that_the_model_does_not_have_is_refused() -> None:
    original = network(MEAN)
    (table,) = planned(original).remap.heads
    with pytest.raises(ModelError, match="cannot be gathered"):
        trace_recorded(original.graph(), [(replace(table, axis=3), None)])


def test_an_inner_tensor_is_gathered_only_if_all_its_readers_follow() -> None:
    """The argmax could rank fewer units, but the mean of their squares, one value, could not."""
    square = [node("Mul", ["p", "p"], ["s"], "square"), node("ReduceMean", ["s"], ["m"], axes=[1])]
    original = network([*MEAN, ARGMAX, *square], "id", "m")
    with pytest.raises(ModelError, match="no head can be cut"):
        planned(original)


def test_an_edit_of_the_output_alone_says_so() -> None:
    edit = Insert("gather", "p", (np.array([1]),), {"axis": 1}, (None, 1), only_output=True)
    assert str(edit) == "insert gather after the output 'p'"


def test_without_it_the_trace_is_as_before() -> None:
    assert not trace(network(MEAN).graph()).gathered


def test_a_file_is_cut_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    onnx.save(network(MEAN).proto, tmp_path / "net.onnx")
    line = f"prune {tmp_path}/net.onnx -o {tmp_path}/cut.onnx --keep 1,3"
    assert run_command(cli, line.split()) == ModelError.exit_code
    assert run_command(cli, [*line.split(), "--allow-gather"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "2 of 5 units kept by a Gather at the output" in text
    assert "is proved to match the original" in text
    written = json.loads((tmp_path / "cut.onnx.remap.json").read_text("utf-8"))
    assert written["heads"][0]["options"]["gather"] is True
    verify = f"verify {tmp_path}/net.onnx {tmp_path}/cut.onnx"
    assert run_command(cli, verify.split()) == 0
