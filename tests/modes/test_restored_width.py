"""Another width inside than outside, and answers with the original's denominator.

Expected values are NumPy's, of the logits that a runtime gives for the whole model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.data.samples import synthetic_samples
from exporter.errors import ModelError, UsageError
from exporter.formats.model import RunOptions
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Insert, Plan, Take
from exporter.modes.activation_tail import replace_removed, widen
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.remap import HeadRemap, Origin, Remap
from exporter.report import describe
from exporter.trace.unit_axis import UnitAxis
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import onnx_models as onnx
from tests.builders.commands import exporter, listing
from tests.builders.tflite_builder import Builder

UNITS, KEPT = 5, (0, 1, 3)
DEAD = ~np.isin(np.arange(UNITS), KEPT)
COUNT = 6


def cut(model: Any, **choice: Any) -> tuple[Any, Cut]:
    made = plan_cut(model, CutOptions(**{"keep": KEPT, **choice}))
    return model.apply(made.plan), made


def answers(model: Any, *inner: str) -> dict[str, Array]:
    shown = model.apply(Plan(tuple(AddOutput(name, name) for name in inner)))
    run = shown.runner(RunOptions())
    each = [run(feeds) for feeds in synthetic_samples(model.graph(), COUNT, 3).feeds()]
    return {name: np.concatenate([a[name] for a in each]) for name in each[0]}


def failed(original: Any, pruned: Any, made: Cut, stage: Any = "cut") -> set[str]:
    job = VerifyOptions(synthetic_samples(original.graph(), COUNT, 3))
    done = verify_pair(stage, original, pruned, made.remap.heads, job)
    return {check.output for check in done.checks if not check.passed}


def tflite(units: int = UNITS) -> Any:
    builder = Builder(seed=3)
    builder.softmax(builder.dense(builder.feed("x", None, 6), units, "z"), "y")
    return from_bytes(builder.content("y"), "net.tflite")


NETS: dict[str, Callable[[], Any]] = {"onnx": onnx.classifier, "tflite": tflite}


@pytest.mark.parametrize("kind", NETS)
def test_slice_with_restored_width(kind: str) -> None:
    model = NETS[kind]()
    pruned, made = cut(model, restore_width=True)
    after, z = answers(pruned, "z"), answers(model, "z")["z"]
    np.testing.assert_allclose(after["z"], z[:, ~DEAD], atol=1e-5)
    assert not after["y"][:, DEAD].any()
    np.testing.assert_allclose(after["y"][:, ~DEAD], onnx.softmax(z[:, ~DEAD]), atol=1e-6)
    table = made.remap.of()
    assert (table.mode, table.new_to_old, table.kept) == ("slice", tuple(range(UNITS)), KEPT)
    assert table.options["restore_width"] is True
    assert failed(model, pruned, made) == set()
    assert any(isinstance(edit, Take) for edit in made.plan.edits)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("mode", ["slice", "mask"])
def test_absolute_probabilities_with_restored_width(kind: str, mode: str) -> None:
    model = NETS[kind]()
    pruned, made = cut(model, restore_width=True, mode=mode, probabilities="absolute")
    whole, after = answers(model)["y"], answers(pruned)["y"]
    np.testing.assert_array_equal(after, np.where(DEAD, 0, whole))
    assert failed(model, pruned, made) == set()


@pytest.mark.parametrize("kind", NETS)
def test_linear_outputs_get_a_floor(kind: str) -> None:
    model: Any
    if kind == "onnx":
        model = onnx.classifier(onnx.node("Identity", ["z"], ["y"], "last"))
    else:
        builder = Builder(seed=3)
        builder.dense(builder.feed("x", None, 6), UNITS, "z")
        model = from_bytes(builder.content("z"), "net.tflite")
    pruned, made = cut(model, restore_width=True)
    (after,) = answers(pruned).values()
    assert (after[:, DEAD] == -1e4).all()
    assert made.remap.of().options["floor"] == -1e4
    assert failed(model, pruned, made) == set()


def test_positions_without_a_unit_are_not_filled() -> None:
    """Positions without a unit are neither moved nor filled."""
    labels = UnitAxis(1, np.array([-1, 0, 1, 2, -1]))
    narrow = np.array([[7.0, 1.0, 3.0, 8.0]])
    np.testing.assert_array_equal(
        widen(narrow, labels, (0, 2), None, 0.5), [[7.0, 1.0, 0.5, 3.0, 8.0]]
    )
    np.testing.assert_array_equal(
        widen(narrow, labels, (0, 2), (0, 2), 0.5), [[7.0, 1.0, 3.0, 8.0]]
    )
    np.testing.assert_array_equal(
        replace_removed(np.ones((1, 5)), labels, (1,), None, 0.5), [[1.0, 0.5, 1.0, 0.5, 1.0]]
    )


def wrong_fill(model: Any, made: Cut) -> Any:
    """The same plan with 0.01 instead of 0."""
    edits = [
        replace(edit, attributes={**edit.attributes, "value": 0.01})
        if isinstance(edit, Insert) and edit.operation == "pad"
        else edit
        for edit in made.plan.edits
    ]
    return model.apply(Plan(tuple(edits), made.plan.remap))


@pytest.mark.parametrize("kind", NETS)
def test_wrong_fill_fails_verification(kind: str) -> None:
    model = NETS[kind]()
    _, made = cut(model, restore_width=True)
    assert failed(model, wrong_fill(model, made), made) == {"y (removed)"}


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("choice", [{"restore_width": True}, {"probabilities": "absolute"}])
def test_semantics_that_differ_from_the_remap_fail_verification(
    kind: str, choice: dict[str, Any]
) -> None:
    """The oracle is rebuilt from the remap alone."""
    model = NETS[kind]()
    pruned, _ = cut(model, mode="slice", **choice)
    _, plain = cut(model)
    assert failed(model, pruned, plain)


@pytest.mark.parametrize(
    "choice",
    [
        {"restore_width": True},
        {"probabilities": "absolute"},
        {"probabilities": "absolute", "mode": "mask"},
    ],
    ids=str,
)
def test_z_is_found_before_inserted_operations(choice: dict[str, Any]) -> None:
    """A converted file has other tensor names: it is traced again."""
    model = onnx.classifier()
    names = onnx.node("Gemm", ["x", "kernel", "bias"], ["logits"], "gemm")
    last = onnx.node("Softmax", ["logits"], ["y"], "last", axis=1)
    constants = {"kernel": onnx.numbers(6, 5), "bias": onnx.numbers(5)}
    converted = onnx.model([names, last], constants)
    pruned, made = cut(converted, **choice)
    assert failed(model, pruned, made, "export") == set()
    spoiled = onnx.model([names, last], constants | {"bias": onnx.numbers(5) + np.float32(0.5)})
    pruned, _ = cut(spoiled, **choice)
    assert "y (z)" in failed(model, pruned, made, "export")


# --- refused --------------------------------------------------------------------------------------


def softmax_and(*nodes: Any, **outputs: Any) -> Any:
    soft = onnx.node("Softmax", ["z"], ["y"], "soft", axis=1)
    return onnx.classifier(soft, *nodes, outputs=outputs)


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], type[Exception], str]] = {
    "absolute without a denominator": (
        lambda: onnx.classifier(onnx.node("Sigmoid", ["z"], ["y"], "last")),
        {"probabilities": "absolute"},
        UsageError,
        r"not normalized over the units \(sigmoid\)",
    ),
    "absolute zeros": (
        onnx.classifier,
        {"probabilities": "absolute", "mode": "zero"},
        UsageError,
        "mode zero does not support probabilities",
    ),
    "zeros with a restored width": (
        onnx.classifier,
        {"restore_width": True, "mode": "zero"},
        UsageError,
        "mode zero does not support restore_width",
    ),
    "zeros for quantization": (
        onnx.classifier,
        {"for_quantization": True, "mode": "zero"},
        UsageError,
        "mode zero does not support for_quantization",
    ),
    "a slice for quantization": (
        onnx.classifier,
        {"for_quantization": True},
        UsageError,
        "for_quantization does not apply to mode slice",
    ),
    "a floor for quantization": (
        lambda: onnx.classifier(onnx.node("Identity", ["z"], ["y"], "last")),
        {"for_quantization": True, "mode": "mask"},
        UsageError,
        "removed units would set the scale",
    ),
    "logits and probabilities": (
        lambda: softmax_and(z=None, y=None),
        {"restore_width": True, "head": "y"},
        ModelError,
        "cannot have different widths: 'z' reads",
    ),
    "a node after the output": (
        lambda: softmax_and(
            onnx.node("Neg", ["y"], ["n"], "neg"),
            onnx.node("ArgMax", ["n"], ["last"], "top", axis=1, keepdims=0),
            y=None,
            last=None,
        ),
        {"probabilities": "absolute"},
        ModelError,
        "cannot have different widths: 'n' reads",
    ),
    "an argmax of the logits": (
        lambda: softmax_and(
            onnx.node("ArgMax", ["z"], ["first"], "top", axis=1, keepdims=0), y=None, first=None
        ),
        {"restore_width": True},
        ModelError,
        "cannot have different widths: ArgMax 'top' reads",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradicting_options_are_refused(name: str) -> None:
    build, choice, error, fact = REFUSED[name]
    with pytest.raises(error, match=fact):
        cut(build(), **choice)


@pytest.mark.parametrize(
    ("choice", "fact"),
    [
        (
            {"restore_width": True, "keep_order": True},
            "keep_order has no meaning with restore_width",
        ),
        ({"probabilities": "relative"}, "unknown probabilities: 'relative'"),
    ],
)
def test_invalid_options_are_refused(choice: dict[str, Any], fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        CutOptions(keep="1", **choice)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("choice", [{"restore_width": True}, {"probabilities": "absolute"}])
def test_file_with_edits_after_its_output_cannot_be_cut_again(
    kind: str, choice: dict[str, Any]
) -> None:
    model = NETS[kind]()
    once, _ = cut(model, **choice)
    with pytest.raises(ModelError, match="was cut before with") as caught:
        cut(once, keep=(0, 1))
    assert caught.value.hint == f"cut {model.name} instead"


@pytest.mark.parametrize("mode", ["slice", "zero"])
def test_absolute_probabilities_of_a_sliced_file_are_refused(mode: str) -> None:
    once, _ = cut(onnx.classifier(), mode=mode)
    with pytest.raises(UsageError, match="the original's probabilities are not known"):
        cut(once, keep=(0, 1), probabilities="absolute")
    everything, _ = cut(onnx.classifier(), keep="0-4")
    cut(everything, keep=(0, 1), probabilities="absolute")


@pytest.mark.parametrize("kind", NETS)
def test_sliced_file_is_cut_again_with_restored_width(kind: str) -> None:
    """Positions are those of the sliced file."""
    model = NETS[kind]()
    once, _ = cut(model)
    twice, made = cut(once, keep=(0, 2), restore_width=True)
    table = made.remap.of()
    assert (table.kept, table.new_to_old) == ((0, 3), KEPT)
    (after,) = answers(twice).values()
    z = answers(model, "z")["z"]
    assert not after[:, 1].any()
    np.testing.assert_allclose(after[:, [0, 2]], onnx.softmax(z[:, [0, 3]]), atol=1e-6)
    assert failed(model, twice, made) == set()


# --- warnings and reports -------------------------------------------------------------------------


def test_size_with_absolute_probabilities() -> None:
    """Two of five rows of six float32 weights and one bias."""
    _, made = cut(onnx.classifier(), probabilities="absolute")
    (warning,) = made.warnings
    assert warning == (
        "absolute probabilities need the sum over all 5 units: 56 bytes stay in the head that "
        "renormalized ones would not need"
    )
    _, whole = cut(onnx.classifier(), keep="0-4", probabilities="absolute")
    assert whole.warnings == ()


def test_warning_for_one_kept_unit() -> None:
    _, made = cut(onnx.classifier(), keep=(2,), mode="mask")
    assert made.warnings == ("softmax over one unit always returns 1.0",)
    _, made = cut(onnx.classifier(), keep=(2,), probabilities="absolute")
    assert not any("always returns" in warning for warning in made.warnings)


def test_temperature_of_each_unit_is_cut() -> None:
    divided = onnx.node("Div", ["z", "t"], ["c"], "cool")
    model = onnx.classifier(
        divided,
        onnx.node("Softmax", ["c"], ["y"], "last", axis=1),
        constants={"t": np.array([1, 2, 3, 4, 5], np.float32)},
    )
    pruned, made = cut(model)
    (left,) = (
        tensor.read().tolist()
        for name, tensor in pruned.graph().tensors.items()
        if name == "t" and tensor.read
    )
    assert left == [1, 2, 4]
    assert failed(model, pruned, made) == set()
    masked, made = cut(model, mode="mask")
    assert failed(model, masked, made) == set()


@pytest.mark.parametrize("mode", ["slice", "mask"])
def test_removed_units_get_the_lowest_quantized_value(mode: str) -> None:
    """In files without a softmax; kept quantized values match the original."""
    model = onnx.classifier(
        onnx.node("QuantizeLinear", ["z", "s", "p"], ["y"], "codes"),
        constants={"s": np.array(0.05, np.float32), "p": np.array(58, np.uint8)},
    )
    x = onnx.numbers(4, 6)
    whole = onnx.run(model, {"x": x})["y"]
    pruned, made = cut(model, mode=mode, restore_width=True)
    shown = onnx.run(pruned, {"x": x})["y"]
    assert shown.dtype == np.uint8
    kept = list(made.selection.kept)
    np.testing.assert_array_equal(shown[:, kept], whole[:, kept])
    assert not np.delete(shown, kept, axis=1).any()
    assert failed(model, pruned, made) == set()


@pytest.mark.parametrize(
    ("activation", "choice", "answer"),
    [
        ("Softmax", {"restore_width": True}, "is 0."),
        ("Softmax", {"mode": "mask", "probabilities": "absolute"}, "is 0."),
        ("Relu", {"restore_width": True}, "is -10000."),
        ("Softmax", {"mode": "mask"}, "is as mode mask defines."),
        ("Softmax", {}, ""),
    ],
)
def test_report_describes_the_output_of_removed_units(
    activation: str, choice: dict[str, Any], answer: str
) -> None:
    _, made = cut(onnx.classifier(onnx.node(activation, ["z"], ["y"], "last")), **choice)
    text = describe.describe_removed(made.remap.of())
    assert text.endswith(answer)
    assert bool(text) == bool(answer)


def test_options_of_a_remap_round_trip() -> None:
    _, made = cut(onnx.classifier(), restore_width=True)
    again = Remap.from_json(made.remap.to_json())
    assert again == made.remap
    assert isinstance(again, Remap)
    table: HeadRemap = again.of()
    assert table.options["restore_width"] is True
    assert again.original == Origin("network.onnx", again.original.sha256)


BAD = {
    "absolute zeros": ["--mode", "zero", "--probabilities", "absolute"],
    "restored width in another order": ["--restore-width", "--keep-order"],
    "quantization of a slice": ["--for-quantization"],
    "an unknown kind": ["--probabilities", "relative"],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_command_line_writes_nothing(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(onnx.classifier().to_bytes())
    done = exporter(["prune", "net.onnx", "-o", "small.onnx", "--keep", "1,0", *BAD[name]], folder)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert list(listing(folder)) == ["net.onnx"]
