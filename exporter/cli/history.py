"""exporter history"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.exit_codes import printing
from exporter.cli.stdout import print_json, print_printable, print_rich
from exporter.cli.values import OutputPath, Parsed, percent


@options.command(
    "history",
    (
        "history.sqlite",
        "history.sqlite --artifact small.onnx --plot trend.svg",
        "history.sqlite --fail-on-regression 5%",
    ),
    options.argument("file", metavar="FILE"),
    options.option("--artifact", metavar="NAME", help="Only series whose name contains this."),
    options.option(
        "--plot", type=OutputPath(), metavar="FILE", help="Draw the series to this .svg file."
    ),
    options.option(
        "--fail-on-regression",
        "limit",
        type=Parsed("PERCENT", percent),
        metavar="PERCENT",
        help="Exit with 1 if the whole interval of the newest change of a series is above this.",
    ),
    arguments=(),
    records=(),
)
def command(file: Path, **given: Any) -> int:
    """Show how the timings in FILE changed; `exporter bench --save FILE` adds them.

    A timing is compared with the earlier ones on the same machine, with the same versions, threads
    and batch.
    """
    from exporter.jobs.history import draw_history, read_history
    from exporter.report.trend import print_trends
    from exporter.storage.upload import writable

    history = read_history(file, given["limit"], given["artifact"])
    if given["plot"] is not None:
        with writable(given["plot"], force=True) as plot:
            draw_history(history, plot)
    with printing():
        if given["as_json"]:
            print_json(history.to_dict())
        else:
            print_rich(lambda console: print_trends(history.changes, history.limit, console))
            if given["plot"] is not None:
                print_printable(f"Written to {given['plot']}")
    return 0 if history.ok else 1
