"""Print results on stdout, as text or as one JSON object, and return the exit code."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from os.path import normpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.exit_codes import printing
from exporter.cli.stderr import say
from exporter.cli.stdout import print_json, print_printable, print_rich
from exporter.report import formatting

if TYPE_CHECKING:
    from exporter.jobs.demo import Demo
    from exporter.jobs.select import UnitChoice
    from exporter.jobs.verify_folder import FolderReport
    from exporter.records import Report

FAILED = 1
MOST_FILES = 6  # that the end of a run names
MOST_ROWS = 30  # units that `select` prints without --verbose

# --- reports ------------------------------------------------------------------------------------


def reports(
    by_name: Mapping[str, Report],
    given: Mapping[str, Any],
    out: Path | None = None,
    seconds: float = 0.0,
    *,
    written: bool = True,
) -> int:
    """Print one report, with the name "", or a report for each variant.

    Args:
        given: the parameters of the command.
        out: the folder that was written, which took so many seconds.
        written: the files of the report exist.
    """
    ok = all(report.ok for report in by_name.values())
    with printing():
        if given["as_json"]:
            records = {name: report.to_dict() for name, report in by_name.items()}
            variants = {"schema": "exporter/reports/1", "ok": ok, "variants": records}
            print_json(records.get("", variants))
        else:
            from exporter.report.terminal import print_report, print_reports

            single = by_name.get("")
            print_rich(
                partial(print_report, single, written=written)
                if single
                else partial(print_reports, by_name)
            )
            if given["verbose"]:
                _print_checks(by_name)
                _print_timings(by_name)
            if out is not None:
                _print_written(by_name, out, seconds)
    return 0 if ok else FAILED


def _print_written(by_name: Mapping[str, Report], out: Path, seconds: float) -> None:
    """The files, the time, and the page to look at."""
    from exporter.output.folder import INDEX, PAGE

    click.echo()
    page = INDEX if any(by_name) else PAGE
    models = [Path(name, each.path) for name, r in by_name.items() for each in r.artifacts]
    names = [normpath(path) for path in models[:MOST_FILES]]
    more = f", and {len(models) - MOST_FILES} more models" if len(models) > MOST_FILES else ""
    print_printable(f"Written to {out} in {seconds:.0f} s: {', '.join(names)}{more}")
    print_printable(f"Open {out / page}")


def folder_report(report: FolderReport, given: Mapping[str, Any]) -> int:
    """Print the result of `verify DIR`."""
    with printing():
        if given["as_json"]:
            print_json(report.to_dict())
        else:
            _print_folder(report)
    return 0 if report.ok else FAILED


def _print_folder(report: FolderReport) -> None:
    files = report.files
    count = len(files.matching)
    print_printable(f"{report.folder}: {count} file{'s' * (count != 1)} as written")
    for title in ("missing", "changed", "extra"):
        for name in getattr(files, title):
            print_printable(f"  {title}  {name}")
    click.echo("Checks that the run made:" if report.claims else "The run made no checks")
    for claim in report.claims:
        print_printable(
            f"  {claim.artifact}, {claim.stage}: {claim.passed} of {claim.checks} passed"
        )


def _print_checks(by_name: Mapping[str, Report]) -> None:
    click.echo("\nEvery check")
    for name, report in by_name.items():
        for check in report.checks:
            names = (name, check.artifact, check.stage, check.output, check.metric)
            value, limit = formatting.value_and_limit(check)
            outcome = "passed" if check.passed else "FAILED"
            print_printable(f"  {outcome}  {', '.join(filter(None, names))}: {value} {limit}")


def _print_timings(by_name: Mapping[str, Report]) -> None:
    for name, report in by_name.items():
        if steps := [f"{step} {seconds:.2f} s" for step, seconds in report.timings.items()]:
            click.echo()
            print_printable(f"Time{name and f' of {name}'}: {', '.join(steps)}")


def prune_report(report: Report, given: Mapping[str, Any]) -> int:
    """Print the report of `prune`."""
    if not given["as_json"]:
        return written_file(report, given)
    record = report.to_dict()
    shown = (
        *("artifacts", "remap", "checks", "quality"),
        *("coverage", "worst", "warnings", "selection"),
    )
    fields = {key: record[key] for key in shown}
    with printing():
        print_json({"schema": "exporter/prune/1", "ok": report.ok, **fields})
    return 0 if report.ok else FAILED


def written_file(report: Report, given: Mapping[str, Any]) -> int:
    """Print the report of a command that writes one file, or none if a check failed."""
    code = reports({"": report}, given, written=report.ok)
    if code == FAILED and not given["as_json"]:
        say("error: a check failed; nothing was written")
    return code


# --- select -------------------------------------------------------------------------------------


def choice(chosen: UnitChoice, out: Path, given: Mapping[str, Any]) -> int:
    """Print which units were chosen, and why."""
    record = chosen.to_dict()
    groups = _merge_groups(chosen, given["suggest_merge"])
    with printing():
        if given["as_json"]:
            print_json({**record, "ok": True, "merge": groups})
        else:
            _print_choice(chosen, groups, given)
            click.echo()
            print_printable(f"Written to {out}; use it with --keep @{out}")
    return 0


def _merge_groups(chosen: UnitChoice, rate: float | None) -> list[list[int]]:
    if rate is None:
        return []
    from exporter.evaluation.unit_table import confusion_groups

    return [list(group) for group in confusion_groups(chosen.confused, chosen.rows, rate)]


def _print_choice(chosen: UnitChoice, groups: list[list[int]], given: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    print_printable(
        f"head {chosen.head!r}: {len(chosen.kept)} of {len(chosen.rows)} units kept, by "
        f"{chosen.samples} samples of {chosen.source}"
    )
    click.echo()
    shown = len(chosen.rows) if given["verbose"] else MOST_ROWS
    rows = chosen.table()
    if len(rows) > shown:
        rows.sort(key=lambda row: not row["kept"])
    measured = [name for name in ("count", "support", "f1") if rows[0][name] is not None]
    titles = ("Unit", "Label", *map(str.capitalize, measured), "Kept", "Reason")
    table = Table(*titles, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows[:shown]:
        numbers = (
            str(row[name]) if isinstance(row[name], int) else f"{row[name]:.4g}"
            for name in measured
        )
        kept = "yes" if row["kept"] else "no"
        table.add_row(
            str(row["unit"]),
            Text(formatting.printable(row["label"])),
            *numbers,
            kept,
            Text(row["reason"]),
        )
    print_rich(lambda console: console.print(table))
    if len(rows) > shown:
        click.echo(f"... {len(rows) - shown} more units: --verbose shows all")
    for unit, new, count in (
        (unit, new, count)
        for unit, row in (chosen.moved.items() if given["explain"] else ())
        for new, count in row.items()
    ):
        print_printable(
            f"{count} samples of {_unit(chosen, unit)} are predicted as {_unit(chosen, new)}"
        )
    if given["suggest_merge"] is not None and not groups:
        labeled = rows[0]["support"] is not None
        fact = "no units are confused that often" if labeled else "the data has no labels"
        click.echo(f"no groups to merge: {fact}")
    for group in groups:
        members = ",".join(str(unit) for unit in group)
        names = " and ".join(_unit(chosen, unit) for unit in group)
        print_printable(f"{names} are confused: try --merge NAME={members}")
    for warning in chosen.warnings:
        print_printable(f"warning: {warning}")


def _unit(chosen: UnitChoice, unit: int) -> str:
    return chosen.rows[unit].label or f"unit {unit}"


# --- demo ---------------------------------------------------------------------------------------


def demo(result: Demo, out: Path, given: Mapping[str, Any]) -> int:
    """Print the report of the demo, its accuracies, and a next command."""
    from exporter.jobs.demo import COVERAGE, MIN_F1, NETWORK

    code = reports({"": result.report}, given)
    if given["as_json"]:
        return code
    with printing():
        click.echo(f"\nThe digits were chosen on {result.choice.samples} pictures, most of them of")
        click.echo("three digits, as a device might see them: those that the network recognizes")
        click.echo(f"(F1 of at least {MIN_F1}), until {COVERAGE:.0%} of the pictures are covered.")
        share = f"{result.trained_accuracy:.1%}"
        click.echo(f"The network classifies {share} of 360 held-out digits correctly.")
        kept = ", ".join(result.choice.kept_labels or ())
        click.echo(f"Accuracy on the {result.images} images of {kept}:")
        for (kind, precision), (before, after) in result.accuracy.items():
            click.echo(f"  {kind:<7} {precision:<5} {before:.1%} before the cut, {after:.1%} after")
        if result.trimmed:
            click.echo("Trimmed on training images of these digits, without their labels, and not")
            click.echo(f"equal to the original; accuracy on the {result.images} images above:")
        for kind, (report, accuracy) in result.trimmed.items():
            (file,), (row,) = report.artifacts, report.trimmed
            work = formatting.percent((row.multiply_adds or 0) / (row.original_multiply_adds or 1))
            sizes = formatting.size(file.original_bytes, file.bytes)
            agreement = formatting.percent(row.agreement)
            click.echo(
                f"  {kind:<7} {sizes}, {work} of the multiply-adds, accuracy {accuracy:.1%},"
            )
            click.echo(f"          agreement {agreement} on {row.held_out_samples} training images")
        click.echo(f"\nThe results are in {out}; report.html is the report. Now cut the network")
        click.echo("to other digits:")
        click.echo(f"  {_program()} run {shlex.quote(str(out / NETWORK))} -o mine --keep 3-5")
    return code


def _program() -> str:
    """The shell command for this program; `make demo` installs it in .venv, off the path."""
    if shutil.which("exporter"):
        return "exporter"
    started = Path(sys.argv[0])
    return shlex.quote(str(started)) if started.name == "exporter" else "python -m exporter"
