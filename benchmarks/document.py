"""Write the results of a benchmark into a page of `docs/`, between two comments of their name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def write_between(document: str, name: str, text: str) -> None:
    """Replace the text between `<!-- name -->` and `<!-- end of name -->`.

    Args:
        document: name of a file in `docs/` that contains both comments, each on its own line.
        name: of the benchmark; each benchmark of a page has its own.
        text: Markdown.

    Raises:
        ValueError: the document lacks one of the comments.
    """
    start, stop = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    path = DOCS / document
    before, found_start, rest = path.read_text("utf-8").partition(start)
    _, found_stop, after = rest.partition(stop)
    if not (found_start and found_stop):
        raise ValueError(f"{document} has no lines {start.strip()} and {stop.strip()}")
    path.write_text(f"{before}{start}{text.strip()}\n{stop}{after}", "utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; numbers, which all columns but the first contain, are aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
