"""exporter select"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options, values
from exporter.cli.progress import show_progress
from exporter.jobs.job import Job
from exporter.jobs.select_options import SelectOptions


@options.command(
    "select",
    (
        "net.onnx --data pictures --min-f1 0.6 -o selection.json",
        "net.onnx --counts log.txt --coverage 0.995 -o selection.json",
        "net.onnx --data pictures --top 12 -o selection.json",
    ),
    options.output(),
    options.option(
        "--explain",
        is_flag=True,
        section="Result",
        help="Show the kept units that the samples of each removed unit are predicted as.",
    ),
    options.option(
        "--suggest-merge",
        type=values.Number(0, min_open=True),
        metavar="SHARE",
        section="Result",
        help="Suggest groups for --merge: units confused in this share of their samples.",
    ),
    records=(SelectOptions, Job),
)
def command(model: Path, output: Path, **given: Any) -> int:
    """Choose units of MODEL by data, and write FILE, which --keep @FILE reads.

    The file has the reason for every kept and removed unit. A unit is kept if it passes every
    criterion.
    """
    from exporter.cli import show
    from exporter.jobs.select import select_units
    from exporter.output.draft import new_file
    from exporter.output.files import refuse_existing_file, refuse_missing_folder

    refuse_existing_file(output, force=given["force"])
    refuse_missing_folder(output)  # before the model runs for minutes
    chosen = SelectOptions(**options.fields_of(SelectOptions, given))
    with new_file(output, force=given["force"]) as draft, show_progress(given) as progress:
        choice = select_units(model, options.make_job(given, progress), chosen)
        draft.write_text(choice.to_json())
        draft.publish()
    return show.choice(choice, output, given)
