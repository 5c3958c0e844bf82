"""The limits that a user sets to the size, latency and memory of each file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from exporter.records import Artifact, Check, Latency, Memory

RESOURCES = "resources"  # the stage of these checks
HISTORY = "history"  # the stage of checks against earlier timings; see `trend`


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
    times = {row.device: row for row in latency if row.artifact == artifact.path}
    used = {row.device: row for row in memory if row.artifact == artifact.path}
    devices = list(dict.fromkeys((*times, *used))) or [""]
    for metric, limit in most.items():
        for device in devices[:1] if metric == "size" else devices:
            time = times.get(device)
            value = _measured(metric, artifact, time, used.get(device))
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
                device="" if metric == "size" else device,
            )


def _measured(
    metric: str, artifact: Artifact, time: Latency | None, used: Memory | None
) -> float | None:
    if metric == "size":
        return artifact.bytes
    if metric == "memory":
        return None if used is None else used.bytes
    return None if time is None else (time.p50_ci95_ms or (time.p50_ms, time.p50_ms))[1]
