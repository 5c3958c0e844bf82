"""Every cell of the matrix of modes matches its oracle, or is refused with a reason."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from exporter.data.samples import synthetic_samples
from exporter.errors import ExporterError, UsageError
from exporter.formats.model import Model
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.modes import MODES, PLAIN
from exporter.planning.cut import CutOptions, plan_cut
from exporter.trace import trace
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import mode_cells, onnx_models
from tests.builders.mode_cells import CALIBRATED, KEPT, UNITS, Cell, cells, options_of
from tests.builders.scripts import load
from tests.builders.tflite_builder import Builder

DEAD = [unit for unit in range(UNITS) if unit not in KEPT]
COUNT = 6

modes = load("modes")
built = cache(mode_cells.built)


def is_refused(cell: Cell) -> bool:
    """Combinations that are refused, such as absolute probabilities of a sigmoid."""
    shared = cell.head in {"softmax", "log_softmax", CALIBRATED}
    return cell.probabilities == "absolute" and (cell.mode == "zero" or not shared)


@pytest.mark.parametrize("cell", [c for c in cells() if is_refused(c)], ids=str)
def test_refused_cell(cell: Cell) -> None:
    with pytest.raises(UsageError, match="zero" if cell.mode == "zero" else cell.head):
        plan_cut(built(cell.head, cell.kind, cell.precision), CutOptions(**options_of(cell)))


@pytest.mark.parametrize("cell", [c for c in cells() if not is_refused(c)], ids=str)
def test_cell_matches_its_oracle(cell: Cell) -> None:
    model = built(cell.head, cell.kind, cell.precision)
    cut = plan_cut(model, CutOptions(**options_of(cell)))
    pruned = model.apply(cut.plan)
    job = VerifyOptions(synthetic_samples(model.graph(), COUNT, 3))
    done = verify_pair("cut", model, pruned, cut.remap.heads, job)
    assert done.checks
    assert [check for check in done.checks if not check.passed] == []
    (table,) = cut.remap.heads
    assert table.logits is None or table.logits in pruned.graph().tensors
    width = len(KEPT) if cell.mode == "slice" else UNITS
    (output,) = pruned.graph().outputs
    assert pruned.graph().shape(output) == (None, width)


def refused(head: str, choice: CutOptions) -> str:
    """The expected reason of a refusal; "" if the cut is possible."""
    if head == CALIBRATED and choice.merge:
        return "cannot be merged: M"
    if head == CALIBRATED and choice.mode == "gate":
        return "'scaled'|'w' scales its probabilities"
    if head == "log_softmax" and choice.mode == "gate":
        return "log_softmax has no lowest value for units that are off"
    alone = {"sigmoid", "relu"} | ({"linear"} if choice.semantics.absolute else set())
    return head if choice.merge and head in alone else ""


@pytest.mark.parametrize("precision", mode_cells.PRECISIONS)
@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("head", mode_cells.HEADS)
@pytest.mark.parametrize("asked", mode_cells.MORE_OPTIONS)
def test_cell_with_more_options_matches_its_oracle(
    asked: str, head: str, kind: str, precision: str
) -> None:
    model = built(head, kind, precision)
    choice = CutOptions(**mode_cells.MORE_OPTIONS[asked])
    if reason := refused(head, choice):
        with pytest.raises(ExporterError, match=reason):
            plan_cut(model, choice)
        return
    done = plan_cut(model, choice)
    job = VerifyOptions(synthetic_samples(model.graph(), COUNT, 3))
    checks = verify_pair("cut", model, model.apply(done.plan), done.remap.heads, job).checks
    assert [check for check in checks if not check.passed] == []
    assert ("ids" in {check.output for check in checks}) == (choice.emit is not None)


def test_document_is_up_to_date() -> None:
    assert modes.DOCUMENT.read_text("utf-8") == modes.document(), "run `make modes`"


# --- every kernel of the edge runtime -------------------------------------------------------------

KERNELS = {
    "XNNPACK": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def run(model: Any, kernels: str, x: Array) -> Array:
    """The output for one batch, with a new interpreter."""
    interpreter = Interpreter(
        model_content=model.content, experimental_op_resolver_type=KERNELS[kernels]
    )
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(result["index"]))


def inputs(model: Model) -> Array:
    """Several rows: inserted operations must not depend on the batch size."""
    dtype = model.graph().tensors["x"].dtype
    random = np.random.default_rng(7)
    if dtype == "float32":
        return random.normal(size=(64, mode_cells.FEATURES)).astype(np.float32)
    bounds = np.iinfo(dtype)
    shape = (64, mode_cells.FEATURES)
    return random.integers(bounds.min, bounds.max + 1, shape).astype(dtype)


def cut(model: Model, **choice: Any) -> Model:
    return model.apply(plan_cut(model, CutOptions(keep=KEPT, **choice)).plan)


def nothing(model: Model) -> float:
    """The expected output of removed units, in the dtype of the output."""
    (output,) = model.graph().outputs
    tensor = model.graph().tensors[output]
    return 0.0 if tensor.quantization is None else float(np.iinfo(tensor.dtype).min)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", mode_cells.PRECISIONS)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_mask_is_exact_in_every_kernel(head: str, precision: str, kernels: str) -> None:
    model = built(head, "tflite", precision)
    x = inputs(model)
    masked = run(cut(model, mode="mask"), kernels, x)
    assert (masked[:, DEAD] == nothing(model)).all()
    sliced = run(cut(model), kernels, x)
    kept = masked[:, list(KEPT)]
    if sliced.dtype == np.float32:
        np.testing.assert_allclose(kept, sliced, atol=1e-6)
    else:
        np.testing.assert_array_equal(kept, sliced)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_masked_integer_logits_never_win(dtype: str, kernels: str) -> None:
    """With constants: the sum saturates at the lowest value and does not overflow."""
    model = built("linear", "tflite", dtype)
    x = inputs(model)
    whole, masked = run(model, kernels, x), run(cut(model, mode="mask"), kernels, x)
    assert (masked[:, DEAD] == nothing(model)).all()
    np.testing.assert_array_equal(masked[:, list(KEPT)], whole[:, list(KEPT)])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", mode_cells.PRECISIONS)
@pytest.mark.parametrize("mode", ["slice", "mask"])
def test_absolute_probabilities_match_the_original(mode: str, precision: str, kernels: str) -> None:
    model = built("softmax", "tflite", precision)
    x = inputs(model)
    whole = run(model, kernels, x)
    answer = run(cut(model, mode=mode, probabilities="absolute"), kernels, x)
    if mode == "mask":
        assert (answer[:, DEAD] == nothing(model)).all()
        answer = answer[:, list(KEPT)]
    np.testing.assert_array_equal(answer, whole[:, list(KEPT)])


@pytest.mark.parametrize("kind", mode_cells.KINDS)
@pytest.mark.parametrize("precision", mode_cells.PRECISIONS)
def test_mask_for_quantization_has_no_floor(kind: str, precision: str) -> None:
    """No extreme value in the file, and the output of a mask."""
    model = built("softmax", kind, precision)
    choice = CutOptions(keep=KEPT, mode="mask", for_quantization=True)
    made = plan_cut(model, choice)
    assert made.remap.of().options["restore_width"] is True
    assert made.remap.of().options["floor"] is None
    pruned = model.apply(made.plan)
    for tensor in pruned.graph().tensors.values():
        if tensor.read is not None and tensor.dtype.startswith("float"):
            assert np.abs(tensor.read()).max() < 100
    job = VerifyOptions(synthetic_samples(model.graph(), COUNT, 3))
    assert all(c.passed for c in verify_pair("cut", model, pruned, made.remap.heads, job).checks)


def test_onnx_mask_accepts_any_batch_size() -> None:
    x = np.random.default_rng(1).normal(size=(5, mode_cells.FEATURES)).astype(np.float32)
    masked: Any = cut(built("softmax", "onnx", "int8"), mode="mask")
    masked = onnx_models.run(masked, {"x": x})["y"]
    assert masked.shape == (5, UNITS)
    assert not masked[:, DEAD].any()


def integer_dense(x_scale: float, *, bias: bool) -> Any:
    """x int8 -> FULLY_CONNECTED "z" int8."""
    builder = Builder()
    random = np.random.default_rng(3)
    x = builder.quantize(builder.feed("x", None, 4, dtype="int8"), x_scale, 0)
    builder.constant("kernel", random.integers(-127, 128, (UNITS, 4)).astype(np.int8))
    builder.quantize("kernel", np.full(UNITS, 0.01), np.zeros(UNITS))
    builder.constant("bias", random.integers(-99, 99, UNITS).astype(np.int32))
    builder.quantize("bias", np.full(UNITS, x_scale * 0.01), np.zeros(UNITS))
    names = [x, "kernel", "bias" if bias else ""]
    shape = (None, UNITS)
    builder.op("FULLY_CONNECTED", names, shape, "z", "FullyConnectedOptions", "int8", 4)
    builder.quantize("z", x_scale, 3)
    return from_bytes(builder.content("z"), "dense.tflite")


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("x_scale", "bias", "restored"),
    [
        pytest.param(0.05, True, None, id="a bias that fits"),
        pytest.param(0.05, False, True, id="no bias"),
    ],
)
def test_integer_mask_with_constants_or_with_a_narrow_head(
    x_scale: float, bias: bool, restored: bool | None, kernels: str
) -> None:
    """Without usable constants, the head is cut and its width restored."""
    model = integer_dense(x_scale, bias=bias)
    made = plan_cut(model, CutOptions(keep=KEPT, mode="mask"))
    assert made.remap.of().options["restore_width"] is restored
    x = np.random.default_rng(7).integers(-128, 128, (64, 4)).astype(np.int8)
    masked, whole = run(model.apply(made.plan), kernels, x), run(model, kernels, x)
    assert (masked[:, DEAD] == -128).all()
    np.testing.assert_array_equal(masked[:, list(KEPT)], whole[:, list(KEPT)])


@pytest.mark.parametrize(
    ("low", "restored"),
    [
        pytest.param(-(2**31), False, id="in range"),
        pytest.param(-13201, False, id="just in range"),
        pytest.param(-13200, True, id="the lowest value would overflow"),
        pytest.param(-13199, True, id="not representable"),
    ],
)
def test_bias_out_of_range_is_not_filled(low: int, restored: bool) -> None:
    """(-128 - 3 - 1) * 0.05 / (0.05 * 0.01) = -13200 must be in range."""
    head = trace(integer_dense(0.05, bias=True).graph()).head()
    constants = tuple(
        replace(each, quantization=replace(each.quantization, low=low))
        if each.name == "bias" and each.quantization
        else each
        for each in head.constants
    )
    settled = MODES["mask"].resolve(replace(head, constants=constants), PLAIN)
    assert settled.restore_width is restored
