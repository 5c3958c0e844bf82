"""The metrics and limits: failures first, then values computed by hand, then properties."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.verification.floors import FLOORS, floors_of
from exporter.verification.judge import Allowed
from exporter.verification.limits import LIMITS, Basis, UserLimits, limits
from exporter.verification.metrics import METRICS, MismatchError, metrics_of
from tests.builders.metrics import compare, judge

INF, NAN = math.inf, math.nan
EQUAL = {
    **dict.fromkeys(("max_abs", "max_rel", "rmse"), 0.0),
    **dict.fromkeys(("cosine", "top1", "top5"), 1.0),
    "sqnr_db": INF,
}

ANSWER = np.array([[4.0, 1.0, -2.0, 0.5, 3.0, 2.0, -1.0], [0.0, 6.0, 5.0, -3.0, 1.0, 2.0, 4.0]])


def measure(metric: str, expected: Any, actual: Any, tie: float = 0.0, axis: int = -1) -> float:
    values = compare(np.asarray(expected), np.asarray(actual), axis=axis, tie=tie, metrics=[metric])
    return values[metric]


# --- must fail ----------------------------------------------------------------------------------

CANNOT_BE_COMPARED = [
    pytest.param(ANSWER, ANSWER.T, "shape", r"\[7, 2\], expected \[2, 7\]", id="transposed"),
    pytest.param(ANSWER, ANSWER[:, :6], "shape", r"\[2, 6\], expected \[2, 7\]", id="one short"),
    pytest.param(ANSWER, ANSWER[None], "shape", r"\[1, 2, 7\]", id="same values, one more axis"),
    pytest.param(ANSWER, ANSWER[0], "shape", r"\[7\]", id="would broadcast"),
    pytest.param(np.zeros((0, 3)), np.zeros((0, 3)), "shape", "nothing", id="nothing to compare"),
    pytest.param([1.0, 2.0], [1.0, NAN], "finite", "1 of 2", id="NaN in the actual"),
    pytest.param([NAN, 2.0], [1.0, 2.0], "finite", "expected values are NaN", id="NaN expected"),
    pytest.param([NAN, 2.0], [NAN, 2.0], "finite", "NaN", id="NaN equals nothing, not even NaN"),
    pytest.param([1.0, 2.0], [INF, 2.0], "finite", "1 of 2", id="inf in the actual"),
    pytest.param([INF, INF], [INF, 2.0], "finite", "1 of 2", id="finite where inf is expected"),
    pytest.param([INF, 2.0], [-INF, 2.0], "finite", "1 of 2", id="inf of the other sign"),
]


@pytest.mark.parametrize(("expected", "actual", "kind", "reason"), CANNOT_BE_COMPARED)
def test_arrays_that_cannot_be_compared(expected: Any, actual: Any, kind: str, reason: str) -> None:
    with pytest.raises(MismatchError, match=reason) as caught:
        compare(np.asarray(expected), np.asarray(actual), axis=-1, tie=0.0)
    assert caught.value.kind == kind

    wide = Allowed(np.full(max(1, np.shape(expected)[0]), 1e9))
    (result,) = judge(np.asarray(expected), np.asarray(actual), wide, axis=-1)
    assert (result.metric, result.value, result.passed) == (kind, None, False)
    assert result.reason == caught.value.reason


def one_value(answer: Array) -> Array:
    changed = answer.copy()
    changed[0, 2] += 0.125
    return changed


def first_and_second(answer: Array) -> Array:
    changed = answer.copy()
    changed[:, [0, 1]] = changed[:, [1, 0]]
    return changed


SQUARE = np.arange(49.0).reshape(7, 7)
TENTHS = 10 * math.log10(126.25 / 0.125**2)  # the squares of ANSWER add up to 126.25
ROW_4 = 5621 / math.sqrt(6755 * 5747)  # 28..34 against 4, 11, ..., 46: the widest angle

CHANGES = [
    pytest.param("max_abs", ANSWER, one_value(ANSWER), 0.125, id="max_abs, one value"),
    pytest.param("max_rel", ANSWER, one_value(ANSWER), 0.0625, id="max_rel, one value"),
    pytest.param("rmse", ANSWER, one_value(ANSWER), 0.125 / 14**0.5, id="rmse, one value"),
    pytest.param("sqnr_db", ANSWER, one_value(ANSWER), TENTHS, id="sqnr_db, one value"),
    pytest.param("max_abs", ANSWER, first_and_second(ANSWER), 6.0, id="max_abs, swapped pair"),
    pytest.param("max_rel", ANSWER, first_and_second(ANSWER), 1000.0, id="max_rel, swapped pair"),
    pytest.param("rmse", ANSWER, first_and_second(ANSWER), (90 / 14) ** 0.5, id="rmse, swapped"),
    pytest.param("cosine", ANSWER, first_and_second(ANSWER), 55 / 91, id="cosine, swapped pair"),
    pytest.param("top1", ANSWER, first_and_second(ANSWER), 0.0, id="top1, swapped pair"),
    pytest.param("top5", ANSWER, -ANSWER, 0.0, id="top5, negated"),
    pytest.param("max_abs", SQUARE, SQUARE.T, 36.0, id="max_abs, transposed"),
    pytest.param("max_rel", SQUARE, SQUARE.T, 6.0, id="max_rel, transposed"),
    pytest.param("rmse", SQUARE, SQUARE.T, 16.97056, id="rmse, transposed"),
    pytest.param("cosine", SQUARE, SQUARE.T, ROW_4, id="cosine, transposed"),
    pytest.param("top1", SQUARE, SQUARE[:, ::-1], 0.0, id="top1, reversed"),
    pytest.param("top5", SQUARE, SQUARE[:, ::-1], 0.0, id="top5, reversed"),
]


@pytest.mark.parametrize(("metric", "expected", "actual", "value"), CHANGES)
def test_a_metric_finds_the_change(metric: str, expected: Any, actual: Any, value: float) -> None:
    found = measure(metric, expected, actual)
    assert found == pytest.approx(value, rel=1e-6, abs=1e-12)
    limit = 60.0 if metric == "sqnr_db" else EQUAL[metric]
    assert not METRICS[metric].within(found, limit)


def test_every_metric_has_a_change_to_find() -> None:
    assert {case.values[0] for case in CHANGES} == set(METRICS)


# --- the metrics, by hand -----------------------------------------------------------------------

EDGE = [6, 5, 4, 3, 2, 2 - 1e-9]  # the fifth and the sixth are tied

BY_HAND = [
    pytest.param("max_abs", [1, 2], [1, 2], 0.0, 0.0, id="integers"),
    pytest.param("max_abs", [200, 3], [3, 200], 0.0, 197.0, id="uint8 does not wrap around"),
    pytest.param("max_abs", [INF, 1.0], [INF, 3.0], 0.0, 2.0, id="equal inf adds nothing"),
    pytest.param("max_abs", [1.5e308], [-1.5e308], 0.0, INF, id="a difference that overflows"),
    pytest.param("rmse", [1.5e308], [-1.5e308], 0.0, INF, id="so does its root mean square"),
    pytest.param("rmse", [3e200, 0.0], [0.0, 4e200], 0.0, 12.5**0.5 * 1e200, id="no overflow"),
    pytest.param("max_rel", [100.0, 1e-9], [101.0, 1e-9], 0.0, 0.01, id="relative to expected"),
    pytest.param("max_rel", [100.0, 1e-9], [100.0, 1e-3], 0.0, 0.00999999, id="the floor"),
    pytest.param("max_rel", [0.0, 0.0], [0.0, 0.0], 0.0, 0.0, id="zeros on both sides"),
    pytest.param("max_rel", [0.0, 0.0], [0.0, 1.0], 0.0, INF, id="expected zeros only"),
    pytest.param("max_rel", [-INF, 2.0], [-INF, 1.0], 0.0, 0.5, id="relative, with an inf"),
    pytest.param("cosine", [[1, 0], [1, 1]], [[2, 0], [1, 0]], 0.0, 0.5**0.5, id="worst"),
    pytest.param("cosine", [1.0, 2.0], [-1.0, -2.0], 0.0, -1.0, id="opposite"),
    pytest.param("cosine", [0.0, 0.0], [0.0, 0.0], 0.0, 1.0, id="both zero"),
    pytest.param("cosine", [0.0, 0.0], [0.0, 1e-9], 0.0, 0.0, id="one zero"),
    pytest.param("cosine", [1e-300, 0.0], [1e300, 0.0], 0.0, 1.0, id="only the direction counts"),
    pytest.param("sqnr_db", [10.0, 0.0], [9.0, 0.0], 0.0, 20.0, id="a tenth is 20 dB"),
    pytest.param("sqnr_db", [1.0], [1.0], 0.0, INF, id="no noise"),
    pytest.param("sqnr_db", [0.0], [1.0], 0.0, -INF, id="no signal"),
    pytest.param("sqnr_db", [INF, 10.0], [INF, 9.0], 0.0, 20.0, id="dB, with an inf"),
    pytest.param("top1", [1.0, 1.0 + 1e-9, 0.0], [1.0, 0.9, 0.0], 1e-8, 1.0, id="tied first"),
    pytest.param("top1", [1.0, 1.0 + 1e-7, 0.0], [1.0, 0.9, 0.0], 1e-8, 0.0, id="not tied"),
    pytest.param("top1", [1.0, 2.0, 0.0], [1.0, 1.0, 1.0], 0.1, 0.0, id="a constant answer"),
    pytest.param("top1", [3.0, 1.0], [5.0, 5.0], 0.0, 1.0, id="equal values rank by index"),
    pytest.param("top1", [2.0], [-7.0], 0.0, 1.0, id="one unit"),
    pytest.param("top1", [-INF, 0.0], [-INF, 1.0], 0.0, 1.0, id="-inf never ranks first"),
    pytest.param("top1", [INF, 0.0], [INF, 1.0], 0.5, 1.0, id="inf ranks first"),
    pytest.param("top5", range(5), range(5, 0, -1), 0.0, 1.0, id="k is at most the units"),
    pytest.param("top5", range(7), [0, 1, 6, 5, 4, 3, 2], 0.0, 1.0, id="any order inside"),
    pytest.param("top5", range(7), [9, 1, 2, 3, 4, 5, 6], 0.0, 0.0, id="the last ranks first"),
    pytest.param("top5", EDGE, [1, 5, 4, 3, 2, 2], 1e-8, 0.0, id="one without a tie is missing"),
    pytest.param("top5", EDGE, [6, 5, 4, 3, 1, 2], 1e-8, 1.0, id="tied at the edge"),
]


@pytest.mark.parametrize(("metric", "expected", "actual", "tie", "value"), BY_HAND)
def test_values_computed_by_hand(
    metric: str, expected: Any, actual: Any, tie: float, value: float
) -> None:
    expected = list(expected) if isinstance(expected, range) else expected
    actual = list(actual) if isinstance(actual, range) else actual
    dtype = np.uint8 if expected == [200, 3] else None
    found = measure(metric, np.asarray(expected, dtype), np.asarray(actual, dtype), tie)
    assert found == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_units_along_any_axis(axis: int) -> None:
    expected = np.moveaxis(ANSWER[:, :, None], 1, axis)
    actual = np.moveaxis(first_and_second(ANSWER)[:, :, None], 1, axis)
    assert measure("top1", expected, actual, axis=axis) == 0.0
    assert measure("cosine", expected, actual, axis=axis) == pytest.approx(55 / 91)


def test_half_of_the_vectors_agree() -> None:
    actual = ANSWER.copy()
    actual[1] = -actual[1]
    assert measure("top1", ANSWER, actual) == 0.5


# --- limits -------------------------------------------------------------------------------------

Column = Literal["z", "y", "probability"]

LIMIT_ROWS: list[Any] = [
    pytest.param("cut", "fp32", "z", [0.5, -0.1], 1e-6, id="small z: not scaled below 1"),
    pytest.param("cut", "fp32", "z", [5.0, -20.0], 2e-5, id="scaled by the largest |z|"),
    pytest.param("cut", "fp32", "z", [5.0, -INF], 5e-6, id="an inf sets no scale"),
    pytest.param("cut", "fp32", "z", [-INF], 1e-6, id="nothing finite"),
    pytest.param("cut", "fp32", "y", [5.0, -20.0], 2e-5, id="y that is not a probability"),
    pytest.param("cut", "fp32", "probability", [0.9, 20.0], 1e-6, id="probabilities: not scaled"),
    pytest.param("cut", "fp16", "z", [10.0], 2e-2, id="half precision, z"),
    pytest.param("cut", "fp16", "probability", [0.1], 2e-3, id="half precision, probabilities"),
    pytest.param("cut", "int8", "z", [90.0], 0.0, id="integers: z bit-identical"),
    pytest.param("cut", "int8", "y", [90.0], 1.0, id="integers: y within one step"),
    pytest.param("cut", "int16x8", "z", [9e4], 0.0, id="int16: z bit-identical"),
    pytest.param("cut", "int16x8", "y", [9e4], 1.0, id="int16: y within one step"),
    pytest.param("cut", "bf16", "z", [10.0], 8e-2, id="bfloat16, z"),
    pytest.param("cut", "bf16", "probability", [0.1], 8e-3, id="bfloat16, probabilities"),
    pytest.param("cut", "int4", "z", [10.0], 1e-5, id="4-bit weights, z"),
    pytest.param("cut", "dynamic", "z", [10.0], 1e-5, id="8-bit weights, z"),
    pytest.param("cut", "dynamic", "probability", [0.1], 1e-6, id="8-bit weights, probabilities"),
    pytest.param("cut", "blocks", "z", [10.0], 3e-4, id="in blocks"),
    pytest.param("export", "fp32", "z", [3.0], 3e-4, id="export"),
    pytest.param("export", "fp32", "probability", [0.3], 1e-4, id="export, probabilities"),
    pytest.param("export", "fp16", "z", [3.0], 1.2e-2, id="export of half precision, z"),
    pytest.param("export", "fp16", "probability", [0.3], 8e-3, id="export of half precision"),
    pytest.param("export", "bf16", "z", [3.0], 0.12, id="export of bfloat16, z"),
    pytest.param("export", "bf16", "probability", [0.3], 6e-2, id="export of bfloat16"),
]


@pytest.mark.parametrize(("stage", "precision", "column", "expected", "limit"), LIMIT_ROWS)
def test_limits(
    stage: str, precision: str, column: Column, expected: list[float], limit: float
) -> None:
    found = limits(Basis(stage, precision, column), np.array([expected], np.float32))
    assert found.difference == pytest.approx([limit], rel=1e-6)
    assert found.tie == pytest.approx([limit], rel=1e-6)
    assert (found.least, found.by_user) == ({"top1": 1.0, "top5": 1.0}, frozenset())


def test_each_sample_sets_its_own_scale() -> None:
    """One outlier must not widen the limit of the other samples."""
    expected = np.array([[5.0, -2.0], [1e5, 0.0], [0.1, 0.0]])
    found = limits(Basis("cut", "fp32", "z"), expected)
    assert found.difference == pytest.approx([5e-6, 0.1, 1e-6])
    off = np.array([[0.0, 0.0], [0.05, 0.0], [0.0, 0.0]])
    (near, *_) = judge(expected, expected + off, found, axis=1)
    assert [near.value, near.limit] == pytest.approx([0.05, 0.1])
    assert near.passed
    (worst, *_) = judge(expected, expected + off[[1, 1, 1]], found, axis=1)
    assert [worst.value, worst.limit] == pytest.approx([0.05, 1e-6])
    assert not worst.passed


def test_the_limit_of_a_softmax_grows_with_its_units() -> None:
    values = np.zeros((2, 100))
    rows: list[tuple[str, Column, float]] = [
        ("int16x8", "probability", 201.0),
        ("int16x8", "y", 201.0),
        ("int16x8", "z", 0.0),
        ("int8", "probability", 1.0),
        ("fp32", "probability", 1e-6 + 100 / 8 / 2**24),
        ("fp32", "y", 1e-6 + 100 / 8 / 2**24),
        ("fp32", "z", 1e-6),
        ("fp16", "probability", 2e-3),
    ]
    for precision, column, allowed in rows:
        found = limits(Basis("cut", precision, column, units=100), values).difference
        assert found == pytest.approx([allowed] * 2, rel=1e-12), (precision, column)
    without = limits(Basis("cut", "fp32", "probability"), values).difference
    assert without is not None
    assert without.tolist() == [1e-6, 1e-6]


def test_every_row_of_limits_is_tested() -> None:
    assert {case.values[:2] for case in LIMIT_ROWS} == set(LIMITS)


def test_a_tolerance_is_the_limit_in_the_unit_of_the_values() -> None:
    """It is not scaled, and units that it could exchange do not tie."""
    expected = np.array([[30.0, 29.5, 1.0]])
    found = limits(Basis("cut", "fp32", "z"), expected, UserLimits(1.0))
    assert found.difference == pytest.approx([1.0])
    assert found.by_user == {"max_abs"}
    results = judge(expected, np.array([[29.6, 29.7, 1.0]]), found, axis=1)
    assert {r.metric: r.passed for r in results if r.limit is not None} == {
        "max_abs": True,
        "top1": False,
    }
    assert [r.metric for r in results if r.by_user] == ["max_abs"]


@pytest.mark.parametrize("precision", FLOORS)
def test_quantized_models_have_floors(precision: str) -> None:
    given, synthetic = FLOORS[precision]
    expected = np.ones((3, 4))
    found = limits(Basis("quantize", precision), expected)
    assert (found.difference, found.tie, found.by_user) == (None, 0.0, frozenset())
    assert found.least == given._asdict()
    assert 0.0 <= synthetic.sqnr_db <= given.sqnr_db
    assert 0.0 < synthetic.top1 <= given.top1 < 1.0
    noise = limits(Basis("quantize", precision, synthetic=True), expected)
    assert noise.least == {k: v for k, v in synthetic._asdict().items() if v is not None}
    a_map = limits(Basis("quantize", precision, vectors=False), expected)
    assert a_map.least == {"sqnr_db": given.sqnr_db}


def test_floors_of_the_user_replace_those_of_the_table() -> None:
    user = UserLimits(0.25, {"top1": 0.98})
    found = limits(Basis("quantize", "int8"), np.ones((3, 4)), user)
    assert found.least == {**floors_of("int8", synthetic=False, vectors=True), "top1": 0.98}
    assert found.by_user == {"max_abs", "top1"}
    assert found.difference == pytest.approx([0.25] * 3)


MIXED_UP = np.roll(ANSWER, 1, axis=1)


def test_a_result_below_a_floor_fails() -> None:
    """Units that changed places leave less signal than noise."""
    allowed = limits(Basis("quantize", "int8"), ANSWER)
    metrics = metrics_of("quantize")
    good = judge(ANSWER, one_value(ANSWER), allowed, axis=1, metrics=metrics)
    assert all(result.passed for result in good)
    bad = judge(ANSWER, MIXED_UP, allowed, axis=1, metrics=metrics)
    assert {r.metric for r in bad if not r.passed} == {"sqnr_db", "cosine", "top1"}
    gentle = UserLimits(least={"sqnr_db": -10.0, "cosine": -1.0, "top1": 0.0})
    allowed = limits(Basis("quantize", "int8"), ANSWER, gentle)
    assert all(r.passed for r in judge(ANSWER, MIXED_UP, allowed, axis=1, metrics=metrics))


def test_a_stage_without_limits_is_refused() -> None:
    with pytest.raises(ModelError, match="export check at precision int4") as caught:
        limits(Basis("export", "int4", "z"), np.ones((3, 1)))
    assert "--tolerance" in caught.value.hint


def allowing(difference: float) -> Allowed:
    """The same limit in every sample, which is also the tie."""
    return Allowed(np.array([difference]), np.array([difference]), {"top1": 1.0})


@pytest.mark.parametrize(
    ("units", "metrics"), [(1, set()), (2, {"top1"}), (5, {"top1"}), (6, {"top1", "top5"})]
)
def test_a_metric_that_cannot_disagree_is_left_out(units: int, metrics: set[str]) -> None:
    values = np.arange(float(units))[np.newaxis]
    found = {result.metric for result in judge(values, values, allowing(1.0), axis=1)}
    assert found == {"max_abs", "max_rel", "rmse", "cosine"} | metrics


def test_judge_compares_values_with_limits() -> None:
    expected, actual = np.array([[1.0, 2.0]]), np.array([[1.0, 2.5]])
    found = {r.metric: r for r in judge(expected, actual, allowing(0.1), axis=1)}
    assert tuple(found) == ("max_abs", "max_rel", "rmse", "cosine", "top1")
    assert (found["max_abs"].value, found["max_abs"].limit, found["max_abs"].passed) == (
        0.5,
        0.1,
        False,
    )
    assert (found["top1"].value, found["top1"].passed) == (1.0, True)
    assert (found["rmse"].limit, found["rmse"].passed) == (None, True)


def test_judge_ties_values_within_the_limit() -> None:
    expected, actual = np.array([[1.0, 1.05]]), np.array([[1.05, 1.0]])
    wide = judge(expected, actual, allowing(0.1), axis=1)
    tight = judge(expected, actual, allowing(0.01), axis=1)
    assert all(result.passed for result in wide)
    assert {r.metric for r in tight if not r.passed} == {"max_abs", "top1"}


@pytest.mark.parametrize("metric", METRICS)
def test_nan_is_within_no_limit(metric: str) -> None:
    assert not METRICS[metric].within(NAN, EQUAL[metric])


# --- properties ---------------------------------------------------------------------------------

VALUES = st.floats(-1e300, 1e300) | st.sampled_from([0.0, -0.0, 5e-324, INF, -INF])
ARRAYS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3), elements=VALUES)
ORDINARY = st.floats(-1e3, 1e3, width=32)


@given(ARRAYS)
def test_equal_arrays_have_the_best_values(answer: Array) -> None:
    found = compare(answer, answer.copy(), axis=-1, tie=0.0, metrics=METRICS)
    assert found == EQUAL


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=8))
    return tuple(draw(hnp.arrays(np.float32, shape, elements=ORDINARY)) for _ in range(2))  # type: ignore[return-value]


@given(pairs())
def test_differences_do_not_depend_on_the_order_of_units(pair: tuple[Array, Array]) -> None:
    forth = compare(*pair, axis=-1, tie=0.0, metrics=METRICS)
    back = compare(pair[0][..., ::-1], pair[1][..., ::-1], axis=-1, tie=0.0, metrics=METRICS)
    for name in set(METRICS) - {"top1", "top5"}:  # these rank equal values by index
        assert back[name] == pytest.approx(forth[name], rel=1e-9, abs=1e-12)


@given(pairs())
def test_ranges_of_the_metrics(pair: tuple[Array, Array]) -> None:
    found = compare(*pair, axis=-1, tie=0.0)
    assert 0.0 <= found["rmse"] <= found["max_abs"] * (1 + 1e-12)
    assert -1.0 - 1e-12 <= found["cosine"] <= 1.0
    assert 0.0 <= found["top1"] <= 1.0
    assert 0.0 <= found["top5"] <= 1.0


@given(pairs(), st.sampled_from([1, 5]))
def test_top_k_matches_a_plain_ranking(pair: tuple[Array, Array], k: int) -> None:
    """If no expected values are equal, vectors agree if their first k units are the same set."""
    units = pair[0].shape[-1]
    expected = pair[0].reshape(-1, units) + np.linspace(0, 1e-4, units)
    actual = pair[1].reshape(-1, units)
    assume(all(len(set(row)) == units for row in expected))
    same = [
        _first(left, k) == _first(right, k) for left, right in zip(expected, actual, strict=True)
    ]
    assert measure(f"top{k}", expected, actual) == pytest.approx(np.mean(same))


def _first(row: Array, k: int) -> set[int]:
    """The indices of the k largest values; of equal values the first."""

    def rank(index: int) -> tuple[float, int]:
        return -float(row[index]), index

    return set(sorted(range(len(row)), key=rank)[:k])


@given(pairs(), st.floats(0, 10), st.floats(0, 10))
def test_a_wider_tie_never_lowers_agreement(
    pair: tuple[Array, Array], one: float, other: float
) -> None:
    narrow, wide = sorted((one, other))
    for metric in ("top1", "top5"):
        assert measure(metric, *pair, tie=narrow) <= measure(metric, *pair, tie=wide)
