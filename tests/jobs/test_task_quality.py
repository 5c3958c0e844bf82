"""Task quality before and after: expected numbers are computed from the weights, with NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

import exporter
from exporter.errors import UsageError
from exporter.formats import open_model
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.jobs.task_quality import QualityMeter
from exporter.planning.cut import CutOptions
from exporter.records import Check, Quality, Report
from tests.builders.commands import exporter as command
from tests.builders.onnx_models import node, proto, softmax
from tests.builders.shelf import BIAS, FEATURES, KERNEL, LABELS, UNITS

COUNT = 90
KEEP = (5, 1, 2, 6)
REMOVED = (0, 3, 4)


def features() -> Array:
    return np.random.default_rng(11).normal(size=(COUNT, FEATURES)).astype(np.float32)


def logits() -> Array:
    return np.asarray(features().astype(np.float64) @ KERNEL + BIAS)


def labels() -> Array:
    """The network's own best unit, with every third label wrong."""
    units = logits().argmax(axis=1)
    units[::3] = (units[::3] + 1) % UNITS
    return np.asarray(units)


def several() -> Array:
    """(samples, units) which labels each sample has."""
    noise = np.random.default_rng(3).normal(size=(COUNT, UNITS))
    return np.asarray(logits() + noise > 0.5)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals are not tested here: see tests/evaluation/test_intervals.py."""
    for name in ("_RESAMPLES", "_RESAMPLES_OF_UNITS"):
        monkeypatch.setattr(f"exporter.evaluation.task_quality.{name}", 20)


@pytest.fixture(scope="module")
def work(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    for name in ("net.onnx", "net.tflite", "sigmoid.onnx", "labels.txt", "open.onnx"):
        (folder / name).write_bytes((shelf / name).read_bytes())
    for name in ("x", "features"):
        named = np.array([LABELS[unit] for unit in labels()])
        arrays: dict[str, Any] = {name: features(), "labels": named}
        np.savez(folder / f"{name}.npz", **arrays)
    np.savez(folder / "indices.npz", x=features(), labels=labels())
    np.savez(folder / "several.npz", x=features(), labels=several().astype(np.uint8))
    np.savez(folder / "plain.npz", x=features())
    np.savez(folder / "foreign.npz", x=features(), labels=np.array(["zebra"] * COUNT))
    return folder


def quality(rows: tuple[Quality, ...], measure: str = "accuracy", classes: str = "kept") -> Quality:
    (found,) = (row for row in rows if (row.measure, row.classes) == (measure, classes))
    return found


# --- modes ----------------------------------------------------------------------------------------


def best_kept(z: Array) -> Array:
    return np.asarray(np.array(KEEP)[z[:, KEEP].argmax(axis=1)])


def zeroed(z: Array) -> Array:
    changed = z.copy()
    changed[:, REMOVED] = 0.0
    return np.asarray(changed.argmax(axis=1))


GROUPED = np.array([0, 1, 2, 3, 4, 1, 6])  # units 1 and 5 are one group, named by unit 1


def merged(z: Array) -> Array:
    """Of units 1 + 5, 2 and 6."""
    p = softmax(z[:, [1, 5, 2, 6]])
    grouped = np.stack([p[:, 0] + p[:, 1], p[:, 2], p[:, 3]], axis=1)
    return np.asarray(np.array([1, 2, 6])[grouped.argmax(axis=1)])


MODES: Mapping[str, tuple[dict[str, Any], Callable[[Array], Array]]] = {
    "slice": ({"keep_order": True}, best_kept),
    "slice, absolute probabilities": ({"probabilities": "absolute"}, best_kept),
    "mask": ({"mode": "mask"}, best_kept),
    "zero": ({"mode": "zero"}, zeroed),
    "width restored": ({"restore_width": True}, best_kept),
    "a gate that reads a mask": ({"gate": "input"}, best_kept),
    "ids are returned too": ({"emit": "ids"}, best_kept),
    "merged": ({"merge": {"bird": (1, 5)}}, merged),
}


@pytest.mark.parametrize("name", ["net.onnx", "net.tflite"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode(work: Path, mode: str, name: str) -> None:
    options, predict = MODES[mode]
    data = work / ("x.npz" if name == "net.onnx" else "features.npz")
    cut = CutOptions(keep=KEEP, labels=LABELS, **options)
    found = prune_model(open_model(work / name), cut, Job(data=data))
    assert found.ok
    group = GROUPED if mode == "merged" else np.arange(UNITS)
    truth, z = group[labels()], logits()
    before = group[z.argmax(axis=1)]
    restricted = merged(z) if mode == "merged" else best_kept(z)
    kept = np.isin(labels(), KEEP)
    for classes, cases in (("kept", kept), ("removed", ~kept), ("all", kept | True)):
        row = quality(found.results.quality, "accuracy", classes)
        assert row.samples == cases.sum()
        assert row.original == pytest.approx(accuracy_score(truth[cases], before[cases]))
        assert row.value == pytest.approx(accuracy_score(truth[cases], predict(z)[cases]))
        f1 = quality(found.results.quality, "macro_f1", classes)
        assert f1.value == pytest.approx(
            f1_score(
                truth[cases], predict(z)[cases], average="macro", labels=np.unique(truth[cases])
            )
        )
    row = quality(found.results.quality)
    fair = accuracy_score(truth[kept], restricted[kept])
    assert row.original_kept == pytest.approx(fair)
    assert row.drop == pytest.approx(fair - accuracy_score(truth[kept], predict(z)[kept]))
    assert (row.drop == 0) == (mode != "zero")  # a zeroed unit may rank first


def test_what_a_condition_switches_off_is_wrong(work: Path) -> None:
    """The gate keeps the probabilities above 0.4; where none is, the first unit ranks first."""
    cut = CutOptions(gate="probability>0.4", labels=LABELS)
    found = prune_model(open_model(work / "net.onnx"), cut, Job(data=work / "x.npz"))
    p = softmax(logits())
    expected = np.where(p > 0.4, p, 0.0).argmax(axis=1)
    row = quality(found.results.quality)
    assert row.value == pytest.approx(accuracy_score(labels(), expected))
    assert (row.value or 1) < (row.original or 0)


# --- models that return indices -------------------------------------------------------------------

ARG = node("ArgMax", ["z"], ["best"], "rank", axis=1, keepdims=0)
ARG_KEPT = node("ArgMax", ["z"], ["best"], "rank", axis=1, keepdims=1)
TOP = node("TopK", ["z", "k"], ["values", "best"], "rank")


@pytest.mark.parametrize("new_ids", [False, True])
@pytest.mark.parametrize(("rank", "shape"), [(ARG, ()), (ARG_KEPT, (1,)), (TOP, (3,))])
def test_a_model_that_returns_only_indices(
    work: Path, tmp_path: Path, rank: Any, shape: tuple[int, ...], new_ids: bool
) -> None:
    nodes = [node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm"), rank]
    constants = {"kernel": KERNEL, "bias": BIAS}
    if rank is TOP:
        constants["k"] = np.array([3])
    made = proto(nodes, constants, outputs={"best": ("batch", *shape)})
    made.graph.output[0].type.tensor_type.elem_type = 7  # int64
    (tmp_path / "ids.onnx").write_bytes(made.SerializeToString())
    model = open_model(tmp_path / "ids.onnx")
    cut = CutOptions(keep=KEEP, new_ids=new_ids)
    found = prune_model(model, cut, Job(data=work / "indices.npz"))
    kept = np.isin(labels(), KEEP)
    row = quality(found.results.quality)
    assert row.value == pytest.approx(accuracy_score(labels()[kept], best_kept(logits())[kept]))
    everything = quality(found.results.quality, "accuracy", "all")
    assert everything.original == pytest.approx(accuracy_score(labels(), logits().argmax(axis=1)))


# --- samples with several labels ------------------------------------------------------------------


def test_several_labels_per_sample(work: Path) -> None:
    cut = CutOptions(keep=KEEP)
    job = Job(data=work / "several.npz")
    found = prune_model(open_model(work / "sigmoid.onnx"), cut, job).results.quality
    scores = 1 / (1 + np.exp(-logits()))
    kept = average_precision_score(several()[:, KEEP], scores[:, KEEP], average="macro")
    row = quality(found, "mean_average_precision")
    assert (row.original, row.original_kept, row.value) == pytest.approx((kept, kept, kept))
    assert row.samples == several()[:, KEEP].any(axis=1).sum()
    assert (row.task, row.drop) == ("labels", 0)
    everything = quality(found, "mean_average_precision", "all")
    assert everything.original == pytest.approx(
        average_precision_score(several(), scores, average="macro")
    )
    assert everything.value == pytest.approx(kept * len(KEEP) / UNITS)
    assert quality(found, "mean_average_precision", "removed").value == 0
    assert quality(found, "multilabel_macro_f1").value == pytest.approx(
        f1_score(several()[:, KEEP], scores[:, KEEP] > 0.5, average="macro")
    )


def test_a_group_has_the_labels_of_its_members(work: Path) -> None:
    cut = CutOptions(merge={"bird": (1, 5)})
    job = Job(data=work / "several.npz")
    found = prune_model(open_model(work / "net.onnx"), cut, job).results.quality
    p, truth = softmax(logits()), several()
    grouped = np.delete(truth, 5, axis=1)
    grouped[:, 1] |= truth[:, 5]
    scores = np.delete(p, 5, axis=1)
    scores[:, 1] += p[:, 5]
    expected = average_precision_score(grouped, scores, average="macro")
    row = quality(found, "mean_average_precision")
    assert (row.original_kept, row.value) == pytest.approx((expected, expected))


def test_labels_that_no_unit_has_are_left_out(work: Path) -> None:
    found = [("2",), ("1", "zebra"), ("1", "zebra")]
    model = open_model(work / "sigmoid.onnx")
    samples = replace(Job(data=work / "plain.npz", samples=3).inputs(model), labels=found)
    rows = QualityMeter(Job(), model, samples).measure(model, [])
    assert "2 of 5 labels are names that no unit has: they are left out" in rows.warnings
    assert quality(rows.quality, "mean_average_precision").samples == 3


def test_a_batch_with_one_label_is_refused(work: Path) -> None:
    model = open_model(work / "net.onnx")
    samples = Job(data=work / "plain.npz").inputs(model)
    pairs: dict[str, Any] = {
        name: values.reshape(-1, 2, FEATURES) for name, values in samples.values.items()
    }
    batches = replace(samples, values=pairs, labels=[0] * (COUNT // 2))
    with pytest.raises(UsageError, match="45 labels for 90 answers"):
        QualityMeter(Job(data=work / "x.npz", max_drop=0), model, batches).measure(model, [])


@pytest.mark.parametrize("batch", [1, 4])
def test_samples_may_run_in_batches(work: Path, batch: int) -> None:
    """90 samples are 23 feeds of 4; the last one repeats the first two samples."""
    job = Job(data=work / "indices.npz", batch=batch)
    found = prune_model(open_model(work / "net.onnx"), CutOptions(keep=KEEP), job).results
    kept = np.isin(labels(), KEEP)
    expected = accuracy_score(labels()[kept], best_kept(logits())[kept])
    assert quality(found.quality).value == pytest.approx(expected)


# --- gates ----------------------------------------------------------------------------------------


def gate(checks: tuple[Check, ...], metric: str) -> Check:
    (found,) = (c for c in checks if (c.stage, c.metric) == ("quality", metric))
    return found


def test_a_rotated_remap_lowers_the_accuracy_and_fails_the_gates(work: Path) -> None:
    model = open_model(work / "net.onnx")
    job = Job(data=work / "x.npz", min_accuracy=0.3, max_drop=0.05)
    good = prune_model(model, CutOptions(keep=KEEP, labels=LABELS), job)
    (table,) = good.remap.heads
    meter = QualityMeter(job, model, good.inputs, LABELS)
    for turn, passed in ((0, True), (1, False)):
        units = (*table.kept[turn:], *table.kept[:turn])
        wrong = replace(table, kept=units, new_to_old=units, labels=None)
        found = meter.measure(good.model, [wrong])
        kept = np.isin(labels(), KEEP)
        expected = np.roll(np.array(table.kept), -turn)
        predicted = expected[logits()[:, list(table.kept)].argmax(axis=1)]
        row = quality(found.quality)
        assert row.value == pytest.approx(accuracy_score(labels()[kept], predicted[kept]))
        assert found.passed == passed
        assert gate(found.checks, "accuracy").passed == passed
        assert gate(found.checks, "drop").passed == passed


@pytest.mark.parametrize(
    ("options", "metric", "passed"),
    [
        pytest.param({"min_accuracy": 0.5}, "accuracy", True, id="above"),
        pytest.param({"min_accuracy": 0.99}, "accuracy", False, id="below"),
        pytest.param({"max_drop": 0.0}, "drop", True, id="no drop"),
    ],
)
def test_gates(work: Path, options: dict[str, Any], metric: str, passed: bool) -> None:
    cut = CutOptions(keep=(0, 3, 4), labels=LABELS)
    found = prune_model(open_model(work / "net.onnx"), cut, Job(data=work / "x.npz", **options))
    check = gate(found.results.checks, metric)
    assert (check.passed, found.ok) == (passed, passed)
    assert check.limit == next(iter(options.values()))


def test_a_gate_without_samples_of_kept_classes_fails(work: Path) -> None:
    """All samples are of other classes than the one that is kept."""
    data = work / "one class.npz"
    np.savez(data, x=features(), labels=np.full(COUNT, 3))
    job = Job(data=data, min_accuracy=0.0, max_drop=1.0)
    found = prune_model(open_model(work / "net.onnx"), CutOptions(keep=(1, 2)), job)
    assert not found.ok
    assert {(c.value, c.passed) for c in found.results.checks if c.stage == "quality"} == {
        (None, False)
    }


GATED: dict[str, Any] = {"min_accuracy": 0.1}


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        pytest.param("net.onnx", "plain.npz", "has no labels", id="no labels"),
        pytest.param("net.onnx", "foreign.npz", "no unit is called 'zebra'", id="other labels"),
        pytest.param("open.onnx", "steps.npz", "several values per unit", id="time steps"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_gate(
    work: Path, model: str, data: str, message: str
) -> None:
    np.savez(work / "steps.npz", x=np.zeros((4, 1, 3, FEATURES), np.float32), labels=[1, 2, 1, 2])
    cut = CutOptions(keep=(1, 2), labels=LABELS)
    with pytest.raises(UsageError, match=message) as caught:
        prune_model(open_model(work / model), cut, Job(data=work / data, **GATED))
    assert caught.value.hint
    found = prune_model(open_model(work / model), cut, Job(data=work / data))
    assert not found.results.quality
    assert any(message in each for each in found.warnings) == (data != "plain.npz")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"min_accuracy": 0.9}, id="no data"),
        pytest.param({"data": "x.npz", "min_accuracy": 1.5}, id="above 1"),
        pytest.param({"data": "x.npz", "max_drop": float("nan")}, id="NaN"),
        pytest.param({"truth": "boxes.json"}, id="truth without data"),
    ],
)
def test_wrong_gates_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Job(**options)
    assert caught.value.hint


# --- commands -------------------------------------------------------------------------------------


def test_prune_verify_and_report(work: Path) -> None:
    done = command("prune net.onnx -o s.onnx --keep 1,2,5,6 --labels labels.txt --data x.npz", work)
    assert done.code == 0, done.err
    assert "Task quality" in done.out
    done = command("verify net.onnx s.onnx --data x.npz --max-drop 0 --json", work)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    kept = np.isin(labels(), KEEP)
    expected = accuracy_score(labels()[kept], best_kept(logits())[kept])
    first = record["quality"][0]
    assert (first["measure"], first["classes"]) == ("accuracy", "kept")
    assert first["value"] == pytest.approx(expected)
    again = Report.from_json(done.out)
    assert again.to_dict()["quality"] == record["quality"]
    done = command("verify net.onnx s.onnx --data x.npz --min-accuracy 0.99", work)
    assert done.code == 1
    assert f"accuracy is {expected:.3g}, limit 0.99 ({kept.sum()} samples)" in " ".join(
        done.out.split()
    )
    options = "--labels labels.txt --data x.npz --min-accuracy 0.99"
    done = command(f"prune net.onnx -o t.onnx --keep 1-3 {options}", work)
    assert (done.code, (work / "t.onnx").exists()) == (1, False)


def test_run_reports_each_precision(work: Path) -> None:
    report = exporter.run(
        work / "net.onnx",
        work / "out",
        keep=KEEP,
        labels=LABELS,
        data=work / "x.npz",
        precisions=("fp32", "dynamic"),
        bench=False,
        max_drop=0.5,
    )
    files = [artifact.path for artifact in report.artifacts]
    assert list(dict.fromkeys(row.artifact for row in report.quality)) == files
    assert {c.artifact for c in report.checks if c.stage == "quality"} == set(files)
    page = (work / "out" / "report.md").read_text()
    assert "## Task quality" in page
    html = (work / "out" / "report.html").read_text()
    assert "Task quality" in html
    assert report.ok


def test_a_cut_of_a_cut_file_is_measured_in_the_units_of_its_original(work: Path) -> None:
    once = exporter.prune(work / "net.onnx", keep=(1, 2, 3, 5, 6), labels=LABELS)
    once.save(work / "once.onnx", force=True)
    twice = exporter.prune(work / "once.onnx", keep=["owl", "crow"])
    twice.save(work / "twice.onnx", force=True)
    report = exporter.verify(work / "once.onnx", work / "twice.onnx", data=work / "x.npz")
    truth, z = labels(), logits()
    cases = np.isin(truth, (1, 5))
    expected = np.array([1, 5])[z[:, [1, 5]].argmax(axis=1)]
    row = quality(report.quality)
    assert row.value == pytest.approx(accuracy_score(truth[cases], expected[cases]))
    assert row.original_kept == row.value
    middle = np.array([1, 2, 3, 5, 6])
    before = middle[z[:, middle].argmax(axis=1)]
    assert row.original == pytest.approx(accuracy_score(truth[cases], before[cases]))


def test_names_come_from_the_remap_if_the_original_has_none(work: Path) -> None:
    """Nobody knows the labels of removed classes then, unless --labels gives them."""
    exporter.prune(work / "net.onnx", keep=KEEP, labels=LABELS).save(work / "n.onnx", force=True)
    report = exporter.verify(work / "net.onnx", work / "n.onnx", data=work / "x.npz")
    kept = int(np.isin(labels(), KEEP).sum())
    assert [(row.classes, row.samples) for row in report.quality] == [("kept", kept)] * 2
    assert any("only samples of kept classes are measured" in text for text in report.warnings)
    line = "verify net.onnx n.onnx --data x.npz --labels labels.txt --json"
    rows = command(line, work).record["quality"]
    counts = {row["classes"]: row["samples"] for row in rows if row["measure"] == "accuracy"}
    assert counts == {"kept": kept, "removed": COUNT - kept, "all": COUNT}


def test_a_converted_file_without_a_remap_keeps_all_units(work: Path) -> None:
    report = exporter.verify(work / "net.onnx", work / "net.onnx", data=work / "indices.npz")
    row = quality(report.quality)
    assert (
        row.value
        == row.original
        == pytest.approx(accuracy_score(labels(), logits().argmax(axis=1)))
    )
    assert row.samples == COUNT
    assert quality(report.quality, "top5_accuracy").value


# --- photographs ----------------------------------------------------------------------------------

PHOTOGRAPHS = {  # label -> file; what MobileNet says of each of them among its 1001 units
    "cheeseburger": "burger.jpg",  # right
    "Egyptian cat": "cat.bmp",  # right
    "hotdog": "hot_dog.jpg",  # burrito, then hotdog
    "macaw": "parrot.jpg",  # right
    "daisy": "sunflower.bmp",  # right, so to say: there is no sunflower
}


def test_a_folder_of_photographs(zoo: Path, tmp_path: Path) -> None:
    """Without the burrito, the hotdog is recognized: the restricted original is right too."""
    data = tmp_path / "photographs"
    for label, file in PHOTOGRAPHS.items():
        (data / label).mkdir(parents=True)
        (data / label / file).write_bytes((zoo / "images" / file).read_bytes())
    network = zoo / "mobilenet_v1_025_224_uint8_metadata.tflite"
    kept = "cheeseburger,macaw,hotdog,'Egyptian cat'"
    gates = "--min-accuracy 1 --max-drop 0"
    done = command(
        f"prune {network} -o small.tflite --keep {kept} --data {data} {gates} --json", tmp_path
    )
    assert done.code == 0, done.err
    rows = {row["classes"]: row for row in done.record["quality"] if row["measure"] == "accuracy"}
    numbers = ("samples", "original", "original_kept", "value", "drop")
    assert {name: tuple(row[number] for number in numbers) for name, row in rows.items()} == {
        "kept": (4, 3 / 4, 1.0, 1.0, 0.0),
        "removed": (1, 1.0, None, 0.0, None),
        "all": (5, 4 / 5, None, 4 / 5, None),
    }


def test_flowers(zoo: Path, tmp_path: Path) -> None:
    data = tmp_path / "flowers" / "sunflowers"
    data.mkdir(parents=True)
    (data / "one.bmp").write_bytes((zoo / "images" / "sunflower.bmp").read_bytes())
    network = zoo / "automl_flowers_uint8_metadata.tflite"
    small = tmp_path / "small.tflite"
    exporter.prune(network, keep=["sunflowers", "tulips"]).save(small)
    report = exporter.verify(network, small, data=data.parent, min_accuracy=0.9, max_drop=0)
    row = quality(report.quality)
    assert (row.samples, row.original, row.value, row.drop) == (1, 1.0, 1.0, 0.0)
    assert report.ok
    rotated = exporter.prune(network, keep=["tulips", "sunflowers"], keep_order=True)
    wrong = replace(rotated.remap.heads[0], kept=(3, 4), new_to_old=(3, 4), labels=None)
    job = Job(data=data.parent, min_accuracy=0.9)
    found = QualityMeter(job, open_model(network), job.inputs(open_model(network)))
    assert not found.measure(rotated.model, [wrong]).passed
