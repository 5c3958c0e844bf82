"""Files that must not pass: each stands for a way in which a comparison was once fooled.

The shared files are checked where their folder exists; small equivalents are built here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import exporter
from exporter.errors import ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.graph import Array, Use
from exporter.graph.edits import Plan, Replace
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.quantization import QuantizationSpec
from exporter.quantization.quantize import quantize_model
from exporter.records import Check, Report
from exporter.report.sections import report_sections
from exporter.verification.limits import cut_precision
from tests.builders import onnx_models as onnx
from tests.builders import onnx_precisions
from tests.builders.commands import exporter as run_command
from tests.builders.tflite_builder import Builder

KEPT = (0, 1, 3)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "net.onnx"
    onnx.classifier().write(path)
    return path


def cut_of(path: Path, kept: Sequence[int] = KEPT) -> OnnxModel:
    pruned: Any = prune_model(open_model(path), CutOptions(keep=kept), Job(samples=2))
    model: OnnxModel = pruned.model
    return model


def changed(model: OnnxModel, constant: str, value: Array) -> OnnxModel:
    uses = tuple(Use(n.name, slot) for n, slot in model.graph().consumers[constant])
    plan = Plan((Replace(constant, value.astype(np.float32), uses),), model.remap)
    return model.apply(plan)


def kernel_of(model: OnnxModel) -> Array:
    read = model.graph().tensors["kernel"].read
    assert read is not None
    return read()


def rotated(model: OnnxModel) -> OnnxModel:
    """Every unit computes another unit's logit."""
    return changed(model, "kernel", np.roll(kernel_of(model), 1, axis=1))


def with_quantized_input(model: OnnxModel) -> OnnxModel:
    """A pair that quantizes the input before the network, as in a file that is int8 throughout."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    graph.initializer.append(numpy_helper.from_array(np.array(0.05, np.float32), "in_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "in_zero"))
    pair = [
        helper.make_node("QuantizeLinear", ["x", "in_scale", "in_zero"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "in_scale", "in_zero"], ["xd"], "d"),
    ]
    for each in graph.node:
        each.input[:] = ["xd" if name == "x" else name for name in each.input]
    nodes = [*pair, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    found = from_proto(proto, "disguise.onnx")
    found.remap = model.remap
    return found


def failed_values(report: Report) -> list[Check]:
    """The failed checks of values; the structure and the head's weights are checked apart."""
    return [check for check in report.checks if check.output and not check.passed]


def title(report: Report) -> str:
    return report_sections(report)[0].title


# --- the tested file does not choose its limits -------------------------------------------------


def test_a_cut_that_looks_quantized_must_match_like_a_cut(original: Path, tmp_path: Path) -> None:
    for name, model in {"good": cut_of(original), "bad": rotated(cut_of(original))}.items():
        path = tmp_path / f"{name}.onnx"
        with_quantized_input(model).write(path)
        report = exporter.verify(original, path)
        assert {check.stage for check in report.checks} == {"cut"}
        assert not report.ok
        assert any("--precision states it" in warning for warning in report.warnings)
        assert "matches" not in title(report)
        stated = exporter.verify(original, path, quantized_to="int8")
        assert {check.stage for check in stated.checks if check.output} == {"quantize"}
        assert stated.ok == (name == "good")


def test_a_remap_states_the_precision(original: Path, tmp_path: Path) -> None:
    """Only the units decide, not the statement: mixed-up units are below the floors."""
    for name, model in {"good": cut_of(original), "bad": rotated(cut_of(original))}.items():
        path = tmp_path / f"{name}.onnx"
        quantize_model(model, QuantizationSpec("dynamic")).model.write(path)
        stated = open_model(path).remap
        assert stated is not None
        assert stated.precision == "dynamic"
        report = exporter.verify(original, path)
        assert report.ok == (name == "good")
        assert {check.stage for check in report.checks if check.output} == {"quantize"}
        overruled = exporter.verify(original, path, quantized_to="fp32")
        assert {check.stage for check in overruled.checks} == {"cut"}
    recut = prune_model(open_model(path), CutOptions(keep=[0, 1]), Job(samples=2)).model
    assert recut.remap is not None
    assert recut.remap.precision == "dynamic"
    recut.write(tmp_path / "recut.onnx")
    again = exporter.verify(path, tmp_path / "recut.onnx")
    assert {check.stage for check in again.checks} == {"cut"}, "both have the same precision"


@pytest.mark.parametrize("stated", ["int8", "fp16", "dynamic"])
def test_a_float_file_that_states_a_precision_fails(
    original: Path, tmp_path: Path, stated: str
) -> None:
    """The limits of quantized files are wide: a float file must not choose them."""
    model = cut_of(original)
    assert model.remap is not None
    model.apply(Plan((), replace(model.remap, precision=stated))).write(tmp_path / "small.onnx")
    report = exporter.verify(original, tmp_path / "small.onnx")
    (failed,) = (check for check in report.checks if not check.passed)
    assert failed.metric == "precision"
    assert failed.detail == f"it states {stated}, and contains fp32 values only"


def test_a_float_file_may_state_that_it_is_float(original: Path, tmp_path: Path) -> None:
    model = cut_of(original)
    assert model.remap is not None
    model.apply(Plan((), replace(model.remap, precision="fp32"))).write(tmp_path / "small.onnx")
    report = exporter.verify(original, tmp_path / "small.onnx")
    assert report.ok
    assert {check.stage for check in report.checks} == {"cut"}


def test_an_unknown_precision_is_refused(original: Path, tmp_path: Path) -> None:
    model = cut_of(original)
    assert model.remap is not None
    model.apply(Plan((), replace(model.remap, precision="int3"))).write(tmp_path / "small.onnx")
    with pytest.raises(ModelError, match="states the precision 'int3'"):
        exporter.verify(original, tmp_path / "small.onnx")


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_an_uncut_quantized_file_states_its_precision(
    kind: str, precision: str, tmp_path: Path
) -> None:
    source = tmp_path / f"net.{kind}"
    if kind == "onnx":
        onnx.classifier().write(source)
    else:
        builder = Builder(seed=3)
        builder.softmax(builder.dense(builder.feed("x", 1, 64), 40, "z"), "y")
        builder.signature({"x": "x"}, {"y": "y"})
        source.write_bytes(builder.content("y"))
    small = tmp_path / f"small.{kind}"
    given: Any = {"synthetic_calibration": True} if precision == "int8" else {}
    exporter.quantize(source, small, precision=precision, bench=False, **given)
    assert open_model(small).remap is None
    report = exporter.verify(source, small, min_top1=0.0)
    assert report.ok
    assert {check.stage for check in report.checks} == {"quantize"}
    assert not any("nothing states" in warning for warning in report.warnings)
    (artifact,) = report.artifacts
    assert artifact.proof is not None
    assert artifact.proof.reason == "it was quantized"
    cut = tmp_path / f"cut.{kind}"
    exporter.prune(small, keep="0-2").model.write(cut)
    assert {check.stage for check in exporter.verify(small, cut).checks} == {"cut"}
    again = exporter.verify(source, cut, min_top1=0.0)
    assert {check.stage for check in again.checks if check.output} == {"quantize"}


def test_floors_as_a_command(original: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=onnx.numbers(100, 6, seed=3))
    line = f"quantize {original} -o q.onnx --precision int8 --data x.npz --no-bench"
    assert run_command(line, tmp_path).code == 0
    strict = run_command(f"{line} --min-top1 1 --min-sqnr 90 --force --json", tmp_path)
    assert strict.code == 1
    failed = [check for check in strict.record["checks"] if not check["passed"]]
    assert {(c["metric"], c["limit"], c["limit_from"]) for c in failed} >= {
        ("sqnr_db", 90.0, "user")
    }
    verified = run_command(f"verify {original} q.onnx --precision int8 --data x.npz", tmp_path)
    assert verified.code == 0
    assert "int8: " in verified.out
    assert "top-1 agreement, above the limit of 60.0 %" in " ".join(verified.out.split())
    wrong = run_command(f"verify {original} q.onnx --min-top1 98", tmp_path)
    assert wrong.code == 2
    with pytest.raises(UsageError, match="min_top1 is 98") as caught:
        exporter.verify(original, tmp_path / "q.onnx", min_top1=98)
    assert "at most 1" in caught.value.hint


# --- each sample has its own limit --------------------------------------------------------------


def test_one_outlier_does_not_widen_the_limit_of_other_samples(tmp_path: Path) -> None:
    net = onnx.model(
        [onnx.node("Gemm", ["x", "kernel", "bias"], ["y"], "gemm")],
        {"kernel": onnx.numbers(6, 5), "bias": onnx.numbers(5)},
    )
    net.write(tmp_path / "net.onnx")
    small = cut_of(tmp_path / "net.onnx")
    small.write(tmp_path / "good.onnx")
    read = small.graph().tensors["bias"].read
    assert read is not None
    changed(small, "bias", read() + np.float32(0.05)).write(tmp_path / "bad.onnx")
    inputs = onnx.numbers(16, 6, seed=1)
    inputs[3] *= 1e6
    np.savez(tmp_path / "x.npz", x=inputs)
    files = {name: tmp_path / f"{name}.onnx" for name in ("net", "good", "bad")}
    assert exporter.verify(files["net"], files["good"], data=tmp_path / "x.npz").ok
    report = exporter.verify(files["net"], files["bad"], data=tmp_path / "x.npz")
    failed = failed_values(report)
    assert [check.metric for check in failed] == ["max_abs"]
    assert failed[0].value == pytest.approx(0.05, rel=1e-3)


def test_a_tolerance_is_not_scaled_and_ties_no_units(tmp_path: Path) -> None:
    """Logits around 30: a tolerance of 1 must not let differences of 30 pass."""
    constants = {"kernel": 30 * onnx.numbers(6, 5), "bias": onnx.numbers(5)}
    net = onnx.classifier(constants=constants)
    net.write(tmp_path / "net.onnx")
    small = cut_of(tmp_path / "net.onnx")
    rotated(small).write(tmp_path / "garbage.onnx")
    report = exporter.verify(tmp_path / "net.onnx", tmp_path / "garbage.onnx", tolerance=1)
    failed = {(check.output, check.metric) for check in failed_values(report)}
    assert failed == {("y (z)", "max_abs"), ("y (z)", "top1"), ("y", "top1")}
    limits = {(c.limit, c.limit_from) for c in report.checks if c.metric == "max_abs"}
    assert limits == {(1.0, "user")}


def test_checks_that_cannot_fail_are_not_counted(original: Path, tmp_path: Path) -> None:
    cut_of(original).write(tmp_path / "small.onnx")
    report = exporter.verify(original, tmp_path / "small.onnx")
    assert report.ok
    assert {c.metric for c in report.checks if c.limit is not None} == {"max_abs", "top1"}
    assert "top5" not in {check.metric for check in report.checks}


# --- int4 in blocks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "zero_points", "row"),
    [
        pytest.param(TensorProto.INT4, False, "blocks", id="int4"),
        pytest.param(TensorProto.INT4, True, "blocks", id="int4, zero points"),
        pytest.param(TensorProto.UINT4, False, "blocks", id="uint4"),
    ],
)
def test_int4_dequantized_before_a_product_has_the_limits_of_blocks(
    dtype: int, zero_points: bool, row: str
) -> None:
    values = np.random.default_rng(0).integers(0, 8, (64, 20)).astype(np.uint8)
    constants = [
        helper.make_tensor("q", dtype, [64, 20], values.ravel().tolist()),
        numpy_helper.from_array(np.full((2, 20), 0.1, np.float32), "s"),
    ]
    if zero_points:
        constants.append(helper.make_tensor("p", dtype, [2, 20], [1] * 40))
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    "DequantizeLinear",
                    ["q", "s", *(["p"] if zero_points else [])],
                    ["w"],
                    axis=0,
                    block_size=32,
                ),
                helper.make_node("MatMul", ["x", "w"], ["z"]),
                helper.make_node("Softmax", ["z"], ["y"], axis=1),
            ],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 20])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    model = from_proto(proto, "net.onnx")
    assert cut_precision(model) == row
    assert all(c.passed for c in prune_model(model, CutOptions(keep="0-4"), Job()).results.checks)


@pytest.mark.parametrize("precision", ["int8 QDQ, one scale", "int4 QDQ", "float32"])
def test_other_products_do_not_have_the_limits_of_blocks(precision: str) -> None:
    model = onnx_precisions.built("dense, softmax", precision)
    assert model is not None
    assert cut_precision(model) == model.precision


# --- the shared cases ---------------------------------------------------------------------------

SHARED: dict[str, tuple[str, dict[str, Any]]] = {  # cut file -> its original, options
    "q_rotated": ("digits", {}),
    "qdq_disguise": ("digits", {}),
    "garb": ("digits", {"tolerance": 1.0}),
    "bias05": ("logits", {}),
    "multi_probs_nan_some_inputs_none-of-the-synthetic": ("multi", {}),
}


@pytest.mark.parametrize("name", SHARED)
def test_shared_cases_fail(cases: Path, name: str, tmp_path: Path) -> None:
    source, options = SHARED[name]
    original = cases / "trust" / f"{source}.onnx"
    if name == "bias05":  # its fault hides behind one outlier
        inputs = onnx.numbers(16, 20, seed=1)
        inputs[3] *= 1e5
        np.savez(tmp_path / "x.npz", x=inputs)
        options = {"data": tmp_path / "x.npz"}
    given: Any = options
    report = exporter.verify(original, cases / "trust" / f"{name}.onnx", **given)
    assert not report.ok
    assert "matches" not in title(report)
    if name == "q_rotated":
        floors = exporter.verify(original, cases / "trust" / "q_rotated.onnx", quantized_to="int8")
        assert {check.metric for check in failed_values(floors)} == {"sqnr_db", "top1"}


@pytest.mark.parametrize(
    ("name", "share"), [("attn", 20_480 / 413_696), ("convt", 160 / 12_448)], ids=["attn", "convt"]
)
def test_shares_of_shared_cases(cases: Path, name: str, share: float) -> None:
    """Attention's products and transposed convolutions count: 5.0 and 1.28 %, not 13.5 and 0.32."""
    (head,) = exporter.inspect(cases / "trust" / f"{name}.onnx").heads
    assert head.share_of_multiply_adds == pytest.approx(share, rel=1e-3)


def test_a_shared_case_without_the_value_of_its_mask_is_refused(cases: Path) -> None:
    with pytest.raises(ModelError, match="mode mask without a floor"):
        exporter.verify(cases / "trust" / "digits.onnx", cases / "trust" / "modemask.onnx")
