"""The report as one HTML page: a verdict, a card for each file, plots, and every table.

The page fetches nothing. Its only script, which its policy names by its hash, searches and sorts
tables and copies text; everything can be read without it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from exporter.records import Check, Report
from exporter.remap.head_remap import HeadRemap
from exporter.report import describe, pictured, view
from exporter.report.batch_page import TITLES, batch_rows, filled
from exporter.report.check_groups import REASONS, describe_quantization, is_gated
from exporter.report.formatting import printable
from exporter.report.plots import report_plots, variant_plots
from exporter.report.sections import Section, batch_sections, report_sections
from exporter.report.svg import Plot
from exporter.verification.metrics import METRICS

UNIT_ROWS = 4000  # about 300 kB; the remap itself has all

_TEMPLATES = Path(__file__).with_name("page")
_IN_BANNER = {"Failed checks", "Examples of failures", "Selection", "Warnings", "Worst samples"}

MEANINGS: Mapping[str, str] = {
    **{name: metric.label for name, metric in METRICS.items()},
    **REASONS,
    "proved": "The file is equal to the cut made again from the original.",
    "sampled": "The file was compared with the original on samples.",
    "not verified": "Nothing was compared.",
    "SQNR": "Signal-to-quantization-noise ratio: at 20 dB the error is a tenth of the signal.",
    "Top-1": "How often the first answer equals the float model's answer.",
    "p50": "The median time of one run.",
    "p90": "Nine of ten runs take at most this long.",
    "p99": "99 of 100 runs take at most this long.",
    "CPU": "Processor time of one run, which stops while other programs run.",
    "Noise floor": "What this machine reports when the original is timed against itself.",
    "Limit": "The file fails if the value is beyond it.",
    "Structure": "Whether the file is equal to the cut made again from the original.",
    "Route": "How the model was converted.",
    "Resident": "Memory by which a process grows when it loads and runs the file.",
    "Anonymous": "The part of it that the process allocates.",
    "Mapped": "The part of it that comes from files, which the system can drop.",
    "Peak": "The most while loading and running.",
}


@dataclass(frozen=True)
class _Head:
    """One head of the page: its table and the sentences around it."""

    remap: HeadRemap
    words: str
    notes: list[str]
    rows: list[view.UnitRow]

    @cached_property  # each row of the table asks
    def labels(self) -> bool:
        return any(row.label for row in self.rows)

    @cached_property
    def reasons(self) -> bool:
        return any(row.reason for row in self.rows)

    @property
    def more(self) -> int:
        return self.remap.old_units - len(self.rows)


def to_html(report: Report, *, plots: bool = True) -> str:
    """One self-contained page, readable without its script.

    Text from model files cannot become markup: every value is escaped, and the page's own policy
    runs no other script and loads nothing.
    """
    sections = report_sections(report)
    heads = report.remap.heads if report.remap else ()
    parts = report_parts(report, plots=plots)
    said = {reason for each in parts["verdicts"] for reason in each.reasons}
    return _template("report.html").render(
        report=report,
        result=view.report_result(report),
        warnings=[text for text in report.warnings if text not in said],
        advice=describe_quantization(report.checks),
        causes=[each for each in sections if each.title == "Examples of failures"],
        heads=[_head(report, head) for head in heads],
        samples=pictured.worst_samples(report),
        detections=pictured.detections(report),
        sections=[each for each in sections[1:] if not _is_elsewhere(each)],
        **parts,
    )


def report_parts(report: Report, *, plots: bool = True) -> dict[str, Any]:
    """What the page and a notebook show first."""
    return {
        "headline": view.headline(report),
        "verdicts": view.file_verdicts(report),
        "inputs": describe.describe_inputs(report),
        "cards": view.cards(report),
        "plots": _drawn(report_plots, report) if plots else [],
    }


def fragment_template() -> Template:
    """A part of a page for a notebook."""
    return _template("fragment.html")


def to_index_html(reports: Mapping[str, Report]) -> str:
    """One page that compares variants and links to the page of each.

    Args:
        reports: name of the subfolder -> its report; at least one.
    """
    results = {view.report_result(report) for report in reports.values()}
    rows = view.variant_rows(reports)
    return _template("index.html").render(
        result=next(each for each in ("fail", "warning", "pass") if each in results),
        headline=printable(batch_sections(reports)[0].title),
        original=next(iter(reports.values())).original.path,
        plots=_drawn(variant_plots, reports),
        rows=rows,
        unclear=[row for row in rows if row.card.verdict.result != "pass"],
        styles={"pass": "good", "warning": "warning", "fail": "bad"},
    )


def to_batch_html(headline: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page of a batch.

    Args:
        rows: of its index, one for each file; at least one.
    """
    passed = all(row["status"] == "passed" for row in rows)
    shown = batch_rows(rows)
    return _template("batch.html").render(
        result="pass" if passed else "fail",
        headline=headline,
        titles=TITLES,
        numbers=filled(shown),
        rows=shown,
        more=len(rows) - len(shown),
    )


def _is_elsewhere(section: Section) -> bool:
    """Whether the banner or the tables of units show what the section says."""
    return section.title in _IN_BANNER or section.title.startswith("Remap of ")


def _is_information(record: Any) -> bool:
    return isinstance(record, Check) and not is_gated(record)


def _head(report: Report, head: HeadRemap) -> _Head:
    notes = [describe.describe_removed(head), describe.describe_ids(head)]
    shown = islice(view.kept_first(head), UNIT_ROWS)
    return _Head(
        head,
        describe.describe_kept(head),
        [note for note in notes if note],
        view.unit_rows(head, shown, view.chosen_units(report), report.unit_labels),
    )


def _drawn(draw: Callable[[Any], list[Plot]], record: Any) -> list[Plot] | None:
    """The plots; None without Matplotlib."""
    try:
        return draw(record)
    except ImportError:
        return None


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.filters["printable"] = printable
    environment.tests["information"] = _is_information
    script = (_TEMPLATES / "script.js").read_text("utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    style = (_TEMPLATES / "style.css").read_text("utf-8")
    scoped = re.sub(r":root|\bbody\b", ":scope", style)
    environment.globals |= {
        "meanings": MEANINGS,
        "style": Markup(style),  # noqa: S704 - our own file
        "scoped_style": Markup(scoped),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
        "script_hash": f"sha256-{digest}",
    }
    return environment.get_template(name)
