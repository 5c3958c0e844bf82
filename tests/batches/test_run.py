"""Batches on this machine: cells, resuming, failures, the index."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest

import exporter as package
from exporter.batches import host, keys, schedulers
from exporter.batches.run import Progress
from exporter.errors import CheckError, OutputError, UsageError
from exporter.output.manifest import check_manifest
from tests.builders.batches import FAST, InThread, content, made, wait_for
from tests.builders.commands import command, environment, exporter
from tests.builders.onnx_models import node, numbers, proto
from tests.builders.shelf import FEATURES, LABELS

PLAN: dict[str, Any] = {
    "options": {"labels": "labels.txt", **FAST},
    "models": {"net": "net.onnx", "lite": "net.tflite", "none": "missing.onnx"},
    "selections": {"birds": ["owl", "hen"], "none": "penguin"},
    "cell": [{"model": "net", "name": "small", "keep": "0-4", "max-size": 100}],
}
STATUS = {
    "net/birds": "passed",
    "net/none": "error",
    "lite/birds": "passed",
    "lite/none": "error",
    "none/birds": "error",
    "none/none": "error",
    "net/small": "failed",
}


@pytest.fixture(autouse=True)
def in_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of these tests need no processes."""
    if request.node.name != test_a_failing_cell_stops_no_other.__name__:
        monkeypatch.setattr(host, "Child", InThread)


@pytest.fixture
def work(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("net.onnx", "net.tflite", "labels.txt"):
        shutil.copyfile(shelf / name, folder / name)
    monkeypatch.chdir(folder)
    return folder


def test_a_failing_cell_stops_no_other(work: Path) -> None:
    batch = package.batch(PLAN, "out", workers=1)
    rows = {row["name"]: row for row in batch.cells}
    assert {name: row["status"] for name, row in rows.items()} == STATUS
    assert not batch.ok
    assert rows["none/birds"]["exit"] == 2
    assert "missing.onnx" in rows["none/birds"]["error"]
    assert "penguin" in rows["net/none"]["error"]
    assert rows["net/small"]["exit"] == 1
    assert (rows["lite/birds"]["kept"], rows["lite/birds"]["units"]) == (2, len(LABELS))
    assert not (work / "out" / "net" / "none").exists()

    out = work / "out"
    index = json.loads((out / "index.json").read_text())
    assert index["cells"] == list(batch.cells)
    assert index["counts"] == {"error": 4, "failed": 1, "passed": 2}
    table = pq.read_table(out / "index.parquet").to_pylist()
    assert [row["name"] for row in table] == list(STATUS)
    sizes = {row["name"]: row["bytes"] for row in table if row["file"]}
    assert sizes == {
        name: (out / name / file).stat().st_size
        for name, file in (
            ("net/birds", "pruned.fp32.onnx"),
            ("lite/birds", "pruned.fp32.tflite"),
            ("net/small", "pruned.fp32.onnx"),
        )
    }
    page = (out / "index.html").read_text()
    assert '<a href="net/birds/report.html">' in page
    assert '<th scope="col" class="right">Size</th>' in page
    assert "Latency" not in page, "nothing was timed"
    assert check_manifest(out).passed
    assert len(batch.to_pandas()) == len(STATUS)
    assert "2 of 7 cells passed" in batch._repr_html_()


def test_the_files_answer_as_the_original(work: Path) -> None:
    package.batch(PLAN, "out", workers=1)
    features = np.random.default_rng(0).normal(size=(1, FEATURES)).astype(np.float32)
    answers = []
    for path in (work / "net.onnx", work / "out" / "net" / "birds" / "pruned.fp32.onnx"):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {session.get_inputs()[0].name: features})[0].ravel())
    kept = answers[0][[LABELS.index("owl"), LABELS.index("hen")]]
    np.testing.assert_allclose(answers[1], kept / kept.sum(), rtol=1e-5)


def test_a_cell_is_what_run_writes(work: Path) -> None:
    package.batch(PLAN, "out", workers=1)
    line = (
        "run net.onnx -o one --labels labels.txt --keep owl,hen --samples 2 --no-bench --no-plots"
    )
    assert exporter(line, work).code == 0
    cell, one = content(work / "out" / "net" / "birds"), content(work / "one")
    same = {"pruned.fp32.onnx", "remap.json", "labels.txt"}
    assert {name: cell[name] for name in same} == {name: one[name] for name in same}
    assert cell.keys() - one.keys() == {"cell.json"}
    report = json.loads(cell["report.json"])
    again = report["command"].replace("-o net/birds", "-o two").removeprefix("exporter ")
    assert exporter(again, work).code == 0
    assert content(work / "two")["pruned.fp32.onnx"] == cell["pruned.fp32.onnx"]


def test_only_what_is_missing_changed_or_damaged_is_done_again(work: Path) -> None:
    plan = {**PLAN, "models": {"net": "net.onnx"}, "selections": {"a": "0,1", "b": "@list"}}
    (work / "list").write_text("owl\n")
    out = work / "out"
    first = ["net/a", "net/b", "net/small"]

    def again() -> list[str]:
        before = len(made(out))
        package.batch(plan, out, workers=1)
        return made(out)[before:]

    package.batch(plan, out, workers=1)
    assert made(out) == first
    whole = content(out)
    assert again() == []
    assert content(out) == whole

    (out / "net" / "a" / "remap.json").write_text("{}")
    assert again() == ["net/a"]
    (out / "net" / "a" / "report.json").unlink()
    assert again() == ["net/a"]
    (out / "net" / "a" / "SHA256SUMS").unlink()
    assert again() == ["net/a"]
    (out / "net" / "a" / "more.txt").touch()
    assert again() == ["net/a"]
    shutil.rmtree(out / "net" / "small")
    assert again() == ["net/small"]
    assert content(out) == whole

    (work / "list").write_text("owl\nhen\n")
    assert again() == ["net/b"]
    plan["selections"] = {**plan["selections"], "c": "3,4"}
    assert again() == ["net/c"]
    (work / "net.txt").write_text("\n".join(LABELS))  # labels of a file that may be read
    assert again() == ["net/a", "net/b", "net/c", "net/small"]
    plan["options"] = {**plan["options"], "timeout": 50}  # without effect on the result
    assert again() == []
    plan["options"]["samples"] = 3
    assert again() == ["net/a", "net/b", "net/c", "net/small"]
    shutil.copyfile(work / "net.onnx", work / "net.copy")
    with (work / "net.onnx").open("ab") as file:
        file.write(b"\x72\x00")  # another producer: an empty domain
    assert again() == ["net/a", "net/b", "net/c", "net/small"]
    package.batch(plan, out, workers=1, force=True)
    assert made(out)[-4:] == ["net/a", "net/b", "net/c", "net/small"]


def test_other_versions_make_a_cell_again(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {**PLAN, "models": {"net": "net.onnx"}, "selections": {"a": "0,1"}, "cell": []}
    package.batch(plan, "out", workers=1)
    versions = {**keys.all_versions(), "onnx": "0"}
    monkeypatch.setattr(keys, "all_versions", lambda: versions)
    (row,) = package.batch(plan, "out", workers=1).cells
    assert "onnx is 0 where the batch was started" in row["error"]  # the process has another


def test_a_killed_batch_continues_with_the_rest(work: Path) -> None:
    selections = "".join(f'"{i}" = "{i},{i + 1}"\n' for i in range(6))
    options = "[options]\nbench = false\nplots = false\nsamples = 2\n"
    text = f'{options}[models]\nnet = "net.onnx"\n[selections]\n{selections}'
    (work / "plan.toml").write_text(text)
    line = command("batch", "plan.toml", "-o", "out", "-q", "--workers", "1")
    process = subprocess.Popen(line, cwd=work, env=environment(), stderr=subprocess.DEVNULL)
    journal = work / "out" / "journal.jsonl"
    wait_for(lambda: journal.exists() and len(journal.read_text().splitlines()) >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = made(work / "out")
    assert 2 <= len(before) < 6
    finished = {path.parent.name for path in (work / "out").glob("net/*/cell.json")}
    batch = package.batch("plan.toml", "out", workers=1)
    assert batch.ok
    assert {name.removeprefix("net/") for name in batch.reused} >= finished
    assert len(made(work / "out")) <= 7  # one could be finished and not noted
    assert sorted(batch.reused) + made(work / "out")[len(before) :] == [
        f"net/{i}" for i in range(6)
    ]
    package.batch("plan.toml", "whole", workers=1)
    assert content(work / "out") == content(work / "whole")
    assert not list(work.glob(".exporter*"))


def test_an_interrupt_leaves_an_index_of_what_is_done(work: Path) -> None:
    plan = {"models": {"net": "net.onnx"}, "options": FAST, "selections": {"a": "0", "b": "1"}}

    def interrupt(progress: Progress) -> None:
        if progress.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        package.batch(plan, "out", workers=1, on_cell=interrupt)
    index = json.loads((work / "out" / "index.json").read_text())
    assert index["counts"] == {"open": 1, "passed": 1}
    assert not (work / "out" / "SHA256SUMS").exists()
    assert package.batch(plan, "out", workers=1).ok


def test_the_cells_of_a_model_follow_each_other(work: Path) -> None:
    models = ("net.onnx", "net.tflite", "net.onnx", "net.tflite")
    cells = [{"model": model, "name": f"{i}{model}", "keep": "0"} for i, model in enumerate(models)]
    package.batch({"options": FAST, "cell": cells}, "out", workers=1)
    assert made(work / "out") == [f"net/{i}{models[i]}" for i in (0, 2, 1, 3)]


def test_progress_counts_cells(work: Path) -> None:
    seen: list[Progress] = []
    package.batch(PLAN, "out", workers=1, on_cell=seen.append)
    assert [(each.done, each.failed, each.total) for each in (seen[0], seen[-1])] == [
        (2, 2, 7),  # those of the missing model
        (7, 5, 7),
    ]
    assert seen[0].left_s is None
    assert (seen[-1].left_s, seen[-2].left_s is not None) == (0, True)


def test_formats_precisions_and_axes(work: Path) -> None:
    plan = {
        "models": {"net": "net.onnx"},
        "selections": {"a": "0-3"},
        "options": FAST,
        "matrix": {"precisions": ["fp32", "fp16"], "each": {"mode": ["slice", "mask"]}},
    }
    batch = package.batch(plan, "out", workers=1)
    found = {row["name"]: [file["file"] for file in row["files"]] for row in batch.cells}
    assert found == {
        f"net/a.{precision}.{mode}": [f"pruned.{precision}.onnx"]
        for precision in ("fp32", "fp16")
        for mode in ("slice", "mask")
    }
    assert [row["mode"] for row in batch.cells] == ["slice", "mask"] * 2


def test_a_forecast_writes_nothing(work: Path) -> None:
    (work / "plan.toml").write_text(
        'options = {bench = false}\nmodels = {net = "net.onnx"}\nselections = {a = "0,1"}\n'
    )
    before = content(work)
    batch = package.batch("plan.toml", dry_run=True)
    assert content(work) == before
    (file,) = batch.cells[0]["forecast"]["files"]
    package.batch("plan.toml", "out", workers=1, plots=False)
    assert file["bytes"] == (work / "out" / "net" / "a" / "pruned.fp32.onnx").stat().st_size
    done = exporter("batch plan.toml -o out --dry-run", work)
    assert done.code == 0, done.err
    assert "1 cells, 1 files" in done.out
    assert "to do" in done.out  # `plots` differs


def test_the_command(work: Path) -> None:
    (work / "sub").mkdir()
    (work / "sub" / "plan.toml").write_text(
        'output = "../out"\n[options]\nlabels = "../labels.txt"\nsamples = 9\n'
        '[models]\nnet = "../net.onnx"\n[selections]\na = "owl,hen"\nb = "penguin"\n'
    )
    line = "batch sub/plan.toml --no-bench --no-plots --samples 2 --workers 1"
    done = exporter(line, work)
    assert done.code == 1
    assert "net/b: keep entry 1" in done.out
    assert "1 of 2 cells passed, 1 could not be made" in done.out
    assert "2 of 2 cells done, 1 failed" in done.err
    report = json.loads((work / "out" / "net" / "a" / "report.json").read_text())
    assert report["options"]["samples"] == 2
    assert report["command"].startswith("exporter run ../net.onnx -o net/a ")
    again = exporter(f"{line} --json", work)
    assert (again.code, again.record["counts"]) == (1, {"error": 1, "passed": 1})
    assert exporter("verify out", work).code == 0


@pytest.mark.parametrize(
    ("line", "code", "part"),
    [
        ("batch plan.toml", 2, "names no output"),
        ("batch missing.toml -o out", 2, "missing.toml"),
        ("batch plan.toml -o other", 6, "only a folder that a batch wrote"),
        ("batch plan.toml -o out --workers 0", 2, "1"),
        ("batch plan.toml -o out --keep 1", 2, "--keep"),
        ("batch plan.toml -o out --scheduler x --workers 2", 2, "leave out one"),
    ],
)
def test_refused_commands(
    work: Path, line: str, code: int, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "plan.toml").write_text('models = {n = "net.onnx"}\nselections = {a = "0"}\n')
    (work / "other").mkdir()
    (work / "other" / "mine.txt").touch()
    done = exporter(line, work)
    assert done.code == code, done.err
    assert part in done.err
    assert "Traceback" not in done.err


def test_the_functions_refuse_the_same(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"models": {"net": "net.onnx"}, "options": FAST, "selections": {"a": "penguin"}}
    with pytest.raises(UsageError, match="names no output"):
        package.batch(plan)
    with pytest.raises(TypeError, match="did you mean `samples`"):
        package.batch(plan, "out", sampels=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="workers is 0"):
        package.batch(plan, "out", workers=0)
    with pytest.raises(UsageError, match="on this machine"):
        package.batch(plan, dry_run=True, scheduler="tcp://127.0.0.1:1")
    with pytest.raises(CheckError, match="0 of 1 cells passed"):
        package.batch(plan, "out", workers=1, check=True)
    monkeypatch.setattr(schedulers, "_CONNECT_S", 0.2)
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        package.batch(plan, "out", scheduler="tcp://127.0.0.1:1", force=True)
    (work / "file").touch()
    with pytest.raises(OutputError):
        package.batch(plan, work / "file" / "out")


def test_a_foreign_folder_of_a_cell_is_kept(work: Path) -> None:
    plan = {"models": {"net": "net.onnx"}, "options": FAST, "selections": {"a": "0", "b": "1"}}
    package.batch(plan, "out", workers=1)
    shutil.rmtree(work / "out" / "net" / "a")
    (work / "out" / "net" / "a").mkdir()
    (work / "out" / "net" / "a" / "mine.txt").touch()
    rows = package.batch(plan, "out", workers=1).cells
    assert [row["exit"] for row in rows] == [6, 0]
    assert (work / "out" / "net" / "a" / "mine.txt").exists()


def test_two_batches_do_not_write_one_folder(work: Path) -> None:
    plan = {"models": {"net": "net.onnx"}, "options": FAST, "selections": {"a": "0"}}

    def second(_progress: Progress) -> None:
        with pytest.raises(OutputError, match="another exporter"):
            package.batch(plan, "out", workers=1)

    assert package.batch(plan, "out", workers=1, on_cell=second).ok


# --- a shared body ------------------------------------------------------------------------------


def wide_net(path: Path) -> None:
    """A network with constants that no cut changes."""
    nodes = [
        node("MatMul", ["x", "body"], ["h"], "first"),
        node("MatMul", ["h", "kernel"], ["y"], "head"),
    ]
    constants = {"body": numbers(6, 300), "kernel": numbers(300, 20)}
    onnx.save(proto(nodes, constants, outputs={"y": ["batch", 20]}), path)


def test_cells_of_a_model_share_a_body(work: Path) -> None:
    wide_net(work / "wide.onnx")
    plan: dict[str, Any] = {
        "options": {**FAST, "share-body": True},
        "models": {"wide": "wide.onnx", "lite": "net.tflite"},
        "selections": {"a": "0-2", "b": "5,6"},
    }
    batch = package.batch(plan, "out", workers=2)
    rows = {row["name"]: row for row in batch.cells}
    assert {name: row["status"] for name, row in rows.items()} == {
        "wide/a": "passed",
        "wide/b": "passed",
        "lite/a": "error",
        "lite/b": "error",
    }
    assert "TFLite files contain all their weights" in rows["lite/a"]["error"]
    out = work / "out"
    (body,) = (out / "wide").glob("body-*")
    assert body.read_bytes() == numbers(6, 300).tobytes()
    x = numbers(3, 6, seed=1)
    for name, units in (("a", [0, 1, 2]), ("b", [5, 6])):
        session = onnxruntime.InferenceSession(out / "wide" / f"{name}.pruned.fp32.onnx")
        expected = x @ numbers(6, 300) @ numbers(300, 20)[:, units]
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-4)
    assert check_manifest(out).passed

    before = content(out)
    assert len(package.batch(plan, "out").reused) == 2
    assert content(out) == before
    (out / "wide" / "a.pruned.fp32.onnx").write_bytes(b"damaged")
    assert package.batch(plan, "out").reused == {"wide/b"}
    assert content(out) == before
    body.write_bytes(b"damaged")
    assert not package.batch(plan, "out").reused
    assert content(out) == before

    plan["options"]["share-body"] = False
    package.batch(plan, "out")
    assert not list((out / "wide").glob("*.onnx")), "files of the option that was left out"
