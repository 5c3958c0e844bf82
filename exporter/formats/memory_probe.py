"""What a process that holds nothing but a runtime says of a model (see
`exporter.performance.memory`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import psutil

from exporter.graph import Array

MARK = "="  # before each name in the archive: NumPy would take "file" for its own argument

Load = Callable[[str, Mapping[str, Array], int], object]


def print_memory_growth(load_and_run: Load, arguments: Sequence[str]) -> None:
    """Print the resident bytes that the process grew by.

    Args:
        load_and_run: path, feeds (input name -> values) and threads -> what must stay alive.
        arguments: as the process got them: itself, the model's path, an .npz of the feeds in the
            order of the model's inputs, and the number of threads.
    """
    _, path, feeds, threads = arguments
    with np.load(feeds) as archive:
        values = {key.removeprefix(MARK): archive[key] for key in archive.files}
    process = psutil.Process()
    before = process.memory_info().rss
    held = load_and_run(path, values, int(threads))
    print(process.memory_info().rss - before)  # noqa: T201 - the answer to the parent
    del held
