"""Heads that no rule finds in a converted file: cut in Keras, then converted.

The witness is NumPy: what the head answers for the kept units.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
from exporter.jobs.options import Job
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.planning.cut import CutOptions
from tests.builders.keras_heads import HEADS, weights_of
from tests.builders.onnx_models import classifier
from tests.builders.square import BEFORE, EXPORT, KEPT, agree, sample

REASON = ModelError("no rule")
KEEP = CutOptions(keep=KEPT)
STEPS = "TimeDistributed Dense with softmax"


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as made:
        yield made


def opened(model: Any, child: Child) -> tuple[OpenedModel, UncutModel]:
    source = OpenedModel(open_live(model, child), None, child)
    return source, UncutModel(source.model, None, source.origin)


def witness(name: str, model: Any, x: Array) -> Array:
    case = HEADS[name]
    z = case.values(weights_of(model), x.astype(np.float64))
    return case.after(np.take(z, KEPT, axis=case.axis))


# --- what cannot be cut before either -------------------------------------------------------------


def test_a_file_that_is_the_source_itself_is_refused_as_it_was() -> None:
    model = classifier()
    with pytest.raises(ModelError, match="no rule"):
        cut_source(OpenedModel(model, None, Child()), UncutModel(model, None), KEEP, REASON)


def test_a_source_that_is_not_cut_as_it_stands_is_refused_as_it_was(child: Child) -> None:
    source, target = opened(HEADS[STEPS].made(), child)
    source.model.kind = "savedmodel"
    with pytest.raises(ModelError, match="no rule"):
        cut_source(source, target, KEEP, REASON)


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(CutOptions(keep=[0, 99]), id="units that it does not have"),
        pytest.param(CutOptions(keep=KEPT, head="another"), id="a head that it does not have"),
    ],
)
def test_where_keras_refuses_too_the_first_reason_is_told(child: Child, choice: CutOptions) -> None:
    source, target = opened(HEADS[STEPS].made(), child)
    with pytest.raises(ModelError, match="no rule"):
        cut_source(source, target, choice, REASON)


def test_the_layer_that_keras_refuses_is_named(child: Child) -> None:
    x = keras.Input((4,), name="x")
    ranked = keras.ops.sort(keras.layers.Dense(6, name="y")(x), axis=-1)
    source, target = opened(keras.Model(x, ranked, name="net"), child)
    with pytest.raises(ModelError, match="no rule") as caught:
        cut_source(source, target, KEEP, REASON)
    named = re.match(
        r"in Keras: no head can be cut: output '(\w+)': Sort '(\w+)'", caught.value.hint
    )
    assert named is not None
    assert named[1] == named[2], "Keras numbers what a process has more than one of"


# --- what can -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), BEFORE)
def test_it_answers_as_numpy_says(name: str, kind: str, child: Child, tmp_path: Path) -> None:
    model = HEADS[name].made()
    x = sample(model)
    source, target = opened(model, child)
    before = cut_source(source, target, KEEP, REASON)
    made = before.as_kind(kind, tmp_path, Job())
    assert made.route.startswith("cut in Keras, then ")
    path = tmp_path / f"small{KINDS[kind].suffixes[0]}"
    made.model.write(path)
    small = open_model(path)
    expected = witness(name, model, x)
    (answer,) = small.runner(RunOptions())({"x": x}).values()
    agree(answer, expected, EXPORT)
    assert small.remap is not None
    assert small.remap.heads[0].kept == tuple(KEPT)
    inputs = synthetic_samples(source.model.graph(), 2, 0, {})
    found = before.compare(Job(), small, inputs)
    assert found.passed
    assert {check.stage for check in found.checks} == {"cut", "export"}
    assert {check.artifact for check in found.checks} == {path.name}
    other = cut_source(source, target, CutOptions(keep=[1, 2, 3]), REASON)
    wrong = other.compare(Job(), small, inputs)  # of other units than the file has
    assert {check.stage for check in wrong.checks if not check.passed} == {"export"}


def test_a_run_names_the_route_and_the_reason(tmp_path: Path) -> None:
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
        (told,) = [w for w in report.warnings if w.startswith(f"{name} was cut in Keras")]
        assert BEFORE[STEPS, kind] in told
        assert (tmp_path / "out" / f"original.{kind}").exists()
        small = open_model(tmp_path / "out" / name)
        x = sample(model)
        (answer,) = small.runner(RunOptions())({"x": x}).values()
        agree(answer, witness(STEPS, model, x), EXPORT)
    stages = {(check.stage, check.artifact) for check in report.checks}
    assert {stage for stage, name in stages if "dynamic" in name} == {"quantize"}
