"""exporter verify"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress
from exporter.errors import UsageError


@options.command(
    "verify",
    (
        "net.onnx small.onnx",
        "net.onnx small.int8.onnx --data inputs.npz --min-top1 0.95",
        "out",
    ),
    options.argument("original", metavar="ORIGINAL|DIR"),
    options.argument("pruned", required=False),
    arguments=(),
)
def command(original: Path, pruned: Path | None, **given: Any) -> int:
    """Prove that PRUNED matches ORIGINAL for the kept units, or check a folder that `run` wrote.

    `exporter verify DIR` compares the files of DIR with its SHA256SUMS, and shows the checks that
    its report claims. It runs no model.
    """
    from exporter.cli import show
    from exporter.jobs.compare import verify_files
    from exporter.jobs.verify_folder import verify_folder

    if pruned is None:
        if given["on"]:
            raise UsageError("--on needs two files: no model of a folder is run", "name both files")
        return show.folder_report(verify_folder(original), given)
    with show_progress(given) as progress:
        report = verify_files(original, pruned, options.make_job(given, progress))
    return show.reports({"": report}, given)
