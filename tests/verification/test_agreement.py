"""The units on whose first place a quantized file agrees least with the model before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx as library
import pytest
from onnxruntime import InferenceSession

import exporter
from exporter.records import UnitAgreement
from exporter.report.plots import report_plots
from exporter.report.sections import report_sections
from exporter.verification.limits import UserLimits
from exporter.verification.outcome import Outcome
from exporter.verification.roles import Comparison
from tests.builders import onnx_models as onnx
from tests.builders.reports import head

SAMPLES = 400
KEPT = [0, 2, 3, 4]
LABELS = ["ant", "bee", "cat", "dog", "elk"]


def first_units(path: Path, values: Any) -> Any:
    session = InferenceSession(path)
    name = session.get_inputs()[0].name
    return np.array([np.argmax(session.run(["y"], {name: each[None]})[0]) for each in values])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier, its cut, and the cut with a bias that makes "dog" come first more often."""
    onnx.classifier().write(tmp_path / "net.onnx")
    small = exporter.prune(tmp_path / "net.onnx", keep=KEPT, labels=LABELS)
    small.save(tmp_path / "small.onnx")
    files = (tmp_path / "small.onnx", tmp_path / "int8.onnx")
    np.save(tmp_path / "x.npy", onnx.numbers(SAMPLES, 6, seed=1))
    exporter.quantize(*files, precision="dynamic", bench=False)
    proto = library.load(tmp_path / "int8.onnx")
    bias = next(each for each in proto.graph.initializer if each.name == "bias")
    moved = library.numpy_helper.to_array(bias) + np.array([0, 0, 0.5, 0], np.float32)
    bias.CopyFrom(library.numpy_helper.from_array(moved, "bias"))
    library.save(proto, tmp_path / "moved.onnx")
    return tmp_path


def verified(folder: Path, name: str, stage: str = "dynamic") -> exporter.Report:
    return exporter.verify(
        folder / "small.onnx",
        folder / name,
        data=folder / "x.npy",
        quantized_to=stage,
        min_top1=0,
        min_sqnr=-100,
        min_cosine=-1,
    )


# --- no rows ------------------------------------------------------------------------------------


def test_files_that_always_agree_have_no_rows(folder: Path) -> None:
    exporter.prune(folder / "net.onnx", keep=KEPT, labels=LABELS).save(folder / "again.onnx")
    assert verified(folder, "again.onnx", "fp32").agreement == ()
    # Of another model, a float file fails: its units are not compared by class.
    exporter.prune(folder / "net.onnx", keep=[0, 1, 3, 4]).save(folder / "other.onnx")
    assert verified(folder, "other.onnx", "fp32").agreement == ()


def test_an_output_that_is_not_of_a_head_has_no_rows(tmp_path: Path) -> None:
    onnx.classifier().write(tmp_path / "net.onnx")
    exporter.quantize(
        tmp_path / "net.onnx", tmp_path / "q.onnx", precision="dynamic", bench=False, force=True
    )
    report = exporter.verify(tmp_path / "net.onnx", tmp_path / "q.onnx", quantized_to="dynamic")
    assert report.agreement == ()


def test_a_position_of_no_unit_has_no_row() -> None:
    """The first position is of a box: three vectors have it first on one side or on both."""
    expected = np.array([[9, 1, 0], [9, 1, 0], [0, 1, 9], [0, 9, 1], [0, 9, 1]], float)
    actual = np.array([[9, 1, 0], [0, 9, 1], [9, 1, 0], [0, 9, 1], [0, 1, 9]], float)
    each = Comparison(
        "y", expected, actual, 1, "y", units=np.array([-1, 3, 4]), table=head((3, 4), 10)
    )
    pair: Any = SimpleNamespace(stage="quantize", pruned=SimpleNamespace(name="q.onnx"))
    outcome = Outcome(pair, each, UserLimits(), quantized_to="int8", synthetic=True)
    outcome.add(each)
    assert list(outcome.agreement()) == [UnitAgreement("q.onnx", "y", 0, "", 2, 1, 1, "", 1)]


# --- rows ---------------------------------------------------------------------------------------


def test_the_classes_that_agree_least_come_first(folder: Path) -> None:
    values = np.load(folder / "x.npy")
    wanted = first_units(folder / "small.onnx", values)
    given = first_units(folder / "moved.onnx", values)
    names = [LABELS[unit] for unit in KEPT]
    expected = []
    for unit in range(len(KEPT)):
        here = given[wanted == unit]
        others = np.bincount(here[here != unit], minlength=len(KEPT))
        if others.any():
            most = int(np.argmax(others))
            same = int((here == unit).sum())
            counts = (unit, names[unit], len(here), same, most, names[most], int(others[most]))
            expected.append(UnitAgreement("moved.onnx", "y", *counts))
    expected.sort(key=lambda row: row.same / row.count)
    assert len(expected) > 1

    report = verified(folder, "moved.onnx")
    assert list(report.agreement) == expected
    assert exporter.Report.from_json(report.to_json()).agreement == report.agreement
    (plot,) = (each for each in report_plots(report) if each.title == "Agreement by class")
    worst = expected[0]
    assert f"{worst.unit} {worst.label}" in plot.svg
    assert f"else {worst.instead} {worst.instead_label}" in plot.svg
    titles = [[s.title for s in report_sections(report, brief=brief)] for brief in (False, True)]
    assert ["Agreement by class" in each for each in titles] == [True, False]


def test_the_confusion_and_the_worst_sample_are_those_of_the_files(folder: Path) -> None:
    values = np.load(folder / "x.npy")
    sessions = [InferenceSession(folder / name) for name in ("small.onnx", "moved.onnx")]
    name = sessions[0].get_inputs()[0].name
    wanted, given = (
        np.concatenate([each.run(["y"], {name: value[None]})[0] for value in values])
        for each in sessions
    )
    expected = np.zeros((len(KEPT), len(KEPT)), int)
    np.add.at(expected, (wanted.argmax(axis=1), given.argmax(axis=1)), 1)

    report = verified(folder, "moved.onnx")
    (found,) = report.confusions
    assert (found.artifact, found.output, found.units) == ("moved.onnx", "y", (0, 1, 2, 3))
    assert found.labels == tuple(LABELS[unit] for unit in KEPT)
    np.testing.assert_array_equal(found.counts, expected)

    apart = np.abs(given - wanted)
    (worst,) = report.worst_samples
    sample = worst.case.sample
    assert (worst.case.output, sample) == ("y", apart.max(axis=1).argmax())
    unit = int(apart[sample].argmax())
    assert (worst.case.unit, worst.case.label) == (unit, LABELS[KEPT[unit]])
    assert worst.case.expected == pytest.approx(float(wanted[sample, unit]))
    assert (worst.passed, worst.samples) == (True, SAMPLES)
    shown = {*np.argsort(-wanted[sample])[:3], *np.argsort(-given[sample])[:3], unit}
    assert {value.unit for value in worst.values} == shown
    (only,) = worst.inputs
    assert only.high == pytest.approx(float(values[sample].max()))
    assert not only.picture
    assert not worst.quantized
    assert exporter.Report.from_json(report.to_json()) == report
    (plot,) = (each for each in report_plots(report) if each.title.startswith("Confusion"))
    i, j = max(
        ((i, j) for i in range(4) for j in range(4) if i != j), key=lambda pair: expected[pair]
    )
    names = [f"{unit} {label}" for unit, label in zip(found.units, found.labels, strict=True)]
    assert f"{names[i]} became {names[j]} {expected[i, j]} times" in plot.summary


def test_files_that_always_agree_have_no_confusion(folder: Path) -> None:
    exporter.prune(folder / "net.onnx", keep=KEPT, labels=LABELS).save(folder / "again.onnx")
    report = verified(folder, "again.onnx", "fp32")
    assert report.confusions == ()
    (worst,) = report.worst_samples
    assert worst.limit is not None
    assert abs((worst.case.expected or 0) - (worst.case.actual or 0)) < worst.limit


def test_many_units_are_confused_in_part() -> None:
    """The ten units that are confused most, in their order, without positions of no unit."""
    expected, actual = np.zeros((60, 20)), np.zeros((60, 20))
    wanted = np.arange(60) % 20
    given = np.where(wanted >= 8, (wanted + 1) % 20, wanted)
    expected[np.arange(60), wanted] = actual[np.arange(60), given] = 9
    units = np.array([-1, *range(1, 20)])
    table = head(tuple(range(1, 20)), 20)
    each = Comparison("y", expected, actual, 1, "y", units=units, table=table)
    pair: Any = SimpleNamespace(stage="quantize", pruned=SimpleNamespace(name="q.onnx"))
    outcome = Outcome(pair, each, UserLimits(), quantized_to="int8", synthetic=True)
    outcome.add(each)
    (found,) = outcome.confusion()
    assert len(found.units) == 10
    assert set(found.units) <= set(range(7, 19))
    assert found.labels == ("",) * 10
    for i, row in enumerate(found.counts):
        for j, count in enumerate(row):
            assert count == (3 if found.units[j] == found.units[i] + 1 else 0)
