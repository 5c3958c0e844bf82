"""Put results on stdout: tables for people, one JSON object for machines; the exit code."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.cli.exit_codes import printing
from exporter.formats import KINDS
from exporter.jobs.demo import KEPT, NETWORK, Demo
from exporter.jobs.inspect import HeadFacts, Inspection
from exporter.planning.cut import Cut
from exporter.records import Report
from exporter.report import formatting
from exporter.report.terminal import print_report, print_reports

FAILED = 1


def _console() -> Console:
    return Console(highlight=False)


def _json(record: Mapping[str, Any]) -> None:
    """In ASCII, so that no encoding of stdout can spoil it."""
    click.echo(json.dumps(record, allow_nan=False))


def _drawn(draw: Callable[[Console], None]) -> None:
    """Drawn as for stdout, but written by Click: Rich leaves the process when nobody reads."""
    console = _console()
    with console.capture() as text:
        draw(console)
    for line in text.get().splitlines():
        click.echo(line.rstrip())


def reports(found: Mapping[str, Report], given: Mapping[str, Any], out: Path | None = None) -> int:
    """One report, or one a variant; 1 if any check failed.

    Args:
        out: what was written.
    """
    ok = all(report.ok for report in found.values())
    with printing():
        if given["as_json"]:
            every = {name: report.to_dict() for name, report in found.items()}
            several = {"schema": "exporter/reports/1", "ok": ok, "variants": every}
            _json(every.get("", several))
        else:
            draw = (
                partial(print_report, found[""]) if "" in found else partial(print_reports, found)
            )
            _drawn(draw)
            if given["verbose"]:
                _every_check(found)
            if out is not None:
                click.echo(f"\nWritten to {formatting.printable(str(out))}")
    return 0 if ok else FAILED


def _every_check(found: Mapping[str, Report]) -> None:
    click.echo("\nEvery check")
    for name, report in found.items():
        for check in report.checks:
            where = (name, check.artifact, check.stage, check.output, check.metric)
            value, limit = formatting.value_and_limit(check)
            told = "passed" if check.passed else "FAILED"
            click.echo(
                formatting.printable(f"  {told}  {', '.join(filter(None, where))}: {value} {limit}")
            )


def pruned(report: Report, given: Mapping[str, Any]) -> int:
    """The outcome of `prune`."""
    if not given["as_json"]:
        return converted(report, given)
    record = report.to_dict()
    keys = ("artifacts", "remap", "checks", "warnings")
    with printing():
        shown = {"schema": "exporter/prune/1", "ok": report.ok}
        _json({**shown, **{key: record[key] for key in keys}})
    return 0 if report.ok else FAILED


def converted(report: Report, given: Mapping[str, Any]) -> int:
    """The outcome of a command that writes one file, which it does not where a check failed."""
    code = reports({"": report}, given)
    if code == FAILED and not given["as_json"]:
        click.echo("error: a check failed; nothing was written", err=True)
    return code


def plans(cuts: Mapping[str, Cut], given: Mapping[str, Any]) -> int:
    """What `--dry-run` shows."""
    with printing():
        if given["as_json"]:
            plan = {name: _plan(cut) for name, cut in cuts.items()}
            _json({"schema": "exporter/plan/1", "ok": True, "plans": plan})
        else:
            for name, cut in cuts.items():
                _tell_plan(name, cut)
            click.echo("nothing was written (--dry-run)")
    return 0


def _tell_plan(name: str, cut: Cut) -> None:
    title = f"{name}: " if name else ""
    kept, units = len(cut.selection.kept), cut.selection.units
    click.echo(f"{title}head {cut.heads[0].name!r}, {cut.mode}: {kept} of {units} units kept")
    for edit in cut.plan.edits:
        click.echo(f"  {formatting.printable(str(edit))}")
    for warning in cut.warnings:
        click.echo(f"warning: {warning}", err=True)


def _plan(cut: Cut) -> Mapping[str, Any]:
    return {
        "head": cut.heads[0].name,
        "mode": cut.mode,
        "edits": [str(edit) for edit in cut.plan.edits],
        "remap": json.loads(cut.remap.to_json()),
        "warnings": list(cut.warnings),
    }


# --- inspect ------------------------------------------------------------------------------------


def inspection(found: Inspection, given: Mapping[str, Any]) -> int:
    """The heads of a model."""
    record = found.to_dict()
    with printing():
        if given["as_json"]:
            _json(record)
            return 0
        model = record["model"]
        about = (KINDS[model["kind"]].title, model["precision"], formatting.size(model["bytes"]))
        click.echo(f"{formatting.printable(model['name'])}: {', '.join(about)}")
        for tensor in record["inputs"]:
            name, shape = formatting.printable(tensor["name"]), _shape(tensor["shape"])
            click.echo(f"input {name}: {shape} {tensor['dtype']}")
        if found.heads:
            click.echo()
            _drawn(lambda console: console.print(_heads(found.heads)))
        for facts in found.heads if given["verbose"] else ():
            click.echo(_numbers(facts))
        for refusal in found.refused:
            click.echo(f"refused: {formatting.printable(str(refusal))}")
        for hint in dict.fromkeys(r.hint for r in found.refused if r.hint):
            click.echo(f"hint: {formatting.printable(hint)}")
        names = [facts.head.name for facts in found.heads if facts.head.name not in found.masks]
        if found.masks:
            maps = ", ".join(map(formatting.printable, found.masks))
            click.echo(f"\nMasks are made of {maps}: it is cut only where --head names it")
        if len(names) > 1:
            click.echo(f"\nChoose one with --head NAME: --head {shlex.quote(names[0])}")
    return 0


def _heads(heads: tuple[HeadFacts, ...]) -> Table:
    """Shares are what one wants to know; the numbers behind them are told by --verbose."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = ["Head", "Units", "Activation", "Dtype", "Labels", "Bytes", "Multiply-adds"]
    parted = any(facts.head.axis_parts for facts in heads)
    for column in (*columns, *(["Parts"] if parted else [])):
        table.add_column(column, overflow="fold", no_wrap=column not in {"Head", "Parts"})
    for facts in heads:
        head = facts.head
        table.add_row(
            Text(formatting.printable(head.name)),
            str(head.units),
            head.activation,
            facts.dtype,
            "yes" if head.labels else "no",
            _share(facts.bytes, facts.share_of_bytes),
            _share(facts.multiply_adds, facts.share_of_multiply_adds),
            *(["\n".join(map(str, head.axis_parts))] if parted else []),
        )
    return table


def _share(count: int | None, share: float | None) -> str:
    """The share where it is known, else the number, else that it is not known."""
    if share is not None:
        return f"{share:.1%}"
    return "unknown" if count is None else f"{count:,}"


def _numbers(facts: HeadFacts) -> str:
    head = facts.head
    start, stop = head.unit_range or (0, head.units)
    work = "unknown" if facts.multiply_adds is None else f"{facts.multiply_adds:,}"
    place = f"axis {head.axis}, {start} to {stop - 1}"
    name = formatting.printable(head.name)
    return f"{name}: {place}; {facts.bytes:,} bytes; {work} multiply-adds"


def _shape(shape: list[int | None] | None) -> str:
    if shape is None:
        return "any rank"
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"


# --- demo ---------------------------------------------------------------------------------------


def demo(result: Demo, out: Path, given: Mapping[str, Any]) -> int:
    """The demo's report, and what it means."""
    code = reports({"": result.report}, given)
    if given["as_json"]:
        return code
    with printing():
        click.echo(f"\nThe network names {result.trained_accuracy:.1%} of 360 held-out digits.")
        click.echo(f"On the {result.images} that show {', '.join(KEPT)}, correctly named:")
        for (kind, precision), (before, after) in result.accuracy.items():
            told = f"{before:.1%} before the cut, {after:.1%} after"
            click.echo(f"  {kind:<7} {precision:<5} {told}")
        click.echo(f"\nAll of it is in {out}: report.html tells the whole story, and")
        click.echo(f"  {_program()} run {shlex.quote(str(out / NETWORK))} -o mine --keep 3-5")
        click.echo("cuts the same network to other digits.")
    return code


def _program() -> str:
    """How to call this program again: `make demo` leaves it in .venv, off the path."""
    if shutil.which("exporter"):
        return "exporter"
    started = Path(sys.argv[0])
    return shlex.quote(str(started)) if started.name == "exporter" else "python -m exporter"
