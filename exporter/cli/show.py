"""Put results on stdout: tables for people, one JSON object for machines; the exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from exporter.cutting import Cut
from exporter.demo import KEPT, NETWORK, Demo
from exporter.inspection import HeadFacts, Inspection
from exporter.report.record import Report
from exporter.report.terminal import print_report, print_reports

FAILED = 1


def _console() -> Console:
    return Console(highlight=False)


def _json(record: Mapping[str, Any]) -> None:
    click.echo(json.dumps(record, ensure_ascii=False, allow_nan=False))


def reports(found: Mapping[str, Report], given: Mapping[str, Any]) -> int:
    """One report, or one a variant; 1 if any check failed."""
    if given["as_json"]:
        every = {name: report.to_dict() for name, report in found.items()}
        ok = all(report.ok for report in found.values())
        several = {"schema": "exporter/reports/1", "ok": ok, "variants": every}
        _json(every.get("", several))
    elif "" in found:
        print_report(found[""], _console())
    else:
        print_reports(found, _console())
    return 0 if all(report.ok for report in found.values()) else FAILED


def pruned(report: Report, given: Mapping[str, Any]) -> int:
    """The outcome of `prune`."""
    if given["as_json"]:
        record = report.to_dict()
        keys = ("artifacts", "remap", "checks", "warnings")
        shown = {"schema": "exporter/prune/1", "ok": report.ok}
        _json({**shown, **{key: record[key] for key in keys}})
    else:
        print_report(report, _console())
        if not report.ok:
            click.echo("error: a check failed; nothing was written", err=True)
    return 0 if report.ok else FAILED


def plans(cuts: Mapping[str, Cut], given: Mapping[str, Any]) -> int:
    """What `--dry-run` shows."""
    if given["as_json"]:
        plan = {name: _plan(cut) for name, cut in cuts.items()}
        _json({"schema": "exporter/plan/1", "ok": True, "plans": plan})
        return 0
    for name, cut in cuts.items():
        head = cut.heads[0]
        title = f"{name}: " if name else ""
        kept, units = len(cut.selection.kept), cut.selection.units
        click.echo(f"{title}head {head.name!r}, {cut.mode}: {kept} of {units} units kept")
        for edit in cut.plan.edits:
            click.echo(f"  {edit}")
        for warning in cut.warnings:
            click.echo(f"warning: {warning}", err=True)
    click.echo("nothing was written (--dry-run)")
    return 0


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
    if given["as_json"]:
        _json(record)
        return 0
    model, console = record["model"], _console()
    size = "" if model["bytes"] is None else f", {model['bytes'] / 1e6:.2f} MB"
    click.echo(f"{model['name']}: {model['kind']}, {model['precision']}{size}")
    for tensor in record["inputs"]:
        click.echo(f"input {tensor['name']}: {_shape(tensor['shape'])} {tensor['dtype']}")
    if found.heads:
        console.print(_heads(found.heads))
    for refusal in found.refused:
        click.echo(f"refused: {refusal}")
    if len(found.heads) > 1:
        click.echo(f"choose one with --head NAME, such as --head {found.heads[0].head.name}")
    return 0


def _heads(heads: tuple[HeadFacts, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("head", "units", "axis", "activation", "dtype", "bytes", "multiply-adds"):
        table.add_column(column, overflow="fold")
    for facts in heads:
        head = facts.head
        table.add_row(
            head.name,
            str(head.units),
            str(head.axis),
            head.activation,
            facts.dtype,
            _share(facts.bytes, facts.share_of_bytes),
            _share(facts.multiply_adds, facts.share_of_multiply_adds),
        )
    return table


def _share(count: int | None, share: float | None) -> str:
    if count is None:
        return "not known"
    return f"{count:,}" if share is None else f"{count:,} ({share:.1%})"


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
    click.echo(f"\nThe network names {result.trained_accuracy:.1%} of 360 held-out digits.")
    click.echo(f"On the {result.pictures} that show {', '.join(KEPT)}, correctly named:")
    for kind, (before, after) in result.accuracy.items():
        click.echo(f"  {kind:<7} {before:.1%} before the cut, {after:.1%} after")
    click.echo(f"\nAll of it is in {out}: report.md tells the whole story, and")
    click.echo(f"  exporter run {out / NETWORK} -o mine --keep 3-5")
    click.echo("cuts the same network to other digits.")
    return code
