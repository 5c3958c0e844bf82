"""The report as Markdown, for people who were not there when the job ran."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from exporter.records import Check, Report, precision_rows
from exporter.remap.head_remap import HeadRemap
from exporter.report import phrases
from exporter.report.phrases import NOTHING, Group, printable

REMAP_ROWS = 20

# What Markdown would not show as it stands; an underscore inside a word and a bare `<=` are plain.
_SPECIAL = re.compile(r"[\\`*\[\]|~]|^[#>]|<(?=[\w/!?])|&(?=[\w#])|(?<!\w)_|_(?!\w)")


def to_markdown(report: Report) -> str:
    """The whole record for people, as GitHub-flavored Markdown with a newline at its end."""
    sections = (
        _head(report),
        _artifacts(report),
        _precisions(report),
        _checks(report),
        _latency(report),
        _memory(report),
        _remap(report),
        _warnings(report),
        _inputs(report),
        _origin(report),
    )
    return "\n\n".join(block for section in sections for block in section) + "\n"


# --- sections: each gives blocks, which an empty line parts -------------------------------------


def _head(report: Report) -> Iterator[str]:
    yield f"# {_text(phrases.headline(report))}"
    if bad := phrases.failed(report):
        yield "\n".join(f"- {_text(phrases.failure(check))}" for check in bad)
    original = report.original
    facts = [original.kind, original.precision]
    facts += [] if original.bytes is None else [phrases.size(original.bytes)]
    facts += [] if original.sha256 is None else [f"SHA-256 {_code(original.sha256)}"]
    yield f"Original: {_code(original.path)} ({', '.join(filter(None, facts))})."


def _artifacts(report: Report) -> Iterator[str]:
    if not report.artifacts:
        return
    yield "## Artifacts"
    yield _table(
        ("File", "Kind", "Precision", "Size before -> after:", "Change:", "Route"),
        (
            (
                _code(row.path),
                row.kind,
                row.precision,
                phrases.before_and_after(row),
                phrases.change(row.original_bytes, row.bytes),
                _text(row.route) or NOTHING,
            )
            for row in report.artifacts
        ),
    )
    yield f"Before is the uncut file of the same kind. {phrases.SIZE_UNITS}."


def _precisions(report: Report) -> Iterator[str]:
    rows = precision_rows(report)
    if not rows:
        return
    yield "## Quality beside size"
    yield _table(
        ("File", *phrases.PRECISION_TITLES, "Speed-up:"),
        (
            (_code(row.artifact), *phrases.precision_cells(row), phrases.factor(row.speedup))
            for row in rows
        ),
    )
    yield (
        "SQNR and top-1 agreement: of the output that lost most, against the float model on the "
        "same inputs. Speed-up: over the original."
    )


def _checks(report: Report) -> Iterator[str]:
    yield "## Checks"
    if not report.checks:
        yield "No check was made: nothing here is proved."
    for group in phrases.groups(report):
        yield from _group(group)


def _group(group: Group) -> Iterator[str]:
    against = phrases.STAGES.get(group.stage, "")
    title = f"{_code(group.artifact)}: {group.stage}"
    yield f"### {title}{', ' if against else ''}{against}"
    yield phrases.passed(group)
    yield _table(
        ("Output", "Metric", "Value:", "Limit:", "Samples:", "Result"),
        map(_check, group.checks),
    )


def _check(check: Check) -> tuple[str, ...]:
    value, limit = phrases.value_and_limit(check)
    result = "passed" if check.passed else "**FAILED**"
    if phrases.informational(check):
        result = "for information"
    output = _code(check.output) if check.output else NOTHING
    return output, check.metric, value, limit, str(check.samples), result


def _latency(report: Report) -> Iterator[str]:
    if not report.latency:
        return
    yield "## Latency"
    yield _table(
        (
            "File",
            "Engine",
            "p50 before -> after:",
            "p90:",
            "Load before -> after:",
            "Speed-up [95 %]:",
            "Noise:",
            "Verdict",
        ),
        (
            (
                _code(row.artifact),
                f"{_text(row.engine)}, {phrases.plural(row.threads, 'thread')}, batch {row.batch}",
                _times(row.original_p50_ms, row.p50_ms),
                _times(row.p90_ms),
                _times(row.original_load_ms, row.load_ms),
                phrases.speedup(row),
                phrases.noise(row),
                row.verdict,
            )
            for row in report.latency
        ),
    )
    pairs = ", ".join(dict.fromkeys(str(row.samples) for row in report.latency))
    yield (
        f"Speed-up: median of {pairs} paired ratios, original / pruned, with a bootstrap interval. "
        "Noise: the same interval, halved, of the original against itself."
    )


def _times(*values: float) -> str:
    return " -> ".join(map(phrases.milliseconds, values)) + " ms"


def _memory(report: Report) -> Iterator[str]:
    if not report.memory:
        return
    yield "## Memory"
    yield _table(
        ("File", "Engine", "Before -> after:", "Change:"),
        (
            (
                _code(row.artifact),
                _text(row.engine),
                phrases.held(row),
                phrases.change(row.original_bytes, row.bytes),
            )
            for row in report.memory
        ),
    )
    yield (
        "Resident bytes by which a process grows that loads the file into its runtime and runs it "
        "once: the median of a few processes."
    )


def _remap(report: Report) -> Iterator[str]:
    if report.remap is None:
        return
    yield "## Remap"
    for head in report.remap.heads:
        yield from _head_remap(head)


def _head_remap(head: HeadRemap) -> Iterator[str]:
    yield (
        f"{_code(head.name)}: {phrases.kept(head)}, mode {head.mode}, "
        f"last activation {_text(head.activation)}."
    )
    rows = list(phrases.remap_rows(head))
    columns = 2 if head.labels is None else 3
    shown = [(new, old, _text(label) or NOTHING)[:columns] for new, old, label in rows[:REMAP_ROWS]]
    yield _table(("New:", "Old:", "Label")[:columns], shown)
    if len(rows) > REMAP_ROWS:
        yield f"+{len(rows) - REMAP_ROWS} more in remap.json"
    for note in (phrases.standing(head), phrases.ids(head)):
        if note:
            yield _text(note)


def _warnings(report: Report) -> Iterator[str]:
    if report.warnings:
        yield "## Warnings"
        yield "\n".join(f"- {_text(warning)}" for warning in report.warnings)


def _inputs(report: Report) -> Iterator[str]:
    yield "## Inputs"
    yield _text(phrases.inputs(report))


def _origin(report: Report) -> Iterator[str]:
    yield "## How to reproduce"
    if report.command:
        fence = _fence(report.command, 3)
        yield f"{fence}sh\n{report.command}\n{fence}"
    else:
        yield "The job was started from Python."
    yield f"Machine: {_text(phrases.machine(report))}."
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield f"Versions: {_text(versions) or 'unknown'}."


# --- Markdown -----------------------------------------------------------------------------------


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A title that ends in a colon makes its column stand to the right."""
    rules = ["---:" if title.endswith(":") else "---" for title in titles]
    lines = ([title.removesuffix(":") for title in titles], rules, *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", printable(text))


def _code(text: str) -> str:
    shown = printable(text).replace("|", r"\|")  # a table would end the cell there
    fence = _fence(shown, 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)
