"""A vocabulary that is cut on both sides: the same logits, bit by bit, for kept tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import ModelProto, NodeProto, helper

from exporter.data.samples import Picked, Samples
from exporter.errors import ExporterError, ModelError, NotAllowedError, UsageError
from exporter.formats import open_model
from exporter.formats.model import Model
from exporter.graph import Array, Graph
from exporter.graph.operations import Concat, Elementwise, Gather, Linear
from exporter.jobs.checks import compare_models
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.proof.prove import prove
from exporter.trace import trace
from exporter.verification.token_ids import pair_inputs
from tests.builders import language_models
from tests.builders.graphs import Builder
from tests.builders.language_models import FORMS, UNITS, onnx_model, tflite_model

KEPT = [1, 3, *range(5, 21)]
NEW = np.array([0, 1, 2, 5, 7, 9, 17])
OLD = np.array(KEPT)[NEW]


def opened(content: bytes, folder: Path, suffix: str = ".onnx") -> Model:
    path = folder / f"model{suffix}"
    path.write_bytes(content)
    return open_model(path)


def cut(model: Model, **options: Any) -> tuple[Model, Cut]:
    planned = plan_cut(model, CutOptions(**{"keep": KEPT, "vocabulary": "both", **options}))
    return model.apply(planned.plan), planned


def run_onnx(model: Model | ModelProto, ids: Array, folder: Path, output: str = "logits") -> Array:
    path = folder / "run.onnx"
    if isinstance(model, ModelProto):
        onnx.save(model, path)
    else:
        model.write(path)
    session = onnxruntime.InferenceSession(path)
    return np.asarray(session.run([output], {"ids": ids})[0])


@pytest.mark.parametrize("keep_ids", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_kept_logits_are_bit_identical(form: str, keep_ids: bool, tmp_path: Path) -> None:
    source = onnx_model(form)
    expected = run_onnx(source, OLD[np.newaxis], tmp_path)[..., KEPT]
    model = opened(source.SerializeToString(), tmp_path)
    result, _ = cut(model, keep_ids=keep_ids)
    ids = OLD if keep_ids else NEW
    actual = run_onnx(result, ids[np.newaxis], tmp_path)
    if keep_ids:
        assert actual.shape[-1] == UNITS
        actual = actual[..., KEPT]
    assert np.array_equal(actual, expected)
    assert prove(model, result, result.remap).result == "proved"


@pytest.mark.parametrize("form", ["tied", "int8 tied", "int4 tied", "int4 tied at the table"])
def test_a_shared_table_is_still_shared(form: str, tmp_path: Path) -> None:
    source = onnx_model(form)
    cut(opened(source.SerializeToString(), tmp_path))[0].write(tmp_path / "cut.onnx")
    names = [
        {each.name for each in m.graph.initializer}
        for m in (source, onnx.load(tmp_path / "cut.onnx"))
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("keep_ids", [False, True])
@pytest.mark.parametrize(
    ("operator", "tied", "int8"),
    [
        ("GATHER", True, False),
        ("GATHER", False, False),
        ("EMBEDDING_LOOKUP", True, False),
        ("EMBEDDING_LOOKUP", False, True),
        ("EMBEDDING_LOOKUP", True, True),
    ],
)
def test_kept_logits_of_tflite_are_bit_identical(
    operator: str, tied: bool, int8: bool, keep_ids: bool, tmp_path: Path
) -> None:
    source = tflite_model(operator, tied=tied, int8=int8).content("logits")
    result, _ = cut(opened(source, tmp_path, ".tflite"), keep_ids=keep_ids)
    result.write(tmp_path / "cut.tflite")
    actual = run_tflite((tmp_path / "cut.tflite").read_bytes(), OLD if keep_ids else NEW)
    actual = actual[:, KEPT] if keep_ids else actual
    assert np.array_equal(actual, run_tflite(source, OLD)[:, KEPT])


def run_tflite(content: bytes, ids: Array) -> Array:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], ids.astype(np.int32))
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


@pytest.mark.parametrize("options", [{}, {"keep_ids": True}, {"keep_ids": True, "unknown_id": 3}])
def test_the_check_feeds_each_model_its_own_ids(options: dict[str, Any], tmp_path: Path) -> None:
    model = opened(onnx_model("untied").SerializeToString(), tmp_path)
    chosen = CutOptions(keep=KEPT, vocabulary="both", **options)
    pruned = prune_model(model, chosen, Job())
    assert pruned.ok
    assert pruned.proof is not None
    assert pruned.proof.result == "proved"


def test_a_wrong_embedding_fails_the_check_and_the_proof(tmp_path: Path) -> None:
    source = onnx_model("untied")
    model = opened(source.SerializeToString(), tmp_path)
    result, _ = cut(model)
    result.write(tmp_path / "cut.onnx")
    changed = onnx.load(tmp_path / "cut.onnx")
    (table,) = (each for each in changed.graph.initializer if each.name == "table")
    rows = onnx.numpy_helper.to_array(table).copy()
    rows[[2, 5]] = rows[[5, 2]]
    table.CopyFrom(onnx.numpy_helper.from_array(rows, "table"))
    onnx.save(changed, tmp_path / "wrong.onnx")
    wrong = open_model(tmp_path / "wrong.onnx")
    assert prove(model, wrong, wrong.remap).result == "different"
    assert wrong.remap is not None
    inputs = Job().inputs(model, None)
    assert not compare_models(Job(), model, wrong, inputs, wrong.remap.heads).passed


# --- ids that removed tokens get -----------------------------------------------------------------


def test_a_removed_id_counts_as_the_unknown_token(tmp_path: Path) -> None:
    source = onnx_model("untied")
    model = opened(source.SerializeToString(), tmp_path)
    labels = [f"t{i}" for i in range(UNITS)]
    labels[3] = "<unk>"
    result, planned = cut(model, keep_ids=True, labels=labels)
    assert planned.remap.heads[0].options["vocabulary"]["unknown"] == 3
    removed, unknown = (run_onnx(result, np.array([[i]]), tmp_path) for i in (2, 3))
    assert np.array_equal(removed, unknown)


def test_without_an_unknown_token_a_removed_id_is_out_of_range(tmp_path: Path) -> None:
    result, _ = cut(opened(onnx_model("untied").SerializeToString(), tmp_path), keep_ids=True)
    with pytest.raises(Exception, match="indices element out of data bounds"):
        run_onnx(result, np.array([[2]]), tmp_path)


# --- constants with token ids --------------------------------------------------------------------


def compared(token: int) -> ModelProto:
    return onnx_model(
        "untied",
        (helper.make_node("Equal", ["ids", "pad"], ["extra"], "compare"),),
        pad=np.array(token),
    )


@pytest.mark.parametrize("keep_ids", [False, True])
def test_a_token_that_the_model_compares_with_gets_its_new_id(
    keep_ids: bool, tmp_path: Path
) -> None:
    model = opened(compared(7).SerializeToString(), tmp_path)
    result, _ = cut(model, head="logits", keep_ids=keep_ids)
    ids = [3, 7, 9] if keep_ids else [KEPT.index(i) for i in (3, 7, 9)]
    extra = run_onnx(result, np.array([ids]), tmp_path, "extra")
    assert extra.tolist() == [[False, True, False]]


def test_a_token_that_the_model_compares_with_is_kept(tmp_path: Path) -> None:
    model = opened(compared(30).SerializeToString(), tmp_path)
    _, planned = cut(model, head="logits")
    assert planned.selection.kept == (*KEPT, 30)
    assert "unit 30 is kept: the model compares or inserts it" in planned.warnings
    with pytest.raises(NotAllowedError, match="30 is a token that the model itself uses"):
        cut(model, head="logits", keep=None, remove=[30])


def test_a_token_that_the_model_inserts_gets_its_new_id(tmp_path: Path) -> None:
    source = inserting(5)
    expected = run_onnx(source, OLD[np.newaxis], tmp_path)[..., KEPT]
    result, _ = cut(opened(source.SerializeToString(), tmp_path))
    assert np.array_equal(run_onnx(result, NEW[np.newaxis], tmp_path), expected)


def inserting(token: int) -> ModelProto:
    """A token before those of the input."""
    source = onnx_model("untied", begin=np.array([[5]]))
    source.graph.node[0].input[1] = "all ids"
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.array([[token]]), "begin"))
    source.graph.node.insert(0, helper.make_node("Concat", ["begin", "ids"], ["all ids"], axis=1))
    source.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "longer"
    return source


@pytest.mark.parametrize("keep_ids", [False, True])
def test_a_token_that_the_model_inserts_is_kept(keep_ids: bool, tmp_path: Path) -> None:
    """Token 30 is not among the kept ones."""
    source = inserting(30)
    ids = OLD if keep_ids else NEW
    kept = [*KEPT, 30]
    expected = run_onnx(source, OLD[np.newaxis], tmp_path)[..., kept]
    result, planned = cut(opened(source.SerializeToString(), tmp_path), keep_ids=keep_ids)
    found = run_onnx(result, ids[np.newaxis], tmp_path)
    assert np.array_equal(found[..., kept] if keep_ids else found, expected)
    assert "unit 30 is kept: the model compares or inserts it" in planned.warnings


# --- refused --------------------------------------------------------------------------------------


def using(node: NodeProto, **constants: Array) -> ModelProto:
    return onnx_model("untied", (node,), **constants)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            lambda: using(
                helper.make_node("Greater", ["ids", "pad"], ["extra"], "above"), pad=np.array(3)
            ),
            "Greater 'above': it computes with token ids",
            id="arithmetic",
        ),
        pytest.param(
            lambda: using(
                helper.make_node("Gather", ["rows", "ids"], ["extra"], "flags"),
                rows=np.ones(UNITS + 2, bool),
            ),
            f"Gather 'flags': it looks up token ids in a table with {UNITS + 2} rows",
            id="another table",
        ),
    ],
)
def test_other_uses_of_ids_are_refused(source: Any, message: str, tmp_path: Path) -> None:
    model = opened(source().SerializeToString(), tmp_path)
    with pytest.raises(ModelError, match=message) as error:
        cut(model, head="logits")
    assert error.value.hint == "cut the head alone (--vocabulary output)"


def test_a_hint_names_keep_ids_only_where_it_helps(tmp_path: Path) -> None:
    """It converts ids directly before the lookup, after the token was put before them."""
    hints = {"ids": "--keep-ids leaves the ids at the input as they are"}
    for read in ("ids", "all ids"):
        source = inserting(5)
        source.graph.initializer.append(onnx.numpy_helper.from_array(np.array(3), "pad"))
        source.graph.node.append(helper.make_node("Greater", [read, "pad"], ["extra"], "above"))
        extra = helper.make_tensor_value_info("extra", onnx.TensorProto.BOOL, None)
        source.graph.output.append(extra)
        model = opened(source.SerializeToString(), tmp_path)
        with pytest.raises(ModelError, match="computes with token ids") as error:
            cut(model, head="logits")
        hint = hints.get(read, "cut the head alone (--vocabulary output)")
        assert error.value.hint == hint
        if read in hints:
            cut(model, head="logits", keep_ids=True)
            continue
        with pytest.raises(ModelError, match="computes with token ids") as error:
            cut(model, head="logits", keep_ids=True)
        assert error.value.hint == hint


def test_a_computed_value_next_to_ids_is_no_token(tmp_path: Path) -> None:
    source = inserting(5)
    largest = helper.make_node("ReduceMax", ["ids"], ["largest"], "largest", axes=[1])
    joined = helper.make_node("Concat", ["largest", "ids"], ["extra"], "joined", axis=1)
    source.graph.node.extend([largest, joined])
    extra = helper.make_tensor_value_info("extra", onnx.TensorProto.INT64, None)
    source.graph.output.append(extra)
    model = opened(source.SerializeToString(), tmp_path)
    result, _ = cut(model, head="logits", keep_ids=True)
    found = run_onnx(result, np.array([[3, 1]]), tmp_path, "extra")
    assert found.tolist() == [[3, 3, 1]]


@pytest.mark.parametrize("name", ["pos", "pos_ids", "position_ids", "token_type_ids"])
def test_a_table_of_positions_with_as_many_rows_is_left_alone(name: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["tokens"], "tokens"),
        helper.make_node("Gather", ["places", name], ["moved"], "positions"),
        helper.make_node("Add", ["tokens", "moved"], ["h"], "sum"),
        helper.make_node("MatMul", ["h", "k"], ["logits"], "head"),
    ]
    rng = np.random.default_rng(0)
    shapes = {"table": (12, 4), "places": (12, 4), "k": (4, 12)}
    constants = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, onnx.TensorProto.INT64, [1, 3]) for n in ("ids", name)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 3, 12])],
        [onnx.numpy_helper.from_array(values, n) for n, values in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pruned, _ = cut(opened(made.SerializeToString(), tmp_path), keep=[6, 8, 9])
    pruned.write(tmp_path / "cut.onnx")
    places = np.array([[0, 5, 11]])
    returned = onnxruntime.InferenceSession(tmp_path / "cut.onnx").run(
        None, {"ids": np.array([[0, 2, 1]]), name: places}
    )
    kept = [6, 8, 9]
    hidden = constants["table"][np.array([[6, 9, 8]])] + constants["places"][places]
    np.testing.assert_allclose(returned[0], (hidden @ constants["k"])[..., kept], atol=1e-5)


def test_a_model_without_a_table_is_refused(tmp_path: Path) -> None:
    source = onnx_model("untied")
    source.graph.node[0].CopyFrom(
        helper.make_node("Gather", ["wide", "ids"], ["embedded"], "embedded")
    )
    wide = np.ones((UNITS + 5, language_models.FEATURES), np.float32)
    source.graph.initializer.append(onnx.numpy_helper.from_array(wide, "wide"))
    model = opened(source.SerializeToString(), tmp_path)
    with pytest.raises(ModelError, match=f"no table with {UNITS} rows .* have {UNITS + 5} rows"):
        cut(model)


def test_the_head_alone_is_refused_where_the_table_is_computed_with_it(tmp_path: Path) -> None:
    model = opened(onnx_model("int8 tied").SerializeToString(), tmp_path)
    with pytest.raises(
        ModelError, match="looks up token ids in the kernel of head 'logits'"
    ) as error:
        cut(model, vocabulary="output")
    assert "--vocabulary both" in error.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"vocabulary": "input"},
        {"vocabulary": "output", "keep_ids": True},
        {"unknown_id": 3},
        {"mode": "mask"},
        {"probabilities": "absolute"},
        {"merge": {"a": [1, 3]}},
        {"new_ids": True},
        {"restore_width": True},
        {"keep_ids": True, "unknown_id": 2},
    ],
    ids=str,
)
def test_options_that_contradict_it_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    model = opened(onnx_model("untied").SerializeToString(), tmp_path)
    with pytest.raises(UsageError):
        cut(model, **options)


# --- the output alone -----------------------------------------------------------------------------


def test_a_tied_head_alone_warns_that_the_file_grows(tmp_path: Path) -> None:
    model = opened(onnx_model("tied").SerializeToString(), tmp_path)
    _, planned = cut(model, vocabulary="output")
    (warning,) = planned.warnings
    assert warning.startswith(f"{len(KEPT) * language_models.FEATURES * 4} bytes are added")
    assert "--vocabulary both" in warning
    assert "--restore-width" in warning


@pytest.mark.parametrize(("form", "vocabulary"), [("untied", "output"), ("tied", "both")])
def test_others_do_not_warn(form: str, vocabulary: str, tmp_path: Path) -> None:
    model = opened(onnx_model(form).SerializeToString(), tmp_path)
    assert cut(model, vocabulary=vocabulary)[1].warnings == ()


# --- two cuts -------------------------------------------------------------------------------------


def test_a_second_cut_goes_on_with_the_new_ids(tmp_path: Path) -> None:
    source = onnx_model("tied")
    model = opened(source.SerializeToString(), tmp_path)
    first, _ = cut(model)
    first.write(tmp_path / "first.onnx")
    again = open_model(tmp_path / "first.onnx")
    second, planned = cut(again, keep=[0, 2, 4])
    expected = run_onnx(source, np.array([[1, 5, 7]]), tmp_path)[..., [1, 5, 7]]
    assert np.array_equal(run_onnx(second, np.array([[0, 1, 2]]), tmp_path), expected)
    assert planned.remap.heads[0].kept == (1, 5, 7)
    assert prove(model, second, second.remap).result == "proved"
    for original in (model, again):
        inputs = Job().inputs(original, None)
        assert compare_models(Job(), original, second, inputs, planned.remap.heads).passed
    with pytest.raises(ExporterError, match="was cut on both sides of its vocabulary"):
        cut(again, keep=[0, 2], vocabulary="output")


# --- other graphs ---------------------------------------------------------------------------------


class Drawn:
    """A graph in place of a model."""

    kind, name, sha256, precision, remap = "keras", "drawn", None, "fp32", None

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def graph(self) -> Graph:
        return self._graph


def drawn(gather: Gather, *, ids: str = "", computed: bool = False) -> Graph:
    """A head of 9 tokens. Its kernel is the table; `ids` is what is done with the ids."""
    b = Builder()
    b.feed("ids", None, 4)
    if ids:
        other = b.constant("other", 4) if not computed else b.feed("more", None, 4)
        operation = Concat(1) if ids == "concat" else Elementwise(function=ids)
        before = [other] if ids == "where" else []
        inputs = ["ids"] if ids == "cast" else [*before, "ids", other]
        b.node(operation, inputs, (None, 8 if ids == "concat" else 4), "new ids")
    indices = "new ids" if ids else "ids"
    b.node(gather, [b.constant("table", 9, 3), indices], (None, 4, 3), "rows")
    b.node(Linear(1, kernel_axis=0, output_axis=2), ["rows", "table"], (None, 4, 9), "y")
    return b.graph("y")


def plan_of(graph: Graph, **options: Any) -> Cut:
    chosen = CutOptions(**{"keep": [0, 2, 5], "vocabulary": "both", **options})
    return plan_cut(cast("Model", Drawn(graph)), chosen)


def test_the_number_of_rows_that_a_layer_states_follows() -> None:
    edits = plan_of(drawn(Gather(0, width_attribute="input_dim"))).plan.edits
    assert "set input_dim of 'rows' to 3" in list(map(str, edits))


def test_an_id_that_is_masked_stays_the_first() -> None:
    assert plan_of(drawn(Gather(0, masks_zero=True)), keep=[2, 5]).selection.kept == (0, 2, 5)
    with pytest.raises(UsageError, match="id 0 is masked"):
        plan_of(drawn(Gather(0, masks_zero=True)), keep=[2, 0], keep_order=True)


@pytest.mark.parametrize("ids", ["concat", "where"])
def test_constants_next_to_ids_may_not_be_computed(ids: str) -> None:
    assert plan_of(drawn(Gather(0), ids=ids)).selection.kept == (0, 2, 5)
    with pytest.raises(ModelError, match="cannot be cut on both sides"):
        plan_of(drawn(Gather(0), ids="add", computed=True))


def test_ids_that_the_model_computes_are_no_inputs() -> None:
    with pytest.raises(ModelError, match="no table with 9 rows is indexed by an input"):
        plan_of(drawn(Gather(0), ids="mul"))


def test_ids_may_be_cast() -> None:
    assert plan_of(drawn(Gather(0), ids="cast")).selection.kept == (0, 2, 5)


def test_ids_are_not_compared_with_computed_values() -> None:
    b = Builder()
    b.node(Gather(0), [b.constant("table", 9, 3), b.feed("ids", None, 4)], (None, 4, 3), "rows")
    b.dense("rows", 9, "y")
    b.node(Elementwise(function="equal"), ["ids", b.feed("mask", None, 4)], (None, 4), "same")
    with pytest.raises(ModelError, match="it combines token ids with 'mask'"):
        plan_of(b.graph("y", "same"), head="y")


def test_a_lookup_of_other_values_in_the_same_table_is_refused() -> None:
    b = Builder()
    b.node(Elementwise(), [b.constant("table", 9, 3)], (9, 3), "real")
    b.node(Gather(0), ["real", b.feed("ids", None, 4)], (None, 4, 3), "rows")
    b.node(Elementwise(function="mul"), [b.feed("x", None, 4), "x"], (None, 4), "square")
    b.node(Gather(0), ["real", "square"], (None, 4, 3), "others")
    b.node(Linear(1, kernel_axis=0, output_axis=2), ["rows", "real"], (None, 4, 9), "y")
    with pytest.raises(ModelError, match="Gather 'others': it looks up values that are no token"):
        plan_of(b.graph("y", "others"), head="y")


def test_the_units_may_pass_a_lookup_along_another_axis(tmp_path: Path) -> None:
    source = onnx_model("untied")
    source.graph.node.append(helper.make_node("Gather", ["logits", "last"], ["y"], "last", axis=1))
    info = helper.make_tensor_value_info
    source.graph.input.append(info("last", onnx.TensorProto.INT64, []))
    source.graph.output[0].CopyFrom(info("y", onnx.TensorProto.FLOAT, ["batch", UNITS]))
    result, _ = cut(opened(source.SerializeToString(), tmp_path))
    paths = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(source, paths[0])
    result.write(paths[1])
    before, after = (
        onnxruntime.InferenceSession(path).run(None, {"ids": ids[np.newaxis], "last": np.array(3)})[
            0
        ]
        for path, ids in zip(paths, (OLD, NEW), strict=True)
    )
    assert np.array_equal(after, before[..., KEPT])


@pytest.mark.parametrize("inputs", [["z", "x"], ["z"]])
def test_units_that_are_selected_by_computed_positions_are_refused(inputs: list[str]) -> None:
    b = Builder()
    b.dense(b.feed("x", None, 3), 5, "z")
    b.node(Gather(1), inputs, (None, 5), "y")
    assert not trace(b.graph("y", "z")).heads


def test_samples_that_are_read_when_they_are_used_get_new_ids(tmp_path: Path) -> None:
    model = opened(onnx_model("untied").SerializeToString(), tmp_path)
    result, planned = cut(model)
    values: Any = Picked(np.array([[[1, 3]], [[5, 6]]]), [0, 1])
    found = pair_inputs(Samples({"ids": values}, ""), model, result, planned.remap.heads)
    assert [feed["ids"].tolist() for feed in found.cut.feeds()] == [[[0, 1]], [[2, 3]]]
    assert len(found.cut.values["ids"]) == 2
    assert list(found.different) == ["ids"]
