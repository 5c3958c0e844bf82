"""Every command as a process: its output, its files and its exit code."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporter.cli import COMMANDS, show
from exporter.evaluation.unit_table import UnitRow
from exporter.formats import KINDS
from exporter.formats.onnx import open_file
from exporter.jobs.demo import Demo
from exporter.jobs.select import UnitChoice
from exporter.modes import MODES, PROBABILITIES
from exporter.output.c_source import FORMS
from exporter.quantization import PRECISIONS
from tests.builders.commands import Done, command, environment, exporter, leftover_files, listing
from tests.builders.reports import PASSING, REPORT_KEYS
from tests.builders.shelf import BIAS, KERNEL, LABELS, UNITS

# --- results on stdout --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shelf, for the results of this module's tests."""
    return Path(shutil.copytree(shelf, tmp_path_factory.mktemp("cli") / "work"))


@pytest.fixture(scope="module")
def keras_work(keras_shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(keras_shelf, tmp_path_factory.mktemp("keras cli") / "work"))


CommandHere = Callable[[str | Sequence[str], Path], Done]


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    assert "\x1b" not in done.out + done.err, "no escape codes without a terminal"
    return done


def masked(text: str) -> str:
    """Replace sizes and differences, which depend on the machine and the library versions."""
    text = re.sub(r"\d[\d.]* (B|kB)", "#", text)
    text = re.sub(r" in \d+ s:", " in # s:", text)
    text = re.sub(r"[+-]?\d+\.\d %", "#", text)
    text = re.sub(r"max_abs \S+ <= \S+", "max_abs # <= #", text)
    return re.sub(r"[ ─]+", " ", text)


def test_no_arguments_print_the_help(work: Path) -> None:
    done = exporter("", work)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: exporter [OPTIONS] COMMAND [ARGS]...\n")


def test_help_names_every_command(work: Path) -> None:
    done = ok(exporter("--help", work))
    assert done.err == ""
    assert re.findall(r"^  ([a-z]+)  ", done.out, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, work: Path) -> None:
    done = ok(exporter(f"{name} -h", work))
    assert done.out.startswith(f"Usage: exporter {name} [OPTIONS]")
    assert max(map(len, done.out.splitlines())) <= 80


def test_version(work: Path) -> None:
    assert re.fullmatch(r"exporter, version \d+\.\d+\.\d+\n", ok(exporter("--version", work)).out)


def test_choices_and_help_come_from_the_tables(work: Path) -> None:
    shown = " ".join(ok(exporter("run --help", work)).out.split())
    for name, mode in MODES.items():
        assert f"{name}: {mode.summary}" in shown
    written = [name for name, kind in KINDS.items() if kind.written]
    for name in (*MODES, *PROBABILITIES, *written, *FORMS, *PRECISIONS):
        assert re.search(rf"\b{name}\b", shown)
    assert "None]" not in shown, "a number without bounds has no range"


PRUNED = """\
3 of 7 units kept: fp32 is proved to match the original (4 checks passed)

Artifacts Precision Size Change
a.onnx fp32 # -> # #

Proof proved, equal to the cut made again from the original: a.onnx

Checks Stage Passed Nearest to its limit Result
a.onnx cut 4 of 4 max_abs # <= # passed

Remap of probabilities
New Old Label
 0 0 macaw
 1 1 owl
 2 5 crow

Inputs 16 synthetic samples (seed 0), not real data. They show whether outputs
 changed, not how accurate the model is.
"""

INSPECTED = """\
net.onnx: ONNX, fp32, 425 B
input x: [?, 6] float32

Head           Units  Activation  Dtype    Labels  Bytes  Multiply-adds
probabilities  7      softmax     float32  no      46.1%  100.0%
"""

TWO_HEADS = """\
two.onnx: ONNX, fp32, 774 B
input x: [?, 6] float32

Head   Units  Activation  Dtype    Labels  Bytes  Multiply-adds
color  7      softmax     float32  no      25.3%  50.0%
shape  7      softmax     float32  no      25.3%  50.0%

Choose one with --head NAME: --head color; or several: --cut color=SPEC for each
"""

REFUSED = """\
double.onnx: ONNX, fp32, 461 B
input x: [?, 6] float32
refused: output 'probabilities': Softmax 'first': it mixes the units before the last activation
hint: export the model without the operations after it; or --allow-gather takes the kept units \
from the output, at no gain in size
"""


def test_prune(work: Path) -> None:
    line = ("prune", "net.onnx", "-o", "a.onnx", "--keep", "macaw,OWL,c*", "--labels", "labels.txt")
    done = ok(exporter(line, work))
    assert masked(done.out) == PRUNED
    shown, *steps = done.err.splitlines()
    assert shown == "'c*' selects 1 unit: crow (5)."
    assert steps == ["cutting net.onnx ...", "checking net.onnx (cut) ..."]
    assert leftover_files(work) == []
    pruned = open_file(work / "a.onnx")
    assert pruned.remap is not None
    assert pruned.remap.heads[0].kept == (0, 1, 5)
    assert (work / "a.onnx.remap.json").read_text() == pruned.remap.to_json()
    constants = {c.name: numpy_helper.to_array(c) for c in pruned.proto.graph.initializer}
    np.testing.assert_array_equal(constants["kernel"], KERNEL[:, [0, 1, 5]])
    np.testing.assert_array_equal(constants["bias"], BIAS[[0, 1, 5]])


def test_quiet_prints_nothing_on_stderr(work: Path) -> None:
    done = ok(exporter("prune net.tflite -o quiet.tflite --keep 1-3 -q", work))
    assert done.err == ""
    assert done.out.startswith("3 of 7 units kept")


def test_verbose_prints_times_and_checks(work: Path) -> None:
    done = ok(exporter("prune net.onnx -o v.onnx --keep 1-3 -v", work))
    assert re.fullmatch(r"(\[ +\d+\.\d s\] .* \.\.\.\n){2}", done.err)
    *checks, _, times = done.out.partition("Every check\n")[2].splitlines()
    steps = "(open|, cut|, verify|, write)"
    assert re.fullmatch(rf"Time: ({steps} \d+\.\d\d s){{4}}", times)
    assert len(checks) == 10
    assert all(line.startswith("  passed  v.onnx, cut, probabilities") for line in checks)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("net.onnx", INSPECTED), ("two.onnx", TWO_HEADS), ("double.onnx", REFUSED)],
)
def test_inspect(model: str, expected: str, work: Path) -> None:
    done = ok(exporter(f"inspect {model}", work))
    assert done.out == expected
    assert done.err == ""


def test_verbose_inspect_prints_numbers_for_the_shares(work: Path) -> None:
    done = ok(exporter("inspect net.onnx -v", work))
    numbers = "probabilities: axis 1, 0 to 6; 196 bytes; 42 multiply-adds\n"
    assert done.out == INSPECTED + numbers


FORECAST = """\
head 'probabilities', slice: 3 of 7 units kept
kept: {kept}
the file becomes # % larger; at most 2.3 times as fast: the head is 100 % of the multiply-adds

File Size Change Parameters Multiply-adds Memory Speedup
onnx, uncut # 49 42 #
onnx fp32 # # 21 18 # <= 2.33x
Memory is an estimate: weights, and the activations that exist at the same time.
Speedup is the most that the head's share of the multiply-adds allows.

edits of the ONNX model:
 take 3 positions of 'kernel' along axis 1
 take 3 positions of 'bias' along axis 0
 set the shape of 'probabilities' to [?, 3]
 set the shape of 'z' to [?, 3]
"""


def masked_forecast(done: Done) -> str:
    return re.sub(r"becomes \d+ %", "becomes # %", masked(ok(done).out))


@pytest.mark.parametrize(
    "line", ["prune net.onnx -o dry.onnx", "prune net.onnx", "run net.onnx -o dry", "run net.onnx"]
)
def test_dry_run_writes_nothing(line: str, work: Path) -> None:
    before = listing(work)
    done = exporter(f"{line} --keep 1-3 --dry-run", work)
    end = "\nnothing was written (--dry-run)\n"
    assert masked_forecast(done) == FORECAST.format(kept="1-3") + end
    assert listing(work) == before
    assert leftover_files(work) == []


def test_inspect_with_a_selection_shows_a_forecast(work: Path) -> None:
    before = listing(work)
    done = exporter("inspect net.onnx --keep macaw,owl,gull --labels labels.txt", work)
    expected = FORECAST.format(kept="macaw, owl, gull")
    assert masked_forecast(done) == f"{masked(INSPECTED)}\n{expected}"
    assert done.err == "cutting pruned.fp32.onnx ...\n"
    assert listing(work) == before
    assert leftover_files(work) == []


def test_a_forecast_can_measure_the_share(work: Path) -> None:
    """The network is too small for a stable number, but the process is complete."""
    done = ok(exporter("prune net.onnx -o dry.onnx --keep 1-3 --dry-run --measure-share", work))
    assert "timing net.onnx with a head of one unit ...\n" in done.err
    assert "the head's share of the latency allows" in done.out


def test_variants_and_precisions_in_one_forecast(work: Path) -> None:
    line = "run net.onnx -o dry --variant a=1-3 --variant b=5 --precision fp32,int8 --dry-run"
    done = ok(exporter(line, work))
    assert re.findall(r"^(\w): head", done.out, re.MULTILINE) == ["a", "b"]
    assert (
        re.findall(r"^(onnx \w+) +(~?)", done.out, re.MULTILINE)
        == [
            ("onnx fp32", ""),
            ("onnx int8", "~"),
        ]
        * 2
    )
    assert done.out.count("A size with ~ is within 1 %") == 2
    assert "warning: int8 will need inputs to calibrate on" in done.err


def test_many_labels_are_shortened(work: Path) -> None:
    names = [f"class number {i}" for i in range(UNITS)]
    (work / "long.txt").write_text("\n".join(names))
    line = "prune net.onnx -o dry.onnx --labels long.txt --remove 0 --dry-run"
    kept = ok(exporter(line, work)).out.splitlines()[1]
    assert kept == f"kept: {', '.join(names[1:5])} and 2 more"
    kept = ok(exporter(f"{line} -v", work)).out.splitlines()[1]
    assert kept == f"kept: {', '.join(names[1:])}"


def test_json_of_a_forecast(work: Path) -> None:
    done = ok(exporter("run net.onnx -o dry --keep 1-3 --dry-run --json", work))
    assert done.record["schema"] == "exporter/plan/1"
    plan = done.record["plans"][""]
    assert plan["remap"]["heads"][0]["kept"] == plan["kept"] == [1, 2, 3]
    inspected = ok(exporter("inspect net.onnx --keep 1-3 --json", work)).record
    assert inspected["forecast"] == plan
    (file,) = plan["files"]
    out = ok(exporter("run net.onnx -o real --keep 1-3 --no-bench --json", work)).record
    assert file["bytes"] == out["artifacts"][0]["bytes"]
    assert (file["kind"], file["precision"], file["exact"]) == ("onnx", "fp32", True)
    assert (file["parameters"], file["multiply_adds"]) == (21, 18)
    assert file["memory"]["method"] == "estimate"
    assert file["original"]["bytes"] == (work / "net.onnx").stat().st_size
    assert file["latency"]["source"] == "counted"
    assert file["latency"]["speedup_bound"] == pytest.approx(42 / 18)
    assert plan["verdict"] == [file["verdict"]]


RECORDS = {
    "inspect net.onnx": [
        *("schema", "ok", "model", "inputs", "heads", "refused", "forecast", "channels"),
    ],
    "prune net.onnx -o j.onnx --keep 1": [
        *("schema", "ok", "artifacts", "remap", "checks", "quality", "coverage", "worst"),
        *("warnings", "selection"),
    ],
    "run net.onnx -o j --keep 1 --no-bench": REPORT_KEYS,
    "run net.onnx -o jv --variant a=1 --variant b=2 --no-bench": ["schema", "ok", "variants"],
}


@pytest.mark.parametrize("line", RECORDS)
def test_one_json_object_on_success(line: str, work: Path) -> None:
    done = ok(exporter(f"{line} --json", work))
    assert done.out.count("\n") == 1
    assert list(done.record) == RECORDS[line]
    assert done.record["ok"] is True
    steps = ["open", "samples", "convert", "cut", "verify", "bench", "quality"]
    assert list(done.record.get("timings", steps)) == steps
    assert done.record["schema"].startswith("exporter/")


# --- selection ----------------------------------------------------------------------------------


def kept(path: Path) -> tuple[int, ...]:
    remap = open_file(path).remap
    assert remap is not None
    return remap.heads[0].kept


SELECTIONS: dict[str, tuple[str, tuple[int, ...]]] = {
    "ascending": ("--keep 5,1,3", (1, 3, 5)),
    "as given": ("--keep 5,1,3 --keep-order", (5, 1, 3)),
    "removed": ("--remove 0-2,6", (3, 4, 5)),
    "removed by label": ("--remove 'g*,macaw' --labels labels.txt", (1, 2, 3, 4, 5)),
    "from a file": ("--keep @three.txt --labels labels.txt", (0, 1, 2)),
    "on inputs from a file": ("--keep 1-2 --data samples.npz", (1, 2)),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selection(name: str, work: Path) -> None:
    line, expected = SELECTIONS[name]
    out = work / f"{list(SELECTIONS).index(name)}.onnx"
    ok(exporter(f"prune net.onnx -o {out.name} {line}", work))
    assert kept(out) == expected


def test_report_names_the_users_inputs(work: Path) -> None:
    line = "run net.onnx -o data --keep 1-2 --data samples.npz --samples 4 --no-bench"
    ok(exporter(line, work))
    report = json.loads((work / "data" / "report.json").read_text())
    digest = hashlib.sha256((work / "samples.npz").read_bytes()).hexdigest()
    assert report["inputs"] == {
        "source": "samples.npz",
        "samples": 4,
        "files": 1,
        "sha256": digest,
    }
    assert report["command"] == f"exporter {line}"


def test_input_shape_completes_an_open_shape(work: Path) -> None:
    line = "prune open.onnx -o shaped.onnx --keep 1-2 --input-shape x=1,5,6"
    assert "proved to match the original" in ok(exporter(line, work)).out


def test_no_verify_runs_no_model(work: Path) -> None:
    line = "prune open.onnx -o unchecked.onnx --keep 1-2 --no-verify"  # no shape is given
    done = ok(exporter(line, work))
    assert done.out.startswith("2 of 7 units kept: not verified")
    assert "No model was run." in done.out


@pytest.mark.parametrize("head", ["color", "shape"])
def test_cut_one_of_two_heads(head: str, work: Path) -> None:
    done = ok(exporter(f"prune two.onnx -o {head}.onnx --keep 1-2 --head {head} --json", work))
    assert [table["name"] for table in done.record["remap"]["heads"]] == [head]
    other = {"color": "shape", "shape": "color"}[head]
    untouched = [check for check in done.record["checks"] if check["output"] == other]
    assert untouched
    assert all(check["passed"] for check in untouched)
    widths = {
        output.name: output.type.tensor_type.shape.dim[1].dim_value
        for output in onnx.load(work / f"{head}.onnx").graph.output
    }
    assert widths == {head: 2, other: UNITS}


def test_zero_reports_the_probability_of_zeroed_units(work: Path) -> None:
    line = "prune net.onnx -o zero.onnx --keep 1-3 --mode zero --json"
    (warning,) = ok(exporter(line, work)).record["warnings"]
    share = re.fullmatch(
        r"the zeroed units still hold (\d+\.\d)% of the probability on these inputs", warning
    )
    assert share
    assert 0 < float(share[1]) < 100


def test_keep_everything_copies_the_file(work: Path) -> None:
    ok(exporter("prune net.onnx -o same.onnx --keep 0-6", work))
    assert (work / "same.onnx").read_bytes() == (work / "net.onnx").read_bytes()
    remap = json.loads((work / "same.onnx.remap.json").read_text())
    assert remap["heads"][0]["kept"] == list(range(UNITS))
    ok(exporter("verify net.onnx same.onnx", work))


def test_one_unit_under_softmax_is_a_warning(work: Path) -> None:
    done = ok(exporter("prune net.onnx -o one.onnx --keep 3 --json", work))
    assert done.record["warnings"] == ["softmax over one unit always returns 1.0"]


def test_a_cut_file_is_cut_again(work: Path) -> None:
    ok(exporter("prune net.onnx -o first.onnx --keep 1,3,5,6", work))
    ok(exporter("prune first.onnx -o second.onnx --keep 1-2", work))
    first, second = (open_file(work / f"{name}.onnx").remap for name in ("first", "second"))
    assert first is not None
    assert second is not None
    assert second.heads[0].kept == (3, 5)
    assert second.original == first.original
    assert second.original.sha256 == open_file(work / "net.onnx").sha256
    assert second.parent is not None
    assert second.parent.sha256 == open_file(work / "first.onnx").sha256
    for original in ("net.onnx", "first.onnx"):
        ok(exporter(f"verify {original} second.onnx", work))


def test_an_unusual_suffix_is_a_warning(work: Path) -> None:
    shutil.copyfile(work / "net.onnx", work / "net.bin")
    done = ok(exporter("prune net.bin -o bin.onnx --keep 1-3 --json", work))
    assert done.record["warnings"] == ["net.bin is in ONNX format, despite its suffix"]


def test_allow_nonfinite_cuts_nonfinite_weights(work: Path) -> None:
    line = "prune nan.onnx -o nan2.onnx --keep 1-3 --allow-nonfinite"
    refused = exporter(line, work)
    assert refused.code == 1, "NaN equals nothing, so the check fails"
    ok(exporter(f"{line} --no-verify", work))
    assert kept(work / "nan2.onnx") == (1, 2, 3)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_same_command_gives_the_same_bytes(kind: str, work: Path) -> None:
    line = f"prune net.{kind} --keep 1,4 --labels labels.txt"
    for seed, name in enumerate(("one", "two")):  # hashes order sets
        ok(exporter(f"{line} -o {name}-same.{kind}", work, PYTHONHASHSEED=str(seed)))
    one, two = (work / f"{name}-same.{kind}" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_force_replaces(work: Path) -> None:
    line = "prune net.onnx -o forced.onnx -q"
    ok(exporter(f"{line} --keep 1", work))
    ok(exporter(f"{line} --keep 2 --force", work))
    assert kept(work / "forced.onnx") == (2,)


def test_force_replaces_a_folder(work: Path) -> None:
    line = "run net.onnx -o forced --no-bench -q"
    ok(exporter(f"{line} --keep 1", work))
    (work / "forced" / "stale.txt").write_text("of an earlier run")
    ok(exporter(f"{line} --keep 2 --force", work))
    assert kept(work / "forced" / "pruned.fp32.onnx") == (2,)
    assert not (work / "forced" / "stale.txt").exists()
    assert [path.name for path in work.iterdir() if path.name.startswith(".")] == []


# --- a failed check -----------------------------------------------------------------------------


def test_run_keeps_files_that_failed_and_reports_it(work: Path) -> None:
    done = exporter("run net.onnx -o failed --keep 1-3 --tolerance 0 --no-bench", work)
    assert done.code == 1
    assert " failed. Do not use pruned.fp32.onnx." in done.out.splitlines()[0]
    assert "Traceback" not in done.err
    files = {"pruned.fp32.onnx", "remap.json", "worst.pruned.fp32.onnx.npz", "SHA256SUMS"}
    files |= {"report.html", "report.json", "report.md"}
    assert {path.name for path in (work / "failed").iterdir()} == files
    report = json.loads((work / "failed" / "report.json").read_text())
    assert report["ok"] is False
    assert "Do not use pruned.fp32.onnx." in (work / "failed" / "report.md").read_text()


def test_prune_writes_no_file_if_a_check_fails(work: Path) -> None:
    before = listing(work)
    line = "prune net.onnx -o bad.onnx --keep 1-3 --tolerance 0"
    done = exporter(line, work)
    assert done.code == 1
    assert done.err.endswith("error: a check failed; nothing was written\n")
    record = exporter(f"{line} --json", work).record
    assert record["ok"] is False
    assert record["artifacts"] == []
    assert listing(work) == before


def test_force_replaces_nothing_if_a_check_fails(work: Path) -> None:
    ok(exporter("prune net.onnx -o good.onnx --keep 1-3", work))
    before = listing(work)
    line = "prune net.onnx -o good.onnx --keep 2-4 --force --tolerance 0 --json"
    done = exporter(line, work)
    assert done.code == 1
    assert done.record["artifacts"] == []
    assert listing(work) == before


def cut(work: Path, name: str, suffix: str) -> Path:
    """A new cut of `net`, without its remap file."""
    path = work / f"{name}.{suffix}"
    line = f"prune net.{suffix} -o {path.name} --keep 1,3,5 --force -q"
    ok(exporter(line, work))
    path.with_name(f"{path.name}.remap.json").unlink()
    return path


def change_weight(path: Path) -> None:
    """Change one weight of a kept unit, in a file of any format."""
    weight = KERNEL[0, 3].tobytes()
    content = path.read_bytes()
    assert content.count(weight) == 1
    path.write_bytes(content.replace(weight, np.float32(KERNEL[0, 3] + 0.01).tobytes()))


def swap_in_remap(path: Path) -> None:
    model = onnx.load(path)
    (entry,) = (e for e in model.metadata_props if e.key == "exporter.remap")
    remap = json.loads(entry.value)
    remap["heads"][0] |= {"kept": [3, 1, 5], "new_to_old": [3, 1, 5]}
    entry.value = json.dumps(remap)
    onnx.save(model, path)


def change_remap_file(path: Path) -> None:
    table = json.loads(open_file(path).remap.to_json())  # type: ignore[union-attr]
    table["heads"][0]["labels"] = ["owl", "robin", "crow"]
    path.with_name(f"{path.name}.remap.json").write_text(json.dumps(table))


def write_other_original(path: Path) -> None:
    model = onnx.load(path.with_name("net.onnx"))
    model.doc_string = "the same network, in another file"
    onnx.save(model, path.with_name("other.onnx"))


def change_nothing(path: Path) -> None:
    """Leave the cut model as it is."""


CHANGES: dict[str, tuple[str, Callable[[Path], None], str, set[str]]] = {
    "no change": ("onnx", change_nothing, "net.onnx", set()),
    "no change, TFLite": ("tflite", change_nothing, "net.tflite", set()),
    "one weight": ("onnx", change_weight, "net.onnx", {"max_abs"}),
    "one weight, TFLite": ("tflite", change_weight, "net.tflite", {"max_abs"}),
    "two indices swapped in the remap": (
        "onnx",
        swap_in_remap,
        "net.onnx",
        {"max_abs", "top1"},
    ),
    "a different remap file": ("onnx", change_remap_file, "net.onnx", {"remap"}),
    "another original": ("onnx", write_other_original, "other.onnx", {"original"}),
    "an original of another network": ("onnx", change_nothing, "sigmoid.onnx", {"original"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_verify_finds_a_change(name: str, work: Path) -> None:
    suffix, change, original, expected = CHANGES[name]
    path = cut(work, "changed", suffix)
    change(path)
    done = exporter(f"verify {original} {path.name} --json", work)
    assert done.code == (1 if expected else 0), done.err
    failed = {check["metric"] for check in done.record["checks"] if not check["passed"]}
    assert done.record["ok"] is not expected
    assert failed >= expected
    assert bool(failed) == bool(expected)
    path.with_name(f"{path.name}.remap.json").unlink(missing_ok=True)


def test_verify_names_a_damaged_remap_file(work: Path) -> None:
    path = cut(work, "remapped", "onnx")
    path.with_name("remapped.onnx.remap.json").write_bytes(b"\xff{}")
    done = exporter("verify net.onnx remapped.onnx", work)
    assert done.code == 3
    assert "error: cannot read remapped.onnx.remap.json" in done.err


def test_verify_without_remap_compares_all_outputs(work: Path) -> None:
    done = ok(exporter("verify net.onnx net.onnx --json", work))
    assert done.record["warnings"] == [
        "net.onnx has no remap: all outputs are compared as they are"
    ]
    assert exporter("verify net.onnx nan.onnx", work).code == 1


def test_a_file_above_the_given_size_is_not_written(work: Path) -> None:
    line = "prune net.onnx -o limited.onnx --keep 1-3"
    done = exporter(f"{line} --max-size 100B", work)
    assert done.code == 1
    assert re.search(r"limited\.onnx, resources: size is \S+ kB, limit 100 B", done.out)
    assert not (work / "limited.onnx").exists()
    done = ok(exporter(f"{line} --max-size 1MB", work))
    assert "Size at most" in done.out
    assert "is proved to match the original" in done.out
    checks = ok(exporter("verify net.onnx limited.onnx --max-size 1MB --json", work)).record[
        "checks"
    ]
    size = next(check for check in checks if check["metric"] == "size")
    assert (size["value"], size["limit"]) == ((work / "limited.onnx").stat().st_size, 1_000_000)


def test_bench(work: Path) -> None:
    cut(work, "timed", "tflite")
    limits = "--bench-seconds 0 --max-latency 0.001us --max-memory 4G"
    done = exporter(f"bench net.tflite timed.tflite {limits}", work)
    assert done.code == 1, "no model is that fast"
    assert "timed.tflite, resources: latency is" in done.out
    assert "resources  1 of 2" in done.out
    first, budget, last = done.err.splitlines()
    assert first == "timing timed.tflite ..."
    assert re.fullmatch(r"timing: about \d+ loads of each model, \d+ s \.\.\.", budget)
    assert last == "measuring the memory of timed.tflite ..."
    assert re.search(r"timed\.tflite +\S+ -> \S+ ms +\S+x \[\S+, \S+\]", done.out)


# --- variants -----------------------------------------------------------------------------------


def test_variants(work: Path) -> None:
    line = "run net.onnx -o variants --variant a=0-2 --variant b=crow,gull --labels labels.txt"
    done = ok(exporter(f"{line} --no-bench --keep-original", work))
    assert re.match(r"\[1 of 2, \d+ s] a: cutting pruned\.fp32\.onnx \.\.\.\n", done.err)
    assert masked(done.out) == (
        "2 variants: every check passed\n\nVariant Kept Checks onnx fp32\n"
        "a 3 of 7 4 of 4 # #\nb 2 of 7 4 of 4 # #\n\nWritten to variants in # s: "
        f"{Path('a/pruned.fp32.onnx')}, {Path('b/pruned.fp32.onnx')}\n"
        f"Open {Path('variants/index.html')}\n"
    )
    names = {"labels.txt", "original.onnx", "pruned.fp32.onnx"}
    names |= {"remap.json", "report.html", "report.json", "report.md", "SHA256SUMS"}
    for name, expected in {"a": (0, 1, 2), "b": (5, 6)}.items():
        folder = work / "variants" / name
        assert {path.name for path in folder.iterdir()} == names
        assert kept(folder / "pruned.fp32.onnx") == expected
        assert (folder / "labels.txt").read_text().split() == [LABELS[i] for i in expected]
        assert (folder / "original.onnx").read_bytes() == (work / "net.onnx").read_bytes()


# --- Keras --------------------------------------------------------------------------------------

RUN = "--keep macaw,owl,crow --labels labels.txt"


@pytest.fixture(scope="module")
def ran(keras_work: Path) -> Done:
    """`run` on a Keras file, to all kinds."""
    line = f"run net.keras -o out {RUN} --keep-original --to onnx,tflite,keras"
    return ok(exporter(line, keras_work))


def test_run_prints_each_step(ran: Done) -> None:
    steps = ran.err.splitlines()
    assert steps[:3] == [
        "opening the Keras model ...",
        "converting to ONNX ...",
        "converting to TFLite ...",
    ]
    counted = [re.sub(r", \d+ s", ", T", step) for step in steps]
    assert "[1 of 3, T] timing pruned.fp32.onnx ..." in counted
    assert any(
        re.fullmatch(
            r"\[2 of 3, T, about \d+ s left] checking pruned.fp32.tflite \(export\) ...", s
        )
        for s in counted
    )
    assert ran.out.startswith(
        "3 of 7 units kept: fp32 matches the original on 16 samples (20 checks"
    )
    files = ", ".join(f"pruned.fp32.{kind}" for kind in ("onnx", "tflite", "keras"))
    assert re.search(rf"\nWritten to out in \d+ s: {files}\nOpen out/report.html\n$", ran.out)


def test_run_writes_the_documented_files(ran: Done, keras_work: Path) -> None:
    out = keras_work / "out"
    suffixes = ("keras", "onnx", "tflite")
    assert {path.name for path in out.iterdir()} == {
        *(f"original.{suffix}" for suffix in suffixes),
        *(f"pruned.fp32.{suffix}" for suffix in suffixes),
        *("labels.txt", "remap.json", "report.html", "report.json", "report.md", "SHA256SUMS"),
    }
    assert leftover_files(keras_work) == []
    assert (out / "original.keras").read_bytes() == (keras_work / "net.keras").read_bytes()
    assert (out / "labels.txt").read_text() == "macaw\nowl\ncrow\n"
    report = json.loads((out / "report.json").read_text())
    assert report["ok"] is True
    assert {(check["artifact"], check["stage"]) for check in report["checks"]} == {
        ("pruned.fp32.onnx", "cut"),
        ("pruned.fp32.onnx", "export"),
        ("pruned.fp32.tflite", "cut"),
        ("pruned.fp32.tflite", "export"),
        ("pruned.fp32.keras", "cut"),
    }
    assert [row["artifact"] for row in report["latency"]] == [
        "pruned.fp32.onnx",
        "pruned.fp32.tflite",
    ]
    assert report["remap"] == json.loads((out / "remap.json").read_text())
    assert report["remap"]["original"]["name"] == "net.keras"
    for artifact in report["artifacts"]:
        assert artifact["bytes"] == (out / artifact["path"]).stat().st_size


@pytest.fixture(scope="module")
def varied(keras_work: Path) -> dict[str, Any]:
    """The same units and others as variants, with one conversion."""
    line = "run net.keras -o var --variant same=macaw,owl,crow --variant other=3-6 --no-bench"
    done = ok(exporter(f"{line} --labels labels.txt --json", keras_work, PYTHONHASHSEED="2"))
    assert done.err.count("converting to ONNX") == 1
    return done.record


def test_variant_has_the_bytes_of_a_run(
    ran: Done, varied: dict[str, Any], keras_work: Path
) -> None:
    assert varied["ok"] is True
    assert list(varied["variants"]) == ["same", "other"]
    for suffix in ("onnx", "tflite"):
        one = keras_work / "out" / f"pruned.fp32.{suffix}"
        two = keras_work / "var" / "same" / f"pruned.fp32.{suffix}"
        assert one.read_bytes() == two.read_bytes()
        assert one.read_bytes() != (keras_work / "var" / "other" / two.name).read_bytes()


def test_verify_against_the_keras_model(
    ran: Done, keras_work: Path, command_here: CommandHere
) -> None:
    done = ok(command_here("verify net.keras out/pruned.fp32.tflite --json", keras_work))
    stages = {check["stage"] for check in done.record["checks"] if check["metric"] == "max_abs"}
    assert stages == {"export"}
    assert done.record["artifacts"][0]["original_bytes"] is None  # it is of another kind


def test_keras_file_finds_its_remap_in_its_folder(
    ran: Done, keras_work: Path, command_here: CommandHere, tmp_path: Path
) -> None:
    cut = keras_work / "out" / "pruned.fp32.keras"
    done = ok(command_here(["verify", "net.keras", str(cut), "--json"], keras_work))
    assert done.record["remap"]["heads"][0]["labels"] == ["macaw", "owl", "crow"]
    elsewhere = tmp_path / cut.name
    elsewhere.write_bytes(cut.read_bytes())
    without = ok(command_here(["verify", "net.keras", str(elsewhere), "--json"], keras_work))
    assert "3 of 7 units of 'probabilities' were recognized" in without.record["warnings"][-1]


def test_verify_against_the_converted_model(ran: Done, keras_work: Path) -> None:
    ok(exporter("verify out/original.onnx out/pruned.fp32.onnx", keras_work))


def test_convert(keras_work: Path, ran: Done) -> None:
    done = ok(exporter("convert net.keras -o converted.onnx", keras_work))
    assert done.out.startswith("net.keras, no units removed: fp32 matches the original on 16")
    converted, again = keras_work / "converted.onnx", keras_work / "out" / "original.onnx"
    assert converted.read_bytes() == again.read_bytes()
    assert not (keras_work / "converted.onnx.remap.json").exists()


def test_convert_writes_no_file_if_a_check_fails(
    keras_work: Path, command_here: CommandHere
) -> None:
    done = command_here("convert net.h5 -o inexact.onnx --tolerance 0", keras_work)
    assert done.code == 1
    assert done.err.endswith("error: a check failed; nothing was written\n")
    assert not (keras_work / "inexact.onnx").exists()


def test_prune_keras(keras_work: Path, command_here: CommandHere) -> None:
    ok(command_here("prune net.h5 -o small.h5 --keep 1-3", keras_work))
    ok(command_here("prune small.h5 -o smaller.h5 --keep 0,2", keras_work))
    remap = json.loads((keras_work / "smaller.h5.remap.json").read_text())
    assert remap["heads"][0]["kept"] == [1, 3]
    assert remap["original"]["name"] == "net.h5"
    assert remap["parent"]["name"] == "small.h5"


def test_the_command_after_the_demo_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    """A test of the README runs the demo."""
    chosen = UnitChoice(
        1,
        (0,),
        ("zero",),
        reasons={0: "count 5"},
        rows=(UnitRow(0, "zero", 5),),
        model="digits.keras",
        sha256=None,
        head="digit",
        confused={},
        moved={},
        source="pictures",
        samples=134,
    )
    result = Demo(PASSING, chosen, 0.975, 91, {("onnx", "int8"): (0.97, 1.0)}, {})
    assert show.demo(result, Path("my demo"), {"as_json": False, "verbose": False}) == 0
    out = capsys.readouterr().out
    assert " run 'my demo/digits.keras' -o mine --keep 3-5\n" in out
    assert "  onnx    int8  97.0% before the cut, 100.0% after\n" in out


# --- terminals and pipes ------------------------------------------------------------------------

READERS = {
    "results": ("prune net.onnx -o piped.onnx --keep 1-3 --force", 0),
    "results of a failed check": ("prune net.onnx -o piped.onnx --keep 1 --tolerance 0", 0),
    "help": ("run --help", 0),
    "json": ("inspect net.onnx --json", 0),
    "a failure": ("verify net.onnx nan.onnx", 1),
    "an error": ("inspect empty.onnx --json", 3),
}


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="POSIX only")
@pytest.mark.parametrize("name", READERS)
def test_closed_pipe_keeps_the_exit_code(name: str, work: Path) -> None:
    line, code = READERS[name]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command(*line.split(), "--force" if "piped" in line else "--debug"),
        cwd=work,
        env=environment(),
        stdout=write,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    os.close(write)
    assert done.returncode == code
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
@pytest.mark.parametrize("line", ["inspect net.onnx", "inspect net.onnx --json"])
def test_full_stdout_is_an_error(line: str, work: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(*line.split()),
            cwd=work,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    assert done.returncode == 6
    assert done.stderr == (
        "error: cannot write the results to stdout: No space left on device\n"
        "hint: the job is done: redirect stdout to a file, or to /dev/null\n"
    )


def on_terminal(line: str, folder: Path, **surroundings: str) -> str:
    """Run a command on a terminal of 80 columns; returns the bytes it receives, decoded."""
    import pty  # noqa: PLC0415 - POSIX only

    master, slave = pty.openpty()
    process = subprocess.Popen(
        command(*line.split()),
        cwd=folder,
        env=environment(TERM="xterm-256color", **surroundings),
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    sent = bytearray()
    try:
        while part := os.read(master, 65536):
            sent += part
    except OSError:  # Linux raises it when the process has closed the terminal
        pass
    os.close(master)
    assert process.wait(timeout=60) == 0
    return sent.decode()


COLORS = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-9]|9[0-9])m")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="POSIX only")
def test_a_terminal_has_colors_and_a_spinner(work: Path) -> None:
    sent = on_terminal("prune net.onnx -o tty.onnx --keep 1-3 --force", work)
    assert COLORS.search(sent)
    assert "checking net.onnx (cut) ..." in sent
    assert sent.count("\x1b[?25l") == sent.count("\x1b[?25h"), "the cursor is shown again"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="POSIX only")
def test_no_color(work: Path) -> None:
    sent = on_terminal("prune net.onnx -o tty.onnx --keep 1-3 --force", work, NO_COLOR="1")
    assert not COLORS.search(sent)
