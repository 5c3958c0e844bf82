"""Measure the steps of a cut on real files: open, plan, apply, write.

Arguments: model files (default: those in the folder EXPORTER_ZOO, else in `../shared/zoo` next to
the project). A tenth of the units is kept.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from exporter.errors import ExporterError
from exporter.formats import KINDS, kind_of_suffix, open_model
from exporter.formats.model import Model
from exporter.planning.cut import CutOptions, plan_cut

ROUNDS = 5
STEPS = ("open", "plan", "apply", "write")


def keep_a_tenth(model: Model) -> CutOptions:
    units = plan_cut(model, CutOptions(remove=[0])).heads[0].units
    return CutOptions(keep=range(max(1, units // 10)))


def cut(path: Path, options: CutOptions, target: Path) -> list[float]:
    """The time of each step in milliseconds."""
    marks = [time.perf_counter()]
    model = open_model(path)
    marks.append(time.perf_counter())
    planned = plan_cut(model, options)
    marks.append(time.perf_counter())
    pruned = model.apply(planned.plan)
    marks.append(time.perf_counter())
    pruned.write(target)
    marks.append(time.perf_counter())
    return [(end - start) * 1e3 for start, end in itertools.pairwise(marks)]


def files() -> list[Path]:
    if len(sys.argv) > 1:
        return [Path(name) for name in sys.argv[1:]]
    default = Path(__file__).parent.parent.parent / "shared" / "zoo"
    folder = Path(os.environ.get("EXPORTER_ZOO", default))
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    kinds = {path: kind_of_suffix(path) for path in found}
    return [path for path, kind in kinds.items() if kind is not None and KINDS[kind].benchmarked]


def main() -> None:
    paths = files()
    if not paths:
        print("no model files: give some, or set EXPORTER_ZOO")
        return
    print(f"{'milliseconds, p50':46}" + "".join(f"{step:>8}" for step in STEPS) + f"{'size':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            target = Path(folder) / path.name
            try:
                options = keep_a_tenth(open_model(path))
                rounds = [cut(path, options, target) for _ in range(ROUNDS)]
            except ExporterError as error:  # for example a detector
                print(f"{path.name:46} {error.message[:70]}")
                continue
            row = "".join(f"{statistics.median(times):8.1f}" for times in zip(*rounds, strict=True))
            print(f"{path.name:46}{row}{target.stat().st_size / path.stat().st_size:8.0%}")


if __name__ == "__main__":
    main()
