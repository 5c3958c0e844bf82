"""exporter trim"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress
from exporter.jobs.job import Job
from exporter.jobs.trim_options import TrimOptions
from exporter.planning.options import CutOptions


@options.command(
    "trim",
    (
        "net.onnx -o b.onnx --keep owl --data photos --min-agreement 0.99",
        "net.tflite -o small.tflite --data x.npz --target 0.5",
    ),
    options.output(),
    records=(TrimOptions, CutOptions, Job),
)
def command(model: Path, output: Path, **given: Any) -> int:
    """Remove inner channels of MODEL that the kept units do not need, and write FILE.

    What reads the channels is refitted on unlabeled samples; nothing is trained. FILE is smaller
    and faster than MODEL and not equal to it: the report says on how many held-out samples it
    agrees.
    """
    from exporter.cli import show
    from exporter.jobs.trim import trim_file

    trim = TrimOptions(**options.fields_of(TrimOptions, given))
    selecting = ("keep", "remove", "cuts", "drop_outputs")
    is_cut = any(given[name] not in {None, ()} for name in selecting)
    cut = options.make_cut_options({"merge": (), "gate": None, **given}) if is_cut else None
    with show_progress(given) as progress:
        report = trim_file(model, output, trim, cut, options.make_job(given, progress))
    return show.written_file(report, given)
