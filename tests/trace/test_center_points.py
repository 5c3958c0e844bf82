"""Places in joined class maps: class x size of a map + position."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.data.samples import synthetic_samples
from exporter.errors import ModelError
from exporter.planning.cut import CutOptions, plan_cut
from exporter.proof.prove import prove
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders.center_points import SIDE, center_points
from tests.builders.onnx_models import run

FORMS = ("joined", "float", "fixed", "two steps")
KEPT = [1, 3, 4]
X = np.random.default_rng(1).normal(size=(4, 1, 3, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_the_decoder_finds_the_kept_classes(form: str) -> None:
    original = center_points(form=form)
    cut = plan_cut(original, CutOptions(keep=KEPT))
    pruned, expected = original.apply(cut.plan), center_points(KEPT, form=form)
    assert cut.selection.kept == tuple(KEPT)
    for x in X:
        wanted = run(expected, {"x": x})["detections"]
        np.testing.assert_array_equal(run(pruned, {"x": x})["detections"], wanted)
    assert prove(original, pruned, pruned.remap).result == "proved"
    options = VerifyOptions(synthetic_samples(original.graph(), 3, 0))
    checks = verify_pair("cut", original, pruned, cut.remap.heads, options).checks
    assert all(check.passed for check in checks)
    assert {check.metric for check in checks} >= {"rows", "classes"}


@pytest.mark.parametrize("form", ["joined", "two steps"])
def test_classes_of_another_model_are_found(form: str) -> None:
    original = center_points(form=form)
    cut = plan_cut(original, CutOptions(keep=KEPT))
    wrong = original.apply(plan_cut(original, CutOptions(keep=[0, 1, 2])).plan)
    options = VerifyOptions(synthetic_samples(original.graph(), 3, 0))
    checks = verify_pair("cut", original, wrong, cut.remap.heads, options).checks
    assert not all(check.passed for check in checks)


def test_another_divisor_is_refused() -> None:
    with pytest.raises(ModelError, match="no head can be cut"):
        plan_cut(center_points(divisor=8), CutOptions(keep=KEPT))


def test_the_classes_of_some_places() -> None:
    original, expected = center_points(form="some"), center_points(KEPT, form="some")
    pruned = original.apply(plan_cut(original, CutOptions(keep=KEPT)).plan)
    for x in X:
        wanted = run(expected, {"x": x})
        found = run(pruned, {"x": x})
        np.testing.assert_array_equal(found["class"], wanted["class"])


@pytest.mark.parametrize(
    ("form", "reason"),
    [("fraction", "which nothing rounds"), ("places", "'class' returns positions among all units")],
)
def test_results_that_are_no_classes_are_refused(form: str, reason: str) -> None:
    """Another axis is tried too; the reason is that of the classes."""
    with pytest.raises(ModelError, match=reason):
        plan_cut(center_points(form=form), CutOptions(keep=KEPT))


def test_more_places_than_remain_are_refused() -> None:
    with pytest.raises(ModelError, match="returns 60 positions of all units, but only 48 would"):
        plan_cut(center_points(count=60), CutOptions(keep=KEPT))
