"""exporter report"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.exit_codes import printing
from exporter.cli.stdout import print_printable


@options.command(
    "report", ("out",), options.argument("folder", metavar="DIR"), arguments=(), records=()
)
def command(folder: Path, **_given: Any) -> int:
    """Draw report.html again, from report.json, in a folder that `run` wrote.

    Use it after an update of exporter, or after installing the extra `report`, which draws the
    plots. A folder of variants gets a page for each, and index.html. No model is run, and no other
    file changes except SHA256SUMS.
    """
    from exporter.jobs.redraw import redraw

    written = redraw(folder)
    with printing():
        for path in written:
            print_printable(str(path))
    return 0
