"""The limits that a user sets to the size, latency and memory of each file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from exporter.records import Artifact, Check, Latency, Memory

RESOURCES = "resources"  # the stage of these checks


def resource_checks(
    most: Mapping[str, float],
    artifact: Artifact,
    latency: Iterable[Latency] = (),
    memory: Iterable[Memory] = (),
) -> Iterator[Check]:
    """A check of one model file for each limit. What was not measured fails.

    Args:
        most: "size" in bytes, "latency" in milliseconds, "memory" in bytes -> the largest value.
        latency, memory: measurements, of this file and of others.

    The latency is the upper end of the 95 % interval of p50, so that a file passes only if the
    measurement is precise enough to show it. The memory is the resident memory.
    """
    time = next((row for row in latency if row.artifact == artifact.path), None)
    used = next((row for row in memory if row.artifact == artifact.path), None)
    slowest = None if time is None else (time.p50_ci95_ms or (time.p50_ms, time.p50_ms))[1]
    values = {
        "size": artifact.bytes,
        "latency": slowest,
        "memory": None if used is None else used.bytes,
    }
    for metric, limit in most.items():
        value = values[metric]
        yield Check(
            RESOURCES,
            artifact.path,
            "",
            metric,
            value,
            limit,
            passed=value is not None and value <= limit,
            samples=time.samples if time and metric == "latency" else 0,
            detail=f"the {metric} was not measured" if value is None else "",
            limit_from="user",
        )
