"""The user's limits on size, latency and memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.cli.values import PARSERS
from exporter.errors import UsageError
from exporter.jobs.checks import CheckResults
from exporter.jobs.job import Job
from exporter.performance.resources import RESOURCES, resource_checks
from exporter.records import Memory
from exporter.report.check_groups import describe_failure
from exporter.report.markdown import to_markdown
from exporter.report.view import file_verdicts
from tests.builders.reports import PASSING

FILE, OTHER = PASSING.artifacts  # 9,012,345 and 999,600 bytes
TIMED = replace(PASSING.latency[0], p50_ms=4.8, p50_ci95_ms=(4.5, 5.2))
USED = Memory(FILE.path, "onnxruntime", 30_000_000, 20_000_000)


@pytest.mark.parametrize(
    ("most", "passes"),
    [
        ({}, []),
        ({"size": 9_012_345}, [True]),
        ({"size": 9_012_344}, [False]),
        ({"latency": 5.2}, [True]),
        ({"latency": 5.1}, [False]),  # above p50, but not above its interval
        ({"memory": 20_000_000}, [True]),
        ({"memory": 19_999_999}, [False]),
        ({"size": 1, "memory": 1e9}, [False, True]),
    ],
)
def test_limits(most: dict[str, float], passes: list[bool]) -> None:
    checks = list(resource_checks(most, FILE, [TIMED], [USED]))
    assert [check.passed for check in checks] == passes
    assert {(check.stage, check.limit_from) for check in checks} <= {(RESOURCES, "user")}


def test_what_was_not_measured_fails() -> None:
    """The measurements of another file do not count."""
    first, second = resource_checks({"latency": 99.0, "memory": 1e9}, OTHER, [TIMED], [USED])
    assert not first.passed
    assert not second.passed
    assert describe_failure(first) == (
        "pruned.fp32.tflite, resources: the latency was not measured, limit 99 ms"
    )


def test_an_earlier_record_has_no_interval() -> None:
    (check,) = resource_checks({"latency": 0.8}, FILE, PASSING.latency)
    assert check.value == pytest.approx(0.7991)


def test_the_report_says_what_passed_and_what_failed() -> None:
    job = Job(max_size_bytes=10_000_000, max_latency_ms=5.0)
    results = CheckResults(PASSING.checks, (TIMED,)).with_resources(job, [FILE])
    report = replace(PASSING, checks=results.checks, latency=(TIMED,))
    assert not report.ok
    verdict = file_verdicts(report)[0]
    assert verdict.result == "fail"
    assert verdict.reasons == [
        "pruned.fp32.onnx, resources: latency is 5.2 ms, limit 5 ms (200 rounds)"
    ]
    passing = CheckResults(PASSING.checks).with_resources(Job(max_size_bytes=10**7), [FILE, OTHER])
    text = to_markdown(replace(PASSING, checks=passing.checks))
    assert "16 samples. Size at most 9.01 MB, within your limit of 10.0 MB (7 checks" in text


def test_a_value_next_to_its_limit_is_written_out() -> None:
    (check,) = resource_checks({"size": 9_012_344}, FILE)
    assert describe_failure(check).endswith("size is 9012345 B, limit 9012344 B")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "300kB", 300_000),
        ("size", "20 MB", 20_000_000),
        ("size", "1.5MiB", 1_572_864),
        ("size", "4096", 4096),
        ("duration", "5ms", 5.0),
        ("duration", "0.2s", 200.0),
        ("duration", "250us", 0.25),
        ("duration", "2.5", 2.5),
    ],
)
def test_units(name: str, text: str, value: float) -> None:
    assert PARSERS[name].convert(text, None, None) == pytest.approx(value)


def test_a_limit_of_what_is_not_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="need the measurements"):
        Job(max_memory_bytes=1, bench=False)
