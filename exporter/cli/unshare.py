"""exporter unshare"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.exit_codes import printing
from exporter.cli.stdout import print_printable


@options.command(
    "unshare",
    ("out/birds.pruned.fp32.onnx -o birds.onnx", "out -o whole"),
    options.argument("source", metavar="MODEL|DIR"),
    options.output("PATH"),
    options.option("--force", is_flag=True, section="Output", help="Replace an existing output."),
    arguments=(),
    records=(),
)
def command(source: Path, output: Path, force: bool, **_given: Any) -> int:
    """Write a model that shares a body with others as a file of its own.

    `--share-body` wrote it. The result has the bytes that it would have without that option, if
    the original contains its weights as most exporters write them (docs/shared-body.md). Of a
    folder, all models are written, and all other files but the bodies are copied.
    """
    from exporter.jobs.unshare import unshare

    written = unshare(source, output, force=force)
    with printing():
        for path in written:
            print_printable(str(path))
    return 0
