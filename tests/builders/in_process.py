"""Let jobs run the libraries that read and run models in their own process.

A job forks about ten times, for each library that it calls (`exporter.formats.isolation`). Copies
of a large process of tests take longer than most jobs.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from exporter.formats.isolated_process import Limits
from exporter.formats.isolation import isolated
from exporter.jobs import source

ISOLATE = "TESTS_ISOLATE_LIBRARIES"  # a variable of the environment, so that forks have it too


def run_libraries_here() -> None:
    """Let the jobs of this process fork only if the variable is set."""
    vars(source)["isolated"] = _isolated_if_asked


def _isolated_if_asked(limits: Limits | None) -> AbstractContextManager[None]:
    return isolated(limits if ISOLATE in os.environ else None)
