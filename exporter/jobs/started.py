"""How a job was started, for its report: the command, its options as data, and a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.jobs.job import Job
from exporter.jobs.timings import Timings
from exporter.planning.command_line import command_line, option_values
from exporter.planning.option import options_of

# Options that describe other inputs than the saved one, or gates on labels, which it has not,
# or on the file alone.
_OTHERS = frozenset(
    {"samples", "normalize", "resize", "skip_bad", "seed", "save_worst"}
    | {"label_column", "sample_rate", "tokenizer"}
    | {"truth", "min_accuracy", "max_drop", "max_size_bytes"}
)


def _of_one_input(data: Path) -> dict[str, Any]:
    """The options of a command that compares files on one saved input."""
    defaults = {each.name: each.default for each in options_of(Job) if each.name in _OTHERS}
    return {**defaults, "data": data}


def started(job: Job, name: str, arguments: Sequence[Any], *records: object) -> Job:
    """The job with its command, options and replay.

    Args:
        name: of the command.
        arguments: as for `command_line`; with a live model there is no command.
        records: further options records. The job is the last.
    """
    live = not all(isinstance(each, str | Path) for each in arguments)
    line = "" if live else command_line(name, arguments, *records, job)

    def replay(data: Path) -> str:
        return "" if live else command_line(name, arguments, *records, job, **_of_one_input(data))

    values = option_values(name, *records, job)
    timings = Timings(job.timings.seconds)
    return replace(job, command=job.command or line, options=values, replay=replay, timings=timings)


def verifying(job: Job, original: Path | None, pruned: Path) -> Job:
    """The job with the replay that compares two files; without one if the original is in no file.

    Args:
        job: its `quantized_to` is stated by the command.
    """

    def replay(data: Path) -> str:
        if original is None:
            return ""
        return command_line("verify", (original, pruned), job, **_of_one_input(data))

    return replace(job, replay=replay)
