"""Heads that cannot be cut in the converted file: they are cut in Keras, then converted.

The expected outputs of the kept units are computed in NumPy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import exporter
from exporter.conversion.process import Child
from exporter.conversion.remote import open_live
from exporter.data.samples import synthetic_samples
from exporter.errors import ModelError
from exporter.formats import KINDS, open_model
from exporter.formats.model import RunOptions
from exporter.graph import Array
from exporter.jobs.cut_before_conversion import cut_source
from exporter.jobs.job import Job
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.planning.cut import CutOptions
from tests.builders.keras_heads import HEADS, weights_of
from tests.builders.onnx_models import classifier
from tests.builders.square import BEFORE, EXPORT, KEPT, agree, sample

pytestmark = pytest.mark.usefixtures("jobs_share_child")

REASON = ModelError("no rule")
KEEP = CutOptions(keep=KEPT)
STEPS = "TimeDistributed Dense with softmax"


def opened(model: Any, child: Child) -> tuple[OpenedModel, UncutModel]:
    source = OpenedModel(open_live(model, child), None, child)
    return source, UncutModel(source.model, None, source.origin)


def expected_output(name: str, model: Any, x: Array) -> Array:
    case = HEADS[name]
    z = case.values(weights_of(model), x.astype(np.float64))
    return case.after(np.take(z, KEPT, axis=case.axis))


# --- refused ------------------------------------------------------------------------------------


def test_unconverted_model_refused_with_the_first_reason() -> None:
    model = classifier()
    with pytest.raises(ModelError, match="no rule"):
        cut_source(OpenedModel(model, None, Child()), UncutModel(model, None), KEEP, REASON)


def test_savedmodel_refused_with_the_first_reason(child: Child) -> None:
    source, uncut = opened(HEADS[STEPS].made(), child)
    source.model.kind = "savedmodel"
    with pytest.raises(ModelError, match="no rule"):
        cut_source(source, uncut, KEEP, REASON)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(CutOptions(keep=[0, 99]), id="unknown units"),
        pytest.param(CutOptions(keep=KEPT, head="another"), id="unknown head"),
    ],
)
def test_wrong_options_refused_with_the_first_reason(child: Child, options: CutOptions) -> None:
    source, uncut = opened(HEADS[STEPS].made(), child)
    with pytest.raises(ModelError, match="no rule"):
        cut_source(source, uncut, options, REASON)


def test_hint_names_the_keras_layer(child: Child) -> None:
    x = keras.Input((4,), name="x")
    ranked = keras.ops.sort(keras.layers.Dense(6, name="y")(x), axis=-1)
    source, uncut = opened(keras.Model(x, ranked, name="net"), child)
    with pytest.raises(ModelError, match="no rule") as caught:
        cut_source(source, uncut, KEEP, REASON)
    named = re.match(
        r"in Keras: no head can be cut: output '(\w+)': Sort '(\w+)'", caught.value.hint
    )
    assert named is not None
    assert named[1] == named[2], "Keras adds numbers to repeated names"


# --- accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), BEFORE)
def test_output_matches_numpy(name: str, kind: str, child: Child, tmp_path: Path) -> None:
    model = HEADS[name].made()
    x = sample(model)
    source, uncut = opened(model, child)
    before = cut_source(source, uncut, KEEP, REASON)
    converted = before.as_kind(kind, tmp_path, Job())
    assert converted.route.startswith("cut in Keras, then ")
    path = tmp_path / f"small{KINDS[kind].suffixes[0]}"
    converted.model.write(path)
    small = open_model(path)
    expected = expected_output(name, model, x)
    (output,) = small.runner(RunOptions())({"x": x}).values()
    agree(output, expected, EXPORT)
    assert small.remap is not None
    assert small.remap.heads[0].kept == tuple(KEPT)
    assert small.remap.heads[0].logits is None  # the name in the Keras model says nothing here
    inputs = synthetic_samples(source.model.graph(), 2, 0)
    found = before.check(Job(), small, inputs)
    assert found.passed
    assert {check.stage for check in found.checks} == {"cut", "export"}
    assert {check.artifact for check in found.checks} == {path.name}
    other = cut_source(source, uncut, CutOptions(keep=[1, 2, 3]), REASON)
    wrong = other.check(Job(), small, inputs)  # other units than in the file
    assert {check.stage for check in wrong.checks if not check.passed} == {"export"}


def test_run_reports_the_route_and_the_reason(tmp_path: Path) -> None:
    model = HEADS[STEPS].made()
    report = exporter.run(
        model,
        tmp_path / "out",
        keep=KEPT,
        precisions=("fp32", "dynamic"),
        bench=False,
        samples=2,
        keep_original=True,
    )
    assert report.ok
    assert [a.route.partition(",")[0] for a in report.artifacts] == ["cut in Keras"] * 4
    for kind in ("onnx", "tflite"):
        name = f"pruned.fp32.{kind}"
        (warning,) = [w for w in report.warnings if w.startswith(f"{name} was cut in Keras")]
        assert BEFORE[STEPS, kind] in warning
        assert (tmp_path / "out" / f"original.{kind}").exists()
        small = open_model(tmp_path / "out" / name)
        x = sample(model)
        (output,) = small.runner(RunOptions())({"x": x}).values()
        agree(output, expected_output(STEPS, model, x), EXPORT)
    stages = {(check.stage, check.artifact) for check in report.checks}
    assert {stage for stage, name in stages if "dynamic" in name} == {"quantize"}
