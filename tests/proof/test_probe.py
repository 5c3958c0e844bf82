"""The probe accepts correct cuts, finds wrong plans, and says where it is not possible."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from exporter.errors import ExporterError
from exporter.formats.onnx import from_proto
from exporter.graph import Array, Use
from exporter.graph.edits import Plan, Replace
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.probe import Probe, _Rows, probe
from exporter.remap import HeadRemap
from tests.builders import mode_cells
from tests.builders import onnx_models as onnx
from tests.builders.proof_models import CUTS, MODELS, content_of, head_of, opened
from tests.builders.rewriters import renamed_and_reordered
from tests.builders.tflite_builder import Builder
from tests.builders.yolo_models import yolox


@cache
def original(name: str) -> Any:
    kind, build = MODELS[name]
    return opened(kind, build(), name)


def cut_and_table(model: Any, **options: Any) -> tuple[Any, HeadRemap]:
    cut = plan_cut(model, CutOptions(**options))
    return model.apply(cut.plan), cut.remap.heads[0]


def spoiled(model: Any, constant: str, place: tuple[int, ...], by: float) -> Any:
    """The model with one changed value."""
    graph = model.graph()
    values: Array = np.array(graph.tensors[constant].read())
    values[place] += by
    uses = tuple(Use(node.name, slot) for node, slot in graph.consumers[constant])
    return model.apply(Plan((Replace(constant, values, uses),), model.remap))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("title", CUTS)
def test_correct_cuts_pass(name: str, title: str) -> None:
    model = original(name)
    made, table = cut_and_table(model, **CUTS[title], **head_of(name))
    found = probe(model, made, [table])
    assert found.failures == ()
    assert "vectors fed at" in found.text
    assert ("cannot be distinguished" in found.text) == ("int8" in name or "uint8" in name)


def test_correct_cuts_with_more_options_pass() -> None:
    done = 0
    for options in mode_cells.MORE_OPTIONS.values():
        for head in ("softmax", "relu"):
            for kind in mode_cells.KINDS:
                model = mode_cells.built(head, kind, "float32")
                try:
                    made, table = cut_and_table(model, **options)
                except ExporterError:
                    continue
                assert probe(model, made, [table]).failures == ()
                done += 1
    assert done > 15


def test_all_features_and_logits_are_fed() -> None:
    model = original("two heads.onnx")
    made, table = cut_and_table(model, keep=[0, 2], head="y")
    # 16 features and zeros; 6 fixed rows, 6 units that are first, 4 random rows
    text = probe(model, made, [table]).text
    assert text == "17 vectors fed at 'f', and 16 rows of logits after it"


# --- faults that share the planner's mistake: the remap agrees with the file ----------------------


@pytest.mark.parametrize(
    ("name", "constant"), [("two heads.onnx", "kernel"), ("two heads.tflite", "z/kernel")]
)
def test_one_wrong_weight_is_found(name: str, constant: str) -> None:
    model = original(name)
    made, table = cut_and_table(model, keep=[0, 2], head="y")
    wrong = spoiled(made, constant, (1, 1), 1e-6)
    failures = probe(model, wrong, [table]).failures
    assert any(text.startswith("y (z): position 1 is") for text in failures)


def test_wrong_units_are_found() -> None:
    """A planner that takes unit 3 where the remap says 2."""
    model = original("softmax float32.onnx")
    made, _ = cut_and_table(model, keep=[0, 3])
    _, table = cut_and_table(model, keep=[0, 2])
    assert probe(model, made, [table]).failures


def test_a_removed_unit_that_can_win_is_found() -> None:
    model = original("softmax float32.tflite")
    made, table = cut_and_table(model, keep=[0, 5], mode="mask")
    names = {c.name for c in plan_cut(model, CutOptions(keep=[0])).heads[0].constants}
    bias = next(n for n in names if len(made.graph().tensors[n].shape or ()) == 1)
    wrong = spoiled(made, bias, (2,), 1e4)
    assert probe(model, wrong, [table]).failures


def test_an_activation_that_differs_at_its_corners_is_found() -> None:
    """Equal where samples are, but limited where a logit is large."""
    limited = onnx.classifier(
        onnx.node("Clip", ["z", "", "high"], ["c"], "clip"),
        onnx.node("Softmax", ["c"], ["y"], "softmax", axis=1),
        constants={"high": np.array(11.0, np.float32)},
    )
    plain = onnx.classifier()
    made, table = cut_and_table(plain, keep=[0, 1])
    other = limited.apply(plan_cut(limited, CutOptions(keep=[0, 1])).plan)
    assert probe(plain, made, [table]).failures == ()
    assert probe(plain, other, [table]).failures


def test_a_renamed_file_is_probed() -> None:
    model = original("two heads.onnx")
    made, table = cut_and_table(model, keep=[0, 2], head="y")
    again = opened("onnx", renamed_and_reordered(content_of(made)))
    found = probe(model, again, [replace(table, logits=None)])
    assert found.failures == ()
    assert "not possible" in found.text or "vectors fed" in found.text


# --- heads with several branches ------------------------------------------------------------------


def branched(*tail: Any, sizes: tuple[int, ...] = (4, 2), **constants: Array) -> Any:
    """Two maps of 3 and 5 channels -> 1x1 convolutions to 6 classes at each position -> a tail.

    The rows of both are joined: z[1, positions, 6]. The tail computes y, or a softmax does.
    """
    nodes = [onnx.node("Relu", ["x"], ["first"], "first")]
    nodes.append(onnx.node("Conv", ["first", "down"], ["second"], "down", strides=[2, 2]))
    for i, name in enumerate(("first", "second")):
        nodes += [
            onnx.node("Conv", [name, f"kernel{i}", f"bias{i}"], [f"c{i}"], f"conv{i}"),
            onnx.node("Transpose", [f"c{i}"], [f"t{i}"], f"move{i}", perm=[0, 2, 3, 1]),
            onnx.node("Reshape", [f"t{i}", "rows"], [f"r{i}"], f"rows{i}"),
        ]
    nodes.append(onnx.node("Concat", ["r0", "r1"], ["z"], "joined", axis=1))
    nodes += tail or [onnx.node("Softmax", ["z"], ["y"], "softmax", axis=2)]
    weights = {"down": onnx.numbers(5, 3, 1, 1), "rows": np.array([1, -1, 6]), **constants}
    for i, channels in enumerate((3, 5)):
        weights |= {f"kernel{i}": onnx.numbers(6, channels, 1, 1), f"bias{i}": onnx.numbers(6)}
    size = sizes[0]
    positions = size * size + (size // 2) ** 2
    return onnx.model(nodes, weights, x=(1, 3, size, size), outputs={"y": (1, positions, 6)})


def test_each_branch_of_a_head_is_fed() -> None:
    model = branched()
    made, table = cut_and_table(model, keep=[0, 2, 5])
    found = probe(model, made, [table])
    assert found.failures == ()
    # 16 positions for 3 channels take one row, 4 positions for 5 channels two; and zeros
    assert found.text.startswith("3 vectors fed at 'first', 'second', and ")
    for constant, place in (
        ("kernel0", (1, 2, 0, 0)),
        ("kernel1", (2, 4, 0, 0)),
        ("bias0", (0,)),
        ("bias1", (1,)),
    ):
        wrong = spoiled(made, constant, place, 1e-3)
        assert probe(model, wrong, [table]).failures, constant


def test_one_position_that_differs_is_found() -> None:
    factors = np.ones((1, 20, 1), np.float32)
    scaled = onnx.node("Mul", ["z", "factors"], ["s"], "scaled")
    tail = (scaled, onnx.node("Softmax", ["s"], ["y"], "softmax", axis=2))
    model = branched(*tail, factors=factors)
    made, table = cut_and_table(model, keep=[0, 2, 5])
    assert probe(model, made, [table]).failures == ()
    for position in range(20):
        wrong = spoiled(made, "factors", (0, position, 0), 0.5)
        assert probe(model, wrong, [table]).failures, position


def test_branches_that_are_added_are_fed_in_turn() -> None:
    nodes = [
        onnx.node("Relu", ["x"], ["p"], "positive"),
        onnx.node("Tanh", ["x"], ["t"], "tanh"),
        onnx.node("MatMul", ["p", "kernel"], ["a"], "a"),
        onnx.node("MatMul", ["t", "other"], ["b"], "b"),
        onnx.node("Add", ["a", "b"], ["z"], "sum"),
        onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    constants = {"kernel": onnx.numbers(6, 5), "other": onnx.numbers(6, 5, seed=1)}
    model = onnx.model(nodes, constants)
    made, table = cut_and_table(model, keep=[0, 2])
    found = probe(model, made, [table])
    assert found.failures == ()
    assert found.text.startswith("13 vectors fed at 'p', 't', and ")
    for constant in constants:
        wrong = spoiled(made, constant, (3, 1), 1e-3)
        assert probe(model, wrong, [table]).failures


def test_other_values_that_are_joined_with_the_units_get_zeros() -> None:
    nodes = [
        onnx.node("Relu", ["x"], ["p"], "positive"),
        onnx.node("Tanh", ["x"], ["box"], "tanh"),
        onnx.node("MatMul", ["p", "kernel"], ["classes"], "classes"),
        onnx.node("Concat", ["box", "classes"], ["y"], "joined", axis=1),
    ]
    model = onnx.model(nodes, {"kernel": onnx.numbers(6, 5)}, outputs={"y": ("batch", 11)})
    made, table = cut_and_table(model, keep=[0, 2], units=(6, 11))
    found = probe(model, made, [table])
    assert found == Probe("7 vectors fed at 'p', and 0 rows of logits after it")
    assert probe(model, spoiled(made, "kernel", (0, 1), 1e-3), [table]).failures


def test_outputs_that_depend_on_other_tensors_are_not_compared() -> None:
    nodes = [
        onnx.node("Relu", ["x"], ["p"], "positive"),
        onnx.node("Tanh", ["x"], ["box"], "tanh"),
        onnx.node("MatMul", ["p", "kernel"], ["classes"], "classes"),
        onnx.node("Concat", ["box", "classes"], ["z"], "joined", axis=1),
        onnx.node("Sigmoid", ["z"], ["y"], "sigmoid"),
    ]
    model = onnx.model(nodes, {"kernel": onnx.numbers(6, 5)}, outputs={"y": ("batch", 11)})
    made, table = cut_and_table(model, keep=[0, 2], units=(6, 11))
    found = probe(model, made, [table])
    assert found == Probe("7 vectors fed at 'p', and 0 rows of logits after it")
    assert probe(model, spoiled(made, "kernel", (0, 1), 1e-3), [table]).failures


def test_a_product_of_two_results_is_not_linear() -> None:
    nodes = [
        onnx.node("Relu", ["x"], ["h"], "relu"),
        onnx.node("MatMul", ["h", "kernel"], ["a"], "a"),
        onnx.node("MatMul", ["h", "other"], ["b"], "b"),
        onnx.node("Mul", ["a", "b"], ["z"], "product"),
        onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    model = onnx.model(nodes, {"kernel": onnx.numbers(6, 5), "other": onnx.numbers(6, 5)})
    assert "'product', which is not linear" in not_possible(model, keep=[0, 2])


def test_a_wide_head_takes_little_memory() -> None:
    """A square matrix of its units would take 288 MB."""
    nodes = [onnx.node("MatMul", ["x", "k"], ["z"], "head"), onnx.node("Sigmoid", ["z"], ["y"])]
    model = from_proto(onnx.proto(nodes, {"k": onnx.numbers(6, 6000)}), "wide.onnx")
    made, table = cut_and_table(model, keep=range(3000))
    tracemalloc.start()
    try:
        assert "7 vectors fed" in probe(model, made, [table]).text
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()


# --- where it is not possible ---------------------------------------------------------------------


def not_possible(model: Any, largest: int = 10**9, **options: Any) -> str:
    made, table = cut_and_table(model, **options)
    found = probe(model, made, [table], largest)
    assert found.failures == ()
    assert found.text.startswith("not possible: ")
    return found.text


def test_heads_that_cannot_be_fed_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    yolo = from_proto(yolox(decode=False), "yolox.onnx")
    assert "Sigmoid 'clss0', which is not linear" in not_possible(yolo, keep=[0])
    text = not_possible(original("softmax float32.onnx"), 10, keep=[0])
    assert text == "not possible: 9 vectors are needed, and at most 0 are fed"
    monkeypatch.setattr("exporter.proof.probe._LARGEST_VALUES", 40)
    text = not_possible(original("softmax float32.onnx"), keep=[0])
    assert text == "not possible: 9 vectors are needed, and at most 6 are fed"
    clip = onnx.classifier(
        onnx.node("Clip", ["z", "low"], ["c"], "clip"),
        onnx.node("Add", ["c", "more"], ["s"], "add"),
        onnx.node("Softmax", ["s"], ["y"], "softmax", axis=1),
        constants={"low": np.array(0.0, np.float32), "more": onnx.numbers(5)},
    )
    assert "is not linear" in not_possible(clip, keep=[0, 1])


def test_another_network_before_the_head_is_not_probed() -> None:
    model = original("two heads.onnx")
    made, table = cut_and_table(model, keep=[0, 2], head="y")
    wrong = spoiled(made, "filters", (0, 0, 0, 0), 0.1)
    text = probe(model, wrong, [table]).text
    assert text == "not possible: no tensor of the file has the values of 'f', which the head reads"


def test_a_keras_model_is_not_probed() -> None:
    class Keras:
        kind = "keras"

    model: Any = Keras()
    assert probe(model, model, []) == Probe(
        "not possible: a Keras model cannot be fed after its input"
    )


def test_a_head_of_a_tensor_that_is_returned_too() -> None:
    builder = Builder(seed=1)
    hidden = builder.dense(builder.feed("x", None, 4), 5, "h")
    builder.softmax(builder.dense(hidden, 6, "z"), "y")
    model: Any = opened("tflite", builder.content("y", "h"))
    made, table = cut_and_table(model, keep=[1, 2], head="y")
    assert probe(model, made, [table]).failures == ()


def test_inputs_that_are_read_after_the_head_get_zeros() -> None:
    nodes = [
        onnx.node("Relu", ["x"], ["h"], "relu"),
        onnx.node("Gemm", ["h", "kernel", "bias"], ["z"], "gemm"),
        onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1),
        onnx.node("Add", ["h", "x"], ["other"], "add"),
    ]
    constants = {"kernel": onnx.numbers(6, 5), "bias": onnx.numbers(5)}
    model = onnx.model(nodes, constants, outputs={"y": None, "other": None})
    made, table = cut_and_table(model, keep=[0, 2], head="y")
    found = probe(model, made, [table])
    assert found == Probe("7 vectors fed at 'h', and 15 rows of logits after it")


def test_another_number_of_units_is_found() -> None:
    model = original("softmax float32.onnx")
    made, _ = cut_and_table(model, keep=[0, 1, 2])
    _, table = cut_and_table(model, keep=[0, 2])
    failures = probe(model, made, [table]).failures
    assert failures[0] == "y (z) has the shape (1, 64, 3), expected (1, 64, 2)"


def test_more_heads_that_cannot_be_fed_say_why() -> None:
    words = onnx.model(
        [onnx.node("MatMul", ["x", "kernel"], ["y"], "product")],
        {"kernel": onnx.numbers(6, 5)},
        x=("batch", "words", 6),
        outputs={"y": ("batch", "words", 5)},
    )
    assert "which the head reads, is open" in not_possible(words, keep=[0, 2])
    model = original("softmax float32.onnx")
    _, table = cut_and_table(model, keep=[0, 2])
    found = probe(model, model, [replace(table, name="?")])
    assert found == Probe("not possible: no head is named '?'")


def test_rows_are_made_in_batches() -> None:
    rows = _Rows(np.ones((1, 2)), np.zeros(2), 1, 3, 2)
    assert [each.tolist() for each in rows] == [[[0, 0], [1, 1]], [[0, 0], [0, 0]]]
