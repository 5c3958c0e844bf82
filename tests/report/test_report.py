"""A report as JSON, Markdown, HTML and on a terminal; whole outputs are compared."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from exporter.errors import ModelError
from exporter.ondevice import machine
from exporter.records import (
    Check,
    Coverage,
    FirstDifference,
    Interface,
    Proof,
    Report,
    SelectedUnit,
    WorstCase,
)
from exporter.report import check_groups, describe, formatting, sections
from exporter.report import machine as libraries
from exporter.report.check_groups import describe_quantization
from exporter.report.markdown import to_markdown
from exporter.report.terminal import print_report, print_reports
from tests.builders.reports import (
    CONVERTED,
    FAILING,
    MARKDOWN,
    PASSING,
    RECORDS,
    REPORT_KEYS,
    TERMINAL,
    UNVERIFIED,
    VARIANTS,
    check,
    head,
    remap,
)


def console(**options: Any) -> Console:
    return Console(file=io.StringIO(), **{"width": 80, **options})


def shown(report: Report, **options: Any) -> str:
    target = console(**options)
    print_report(report, target)
    return written(target)


def written(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


# --- JSON: damaged texts, then the round trip --------------------------------------------

TEXT = PASSING.to_json()


def without(*path: str | int) -> str:
    record = json.loads(TEXT)
    *way, last = path
    place = record
    for key in way:
        place = place[key]
    del place[last]
    return json.dumps(record)


def with_(value: Any, key: str) -> str:
    return json.dumps({**json.loads(TEXT), key: value})


DAMAGED = [
    pytest.param("", "damaged", id="empty"),
    pytest.param(TEXT[:-20], "damaged", id="cut off"),
    pytest.param("[" * 100_000, "damaged", id="nested too deep"),
    pytest.param("[]", "damaged", id="a list"),
    pytest.param("null", "damaged", id="null"),
    pytest.param("{}", "damaged: 'schema'", id="no schema"),
    pytest.param(with_("exporter/report/2", "schema"), "exporter/report/1", id="another schema"),
    pytest.param(without("inputs"), "damaged: 'inputs'", id="a key is missing"),
    pytest.param(without("original", "kind"), "kind", id="a key of the original is missing"),
    pytest.param(without("checks", 0, "passed"), "passed", id="a key of a check is missing"),
    pytest.param(without("latency", 0, "speedup_ci95", 0), "damaged", id="half an interval"),
    pytest.param(with_(None, "checks"), "damaged", id="no list of checks"),
    pytest.param(with_([1], "artifacts"), "damaged", id="an artifact is a number"),
    pytest.param(with_(7, "original"), "damaged", id="the original is a number"),
    pytest.param(with_([], "remap"), "remap", id="the remap is a list"),
]


@pytest.mark.parametrize(("text", "message"), DAMAGED)
def test_damaged_json_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        Report.from_json(text)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", RECORDS)
def test_json_round_trip(name: str) -> None:
    report = RECORDS[name]
    assert Report.from_json(report.to_json()) == report


def test_json_keys_are_in_the_documented_order() -> None:
    record = json.loads(TEXT)
    assert list(record) == REPORT_KEYS
    assert (record["schema"], record["ok"]) == ("exporter/report/1", True)
    assert json.loads(FAILING.to_json())["ok"] is False


def test_unknown_json_keys_are_ignored() -> None:
    record = json.loads(TEXT)
    record["new"] = record["checks"][0]["new"] = record["original"]["new"] = 1
    assert Report.from_json(json.dumps(record)) == PASSING


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_infinity_and_nan_become_null_in_json(value: float) -> None:
    row = replace(PASSING.latency[0], speedup=value, speedup_ci95=(value, 1.0))
    checks = (check("max_abs", value, 1e-6, passed=False),)
    text = replace(PASSING, latency=(row,), checks=checks, machine={"load": [value]}).to_json()
    record = json.loads(text, parse_constant=pytest.fail)
    assert record["checks"][0]["value"] is None
    assert record["latency"][0]["speedup_ci95"] == [None, 1.0]
    assert record["machine"] == {"load": [None]}
    assert record["warnings"] == [
        *PASSING.warnings,
        f"machine.load[0] is {value}, which JSON cannot contain: it is written as null.",
        f"checks[0].value is {value}, which JSON cannot contain: it is written as null.",
        f"latency[0].speedup is {value}, which JSON cannot contain: it is written as null.",
        f"latency[0].speedup_ci95[0] is {value}, which JSON cannot contain: it is written as null.",
    ]
    again = Report.from_json(text)
    assert not again.ok
    assert "max_abs is -, limit 1.0e-06" in to_markdown(again)
    assert "  - [-, 1.00]" in shown(again)


# --- whole outputs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDS)
def test_markdown(name: str) -> None:
    assert to_markdown(RECORDS[name]) == MARKDOWN[name]


@pytest.mark.parametrize("name", RECORDS)
def test_terminal(name: str) -> None:
    assert shown(RECORDS[name]) == TERMINAL[name]


def test_variants() -> None:
    target = console()
    print_reports({"pets": PASSING, "none": FAILING}, target)
    assert written(target) == VARIANTS


def test_variants_without_checks() -> None:
    more = (*PASSING.artifacts, replace(PASSING.artifacts[0], precision="fp16"))
    target = console()
    bare = replace(PASSING, checks=(), remap=None)
    print_reports({"pets": replace(PASSING, artifacts=more), "[bold]all": bare}, target)
    assert written(target) == UNVERIFIED


def test_variants_that_pass() -> None:
    target = console()
    print_reports({"pets": PASSING, "rest": CONVERTED}, target)
    assert written(target).startswith("2 variants: every check passed\n\nVariant  ")


def test_job_without_checks_and_files() -> None:
    bare = replace(CONVERTED, artifacts=(), checks=())
    assert "## Artifacts" not in to_markdown(bare)
    assert "No check was run: nothing is verified.\n" in to_markdown(bare)
    assert shown(bare).startswith(
        "net.keras, no units removed: not verified\n\nInputs  No model was run.\n"
    )


def test_job_that_only_timed_says_nothing_about_outputs() -> None:
    text = shown(replace(PASSING, checks=()))
    assert "Inputs  16 synthetic samples (seed 0), not real data.\n" in text


def test_file_named_synthetic_is_real_data() -> None:
    own = replace(PASSING, inputs={"source": "synthetic, or not.npz", "samples": 9})
    assert describe.describe_inputs(own) == "9 samples from synthetic, or not.npz."


def test_notebooks_show_the_markdown() -> None:
    assert PASSING._repr_markdown_() == to_markdown(PASSING)


# --- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [to_markdown, shown])
def test_report_starts_with_failed_checks(draw: Callable[[Report], str]) -> None:
    start = "3 of 4 checks failed. Do not use pruned.fp32.onnx.\n"
    assert draw(FAILING).lstrip("# ").startswith(start)


@pytest.mark.parametrize(("draw", "rows"), [(to_markdown, 20), (shown, 10)])
@pytest.mark.parametrize("more", [0, 1, 480])
def test_long_remaps_are_cut(draw: Callable[[Report], str], rows: int, more: int) -> None:
    keep = tuple(range(1000, 1000 + rows + more))
    text = draw(replace(PASSING, remap=remap(head(keep, 2000))))
    assert str(1000 + rows - 1) in text
    assert str(1000 + rows) not in text
    assert (f"+{more} more in remap.json" in text) == bool(more)


def test_merged_units_show_all_members() -> None:
    merged = head((2, 3, 7), 10, new_to_old=(2, (3, 7)), new_units=2, labels=("a", "b"))
    assert list(describe.remap_rows(merged)) == [("0", "2", "a"), ("1", "3 + 7", "b")]


def test_kept_units_of_merged_groups() -> None:
    groups = {"new_to_old": (0, (1, 2)), "new_units": 2, "options": {"merge": {"g": (1, 2)}}}
    assert describe.describe_kept(head((0, 1, 2), 3, **groups)) == "3 units merged into 2"
    assert (
        describe.describe_kept(head((0, 1, 2), 9, **groups)) == "3 of 9 units kept, merged into 2"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"emit": {"output": "ids", "count": None}},
            "Output ids contains the original index of the best unit.",
        ),
        ({"emit": {"output": "ids", "count": 3}}, "of the best 3 units."),
        ({"restore_ids": True}, "the model returns are the original's indices."),
    ],
    ids=["best", "best three", "restored"],
)
@pytest.mark.parametrize("draw", [to_markdown, shown], ids=["markdown", "terminal"])
def test_report_explains_ids(
    draw: Callable[[Report], str], options: dict[str, Any], sentence: str
) -> None:
    text = draw(replace(PASSING, remap=remap(head((0, 2), 4, options=options))))
    assert sentence in " ".join(text.split())


def test_checks_of_a_file_that_was_not_kept_add_no_name() -> None:
    """`run` compares a converted file that it does not write, if no weight is removed from it."""
    removed = check("max_abs", 1e-7, 1e-6, artifact="original.onnx", stage="export")
    report = replace(PASSING, checks=(*PASSING.checks, removed))
    assert describe.describe_result(report) == describe.describe_result(PASSING)
    assert describe.describe_result(PASSING).startswith("fp32 matches the original")


def test_notes_on_timing_name_files_once() -> None:
    """Files that other processes disturbed alike share a sentence."""
    first = PASSING.latency[1]
    second = replace(first, artifact="b.onnx", original_cpu_ms=4.0, cpu_ms=2.0)
    third = replace(first, artifact="c.onnx", basis="wall time", cpu_ms=None, samples=20)
    third = replace(third, interrupted_rounds=12)
    quiet = replace(third, artifact="d.onnx", interrupted_rounds=0)
    text = describe.describe_limits_of_timing((first, second, third, quiet), with_cpu=True)
    assert text == (
        "Changes below 5 % cannot be seen in this run. "
        "CPU time: 21.0 -> 0.012 ms for pruned.fp32.tflite, 4.00 -> 2.00 ms for b.onnx. "
        "Other processes interrupted 180 of 200 rounds for pruned.fp32.tflite, 180 of 200 rounds "
        "for b.onnx, so CPU times are compared. "
        "Other processes interrupted 12 of 200 rounds for c.onnx, which are left out."
    )


def test_several_heads_are_named() -> None:
    other = replace(head((0,), 5), name="box_[0]")
    report = replace(PASSING, remap=remap(head((1, 2), 4), other))
    title = "2 of 4 units kept of scores, 1 of 5 units kept of box_[0]: fp32 matches"
    assert sections.report_sections(report)[0].title.startswith(title)
    assert "Remap of box_[0]\nNew  Old\n  0    0\n" in shown(report)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("name", RECORDS)
def test_lines_fit_the_terminal(name: str, width: int) -> None:
    long = replace(
        RECORDS[name],
        artifacts=tuple(replace(a, path="a-name-" * 9 + a.path) for a in RECORDS[name].artifacts),
        checks=tuple(replace(c, artifact="a-name-" * 9 + c.artifact) for c in RECORDS[name].checks),
    )
    lines = shown(long, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]


def test_no_escape_codes_without_a_terminal() -> None:
    assert "\x1b" not in shown(FAILING)


def test_no_color_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    color = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert color.search(shown(FAILING, force_terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not color.search(shown(FAILING, force_terminal=True))


HOSTILE = "[red]:smile:\x1b[31m\n# `x`|<b>&amp;"


def test_text_from_files_is_escaped() -> None:
    labels = (HOSTILE, "sea_lion", "_emphasis_")
    report = replace(
        PASSING,
        command="echo ```",
        remap=remap(head((3, 5, 9), 10, labels=labels)),
        artifacts=(replace(PASSING.artifacts[0], path=f"`{HOSTILE}"),),
        warnings=(HOSTILE,),
    )
    terminal, markdown = shown(report), to_markdown(report)
    assert "  0    3  [red]:smile:\\x1b[31m\\n# `x`|<b>&amp;\n" in terminal
    assert "| 0 | 3 | \\[red\\]:smile:\\\\x1b\\[31m\\\\n# \\`x\\`\\|\\<b>\\&amp; |\n" in markdown
    assert "| sea_lion |" in markdown
    assert "| \\_emphasis\\_ |" in markdown
    assert "| `` `[red]:smile:\\x1b[31m\\n# `x`\\|<b>&amp; `` | onnx |" in markdown
    assert "````sh\necho ```\n````" in markdown


NUMBERS = [
    pytest.param(formatting.number, None, "-", id="no value"),
    pytest.param(formatting.number, 0.0, "0", id="zero"),
    pytest.param(formatting.number, -0.0, "0", id="minus zero"),
    pytest.param(formatting.number, 1.19e-7, "1.2e-07", id="small"),
    pytest.param(formatting.number, 0.0421, "0.0421", id="decimals"),
    pytest.param(formatting.number, 39.074, "39.1", id="three digits"),
    pytest.param(formatting.number, 255.0, "255", id="whole"),
    pytest.param(formatting.number, 3.2e38, "3.2e+38", id="large"),
    pytest.param(formatting.number, math.inf, "inf", id="infinite"),
    pytest.param(formatting.size, None, "-", id="no size"),
    pytest.param(formatting.size, 0, "0 B", id="no bytes"),
    pytest.param(formatting.size, 999, "999 B", id="bytes"),
    pytest.param(formatting.size, 1000, "1.00 kB", id="kilobytes"),
    pytest.param(formatting.size, 999_499, "999 kB", id="just below a megabyte"),
    pytest.param(formatting.size, 999_500, "1.00 MB", id="rounds up to a megabyte"),
    pytest.param(formatting.size, 4_190_000, "4.19 MB", id="megabytes"),
    pytest.param(formatting.size, 24_150_000, "24.1 MB", id="tens of megabytes"),
    pytest.param(formatting.size, 5 * 10**15, "5000 TB", id="more than any unit"),
    pytest.param(formatting.milliseconds, None, "-", id="no time"),
    pytest.param(formatting.milliseconds, 0.0, "0.00 ms", id="no time at all"),
    pytest.param(formatting.milliseconds, 0.0123, "0.012 ms", id="microseconds"),
    pytest.param(formatting.milliseconds, 0.8312, "0.83 ms", id="below one"),
    pytest.param(formatting.milliseconds, 104.2, "104 ms", id="hundreds"),
]


@pytest.mark.parametrize(("form", "value", "text"), NUMBERS)
def test_numbers(form: Callable[[Any], str], value: float | None, text: str) -> None:
    assert form(value) == text


CHANGES = [
    pytest.param(None, 1, "-", id="before is not known"),
    pytest.param(0, 1, "-", id="nothing before"),
    pytest.param(1, None, "-", id="after is not known"),
    pytest.param(1000, 1000, "0.0 %", id="none"),
    pytest.param(1_000_000, 999_999, "0.0 %", id="no minus zero"),
    pytest.param(1000, 1100, "+10.0 %", id="larger"),
    pytest.param(4_190_000, 3_220_000, "-23.2 %", id="smaller"),
]


@pytest.mark.parametrize(("before", "after", "text"), CHANGES)
def test_change(before: int | None, after: int | None, text: str) -> None:
    assert formatting.change(before, after) == text


VALUES_AND_LIMITS = [
    pytest.param("max_abs", 1.00001e-6, 1e-6, ("1.00001e-06", "<= 1.00000e-06"), id="just above"),
    pytest.param("top1", 0.9999, 1.0, ("0.9999", ">= 1"), id="just below"),
    pytest.param("max_abs", 1e-6, 1e-6, ("1.0e-06", "<= 1.0e-06"), id="equal"),
    pytest.param("max_abs", None, 1e-6, ("-", "<= 1.0e-06"), id="no value"),
    pytest.param("max_abs", 0.5, None, ("0.5", "-"), id="no limit"),
]


@pytest.mark.parametrize(("metric", "value", "limit", "texts"), VALUES_AND_LIMITS)
def test_value_and_limit_have_enough_digits(
    metric: str, value: float | None, limit: float | None, texts: tuple[str, str]
) -> None:
    assert formatting.value_and_limit(check(metric, value, limit)) == texts


WORST = [
    pytest.param([check("rmse", 9.0, None)], None, id="without a limit none is near"),
    pytest.param([check("top1", 1.0, 1.0), check("max_abs", 0.0, 1.0)], 1, id="a distance"),
    pytest.param([check("max_abs", 0.9, 1.0), check("max_abs", 2.0, 9.0)], 0, id="the ratio"),
    pytest.param(
        [check("max_abs", 0.9, 1.0), check("top1", 0.5, 1.0, passed=False)], 1, id="what failed"
    ),
    pytest.param(
        [check("max_abs", 1.0, 0.0, passed=False), check("max_abs", 0.9, 1.0)], 0, id="limit 0"
    ),
]


@pytest.mark.parametrize(("checks", "index"), WORST)
def test_check_nearest_to_its_limit(checks: list[Check], index: int | None) -> None:
    worst = check_groups.CheckGroup("", "", checks).worst
    assert worst is (None if index is None else checks[index])


# --- the machine --------------------------------------------------------------------------------


def test_machine_has_no_host_name_and_no_path() -> None:
    found = machine.machine()
    assert list(found) == ["cpu", "cores", "memory_bytes", "system", "python"]
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 10**6
    secrets = {platform.node(), str(Path.home())} - {""}
    assert not [secret for secret in secrets if secret in json.dumps(found)]


CPUS = [
    pytest.param("processor : 0\nmodel name\t: Some CPU @ 2 GHz: fast\n", "Some CPU @ 2 GHz: fast"),
    pytest.param("processor : 0\nSerial : 12\nModel : A Board Rev 1.1\n", "A Board Rev 1.1"),
]


@pytest.mark.parametrize(("text", "model"), CPUS, ids=["x86", "arm"])
def test_processor_on_linux(tmp_path: Path, text: str, model: str) -> None:
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    assert machine.cpu_model(tmp_path / "cpuinfo") == model


def test_processor_on_other_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert machine.cpu_model(tmp_path / "absent") == "riscv64"


def test_cores_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine.machine()["cores"] == 3


def test_versions_of_installed_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert libraries.versions()["python"] == platform.python_version()
    assert "numpy" in libraries.versions()
    monkeypatch.setattr(libraries, "DISTRIBUTIONS", ("no-such-distribution", "numpy"))
    assert list(libraries.versions()) == ["python", "numpy"]


# --- precisions ---------------------------------------------------------------------------------


def quantized(*checks: Check) -> Report:
    """PASSING, with a quantized second artifact that was compared."""
    float_, second = PASSING.artifacts
    return replace(
        PASSING,
        artifacts=(float_, replace(second, path="pruned.int8.tflite", precision="int8")),
        checks=(*PASSING.checks[:4], *checks),
        latency=(replace(PASSING.latency[0], artifact="pruned.int8.tflite", p50_ms=0.25),),
    )


def quantization_check(metric: str, value: float | None, output: str = "scores") -> Check:
    return Check("quantize", "pruned.int8.tflite", output, metric, value, None, True, 16)


def test_quality_and_size_of_precisions() -> None:
    """The worst output counts; a float model has no quality values."""
    report = quantized(
        quantization_check("sqnr_db", 31.25),
        quantization_check("top1", 0.96875),
        quantization_check("sqnr_db", 40.0, "other"),
    )
    fp32, int8 = json.loads(report.to_json())["precisions"]
    assert (fp32["precision"], fp32["sqnr_db"], fp32["top1"]) == ("fp32", None, None)
    assert (int8["artifact"], int8["kind"], int8["bytes"]) == (
        *("pruned.int8.tflite", "tflite", 999_600),
    )
    assert (int8["sqnr_db"], int8["top1"], int8["p50_ms"]) == (31.25, 0.96875, 0.25)
    assert fp32["p50_ms"] is None
    text = to_markdown(report)
    result = "fp32 matches the original on 16 samples. int8: not checked against a limit"
    assert text.startswith(f"# 3 of 10 units kept: {result} (3 checks passed)\n")
    assert "| `pruned.fp32.onnx` | fp32 | - | - | 9.01 MB | - | - |" in text
    assert "| `pruned.int8.tflite` | int8 | 31.2 dB | 96.9 % | 1.00 MB | 0.25 ms | " in text
    drawn = shown(report)
    assert "pruned.int8.tflite  int8       31.2 dB  96.9 %  1.00 MB  0.25 ms\n" in drawn


def test_infinite_sqnr_is_shown_as_equal() -> None:
    text = to_markdown(
        quantized(quantization_check("sqnr_db", math.inf), quantization_check("top1", 1.0))
    )
    assert "| equal | 100.0 % |" in text


GATED: dict[str, tuple[list[tuple[str, float, float]], str]] = {
    "the first unit": (
        [("sqnr_db", 31.25, 5.0), ("top1", 0.986, 0.98)],
        "98.6 % top-1 agreement, above the limit of 98.0 %",
    ),
    "the worst output": (
        [("top1", 0.97, 0.6), ("top1", 0.8, 0.6)],
        "80.0 % top-1 agreement, above the limit of 60.0 %",
    ),
    "the limit itself": ([("top1", 1.0, 1.0)], "100.0 % top-1 agreement, at the limit of 100.0 %"),
    "boxes": (
        [("sqnr_db", 31.25, 5.0)],
        "31.2 dB signal-to-noise ratio, above the limit of 5.0 dB",
    ),
    "only a tolerance": ([("max_abs", 0.01, 0.05)], "difference 0.01, below the limit of 0.05"),
    "rows": ([("rows", 0.0, 0.0)], "within the limits"),
}


@pytest.mark.parametrize("name", GATED)
def test_the_title_says_what_was_checked_of_each_precision(name: str) -> None:
    checks, text = GATED[name]
    gates = [replace(quantization_check(m, value), limit=limit) for m, value, limit in checks]
    title = f"# 3 of 10 units kept: fp32 matches the original on 16 samples. int8: {text} ("
    assert to_markdown(quantized(*gates)).startswith(title)


def test_the_title_calls_a_cut_proved_but_not_a_conversion() -> None:
    proved = tuple(replace(each, proof=Proof("proved", "")) for each in PASSING.artifacts)
    report = replace(PASSING, artifacts=proved)
    assert "fp32 matches the original on 16 samples (" in to_markdown(report)
    cut = replace(report, checks=tuple(c for c in PASSING.checks if c.stage == "cut"))
    assert "fp32 is proved to match the original (" in to_markdown(cut)
    one = replace(cut, artifacts=(proved[0], PASSING.artifacts[1]))
    assert "fp32 matches the original on 16 samples (" in to_markdown(one)


def test_the_title_names_the_limit_that_was_given() -> None:
    check = replace(quantization_check("top1", 0.986), limit=0.98, limit_from="user")
    text = "int8: 98.6 % top-1 agreement, above your limit of 98.0 % ("
    assert text in to_markdown(quantized(check))


def test_the_title_claims_no_match_that_no_limit_checked() -> None:
    """That the remap names the right original says nothing about the values."""
    alone = replace(quantized(), checks=(quantization_check("top1", 1.0),), remap=None)
    assert to_markdown(alone).startswith(
        "# net.keras, no units removed: int8: not checked against a limit\n"
    )
    origin = Check("cut", "pruned.fp32.onnx", "", "original", None, None, True, 0)
    text = to_markdown(replace(PASSING, checks=(origin,)))
    assert text.startswith("# 3 of 10 units kept: not verified (1 check passed)\n")
    given = replace(PASSING.checks[0], limit_from="user")
    text = to_markdown(replace(PASSING, checks=(given,)))
    assert "fp32 is within the given tolerance of the original (1 check passed)\n" in text


CAUSES = replace(
    FAILING,
    date="2026-01-02T03:04:05+00:00",
    options={"keep": [0, 1]},
    settings={
        "threads": 2,
        "batch": 1,
        "runtimes": {"onnx": "all optimizations", "keras": "none"},
        "counted_samples": "all",
        "load_average": [0.5, 1.0, 1.25],
    },
    inputs={
        "source": "x.npz",
        "samples": 16,
        "sha256": "ab12",
        "calibration": {"source": "c.npz", "samples": 9, "sha256": "cd34"},
    },
    coverage=(Coverage("scores", 256, 173, 10, 5, 3, 2), Coverage("full", 4, 4, 3, 3, 3, 3)),
    worst=(
        WorstCase("cut", "a.onnx", "y", "top1", 3, 1, 7, "o|wl", 0.25, None, "w.npz", "exporter v"),
        WorstCase("cut", "a.onnx", "other", "max_abs", 0, None, None, "", 1.0, 2.0),
    ),
    first_differences=(
        FirstDifference("a.onnx", "h", "Gemm 'one'", 3, (0, 2), 0.5, 0.75, 1),
        FirstDifference("b.onnx", "", "", 0, (), None, None, 2),
    ),
)


def test_causes_settings_and_coverage_are_shown() -> None:
    assert Report.from_json(CAUSES.to_json()) == CAUSES
    text = to_markdown(CAUSES)
    for part in (
        "- a.onnx, y: in sample 3, unit 1 (7 in the original, o\\|wl) is not finite, expected ",
        "0.25. The input is in w.npz. Replay: exporter v\n",
        "- a.onnx, other: in sample 0, a value is 2, expected 1.",
        "- a.onnx: the first tensor that differs is 'h', of Gemm 'one': at \\[0, 2\\] it is 0.75, ",
        "expected 0.5 (sample 3; 1 tensor with the same name are equal before it).",
        "- b.onnx: 2 tensors with the same name are equal; the difference is after them.",
        "Head scores: 173 of 256 features are not zero in some sample; 5 of 10 units come first, ",
        "2 of the 3 kept ones.",
        "Head full: 4 of 4 features",
        "Date: 2026-01-02T03:04:05+00:00.",
        "SHA-256: data ab12, calibration cd34.",
        "checks count all; load average 0.5, 1.0, 1.2.",
    ):
        assert part in text, part
    brief = " ".join(shown(CAUSES).split())
    assert "Head scores" in brief
    assert "Head full" not in brief, "in brief, only what samples miss"
    assert "Examples of failures" in brief


def test_the_origin_of_limits_is_shown() -> None:
    given = replace(PASSING.checks[0], limit_from="user")
    built_in = replace(PASSING.checks[1], limit_from="built-in")
    text = to_markdown(replace(PASSING, checks=(given, built_in)))
    assert "Limits that are marked as given are the user's; the others are built in." not in text
    settings = {"threads": 1, "batch": 1}
    text = to_markdown(replace(PASSING, checks=(given, built_in), settings=settings))
    assert "Limits that are marked as given are the user's; the others are built in." in text
    assert " (given) |" in text


def test_calibration_inputs_are_described() -> None:
    inputs = {
        **PASSING.inputs,
        "calibration": {"source": "synthetic, seed 0", "samples": 100},
    }
    text = to_markdown(replace(PASSING, inputs=inputs))
    assert "the model is. Calibrated on 100 synthetic samples (seed 0), not" in text
    real = {**inputs, "calibration": {"source": "a.npz", "samples": 200}}
    assert "Calibrated on 200 samples from a.npz." in to_markdown(replace(PASSING, inputs=real))


# --- selection ----------------------------------------------------------------------------------


def chosen(units: int, *kept: int) -> Report:
    """A report whose units were chosen by data."""
    rows = [
        SelectedUnit(unit, f"label {unit}", unit in kept, f"f1 0.{unit} {sign} 0.5")
        for unit in range(units)
        for sign in [">=" if unit in kept else "<"]
    ]
    return replace(PASSING, selection=tuple(rows))


def test_every_unit_is_shown_with_its_reason() -> None:
    report = chosen(3, 1)
    assert Report.from_json(report.to_json()) == report
    assert json.loads(report.to_json())["selection"][1] == {
        "unit": 1,
        "label": "label 1",
        "kept": True,
        "reason": "f1 0.1 >= 0.5",
    }
    assert """\
## Selection

| Unit | Label |  | Reason |
| ---: | --- | --- | --- |
| 0 | label 0 | removed | f1 0.0 < 0.5 |
| 1 | label 1 | kept | f1 0.1 >= 0.5 |
| 2 | label 2 | removed | f1 0.2 < 0.5 |
""" in to_markdown(report)
    assert """
Selection
Unit  Label             Reason
   0  label 0  removed  f1 0.0 < 0.5
   1  label 1  kept     f1 0.1 >= 0.5
   2  label 2  removed  f1 0.2 < 0.5

""" in shown(report)


def test_kept_units_are_shown_first_if_there_are_many() -> None:
    text = shown(chosen(12, 5, 11))
    rows = re.findall(r"^ +(\d+)  label \d+ +(kept|removed)", text, re.MULTILINE)
    assert rows[:3] == [("5", "kept"), ("11", "kept"), ("0", "removed")]
    assert len(rows) == 10
    assert "+2 more in report.json." in text
    page = to_markdown(chosen(1003, 1002))
    assert page.count("| label ") == 1000
    assert page.index("| 1002 | label 1002 | kept |") < page.index("| 0 | label 0 | removed |")
    assert "\\+3 more in report.json." in page or "+3 more in report.json." in page


def test_a_unit_without_a_reason_and_a_report_without_a_selection() -> None:
    row = SelectedUnit(0, "", kept=True, reason="")
    assert "| 0 |  | kept | - |" in to_markdown(replace(PASSING, selection=(row,)))
    assert "## Selection" not in to_markdown(PASSING)


def test_integer_inputs_and_outputs_are_named() -> None:
    inputs = (Interface("image", "int8", 0.00392157, -128), Interface("ids", "int32"))
    artifact = replace(PASSING.artifacts[0], inputs=inputs, outputs=(Interface("y", "float32"),))
    report = replace(PASSING, artifacts=(artifact, PASSING.artifacts[1]))
    assert Report.from_json(report.to_json()) == report
    line = (
        "pruned.fp32.onnx takes image int8 (scale 0.00392157, zero point -128), ids int32 and "
        "returns y float32"
    )
    assert f"## Interface\n\n- {line}\n" in to_markdown(report)
    assert f"Interface {line} Inputs" in " ".join(shown(report).split())
    assert "Interface" not in to_markdown(PASSING)


@pytest.mark.parametrize(
    ("stage", "cause"),
    [
        ("cut", "the cut is not the cause, since the float file matches the original"),
        ("quantize", "the cause is the precision, or a cut before it"),
    ],
)
def test_a_loss_of_quantization_is_told_apart_from_a_wrong_cut(stage: str, cause: str) -> None:
    other = Check(stage, "pruned", "y", "max_abs", 0.0, 1.0, True, 16)
    low = Check("quantize", "pruned.int8.tflite", "y", "top1", 0.1, 0.6, False, 16)
    noisy = Check("quantize", "pruned.int8.tflite", "y", "sqnr_db", -1.0, 5.0, False, 16)
    text = describe_quantization([other, low, noisy])
    assert text == f"{cause}: --min-top1 0 --min-sqnr=-100 accepts this loss"
    assert text in to_markdown(replace(PASSING, checks=(other, low, noisy)))
    assert describe_quantization([other]) == ""
    wrong = Check("cut", "pruned", "", "structure", None, None, False, 0)
    assert describe_quantization([other, low, wrong]) == ""
