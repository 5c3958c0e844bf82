"""Write `docs/compatibility.md` from the rows of `cut.py`.

Usage: `python page.py FILES`. It reads `results.json` of `cut.py`, and what could not be
built. It keeps what the page shows in `results.json` next to this program; a test writes the page
again from there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
DOCUMENT = HERE.parent.parent / "docs" / "compatibility.md"
SHOWN = (
    "producer", "version", "file", "kind", "to", "head", "name", "units", "why", "outcome", "error",
    "sentence", "hint", "problem", "flags_used",
)  # fmt: skip
CUT = ("cut and proved", "cut and sampled")

HEAD = """\
# Compatibility

`make field` builds files with the programs that people use, each in an environment of its own, or
takes them from packages of the index. It cuts every file with the command line and writes this
page. It takes about two hours and is not part of `make check`. Only files from packages have
trained weights; the others have random ones, because the page is about how each program writes a
head.

A separate program, `tools/field/check.py`, which does not import `exporter`, runs the original and
the cut file on the same inputs. It takes the kept units from the original's answers, normalizes
them again where they sum to 1, and compares. For Keras files and SavedModels, the original's
answers are those of the program that wrote the file. *Difference* is the largest one, divided by
the largest expected value or 1.

*Proved* means that `exporter` compared every byte of the file with the cut that the table of
indices describes; *sampled* means that it compared answers. *Not a cut* means that no unit can be
removed in principle, for the stated reason.
"""


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures of the page."""
    possible = [row for row in rows if row["units"]]
    done = [row for row in possible if row["outcome"] in CUT]
    wrong = [row for row in rows if row["outcome"] == "WRONG"]
    producers = {row["producer"] for row in rows}
    flagged = [row for row in done if row.get("flags_used")]
    share = 100 * len(done) / max(1, len(possible))
    return (
        f"{len(rows)} files of {len(producers)} producers. {len(possible)} can be cut: "
        f"{len(done)} of them are cut ({share:.0f} %), {len(flagged)} of these with an option. "
        f"Wrong answers: {len(wrong)}.\n"
    )


def result_of(row: Mapping[str, Any]) -> str:
    """One cell."""
    outcome: str = row["outcome"]
    if outcome in CUT:
        flags = list(row.get("flags_used", ()))
        names = sorted({flag for flag in flags if flag.startswith("--")})
        return outcome.removeprefix("cut and ") + (f" with `{', '.join(names)}`" if names else "")
    return outcome if row["units"] else "not a cut"


def cell(text: object) -> str:
    """Text that does not end the cell of a table."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each file."""
    lines = ["| producer | file | head | result | difference |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        error = row.get("error")
        kind = row["kind"] + (
            f" to {row['to']}" if row.get("to") and row["to"] != row["kind"] else ""
        )
        lines.append(
            f"| {cell(row['producer'])} | {cell(row['file'])} ({kind}) | {cell(row['head'])} "
            f"| {result_of(row)} | {'' if error is None else f'{error:.0e}'} |"
        )
    return lines


def refusals(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each file that is not cut: the sentence of the program, and the way out."""
    lines = ["| file | the program says | way out |", "| --- | --- | --- |"]
    for row in rows:
        if row["outcome"] in CUT:
            continue
        said = row.get("problem") or row.get("sentence") or ""
        way: str = f"none: {row['why']}" if row.get("why") else row.get("hint") or "none is known"
        lines.append(f"| {cell(row['file'])} | {cell(said)} | {cell(way)} |")
    return lines


def versions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The versions of each producer."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["producer"], set()).add(row["version"])
    return [f"- {name}: {'; '.join(sorted(found[name]))}" for name in sorted(found)]


def page(results: Mapping[str, Any]) -> str:
    """The whole document."""
    rows = results["rows"]
    missing = [f"- {name}: {cell(why)}" for name, why in sorted(results["not_built"].items())]
    parts = [
        HEAD,
        summary(rows),
        "## Files\n",
        *table(rows),
        "\n## Files that are not cut\n",
        *refusals(rows),
        "\n## Versions\n",
        *versions(rows),
        "\n## Not built\n",
        *(missing or ["Everything was built."]),
    ]
    return "\n".join(parts) + "\n"


def missing_of(files: Path) -> dict[str, str]:
    """What could not be built: whole environments, and single files of the others."""
    path = files / "not_built.json"
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    for listing in sorted(files.glob("*/not_built.jsonl")):
        for line in listing.read_text().splitlines():
            row = json.loads(line)
            found[f"{listing.parent.name}, {row['label']}"] = f"{row['error']}: {row['text']}"
    return found


def main() -> None:
    files = Path(sys.argv[1])
    rows = json.loads((files / "results.json").read_text())
    shown = [{key: row[key] for key in SHOWN if row.get(key) is not None} for row in rows]
    results = {"rows": shown, "not_built": missing_of(files)}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    DOCUMENT.write_text(page(results))
    print(summary(shown))


if __name__ == "__main__":
    main()
