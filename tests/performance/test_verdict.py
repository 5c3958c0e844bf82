"""Verdicts on simulated rounds with a known truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.performance.verdict import Rounds, compare_times

SAME, BUSY = "no measurable change", "machine too busy to tell"
LOADS = 15


def rounds(
    ratio: float = 1.0,
    noise: float = 0.01,
    seed: int = 0,
    *,
    wall_noise: float = 0.0,
    lost: float = 0.0,
) -> Rounds:
    """Two rounds for each load.

    Args:
        ratio: original / pruned.
        noise: standard deviation of CPU times, in loads and in rounds.
        seed: of the noise.
        wall_noise: further standard deviation of wall times.
        lost: the part of each block that other processes take.
    """
    random = np.random.default_rng([seed, int(1e6 * noise)])
    count = 2 * LOADS
    errors = np.repeat(random.normal(size=(3, LOADS)), 2, axis=1) + random.normal(size=(3, count))
    cpu = np.exp(errors * noise) * np.array([[ratio], [1.0], [ratio]])
    wall = cpu * np.exp(np.abs(random.normal(size=(3, count))) * wall_noise)
    return Rounds(
        loads=np.repeat(np.arange(LOADS), 2),
        wall=wall,
        cpu=cpu,
        interruptions=np.full((3, count), int(lost > 0)),
        lost=np.full((3, count), lost),
    )


ONES = np.ones((3, 6))
ZEROS = np.zeros((3, 6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rounds(np.arange(5), ONES, ONES, ZEROS, ZEROS), "5 rounds"),
        (lambda: Rounds(np.arange(6), 0 * ONES, ONES, ZEROS, ZEROS), "not positive"),
        (lambda: Rounds(np.arange(6), -ONES, ONES, ZEROS, ZEROS), "not positive"),
        (lambda: Rounds(np.arange(6), np.nan * ONES, ONES, ZEROS, ZEROS), "not positive"),
    ],
)
def test_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


UNCHANGED: list[Any] = [
    pytest.param(1.0, 0.001, id="quiet machine"),
    pytest.param(1.0, 0.02, id="2 % noise"),
    pytest.param(1.0, 0.3, id="30 % noise"),
    pytest.param(1.001, 0.02, id="faster, far below the noise"),
    pytest.param(0.999, 0.02, id="slower, far below the noise"),
]


@pytest.mark.parametrize(("ratio", "noise"), UNCHANGED)
def test_false_claims(ratio: float, noise: float) -> None:
    """At most 5 % of 200, within three standard errors of the count."""
    verdicts = Counter[str](
        compare_times(rounds(ratio, noise, seed)).verdict for seed in range(200)
    )
    assert verdicts[SAME] >= 200 - (10 + 3 * (200 * 0.05 * 0.95) ** 0.5)
    assert set(verdicts) <= {SAME, "faster", "slower"}


@pytest.mark.parametrize(
    ("ratio", "noise", "verdict"),
    [
        pytest.param(2.0, 0.02, "faster", id="twice as fast"),
        pytest.param(0.5, 0.02, "slower", id="twice as slow"),
        pytest.param(23.0, 0.3, "faster", id="23 times as fast on a busy machine"),
        pytest.param(1.1, 0.02, "faster", id="10 % faster"),
        pytest.param(0.9, 0.02, "slower", id="10 % slower"),
        pytest.param(1.01, 0.0, "faster", id="1 % faster without noise"),
    ],
)
def test_changes(ratio: float, noise: float, verdict: str) -> None:
    for seed in range(20):
        found = compare_times(rounds(ratio, noise, seed))
        assert found.verdict == verdict
        assert found.basis == "wall time"
        assert found.decisive is found.wall


def test_detectable_change_is_mostly_found() -> None:
    """A change as large as the run says is found in 80 % of 100 runs, or more."""
    size = np.median([compare_times(rounds(1.0, 0.02, seed)).detectable for seed in range(20)])
    found = [compare_times(rounds(1 + size, 0.02, seed)).verdict for seed in range(100)]
    assert found.count("faster") >= 75


def test_a_change_within_the_noise_floor_is_no_change() -> None:
    """The pruned model is 1 % faster, and the original differs from itself by 10 %."""
    measured = rounds(1.01, 0.0)
    wall = measured.wall.copy()
    wall[2] *= np.exp(0.1 * np.random.default_rng(0).normal(size=2 * LOADS))
    found = compare_times(replace(measured, wall=wall))
    assert found.verdict == SAME
    assert found.noise_floor > 0.01


def interrupted(measured: Rounds, count: int, factor: float) -> Rounds:
    """The original is interrupted in the first rounds, and takes longer by a factor."""
    wall, interruptions, lost = (
        np.array(each, float) for each in (measured.wall, measured.interruptions, measured.lost)
    )
    wall[0, :count] *= factor
    interruptions[0, :count] = 1
    lost[0, :count] = 1 - 1 / factor
    return replace(measured, wall=wall, interruptions=interruptions, lost=lost)


def test_interrupted_rounds_are_left_out() -> None:
    measured = interrupted(rounds(1.0, 0.001), 12, 3.0)
    found = compare_times(measured)
    assert measured.used.sum() == 2 * LOADS - 12
    assert found.verdict == SAME
    assert found.basis == "wall time"


def test_short_interruptions_do_not_matter() -> None:
    measured = interrupted(rounds(1.0, 0.001), 12, 1.01)
    assert measured.clean.all()


def test_cpu_time_decides_on_a_busy_machine() -> None:
    """Wall times scatter by 100 %, CPU times by 1 %: a slow-down of 9 % is found."""
    found = compare_times(rounds(1 / 1.09, wall_noise=1.0, lost=0.5))
    assert found.basis == "CPU time"
    assert found.verdict == "slower"
    assert found.cpu is not None
    assert found.decisive is found.cpu
    assert found.cpu.value == pytest.approx(1 / 1.09, rel=0.01)
    assert found.wall.half_width > 5 * found.cpu.half_width


def test_cpu_time_of_several_threads_does_not_decide() -> None:
    found = compare_times(rounds(1.0, wall_noise=1.0, lost=0.5), threads=2)
    assert found.basis == "wall time"
    assert found.verdict == BUSY


def test_coarse_cpu_clock_does_not_decide() -> None:
    measured = rounds(1.0, wall_noise=1.0, lost=0.5)
    found = compare_times(replace(measured, cpu=np.zeros_like(measured.cpu)))
    assert (found.cpu, found.basis, found.verdict) == (None, "wall time", BUSY)


@pytest.mark.parametrize(
    ("lost", "noise", "verdict"),
    [
        pytest.param(0.5, 0.1, BUSY, id="busy, and 5 % cannot be seen"),
        pytest.param(0.5, 0.001, SAME, id="busy, but 5 % can be seen"),
        pytest.param(0.0, 0.1, SAME, id="a quiet machine with a restless model"),
    ],
)
def test_too_busy(lost: float, noise: float, verdict: str) -> None:
    assert compare_times(rounds(1.0, noise, lost=lost)).verdict == verdict


def test_a_large_change_is_found_on_a_busy_machine() -> None:
    assert compare_times(rounds(3.0, 0.1, lost=0.5)).verdict == "faster"


def test_few_clean_rounds_are_not_enough() -> None:
    """Four clean rounds of seven have no useful interval: all seven count."""
    measured = rounds(1.0, 0.001)
    short = Rounds(
        loads=measured.loads[:7],
        wall=measured.wall[:, :7],
        cpu=measured.cpu[:, :7],
        interruptions=measured.interruptions[:, :7],
        lost=measured.lost[:, :7],
    )
    assert interrupted(short, 3, 2.0).used.all()
