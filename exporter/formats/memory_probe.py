"""Measure the memory of a model in its own process (see `exporter.performance.memory`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import psutil

from exporter.graph import Array

NAME_PREFIX = "="  # of names in the archive: `numpy.savez` has its own argument "file"

Load = Callable[[str, Mapping[str, Array], int], object]


def print_memory_growth(load_and_run: Load, arguments: Sequence[str]) -> None:
    """Print the resident bytes by which the process grows when it loads and runs a model.

    Args:
        load_and_run: (path, feeds by input name, threads) -> an object that keeps the model alive.
        arguments: of the process: its name, the path of the model, an .npz of the feeds in the
            order of the model's inputs, and the number of threads.
    """
    _, path, feeds, threads = arguments
    with np.load(feeds) as archive:
        values = {key.removeprefix(NAME_PREFIX): archive[key] for key in archive.files}
    process = psutil.Process()
    before = process.memory_info().rss
    loaded = load_and_run(path, values, int(threads))
    print(process.memory_info().rss - before)  # noqa: T201 - the parent reads it
    del loaded
