"""Where the time of a job went."""

from __future__ import annotations

import pytest

from exporter.jobs import timings


def test_each_step_gets_the_time_since_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.0, 13.0, 20.0, 100.0, 100.5])
    monkeypatch.setattr(timings, "perf_counter", lambda: next(clock))
    shared = timings.Timings()
    for step in ("open", "cut", "open"):
        shared.end(step)
    assert list(shared.seconds.items()) == [("open", 8.0), ("cut", 2.0)]
    variant = timings.Timings(shared.seconds)
    variant.end("cut")
    assert variant.seconds == {"open": 8.0, "cut": 2.5}
    assert shared.seconds == {"open": 8.0, "cut": 2.0}
