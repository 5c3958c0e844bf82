"""Make the record of a bench from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.graph import Array
from exporter.ondevice.rounds import Measured
from exporter.performance.intervals import CONFIDENCE, RESAMPLES, time_interval
from exporter.performance.scenario import BenchOptions
from exporter.performance.verdict import ORIGINAL, PRUNED, Rounds, compare_times
from exporter.records import Latency

_SIDES = ("original", "pruned", "control")
_DIGITS = 6  # of raw values
PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)


def make_record(
    measured: Measured,
    artifact: str,
    options: BenchOptions,
    feed: Mapping[str, Array],
    device: str = "",
) -> Latency:
    """The record of one artifact.

    Args:
        artifact: its name.
        feed: one of those that the models ran on.
        device: that was measured; "" for this machine.
    """
    rounds = rounds_of(measured, options.run.threads)
    loads_ms = measured.loads / 1e6
    settings = _settings(measured, options, feed)
    found = compare_times(rounds, settings["threads"], settings["seed"])
    used = [i for i, is_used in enumerate(rounds.used) if is_used]
    single = [measured.runs[side][used].ravel() / 1e6 for side in (ORIGINAL, PRUNED)]
    (original_p90, original_p99), (p90, p99) = (np.percentile(each, (90, 99)) for each in single)
    original_p50, p50 = (time / 1e6 for time in found.wall.times)
    wall = rounds.wall[PRUNED, rounds.used] / 1e6
    low, high = time_interval(wall, rounds.loads[rounds.used], settings["seed"])
    original_cpu, cpu = (None, None)
    if found.cpu is not None:
        original_cpu, cpu = (time / 1e6 for time in found.cpu.times)
    return Latency(
        artifact=artifact,
        engine=measured.engine,
        threads=settings["threads"],
        batch=settings["batch"],
        original_p50_ms=original_p50,
        p50_ms=p50,
        p90_ms=float(p90),
        p50_ci95_ms=(min(low, p50), max(high, p50)),
        original_load_ms=float(np.median(loads_ms[:, 0])),
        load_ms=float(np.median(loads_ms[:, 1])),
        samples=len(used),
        speedup=found.decisive.value,
        speedup_ci95=(found.decisive.low, found.decisive.high),
        noise_floor=found.noise_floor,
        verdict=found.verdict,
        basis=found.basis,
        detectable_change=found.detectable,
        original_cpu_ms=original_cpu,
        cpu_ms=cpu,
        original_p90_ms=float(original_p90),
        original_p99_ms=float(original_p99),
        p99_ms=float(p99),
        loads=len(loads_ms),
        rounds=len(rounds.loads),
        interrupted_rounds=int(np.sum(~rounds.clean)),
        runs=int(single[1].size),
        settings={**settings, "resamples": RESAMPLES, "confidence": CONFIDENCE},
        raw={**_raw(rounds, loads_ms), "runs_ms": _percentiles(single)},
        device=device,
    )


def rounds_of(measured: Measured, threads: int) -> Rounds:
    """What was measured, per run, as the comparison needs it."""
    count = np.array(measured.block_runs)[:, None]
    wall_ns = np.array([np.maximum(1, runs.sum(axis=1)) for runs in measured.runs])
    lost = np.maximum(0.0, 1 - measured.cpu / wall_ns)
    return Rounds(
        loads=measured.load_of_round,
        wall=np.array([np.median(runs, axis=1) for runs in measured.runs], float),
        cpu=measured.cpu / count,
        interruptions=measured.interruptions,
        lost=np.ones_like(lost) if threads > 1 else lost,
    )


def _settings(
    measured: Measured, options: BenchOptions, feed: Mapping[str, Array]
) -> dict[str, Any]:
    # a file with a fixed batch ignores the option
    batch = next((int(v.shape[0]) for v in feed.values() if v.ndim), options.run.batch)
    schedule = options.schedule
    return {
        "threads": options.run.threads,
        "batch": batch,
        "min_seconds": schedule.min_seconds,
        "min_runs": schedule.min_runs,
        "min_loads": schedule.loads,
        "max_seconds": schedule.max_seconds,
        "block_ms": schedule.block_ms,
        "runs_per_block": list(measured.block_runs),
        "seed": schedule.seed,
    }


def _raw(rounds: Rounds, loads_ms: Array) -> dict[str, Any]:
    """Every round: its load, times of a run and interruptions; and how long every load took."""

    def of_sides(values: Array) -> dict[str, list[float]]:
        return {side: _short(row) for side, row in zip(_SIDES, values, strict=True)}

    return {
        "load": rounds.loads.tolist(),
        "used": rounds.used.tolist(),
        "p50_ms": of_sides(rounds.wall / 1e6),
        "cpu_ms": of_sides(rounds.cpu / 1e6),
        "interruptions": {
            side: row.tolist() for side, row in zip(_SIDES, rounds.interruptions, strict=True)
        },
        "load_ms": of_sides(loads_ms.T),
    }


def _percentiles(single: Sequence[Array]) -> dict[str, list[float]]:
    """The distribution of the single runs in the rounds that count."""
    found = {
        side: _short(np.percentile(v, PERCENTILES)) for side, v in zip(_SIDES, single, strict=False)
    }
    return {"percentiles": [float(each) for each in PERCENTILES], **found}


def _short(values: Array) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
