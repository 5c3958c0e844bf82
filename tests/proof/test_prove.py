"""Correct cuts are proved, however they are written; every fault is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from exporter.errors import ExporterError
from exporter.formats import open_model
from exporter.formats.model import Model
from exporter.graph.edits import Plan
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.prove import prove
from exporter.proof.tables import compare_remaps
from exporter.quantization import QuantizationSpec
from exporter.quantization.quantize import quantize_model
from exporter.records import Proof
from exporter.remap import Origin, Pixels, Remap
from tests.builders import mode_cells
from tests.builders.cut_faults import OF_REMAPS
from tests.builders.faults_onnx import FAULTS as OF_ONNX
from tests.builders.faults_tflite import FAULTS as OF_TFLITE
from tests.builders.proof_models import CUTS, FEATURES, MODELS, RANDOM, content_of, head_of, opened
from tests.builders.rewriters import REWRITERS, optimized

PROVED = Proof("proved", "")


@cache
def original(name: str) -> Model:
    kind, build = MODELS[name]
    return opened(kind, build(), name)


def cut(model: Model, **options: Any) -> Model:
    return model.apply(plan_cut(model, CutOptions(**options)).plan)


def proof(model: Model, file: Model) -> Proof:
    return prove(model, file, file.remap)


def refused(name: str, title: str) -> bool:
    try:
        cut(original(name), **CUTS[title], **head_of(name))
    except ExporterError:
        return True
    return False


# --- good files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("title", CUTS)
def test_every_cut_is_proved_however_it_is_written(name: str, title: str) -> None:
    model = original(name)
    made = cut(model, **CUTS[title], **head_of(name))
    assert proof(model, made) == PROVED
    for rewrite in REWRITERS[model.kind].values():
        again = opened(model.kind, rewrite(content_of(made)))
        assert proof(model, again) == PROVED


def matrix() -> Iterator[Any]:
    for cell in mode_cells.cells():
        yield pytest.param(*cell[2:], mode_cells.options_of(cell), id=str(cell))
    for title, options in mode_cells.MORE_OPTIONS.items():
        for head in mode_cells.HEADS:
            for kind in mode_cells.KINDS:
                for precision in mode_cells.PRECISIONS:
                    name = f"{title}, {head}, {kind}, {precision}"
                    yield pytest.param(head, kind, precision, options, id=name)


built = cache(mode_cells.built)


def test_every_cell_of_the_matrix_of_modes_is_proved() -> None:
    done = 0
    for each in matrix():
        head, kind, precision, options = each.values
        model = built(head, kind, precision)
        try:
            made = cut(model, **options)
        except ExporterError:
            continue  # tests of the modes say which are refused
        assert proof(model, made) == PROVED, each.id
        done += 1
    assert done > 300


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_chain_of_cuts_is_proved_from_each_of_its_models(kind: str) -> None:
    model = original(f"softmax float32.{kind}")
    first = opened(kind, content_of(cut(model, keep=[5, 0, 2, 3], keep_order=True)))
    second = opened(kind, content_of(cut(first, keep=[0, 1, 3], mode="mask")))
    third = opened(kind, content_of(cut(second, keep=[0, 3], mode="slice")))
    assert third.remap is not None
    assert third.remap.of().kept == (5, 3)
    for start in (model, first, second):
        assert proof(start, third) == PROVED
    assert proof(model, cut(first, keep=[1])) == PROVED
    assert proof(second, cut(second, keep=[0, 1, 2, 3])) == PROVED
    assert proof(first, cut(model, keep=[0])).result != "proved"


def test_a_chain_without_recorded_steps_is_sampled() -> None:
    model = original("softmax float32.onnx")
    first = cut(model, keep=[0, 2, 3])
    second = cut(first, keep=[0, 1])
    assert second.remap is not None
    older = replace(second.remap, steps=())
    assert prove(first, second, older) == Proof(
        "sampled", "the file does not record the steps of its cuts"
    )
    assert prove(model, second, older) == PROVED  # two slices are the same as one


def test_two_files_of_one_cut_are_compared_as_they_are() -> None:
    model = original("two heads.onnx")
    made = cut(model, keep=[0, 2], head="y")
    assert proof(made, opened("onnx", content_of(made))) == PROVED
    quantized = quantize_model(made, QuantizationSpec("dynamic")).model
    assert proof(made, quantized) == Proof("sampled", "it was quantized")
    other = cut(model, keep=[0, 3], head="y")
    assert proof(made, other).result == "sampled"


def test_a_cut_of_a_converted_model_is_proved_from_the_converted_file() -> None:
    model = original("softmax float32.tflite")
    made = model.apply(plan_cut(model, CutOptions(keep=[1]), Origin("a.keras", "0" * 64)).plan)
    assert proof(model, made) == PROVED


def test_labels_that_the_user_gave_are_not_derived() -> None:
    model = original("softmax float32.onnx")
    made = cut(model, keep=[1, 2], labels=["a", "b", "c", "d", "e", "f"])
    assert made.remap is not None
    assert made.remap.of().options["labels_given"] is True
    assert proof(model, made) == PROVED


def test_given_labels_of_merged_units_are_proved() -> None:
    model = original("softmax float32.tflite")
    made = cut(model, keep=[0], merge={"both": (2, 3)}, labels=["a", "b", "c", "d", "e", "f"])
    assert proof(model, made) == PROVED


def test_a_file_without_a_remap_is_proved_if_nothing_changed() -> None:
    model = original("softmax float32.onnx")
    assert prove(model, model.apply(Plan(())), None) == PROVED
    other = original("sigmoid float16 weights.onnx")
    assert prove(model, other, None).result == "sampled"


def test_an_uncut_file_that_was_quantized_is_sampled() -> None:
    model = original("softmax float32.tflite")
    quantized = quantize_model(model, QuantizationSpec("dynamic")).model
    assert prove(model, quantized, None) == Proof("sampled", "it was quantized")


# --- files that another tool has rewritten --------------------------------------------------------

Level = onnxruntime.GraphOptimizationLevel


@pytest.mark.parametrize(
    ("level", "lacks"),
    [
        pytest.param(Level.ORT_ENABLE_BASIC, "lacks 2 operations of the cut and contains Gemm"),
        pytest.param(Level.ORT_ENABLE_EXTENDED, "contains com.microsoft.FusedConv"),
    ],
)
def test_an_optimized_file_is_sampled(level: Any, lacks: str) -> None:
    model = original("two heads.onnx")
    made = cut(model, keep=[0, 2], head="y")
    again = opened("onnx", optimized(content_of(made), level))
    found = proof(model, again)
    assert found.result == "sampled"
    assert lacks in found.reason


def test_a_quantized_file_is_sampled_but_its_tables_are_compared() -> None:
    model = original("two heads.onnx")
    made = cut(model, keep=[0, 2], head="y")
    quantized = quantize_model(made, QuantizationSpec("dynamic")).model
    assert proof(model, quantized) == Proof("sampled", "it was quantized after the cut")
    assert quantized.remap is not None
    (head,) = quantized.remap.heads
    wrong = replace(quantized.remap, heads=(replace(head, axis=2),))
    assert prove(model, quantized, wrong).result == "different"
    unknown = replace(quantized.remap, heads=(replace(head, name="?"),))
    assert "cut after that" in prove(model, quantized, unknown).reason


def test_files_of_two_kinds_have_no_common_structure() -> None:
    onnx, tflite = (original(f"softmax float32.{kind}") for kind in ("onnx", "tflite"))
    assert prove(onnx, tflite, None).result == "sampled"
    assert "converted" in prove(onnx, tflite, None).reason


def test_a_keras_model_shows_no_structure() -> None:
    class Keras:
        kind = "keras"

    model: Any = Keras()
    assert prove(model, original("softmax float32.onnx"), None).reason.startswith("Keras")


# --- faults ---------------------------------------------------------------------------------------

FAULTY = [
    ("two heads.onnx", "slice"),
    ("two heads.tflite", "slice"),
    ("loop and branches.onnx", "slice"),
    ("states.tflite", "slice"),
    ("softmax int8.onnx", "slice"),
    ("softmax int8.tflite", "mask"),
]
KINDS = {
    **{f"onnx: {name}": ("onnx", fault) for name, fault in OF_ONNX.items()},
    **{f"tflite: {name}": ("tflite", fault) for name, fault in OF_TFLITE.items()},
    **{f"onnx: {name}": ("onnx", kind.onnx) for name, kind in OF_REMAPS.items()},
    **{f"tflite: {name}": ("tflite", kind.tflite) for name, kind in OF_REMAPS.items()},
}


WITHOUT_FILE = "tflite: old or new indices"  # no TFLite cut here returns indices


@cache
def cut_content(name: str, cut_title: str) -> bytes:
    return content_of(cut(original(name), **CUTS[cut_title], **head_of(name)))


@cache
def feature(name: str) -> tuple[Model, bytes]:
    """A model with a newer feature, and its cut."""
    kind, build, options = FEATURES[name]
    model = opened(kind, build(), name)
    return model, content_of(cut(model, **options))


def faulty_files(kind: str) -> Iterator[tuple[Model, bytes]]:
    for name, title in FAULTY:
        if MODELS[name][0] == kind:
            yield original(name), cut_content(name, title)


def files_with_features(kind: str) -> Iterator[tuple[Model, bytes]]:
    for name, (of_kind, *_) in FEATURES.items():
        if of_kind == kind:
            yield feature(name)


@pytest.mark.parametrize("title", [title for title in KINDS if title != WITHOUT_FILE])
def test_each_fault_is_found(title: str) -> None:
    """In the first files, and where none of them has the fault in those with newer features."""
    kind, fault = KINDS[title]
    assert fault is not None
    done = 0
    for files in (faulty_files(kind), files_with_features(kind)):
        for model, content in files if not done else ():
            changed = fault(content, RANDOM(3))
            if changed is None:
                continue
            done += 1
            try:
                file = opened(kind, changed)
            except ExporterError:
                continue  # refused
            assert proof(model, file).result == "different"
    assert done


def test_a_remap_that_the_original_contradicts_is_different() -> None:
    model = original("softmax float32.onnx")
    made = cut(model, keep=[1, 2])
    assert made.remap is not None
    (head,) = made.remap.heads
    for wrong, fact in (
        (replace(head, name="z"), "cannot be cut as the remap says: no head is named 'z'"),
        (replace(head, part=(1, 3)), "part is (1, 3), expected None"),
        (replace(head, kept=(1,)), "new_units is 2, expected 1"),
    ):
        found = prove(model, made, Remap(made.remap.original, None, (wrong,)))
        assert found.result == "different"
        assert fact in found.reason


def test_tables_of_other_heads_and_pixels_are_compared() -> None:
    remap = plan_cut(original("softmax float32.onnx"), CutOptions(keep=[1, 2])).remap
    renamed = replace(remap, heads=(replace(remap.heads[0], name="?"),))
    (found,) = compare_remaps(remap, renamed)
    assert str(found) == "the remap is of the heads ['?'], expected ['y']"
    stated = replace(remap, pixels={"x": Pixels((0.0,), (255.0,))})
    (found,) = compare_remaps(remap, stated)
    assert "expected {}" in str(found)
    assert Remap.from_json(stated.to_json()) == stated


def test_the_reason_names_the_constant_and_both_values() -> None:
    model = original("softmax float32.onnx")
    made = cut(model, keep=[1, 2])
    changed = OF_ONNX["all zero"](content_of(made), RANDOM(0))
    assert changed is not None
    reason = proof(model, opened("onnx", changed)).reason
    assert "the constant" in reason
    assert "is 0.0 instead of" in reason
    assert "the largest difference is" in reason


# --- files that verify once passed as good --------------------------------------------------------

ZOO = os.environ.get("EXPORTER_ZOO") or Path(__file__).parents[3] / "shared" / "zoo"
TRUST = Path(ZOO).parent / "cases" / "trust"


@pytest.mark.parametrize(
    ("before", "after", "fact"),
    [
        ("digits", "digits_slice_remap_axis+1_", "axis is 2, expected 1"),
        ("digits", "digits_slice_remap_labels_rotated_added", "labels is ('l1', 'l2', 'l0')"),
        ("digits", "digits_slice_remap_wrong_activation_", "activation is 'sigmoid'"),
        ("digits", "garb", "1536 of 1536 values differ"),
        ("logits", "bias05", "the largest difference is 0.05"),
        ("multi", "multi_probs_nan_some_inputs_none-of-the-synthetic", "Where 'probs'"),
        ("multi", "multi_probs_output_dtype_double", "is float64, expected float32"),
        ("multi", "multi_probs_output_order_swapped_", "the outputs are ['f', 'tags', 'probs']"),
    ],
)
def test_faulty_files_from_outside_are_different(before: str, after: str, fact: str) -> None:
    if not TRUST.is_dir():
        pytest.skip("the files are not part of the project")
    model, file = (open_model(TRUST / f"{name}.onnx") for name in (before, after))
    found = proof(model, file)
    assert found.result == "different"
    assert fact in found.reason


def test_recorded_steps_are_compared() -> None:
    model = original("softmax float32.onnx")
    second = cut(cut(model, keep=[0, 2, 3]), keep=[0, 1])
    remap = second.remap
    assert remap is not None
    first, last = remap.steps
    (table,) = last
    wrong = replace(remap, steps=(first, (replace(table, activation="sigmoid"),)))
    assert str(*compare_remaps(remap, wrong)).startswith("step 1 of the remap of head 'y'")
    fewer = replace(remap, steps=(first,))
    assert [str(each) for each in compare_remaps(remap, fewer)] == [
        "the remap records 1 cuts, expected 2"
    ]
    more = replace(remap, steps=(first, (table, replace(table, name="other"))))
    assert [str(each) for each in compare_remaps(remap, more)] == [
        "step 1 of the remap has 2 heads, expected 1"
    ]
