"""From options to a plan and a remap: neutral graphs, and a file that is cut twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest

from exporter.errors import ModelError, NotAllowedError, UsageError
from exporter.formats.model import Model
from exporter.graph import Array, Graph, Tensor
from exporter.graph import graph as graphs
from exporter.graph.edits import Fill, Take
from exporter.graph.operations import Activation, Elementwise, Reshape
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.remap import Origin, Remap
from tests.builders import onnx_models
from tests.builders.graphs import Builder

FILE = Origin("net.file", "ab" * 32)


@dataclass
class Drawn:
    """The part of a model that planning uses."""

    drawing: Graph
    name: str = FILE.name
    sha256: str | None = FILE.sha256
    remap: Remap | None = None

    def graph(self) -> Graph:
        return self.drawing


def plan(graph: Graph, original: Origin | None = None, **options: Any) -> Cut:
    return plan_cut(cast("Model", Drawn(graph)), CutOptions(**options), original)


def classifier(function: str | None = "softmax", units: int = 5) -> Graph:
    builder = Builder()
    z = builder.dense(builder.feed("x", None, 3), units, "z")
    return builder.graph(builder.activation(z, function, "y") if function else z)


def two_heads() -> Graph:
    """Two heads, of 4 and 3 units, on one input."""
    builder = Builder()
    x = builder.feed("x", None, 3)
    return builder.graph(builder.dense(x, 4, "shape"), builder.dense(x, 3, "color"))


def logits_and_probabilities() -> Graph:
    builder = Builder()
    z = builder.dense(builder.feed("x", None, 3), 5, "logits")
    return builder.graph(z, builder.activation(z, "softmax", "probabilities"))


# --- options that are refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        pytest.param(
            {"keep": "1", "mode": "melt"},
            "there is no mode 'melt'",
            "modes: slice, zero, mask, gate",
            id="an unknown mode",
        ),
        pytest.param(
            {},
            "no units are chosen",
            "give keep or remove, such as keep=[0, 2] or --keep 0,2",
            id="neither keep nor remove",
        ),
        pytest.param(
            {"keep": "1", "remove": "2"},
            "give keep, remove or cuts, and only one of them",
            "the other units follow from it",
            id="both",
        ),
        pytest.param({"keep": 5}, "keep is 5", "give a string or a list", id="a bare index"),
        pytest.param(
            {"keep": [1], "labels": 3}, "labels is 3", "give a string or a list", id="no labels"
        ),
        pytest.param(
            {"keep": [2, 1], "mode": "zero", "keep_order": True},
            "keep_order has no meaning with mode zero, where units keep their indices",
            "leave one of the two out",
            id="an order where units keep their positions",
        ),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        CutOptions(**options)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_options_keep_the_values_of_iterators() -> None:
    options = CutOptions(keep=iter([0, 2]), labels=cast("Any", (f"l{i}" for i in range(5))))
    cuts = [plan_cut(cast("Model", Drawn(classifier())), options) for _ in range(2)]
    assert [cut.selection.kept for cut in cuts] == [(0, 2)] * 2
    assert [cut.selection.kept_labels for cut in cuts] == [("l0", "l2")] * 2


@pytest.mark.parametrize(
    "units",
    [
        pytest.param("0,3", id="a SPEC"),
        pytest.param([0, 3], id="a list"),
        pytest.param(np.array([0, 3]), id="an array"),
        pytest.param({0: "a", 3: "b"}, id="keys"),
    ],
)
def test_units_may_be_given_as_text_list_array_or_keys(units: Any) -> None:
    assert plan(classifier(), keep=units).selection.kept == (0, 3)
    assert plan(classifier(), remove=units).selection.kept == (1, 2, 4)


# --- cuts that are refused -----------------------------------------------------------------------


def broken(**values: Array) -> Graph:
    """The classifier with other values in some constants."""
    graph = classifier()
    tensors = dict(graph.tensors)
    for name, array in values.items():
        key = name.replace("_", "/")
        dtype = array.dtype.name
        tensors[key] = replace(tensors[key], dtype=dtype, read=partial(np.asarray, array))
    return replace(graph, tensors=tensors)


def with_values(*entries: float, dtype: str = "float32") -> Array:
    values = np.ones(15, np.float64)
    values[: len(entries)] = entries
    return values.reshape(3, 5).astype(dtype)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        pytest.param(
            broken(z_kernel=with_values(np.nan)),
            "1 of 6 kept values of 'z/kernel' are NaN or infinite",
            id="one NaN",
        ),
        pytest.param(
            broken(z_kernel=with_values(np.inf, -np.inf, np.nan, dtype="float16")),
            "2 of 6 kept values of 'z/kernel' are NaN or infinite",
            id="infinities, in half precision",
        ),
        pytest.param(
            broken(z_bias=np.array([0, np.nan, 0, 0, np.nan])),
            "1 of 2 kept values of 'z/bias' are NaN or infinite",
            id="of a kept and of a removed unit",
        ),
    ],
)
def test_weights_that_are_not_finite_are_refused(graph: Graph, message: str) -> None:
    with pytest.raises(NotAllowedError) as caught:
        plan(graph, keep="0,1")
    assert caught.value.message == message
    assert caught.value.hint == "--allow-nonfinite cuts the model anyway"
    assert plan(graph, keep="0,1", allow_nonfinite=True).selection.kept == (0, 1)


# Options of a cut -> do removed units stay in the result, where 0 times NaN is NaN?
REMOVED_UNITS: dict[str, tuple[dict[str, Any], bool]] = {
    "slice": ({}, False),
    "slice, with the width restored": ({"restore_width": True}, False),
    "slice, a merged group": ({"keep": "1", "merge": {"rest": "0,2"}}, False),
    "slice, another order": ({"keep": "1,0", "keep_order": True}, False),
    "slice, absolute": ({"probabilities": "absolute"}, True),
    "slice, a merged group with the NaN": ({"keep": "0,1", "merge": {"rest": "2,4"}}, True),
    "zero": ({"mode": "zero"}, True),
    "mask": ({"mode": "mask"}, True),
    "gate": ({"mode": "gate", "gate": "input"}, True),
    "all are kept": ({"keep": "0-4"}, True),
}


@pytest.mark.parametrize("name", REMOVED_UNITS)
def test_a_removed_unit_that_is_not_finite(name: str) -> None:
    """It is refused only if the result contains it."""
    options, is_refused = REMOVED_UNITS[name]
    graph = broken(z_kernel=with_values(*[0.0] * 4, np.nan))
    for _ in range(2):  # what was read is remembered
        if is_refused:
            with pytest.raises(NotAllowedError, match=r"1 of \d+( kept)? values of 'z/kernel'"):
                plan(graph, **{"keep": "0,1", **options})
        else:
            assert plan(graph, **{"keep": "0,1", **options}).plan.edits


@pytest.mark.parametrize("features", [3, 40])  # the second needs several blocks
@pytest.mark.parametrize("axis", [0, 1])
def test_which_values_are_read(axis: int, features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_BLOCK", 64)
    random = np.random.default_rng(0)
    values = random.standard_normal((60, features) if axis == 0 else (features, 60)).astype("f4")
    np.moveaxis(values, axis, 0)[[5, 50], [1, 2]] = np.nan, np.inf
    tensor = Tensor("kernel", values.shape, "float32", partial(np.asarray, values))
    for _ in range(2):
        for positions in ([0, 1], [5], [4, 5, 6], [50, 5], [*range(6, 50)], [*range(60)]):
            expected = np.count_nonzero(~np.isfinite(values.take(positions, axis)))
            assert tensor.nonfinite(axis, np.array(positions)) == expected


@pytest.mark.parametrize(
    ("dtype", "large"),
    [("float16", 6e4), ("float32", 3e38), ("float64", 1e308), ("bfloat16", 3e38)],
)
def test_sums_of_large_values(dtype: str, large: float) -> None:
    """Finite values are finite, also if their sum is not; and infinite ones do not cancel out."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    values = np.full((4, 40), large).astype(kind)
    values[3, [0, 1, 2]] = np.inf, -np.inf, np.nan
    tensor = Tensor("kernel", values.shape, dtype, partial(np.asarray, values))
    assert tensor.nonfinite(0, np.arange(3)) == 0
    assert tensor.nonfinite(0, np.arange(4)) == 3


@pytest.mark.parametrize("value", [-np.inf, np.nan])
@pytest.mark.parametrize("operator", ["Max", "Add", "MatMul", "Where"])
def test_constants_before_the_head_may_have_any_value(operator: str, value: float) -> None:
    """No cut changes them; anchors outside of an image are infinite, for example."""
    held = np.full((6, 6) if operator == "MatMul" else 6, value, np.float32)
    read = ["valid", "x", "held"] if operator == "Where" else ["x", "held"]
    first = onnx_models.node(operator, read, ["h"], "first")
    gemm = onnx_models.node("Gemm", ["h", "kernel"], ["y"], "gemm")
    constants = {"held": held, "kernel": onnx_models.numbers(6, 5)}
    if operator == "Where":
        constants["valid"] = np.array([True] * 5 + [False])
    opened = onnx_models.model([first, gemm], constants)
    assert plan_cut(opened, CutOptions(keep="0,1")).selection.kept == (0, 1)


def test_integers_and_text_are_always_finite() -> None:
    strings = np.array(["a", "b", "c", "d", "e"])
    for bias in (np.arange(5, dtype=np.int32), strings):
        assert plan(broken(z_bias=bias), keep="0,1").selection.kept == (0, 1)


def second_softmax_returned() -> Graph:
    """The softmax of a softmax is another output."""
    builder = Builder()
    z = builder.dense(builder.feed("x", None, 3), 5, "z")
    once = builder.activation(z, "softmax", "once")
    return builder.graph(z, builder.activation(once, "softmax", "twice"))


def grid(*outputs: str, twice: bool = False) -> Graph:
    """Rows [batch, 5] and columns [batch, 4], and all their sums [batch, 5, 4]."""
    builder = Builder()
    x = builder.feed("x", None, 3)
    rows, columns = builder.dense(x, 5, "rows"), builder.dense(x, 4, "columns")
    tall = builder.node(Reshape((0, 5, 1)), [rows], (None, 5, 1), "tall")
    wide = builder.node(Reshape((0, 1, 4)), [columns], (None, 1, 4), "wide")
    sums = builder.node(Elementwise(function="add"), [tall, wide], (None, 5, 4), "sums")
    if twice:
        sums = builder.activation(builder.activation(sums, "softmax", "once", 1), "softmax", "p", 1)
    return builder.graph(*outputs)


@pytest.mark.parametrize(
    ("graph", "options", "error", "message"),
    [
        pytest.param(
            second_softmax_returned(),
            {"keep": "1"},
            ModelError,
            "head 'z' narrows another output too, but output 'twice': Activation 'once': "
            "it mixes the units before the last activation",
            id="another output narrows, which cannot be cut",
        ),
        pytest.param(
            grid("rows", "p", twice=True),
            {"keep": "1", "head": "rows"},
            ModelError,
            "head 'rows' narrows another output too, but output 'p': Activation 'once': it mixes "
            "the units before the last activation",
            id="another output narrows along an axis that cannot be cut",
        ),
        pytest.param(
            two_heads(),
            {"keep": "1"},
            UsageError,
            "the model has several heads: 'shape', 'color'",
            id="several heads, and none is named",
        ),
        pytest.param(
            two_heads(),
            {"keep": "1", "head": "size"},
            UsageError,
            "no head is named 'size'",
            id="no such head",
        ),
        pytest.param(
            two_heads(),
            {"keep": "3", "head": "color"},
            UsageError,
            "keep entry 1 at character 1, '3': there is no unit 3",
            id="a unit that the head named does not have",
        ),
        pytest.param(
            classifier(),
            {"keep": "1", "labels": ["a", "b", "c"]},
            UsageError,
            "3 labels for 5 units",
            id="too few labels",
        ),
        pytest.param(
            classifier(),
            {"remove": "0-4"},
            UsageError,
            "none of the 5 units would be kept",
            id="no unit is kept",
        ),
        pytest.param(
            classifier(),
            {"keep": "1", "labels": "nowhere.txt"},
            UsageError,
            "cannot read 'nowhere.txt': No such file or directory",
            id="no label file",
        ),
    ],
)
def test_a_cut_that_does_not_fit_is_refused(
    graph: Graph, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        plan(graph, **options)
    assert str(caught.value).partition("\n")[0] == message


# --- cuts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {"keep": "3,1"},
            {"kept": (1, 3), "new_to_old": (1, 3), "new_units": 2, "labels": None},
            id="slice",
        ),
        pytest.param(
            {"keep": "3,1", "keep_order": True, "labels": list("abcde")},
            {"kept": (3, 1), "new_to_old": (3, 1), "new_units": 2, "labels": ("d", "b")},
            id="slice, in the order given",
        ),
        pytest.param(
            {"remove": "0,2", "mode": "zero", "labels": list("abcde")},
            {
                "kept": (1, 3, 4),
                "new_to_old": (0, 1, 2, 3, 4),
                "new_units": 5,
                "labels": tuple("abcde"),
            },
            id="zero",
        ),
        pytest.param(
            {"keep": "0-4", "labels": list("abcde")},
            {
                "kept": (0, 1, 2, 3, 4),
                "new_to_old": (0, 1, 2, 3, 4),
                "new_units": 5,
                "labels": tuple("abcde"),
            },
            id="everything",
        ),
    ],
)
def test_the_remap_records_every_unit(options: dict[str, Any], expected: Mapping[str, Any]) -> None:
    (table,) = plan(classifier(), **options).remap.heads
    assert {key: getattr(table, key) for key in expected} == dict(expected)
    assert (table.name, table.output, table.axis, table.part) == ("y", "y", 1, None)
    assert (table.mode, table.activation) == (options.get("mode", "slice"), "softmax")
    assert (table.logits, table.old_units) == ("z", 5)


def test_an_output_of_logits_needs_no_name_for_them() -> None:
    (table,) = plan(classifier(None), keep="0").remap.heads
    assert (table.output, table.logits) == ("z", None)


@pytest.mark.parametrize(
    ("options", "kind", "positions"),
    [
        pytest.param({"keep": "4,2"}, Take, [2, 4], id="slice takes the kept units"),
        pytest.param(
            {"keep": "4,2", "keep_order": True}, Take, [4, 2], id="slice takes them in order"
        ),
        pytest.param(
            {"keep": "4,2", "mode": "zero"}, Fill, [0, 1, 3], id="zero fills the removed units"
        ),
    ],
)
def test_kernel_and_bias_are_cut(
    options: dict[str, Any], kind: type[Take | Fill], positions: list[int]
) -> None:
    cut = plan(classifier(), **options)
    edits = {e.constant: (e.axis, e.positions.tolist()) for e in cut.plan.edits if type(e) is kind}
    assert edits == {"z/kernel": (1, positions), "z/bias": (0, positions)}
    assert cut.plan.remap == cut.remap
    assert cut.mode == options.get("mode", "slice")


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("options", [{"keep": "0-4"}, {"remove": []}, {"keep": "*"}], ids=str)
def test_keeping_all_units_needs_no_edit(mode: str, options: dict[str, Any]) -> None:
    cut = plan(classifier(), mode=mode, labels=list("abcde"), **options)
    assert cut.selection.keeps_all
    assert cut.plan.edits == ()
    assert cut.remap.heads[0].kept == (0, 1, 2, 3, 4)


def test_all_units_in_another_order_are_a_cut() -> None:
    cut = plan(classifier(), keep="4,3,2,1,0", keep_order=True)
    assert not cut.selection.keeps_all
    assert cut.remap.heads[0].new_to_old == (4, 3, 2, 1, 0)
    assert cut.plan.edits


def test_one_head_of_several_is_cut() -> None:
    cut = plan(two_heads(), keep="0,2", head="color")
    assert [head.name for head in cut.heads] == ["color"]
    assert [table.output for table in cut.remap.heads] == ["color"]
    assert {e.constant for e in cut.plan.edits if isinstance(e, Take)} == {
        "color/kernel",
        "color/bias",
    }


@pytest.mark.parametrize("named", [None, "logits", "probabilities"])
def test_outputs_of_one_head_narrow_together(named: str | None) -> None:
    cut = plan(logits_and_probabilities(), keep="4,0", keep_order=True, head=named)
    expected = ["logits", "probabilities"]
    if named == "probabilities":
        expected.reverse()
    tables = cut.remap.heads
    assert [table.output for table in tables] == expected
    assert [head.output for head in cut.heads] == expected
    assert {t.output: t.activation for t in tables} == {
        "logits": "linear",
        "probabilities": "softmax",
    }
    assert {(t.old_units, t.new_units, t.kept) for t in tables} == {(5, 2, (4, 0))}
    takes = [e.constant for e in cut.plan.edits if isinstance(e, Take)]
    assert sorted(takes) == ["logits/bias", "logits/kernel"]  # once


@pytest.mark.parametrize(
    ("head", "axis", "units"), [("rows", 1, 5), ("columns", 2, 4)], ids=["rows", "columns"]
)
def test_an_output_with_two_heads_narrows_along_the_right_one(
    head: str, axis: int, units: int
) -> None:
    cut = plan(grid("rows", "columns", "sums"), keep="0,2", head=head)
    first, other = cut.remap.heads
    assert (first.output, first.axis, first.old_units) == (head, 1, units)
    assert (other.output, other.axis, other.old_units) == ("sums", axis, units)
    assert other.name == f"sums:{axis}"


def test_a_range_on_an_axis_of_classes_warns_with_what_stays() -> None:
    (warning,) = plan(classifier(units=9), keep="0-2", units="0:4").warnings
    assert warning.startswith("--units 0:4 leaves 5 of the 9 positions of 'y' as they are")
    assert not plan(classifier(units=9), keep="0-2", units="0:9").warnings


# --- labels --------------------------------------------------------------------------------------


def labeled() -> Graph:
    return replace(classifier(), labels={"y": ("ant", "bee", "cat", "dog", "eel")})


def test_labels_come_from_the_model() -> None:
    cut = plan(labeled(), keep="dog,ant")
    assert cut.selection.kept == (0, 3)
    assert cut.remap.heads[0].labels == ("ant", "dog")


def test_given_labels_replace_labels_of_the_model() -> None:
    cut = plan(labeled(), keep="v", labels=["r", "s", "t", "u", "v"])
    assert cut.remap.heads[0].labels == ("v",)
    with pytest.raises(UsageError, match="'dog'"):
        plan(labeled(), keep="dog", labels=["r", "s", "t", "u", "v"])


def test_labels_of_an_earlier_cut_are_used_if_the_file_has_none() -> None:
    earlier = plan(classifier(units=9), keep="0-4", labels=list("abcdefghi")).remap
    assert cut_before(classifier(), earlier, keep="d,b").heads[0].labels == ("b", "d")
    assert cut_before(labeled(), earlier, keep="dog").heads[0].labels == ("dog",)
    with pytest.raises(UsageError, match="there are no labels"):
        cut_before(classifier(units=4), earlier, keep="d")
    with pytest.raises(UsageError, match="there are no labels"):
        cut_before(two_heads(), earlier, keep="d", head="shape")


@pytest.mark.parametrize("as_text", [False, True], ids=["a path", "a string"])
def test_labels_come_from_a_file(tmp_path: Path, as_text: bool) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("oak\nelm\nash\nyew\nfir\n", encoding="utf-8")
    cut = plan(labeled(), keep="yew,oak", labels=str(path) if as_text else path)
    assert cut.remap.heads[0].labels == ("oak", "yew")


def test_every_output_of_a_head_has_its_labels() -> None:
    cut = plan(logits_and_probabilities(), keep="b,d", labels=list("abcde"))
    assert [table.labels for table in cut.remap.heads] == [("b", "d")] * 2


# --- warnings ------------------------------------------------------------------------------------


def spatial_softmax() -> Graph:
    """A softmax over positions, not over units."""
    builder = Builder()
    z = builder.dense(builder.feed("x", None, 6, 3), 5, "z")
    return builder.graph(builder.node(Activation("softmax", 1), [z], (None, 6, 5), "y"))


def shares(of: str) -> Graph:
    """Results of an activation, divided by the sum of their absolute values."""
    builder = Builder()
    z = builder.dense(builder.feed("x", None, 6), 5, "z")
    p = builder.node(Activation(of, 1), [z], (None, 5), "p")
    return builder.graph(builder.node(Activation("l1_normalize", 1), [p], (None, 5), "y"))


ALWAYS = "{} over one unit always returns {}"


@pytest.mark.parametrize(
    ("graph", "options", "expected"),
    [
        pytest.param(classifier(), {"keep": "1,2"}, (), id="two units"),
        pytest.param(classifier("sigmoid"), {"keep": "1"}, (), id="one under sigmoid"),
        pytest.param(classifier(None), {"keep": "1"}, (), id="one without activation"),
        pytest.param(
            classifier(), {"keep": "1", "mode": "zero"}, (), id="one of five under softmax"
        ),
        pytest.param(spatial_softmax(), {"keep": "1"}, (), id="a softmax over positions"),
        pytest.param(
            classifier(), {"keep": "1"}, (ALWAYS.format("softmax", "1.0"),), id="one under softmax"
        ),
        pytest.param(
            classifier("log_softmax"),
            {"keep": "1"},
            (ALWAYS.format("log_softmax", "0.0"),),
            id="one under log-softmax",
        ),
        pytest.param(
            shares("sigmoid"),
            {"keep": "1"},
            (ALWAYS.format("l1_normalize", "1.0"),),
            id="one probability under a norm",
        ),
        pytest.param(
            shares("tanh"),
            {"keep": "1"},
            (ALWAYS.format("l1_normalize", "1.0, -1.0 or NaN"),),
            id="one value under a norm",
        ),
        pytest.param(
            logits_and_probabilities(),
            {"keep": "1"},
            (ALWAYS.format("softmax", "1.0"),),
            id="one under the softmax of another output",
        ),
        pytest.param(
            classifier(),
            {"keep": "0-2,1"},
            ("keep entry 2 at character 5, '1': unit 1 was named before, counted once",),
            id="a unit named twice",
        ),
    ],
)
def test_warnings(graph: Graph, options: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert plan(graph, **options).warnings == expected


# --- the original --------------------------------------------------------------------------------

FIRST = Origin("net.first", "cd" * 32)


def test_the_remap_names_the_file_that_was_cut() -> None:
    remap = plan(classifier(), keep="1,2").remap
    assert (remap.original, remap.parent) == (FILE, None)


def test_the_remap_of_a_converted_file_names_its_source() -> None:
    remap = plan(classifier(), FIRST, keep="1,2").remap
    assert (remap.original, remap.parent) == (FIRST, FILE)


def cut_before(graph: Graph, remap: Remap, original: Origin | None = None, **options: Any) -> Remap:
    model = Drawn(graph, remap=remap)
    return plan_cut(cast("Model", model), CutOptions(**options), original).remap


def test_a_second_cut_records_indices_of_the_first_original() -> None:
    earlier = plan(classifier(units=9), keep="8,6,4,2,0", keep_order=True).remap
    remap = cut_before(classifier(), earlier, keep="0,3", labels=list("abcde"))
    (table,) = remap.heads
    assert (table.kept, table.new_to_old) == ((8, 2), (8, 2))
    assert (table.old_units, table.new_units, table.labels) == (9, 2, ("a", "d"))
    assert (remap.original, remap.parent) == (FILE, FILE)


def test_a_converted_file_may_have_been_cut_before() -> None:
    earlier = plan(classifier(units=9), FIRST, keep="0,2,4,6,8").remap
    remap = cut_before(classifier(), earlier, Origin("net.cut", None), keep="1,3")
    assert (remap.original, remap.parent) == (FIRST, Origin("net.cut", None))
    assert remap.heads[0].new_to_old == (2, 6)


def test_heads_that_are_cut_one_after_the_other_share_a_remap() -> None:
    earlier = plan(two_heads(), keep="1,3", head="shape").remap
    builder = Builder()
    x = builder.feed("x", None, 3)
    graph = builder.graph(builder.dense(x, 2, "shape"), builder.dense(x, 3, "color"))
    remap = cut_before(graph, earlier, keep="2", head="color")
    assert [(t.name, t.old_units, t.kept) for t in remap.heads] == [
        ("shape", 4, (1, 3)),
        ("color", 3, (2,)),
    ]


def test_a_file_that_is_cut_again_matches_its_remap() -> None:
    first = onnx_models.classifier()
    x = onnx_models.numbers(4, 6, seed=3)
    z = x @ onnx_models.numbers(6, 5) + onnx_models.numbers(5)

    once = first.apply(plan_cut(first, CutOptions(keep="4,2,0", keep_order=True)).plan)
    again = plan_cut(once, CutOptions(keep="0,2"))
    twice = once.apply(again.plan)
    assert twice.remap == again.remap
    assert again.remap.heads[0].new_to_old == (4, 0)
    expected = onnx_models.softmax(z[:, [4, 0]])
    np.testing.assert_allclose(onnx_models.run(twice, {"x": x})["y"], expected, atol=1e-6)
