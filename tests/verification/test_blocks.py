"""Any number of samples at once gives the same results: those of whole arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.data.samples import Picked, Samples, synthetic_samples
from exporter.graph import Array, Use
from exporter.graph.edits import Plan, Replace
from exporter.planning.cut import plan_cut
from exporter.planning.options import CutOptions
from exporter.verification import answers
from exporter.verification.judge import Allowed, Tally
from exporter.verification.metrics import METRICS
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import gate_models

Arrays = tuple[Array, Array]


NOISE = ("equal", "relative", "absolute", "wild")


def independent(expected: Array, actual: Array) -> dict[str, float]:
    """Each metric by its definition, of whole arrays with the units on the last axis."""
    apart = np.abs(actual - expected)
    floor = max(1e-3 * np.abs(expected).max(), np.finfo(np.float64).smallest_subnormal)
    noise, signal = np.sqrt((apart**2).mean()), np.sqrt((expected**2).mean())
    rows = zip(
        expected.reshape(-1, expected.shape[-1]), actual.reshape(-1, actual.shape[-1]), strict=True
    )
    cosines, first, five = [], [], []
    for left, right in rows:
        lengths = np.linalg.norm(left) * np.linalg.norm(right)
        equal_zero = not left.any() and not right.any()
        cosines.append(left @ right / lengths if lengths else float(equal_zero))
        orders = [np.argsort(-row, kind="stable") for row in (left, right)]
        first.append(orders[0][0] == orders[1][0])
        five.append(set(orders[0][:5]) == set(orders[1][:5]))
    with np.errstate(divide="ignore"):
        decibels = float(20 * np.log10(signal / noise)) if noise else np.inf
    return {
        "max_abs": float(apart.max()),
        "max_rel": float((apart / np.maximum(np.abs(expected), floor)).max()),
        "rmse": float(noise),
        "sqnr_db": decibels,
        "cosine": float(min(cosines)),
        "top1": float(np.mean(first)),
        "top5": float(np.mean(five)),
    }


def in_blocks(expected: Array, actual: Array, sizes: list[int]) -> dict[str, float | None]:
    tally = Tally(expected.ndim - 1, METRICS)
    done = 0
    for size in sizes:
        tally.add(expected[done : done + size], actual[done : done + size], Allowed())
        done += size
    assert done == len(expected)
    return {each.metric: each.value for each in tally.results()}


@st.composite
def splits(draw: st.DrawFn, count: int) -> list[int]:
    cuts = sorted(draw(st.sets(st.integers(1, count - 1))))
    return [int(size) for size in np.diff([0, *cuts, count])]


@given(st.data(), st.integers(0, 10_000), st.sampled_from(NOISE))
def test_every_metric_is_that_of_whole_arrays(data: Any, seed: int, noise: str) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 40))
    scale = 10.0 ** random.uniform(-6, 6, (count, 1, 1))  # the floor of max_rel rises and falls
    expected = scale * random.normal(size=(count, 2, 9))
    changes: dict[str, Array] = {
        "equal": np.zeros_like(expected),
        "relative": 1e-3 * expected * random.uniform(size=expected.shape),
        "absolute": 1e-2 * random.normal(size=expected.shape),
        "wild": np.sqrt(np.abs(expected)) * random.normal(size=expected.shape),
    }
    actual = expected + changes[noise]
    zero = random.integers(count)
    expected[zero] = actual[zero] = 0.0
    found = in_blocks(expected, actual, data.draw(splits(count)))
    wanted = independent(expected, actual)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_the_denominator_of_the_relative_difference_depends_on_later_samples() -> None:
    """0.5 / 1 decides, until 10,000 is expected somewhere: its 0.001 is then the least."""
    expected, actual = (
        np.array([[1.0], [0.002], [300.0], [1e4]]),
        np.array([[1.5], [0.0], [320.0], [1e4]]),
    )
    assert in_blocks(expected, actual, [1, 1, 1, 1])["max_rel"] == 20.0 / 300.0
    assert in_blocks(expected[:3], actual[:3], [1, 2])["max_rel"] == 0.5


@pytest.mark.parametrize("sizes", [[4], [1, 3], [2, 2], [1, 1, 1, 1]])
def test_the_sample_that_comes_nearest_to_its_limit(sizes: list[int]) -> None:
    """Of equal ones the first; a limit of 0 is exceeded by any difference."""
    expected = np.zeros((4, 1, 3))
    actual = expected + np.array([0.2, 0.3, 0.5, 0.5]).reshape(4, 1, 1)
    limits = np.array([1.0, 0.5, 0.8, 0.8])
    tally, done = Tally(2, ("max_abs",)), 0
    for size in sizes:
        each = slice(done, done + size)
        tally.add(expected[each], actual[each], Allowed(limits[each]))
        done += size
    (result,) = tally.results()
    assert (result.value, result.limit, result.passed) == (0.5, 0.8, True)
    place = tally.place("max_abs")
    assert place is not None
    assert (place.sample, place.position) == (2, 0)


@pytest.mark.parametrize("sample", [0, 3])
@pytest.mark.parametrize("sizes", [[4], [1, 3], [3, 1]])
def test_a_value_that_is_not_finite_fails_in_any_block(sample: int, sizes: list[int]) -> None:
    expected = np.ones((4, 1, 3))
    actual = expected.copy()
    actual[sample, 0, 1] = np.nan
    tally, done = Tally(2, ("max_abs", "top1")), 0
    for size in sizes:
        tally.add(expected[done : done + size], actual[done : done + size], Allowed())
        done += size
    (result,) = tally.results()
    assert (result.metric, result.passed) == ("finite", False)
    place = tally.place("finite")
    assert place is not None
    assert (place.sample, place.position) == (sample, 1)


def test_the_first_wrong_ranking_is_kept() -> None:
    expected = np.tile([1.0, 2.0, 3.0], (5, 1, 1))
    actual = expected.copy()
    actual[3, 0] = [4.0, 2.0, 3.0]
    actual[4, 0] = [1.0, 9.0, 3.0]
    tally = Tally(2, ("top1",))
    for i in range(5):
        tally.add(expected[[i]], actual[[i]], Allowed(least={"top1": 1.0}))
    (result,) = tally.results()
    assert (result.value, result.passed) == (1 - 2 / 5, False)
    place = tally.place("top1")
    assert place is not None
    assert place[:4] == (3, 0, 1.0, 4.0)


def test_without_a_ranking_no_unit_comes_first() -> None:
    tally, values = Tally(1, ("top1",)), np.eye(3)
    tally.add(values, values, Allowed())
    assert tally.first_units is not None
    tally.add(values, values[:, :2], Allowed())
    assert tally.first_units is None, "of samples with another shape"


CUTS: dict[str, Any] = {
    "slice": {"keep": (4, 1, 2), "keep_order": True},
    "zero": {"keep": (1, 2), "mode": "zero"},
    "mask": {"keep": (1, 2), "mode": "mask"},
    "restored width": {"keep": (1, 2), "restore_width": True},
    "merged": {"keep": (0, 1, 2), "merge": {"both": [0, 1]}},
    "ids": {"keep": (1, 2), "emit": "ids:2"},
    "a threshold": {"gate": "abs > 0.1"},
    "a mask": {"gate": "input"},
}


@pytest.mark.parametrize("change", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("name", CUTS)
def test_blocks_of_any_size_give_the_same_verification(
    name: str, activation: str, change: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of samples that are read from a file, which both models read side by side."""
    if (name, activation) == ("merged", "sigmoid"):
        activation = "softmax"  # probabilities that do not add up are not merged
    model = gate_models.onnx_net(activation)
    cut = plan_cut(model, CutOptions(**CUTS[name]))
    pruned = model.apply(cut.plan)
    if change:
        ((node, slot),) = pruned.graph().consumers["bias"]
        bias = pruned.graph().tensors["bias"].read()
        wrong = (bias + change * np.arange(len(bias))).astype(bias.dtype)
        pruned = pruned.apply(Plan((Replace("bias", wrong, (Use(node.name, slot),)),), cut.remap))
    values = synthetic_samples(model.graph(), 23, 3).values
    arrays = Samples(values, "made here")
    streams = Samples({n: Picked(v, range(23)) for n, v in values.items()}, "made here")  # type: ignore[misc]
    found = []
    for size, samples in ((1, arrays), (5, streams), (64, arrays), (64, streams)):
        monkeypatch.setattr(answers, "_MOST_SAMPLES", size)
        found.append(verify_pair("cut", model, pruned, cut.remap.heads, VerifyOptions(samples)))
    first, *others = found
    assert first.checks
    assert any(not check.passed for check in first.checks) == bool(change)
    for other in others:
        assert (other.coverage, other.worst) == (first.coverage, first.worst)
        assert (other.zeroed_share or 0.0) == pytest.approx(first.zeroed_share or 0.0, rel=1e-12)
        for left, right in zip(other.checks, first.checks, strict=True):
            assert left.value == pytest.approx(right.value, rel=1e-9, abs=1e-15)
            assert replace(left, value=right.value) == right


@pytest.mark.parametrize(("kept_bytes", "runs"), [(1 << 26, 1), (0, 4)])
@pytest.mark.parametrize("form", ["arrays", "streams"])
def test_the_answers_of_a_model_are_computed_once(
    form: str, kept_bytes: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the original for all selections, unless they are too large to keep."""
    model, ran = gate_models.onnx_net(), []

    def counted(shown: Any, *rest: Any) -> Any:
        ran.append(shown[0])
        return run(shown, *rest)

    run = answers.run
    monkeypatch.setattr(answers, "run", counted)
    monkeypatch.setattr(answers, "_KEPT_BYTES", kept_bytes)
    values: Any = synthetic_samples(model.graph(), 9, 3).values
    if form == "streams":
        values = {name: Picked(each, range(9)) for name, each in values.items()}
    options = VerifyOptions(Samples(values, "made here"))
    for keep in ((1, 2), (0, 3)):
        cut = plan_cut(model, CutOptions(keep=keep))
        pruned, tables = model.apply(cut.plan), cut.remap.heads
        for _ in range(2):
            found = verify_pair("cut", model, pruned, tables, options)
            assert all(check.passed for check in found.checks)
        assert sum(each is pruned for each in ran) == runs // 2 or 1
    assert sum(each is model for each in ran) == runs


@pytest.mark.parametrize(("kept_bytes", "ahead"), [(1 << 26, 9), (0, 1)])
def test_large_answers_are_not_kept(
    kept_bytes: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original answers before the pruned model does, as far as its answers are small."""
    model, order = gate_models.onnx_net(), list[bool]()

    def noted(shown: Any, *rest: Any) -> Any:
        for each in run(shown, *rest):
            order.append(shown[0] is model)
            yield each

    run = answers.run
    monkeypatch.setattr(answers, "run", noted)
    monkeypatch.setattr(answers, "_KEPT_BYTES", kept_bytes)
    options = VerifyOptions(synthetic_samples(model.graph(), 9, 3))
    cut = plan_cut(model, CutOptions(keep=(1, 2)))
    found = verify_pair("cut", model, model.apply(cut.plan), cut.remap.heads, options)
    assert all(check.passed for check in found.checks)
    assert order.index(False) == ahead


def test_other_samples_have_other_answers() -> None:
    """The batch of three is compared with the same options on other inputs."""
    model = gate_models.onnx_net()
    cut = plan_cut(model, CutOptions(keep=(1, 2)))
    first = VerifyOptions(synthetic_samples(model.graph(), 9, 3))
    others = replace(first, samples=synthetic_samples(model.graph(), 4, 8))
    for options in (first, others, first):
        found = verify_pair("cut", model, model.apply(cut.plan), cut.remap.heads, options)
        assert all(check.passed for check in found.checks)
