"""Units chosen by data: every number is NumPy's, from the weights of the shelf's networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import NodeProto

from exporter.errors import UsageError
from exporter.evaluation.unit_table import Predictions
from exporter.formats import open_model
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.jobs.run import run_job
from exporter.jobs.select import UnitChoice, select_units
from exporter.jobs.select_options import SelectOptions
from exporter.planning.cut import CutOptions
from exporter.selection import Selection
from tests.builders.onnx_models import node, proto
from tests.builders.shelf import BIAS, FEATURES, KERNEL, LABELS, UNITS
from tests.builders.ssd_models import CHANNELS, CLASSES, ROWS, SIZES, ssd

COUNT = 60
ALL = SelectOptions(min_count=0)
F1 = SelectOptions(min_f1=0.7, labels=LABELS)


@pytest.fixture(scope="module")
def features() -> Array:
    return np.random.default_rng(5).normal(size=(COUNT, FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def truth(features: Array) -> Array:
    """The network's own top-1, with every third label wrong."""
    labels = top1(features)
    labels[::3] = (labels[::3] + 1) % UNITS
    return labels


def top1(features: Array) -> Array:
    return np.asarray((features.astype(np.float64) @ KERNEL + BIAS).argmax(axis=1))


def expected_f1(truth: Array, predicted: Array, unit: int) -> float:
    both = int(((truth == unit) & (predicted == unit)).sum())
    return 2 * both / int((truth == unit).sum() + (predicted == unit).sum())


@pytest.fixture
def labeled(tmp_path: Path, features: Array, truth: Array) -> Job:
    names = np.array([LABELS[unit] for unit in truth])
    np.savez(tmp_path / "labeled.npz", x=features, labels=names)
    return Job(data=tmp_path / "labeled.npz")


@pytest.mark.parametrize("name", ["net.onnx", "net.tflite"])
def test_f1_of_every_unit(
    shelf: Path, labeled: Job, features: Array, truth: Array, name: str
) -> None:
    choice = select_units(shelf / name, labeled, F1)
    f1 = [expected_f1(truth, top1(features), unit) for unit in range(UNITS)]
    assert [row.f1 for row in choice.rows] == pytest.approx(f1)
    assert choice.kept == tuple(unit for unit in range(UNITS) if f1[unit] >= 0.7)
    assert 0 < len(choice.kept) < UNITS
    assert [row.count for row in choice.rows] == np.bincount(
        top1(features), minlength=UNITS
    ).tolist()
    assert sum(choice.confused.values()) == int((truth != top1(features)).sum())
    assert (choice.samples, choice.source) == (COUNT, "labeled.npz")


def test_samples_of_removed_units(shelf: Path, labeled: Job, features: Array, truth: Array) -> None:
    choice = select_units(shelf / "net.onnx", labeled, F1)
    kept = list(choice.kept)
    scores = features.astype(np.float64) @ KERNEL + BIAS
    after = np.asarray(kept)[scores[:, kept].argmax(axis=1)]
    for unit, row in choice.moved.items():
        for new, count in row.items():
            assert count == int(((truth == unit) & (after == new)).sum())
    assert sum(n for row in choice.moved.values() for n in row.values()) == int(
        (~np.isin(truth, kept)).sum()
    )


def test_by_predictions_on_unlabeled_data(shelf: Path, tmp_path: Path, features: Array) -> None:
    np.save(tmp_path / "plain.npy", features)
    options = SelectOptions(coverage=0.5)
    choice = select_units(shelf / "net.onnx", Job(data=tmp_path / "plain.npy"), options)
    counts = np.bincount(top1(features), minlength=UNITS)
    covered = counts[list(choice.kept)].sum()
    assert covered >= 0.5 * COUNT > covered - counts[list(choice.kept)].min()
    assert not choice.confused


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("label,count\nowl,5\nmacaw,2\nowl,1\n", id="labels"),
        pytest.param("count,index\n6,1\n2,0\n", id="indices"),
        pytest.param(
            '\ufeff"Label","Count"\r\n"owl","6"\r\n\r\n"0"," 2"\r\n', id="quoted, from Windows"
        ),
        pytest.param("owl\n" * 6 + "macaw\n\nmacaw\n", id="a log"),
    ],
)
def test_by_counts(shelf: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "counts.csv").write_text(text)
    options = SelectOptions(min_count=2, labels=LABELS, counts=tmp_path / "counts.csv")
    choice = select_units(shelf / "net.onnx", Job(), options)
    assert [row.count for row in choice.rows] == [2, 6, 0, 0, 0, 0, 0]
    assert (choice.kept, choice.samples, choice.source) == ((0, 1), 8, "counts.csv")


def test_the_record_is_a_selection(shelf: Path, labeled: Job, tmp_path: Path) -> None:
    choice = select_units(shelf / "net.onnx", labeled, F1)
    file = tmp_path / "selection.json"
    file.write_text(choice.to_json())
    record = json.loads(file.read_text())
    assert (record["schema"], record["head"]) == ("exporter/selection/1", "probabilities")
    assert [row["unit"] for row in record["table"]] == list(range(UNITS))
    assert all(row["reason"].startswith("f1 ") for row in record["table"])
    model = open_model(shelf / "net.onnx")
    pruned = prune_model(model, CutOptions(keep=f"@{file}"), Job(samples=2))
    assert pruned.remap.heads[0].kept == choice.kept
    assert choice.labels == LABELS
    assert choice.table()[0]["label"] == "macaw"


def test_a_choice_is_a_selection(shelf: Path, labeled: Job, tmp_path: Path) -> None:
    """`keep` takes it as it takes its file: with its reasons, and only for its model."""
    choice = select_units(shelf / "net.onnx", labeled, F1)
    assert isinstance(choice, Selection)
    frame = choice.to_pandas()
    assert frame.f1[list(choice.kept)].min() >= 0.7 > frame.f1[list(choice.removed)].max()
    job = Job(samples=2, bench=False)
    report = run_job(shelf / "net.onnx", tmp_path / "out", CutOptions(keep=choice), job)
    assert report.options["keep"] == list(choice.kept)
    assert [row.reason for row in report.selection] == list(frame.reason)
    other = CutOptions(keep=choice, labels=[f"other {label}" for label in LABELS])
    with pytest.raises(UsageError, match=r"selection for keep was written for net\.onnx: unit 0"):
        prune_model(open_model(shelf / "net.tflite"), other, job)


def test_a_choice_prints_the_kept_units(shelf: Path, labeled: Job) -> None:
    choice = select_units(shelf / "net.onnx", labeled, F1)
    first, *lines = repr(choice).splitlines()
    kept = [row for row in choice.table() if row["kept"]]
    units, source = len(choice.rows), choice.source
    assert first == f"{len(kept)} of {units} units of net.onnx kept, by {source}"
    assert len(lines) == len(kept)
    assert lines[0] == f"  {kept[0]['unit']} {kept[0]['label']}: {kept[0]['reason']}"
    reasons = dict.fromkeys(range(40), "rank")
    many = replace(choice, units=40, kept=tuple(range(30)), labels=None, reasons=reasons)
    assert repr(replace(many, rows=choice.rows * 6)).endswith("\n  ... and 20 more")


def test_labels_are_found_by_name_index_and_case(
    shelf: Path, tmp_path: Path, features: Array
) -> None:
    labels = np.array(["OWL", "1", "owl", "emu", "99"] * 12)
    np.savez(tmp_path / "mixed.npz", x=features, labels=labels)
    choice = select_units(
        shelf / "net.onnx", Job(data=tmp_path / "mixed.npz"), replace(ALL, labels=LABELS)
    )
    assert choice.rows[1].support == 36
    assert choice.warnings == ("24 of 60 samples have a label that no unit has",)


def test_norms_are_those_of_the_kernel(shelf: Path, labeled: Job) -> None:
    options = SelectOptions(top=3, by="norm")
    for name in ("net.onnx", "net.tflite"):
        choice = select_units(shelf / name, labeled, options)
        norms = np.linalg.norm(KERNEL, axis=0)
        assert [row.norm for row in choice.rows] == pytest.approx(norms, rel=1e-6)
        assert choice.kept == tuple(sorted(np.argsort(-norms)[:3].tolist()))
        assert any("does not prove" in warning for warning in choice.warnings)


def onnx_file(path: Path, nodes: list[NodeProto], **constants: Array) -> Path:
    """A head on the features; each model returns "y"."""
    built = proto(nodes, constants, x=("batch", FEATURES), outputs={"y": ("batch", UNITS)})
    path.write_bytes(built.SerializeToString())
    return path


def test_norms_of_quantized_and_transposed_weights(tmp_path: Path, labeled: Job) -> None:
    """The constant is int8 with a scale per unit, and has the units first."""
    scales = np.linspace(0.01, 0.05, UNITS).astype(np.float32)
    values = np.random.default_rng(1).integers(-127, 128, (UNITS, FEATURES)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", ["k", "s", "zero"], ["real"], "read", axis=0),
        node("Transpose", ["real"], ["turned"], "turn", perm=[1, 0]),
        node("MatMul", ["x", "turned"], ["y"], "head"),
    ]
    model = onnx_file(
        tmp_path / "int8.onnx", nodes, k=values, s=scales, zero=np.zeros(UNITS, np.int8)
    )
    choice = select_units(model, labeled, SelectOptions(top=3, by="norm"))
    norms = np.sqrt(np.square(values * scales.astype(np.float64)[:, np.newaxis]).sum(axis=1))
    assert [row.norm for row in choice.rows] == pytest.approx(norms, rel=1e-6)


def test_norms_of_weights_without_a_known_scale_are_refused(tmp_path: Path, labeled: Job) -> None:
    values = np.ones((FEATURES, UNITS), np.int8)
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], "quantize"),
        node("MatMulInteger", ["q", "k", "zero"], ["sums"], "head"),
        node("Cast", ["sums"], ["real"], "cast", to=1),
        node("Mul", ["real", "scale"], ["y"], "scaled"),
    ]
    model = onnx_file(tmp_path / "integers.onnx", nodes, k=values)
    with pytest.raises(UsageError, match="the weights of head 'y' cannot be read"):
        select_units(model, labeled, SelectOptions(min_norm=1.0))
    assert select_units(model, labeled, ALL).samples == COUNT


def test_redundant_units_are_found(shelf: Path, labeled: Job, features: Array) -> None:
    scores = 1 / (1 + np.exp(-(features.astype(np.float64) @ KERNEL + BIAS)))
    pairs = np.corrcoef(scores.T) - np.eye(UNITS)
    options = SelectOptions(max_correlation=float(pairs.max()) - 1e-4)
    choice = select_units(shelf / "sigmoid.onnx", labeled, options)
    (removed,) = set(range(UNITS)) - set(choice.kept)
    assert removed in np.unravel_index(pairs.argmax(), pairs.shape)
    assert choice.reasons[removed].startswith(f"correlation {pairs.max():.3f}"[:16])


def test_labels_of_other_classes_are_not_used(shelf: Path, tmp_path: Path, features: Array) -> None:
    np.savez(tmp_path / "other.npz", x=features, labels=np.array(["emu"] * COUNT))
    choice = select_units(shelf / "net.onnx", Job(data=tmp_path / "other.npz"), ALL)
    assert choice.warnings == ("no unit is called 'emu'; the labels of the data are not used",)
    assert choice.rows[0].support is None


def test_labels_of_other_classes_are_refused_if_a_criterion_needs_labels(
    shelf: Path, tmp_path: Path, features: Array
) -> None:
    np.savez(tmp_path / "other.npz", x=features, labels=np.array(["emu"] * COUNT))
    with pytest.raises(UsageError, match=r"no unit is called 'emu'.*f1 cannot be computed"):
        select_units(shelf / "net.onnx", Job(data=tmp_path / "other.npz"), F1)


def test_a_label_of_two_units_is_refused_only_if_it_is_used(
    shelf: Path, tmp_path: Path, features: Array
) -> None:
    options = replace(ALL, labels=("crane", "Crane", "crane", "", "", "owl", "owl2"))
    for label, supported in (("owl", 5), ("Crane", 1), ("2", 2)):
        np.savez(tmp_path / "x.npz", x=features, labels=np.array([label] * COUNT))
        choice = select_units(shelf / "net.onnx", Job(data=tmp_path / "x.npz"), options)
        assert choice.rows[supported].support == COUNT
    for label, units in (("crane", "2 units are called 'crane': 0, 2"), ("CRANE", "3 units")):
        np.savez(tmp_path / "x.npz", x=features, labels=np.array([label] * COUNT))
        with pytest.raises(UsageError, match=units):
            select_units(shelf / "net.onnx", Job(data=tmp_path / "x.npz"), options)


@pytest.mark.parametrize(
    ("operator", "limit"), [("LogSoftmax", np.log(0.5)), ("Relu", 0.0), ("Softmax", 0.5)]
)
def test_active_units(
    tmp_path: Path, labeled: Job, features: Array, operator: str, limit: float
) -> None:
    """More likely than 0.5 for probabilities and their logarithms; above 0 for others."""
    attributes: dict[str, Any] = {} if operator == "Relu" else {"axis": 1}
    nodes = [
        node("MatMul", ["x", "k"], ["z"], "head"),
        node(operator, ["z"], ["y"], "activation", **attributes),
    ]
    model = onnx_file(tmp_path / "net.onnx", nodes, k=KERNEL.astype(np.float32))
    z = features.astype(np.float64) @ KERNEL
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = {"LogSoftmax": np.log(softmax), "Relu": np.maximum(z, 0), "Softmax": softmax}[operator]
    choice = select_units(model, labeled, ALL)
    assert [row.active for row in choice.rows] == pytest.approx((y > limit).mean(axis=0))
    assert sum(row.active or 0.0 for row in choice.rows) > 0


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_scores_that_are_not_finite(tmp_path: Path, labeled: Job, value: float) -> None:
    """A masked unit has a score of -infinity, and is never predicted; NaN is refused."""
    mask = np.zeros(UNITS, np.float32)
    mask[2] = value
    nodes = [
        node("MatMul", ["x", "k"], ["z"], "head"),
        node("Add", ["z", "m"], ["y"], "mask"),
    ]
    model = onnx_file(tmp_path / "net.onnx", nodes, k=KERNEL.astype(np.float32), m=mask)
    options = SelectOptions(min_count=1, max_correlation=0.99, labels=LABELS)
    if np.isnan(value):
        with pytest.raises(UsageError, match=f"returns NaN for {COUNT} samples, first for number"):
            select_units(model, labeled, options)
    else:
        choice = select_units(model, labeled, options)
        assert (choice.rows[2].count, 2 in choice.kept) == (0, False)


def test_a_model_that_returns_only_indices_is_refused(tmp_path: Path, labeled: Job) -> None:
    nodes = [
        node("MatMul", ["x", "k"], ["z"], "head"),
        node("ArgMax", ["z"], ["y"], "best", axis=1, keepdims=0),
    ]
    outputs: Any = {"y": ("batch",)}
    built = proto(nodes, {"k": KERNEL.astype(np.float32)}, x=("batch", FEATURES), outputs=outputs)
    (tmp_path / "net.onnx").write_bytes(built.SerializeToString())
    with pytest.raises(UsageError, match="does not return the scores of head"):
        select_units(tmp_path / "net.onnx", labeled, ALL)


def test_counts_and_data_are_refused(shelf: Path, labeled: Job, tmp_path: Path) -> None:
    options = replace(ALL, counts=counts(tmp_path, "1\n"))
    with pytest.raises(UsageError, match="--counts and --data are both given"):
        select_units(shelf / "net.onnx", labeled, options)


def counts(folder: Path, text: str) -> Path:
    (folder / "counts.csv").write_text(text)
    return folder / "counts.csv"


REFUSED: Mapping[str, tuple[Callable[[Path], SelectOptions], str]] = {
    "no data": (lambda _: ALL, "there is no data to choose by"),
    "another number of labels": (
        lambda _: replace(ALL, labels=("a", "b")),
        "2 labels for the 7 units",
    ),
    "an empty count file": (lambda f: replace(ALL, counts=counts(f, "\n")), "is empty"),
    "an unknown label": (
        lambda f: replace(ALL, labels=LABELS, counts=counts(f, "emu\n")),
        "no unit is called 'emu'",
    ),
    "no column": (
        lambda f: replace(ALL, counts=counts(f, "count\n3\n")),
        "no column label or index",
    ),
    "no number": (
        lambda f: replace(ALL, counts=counts(f, "index,count\n3,x\n")),
        "the count of '3' is 'x'",
    ),
    "a negative number": (
        lambda f: replace(ALL, counts=counts(f, "index,count\n3,-1\n")),
        "the count of '3' is '-1'",
    ),
    "thousands of digits": (
        lambda f: replace(ALL, counts=counts(f, f"index,count\n3,{'9' * 5000}\n")),
        "the count of '3' is '999",
    ),
    "an index of thousands of digits": (
        lambda f: replace(ALL, counts=counts(f, "9" * 5000)),
        "no unit is called '999",
    ),
    "a missing count": (
        lambda f: replace(ALL, counts=counts(f, "index,count\n3\n")),
        "the count of '3' is ''",
    ),
    "a missing index": (
        lambda f: replace(ALL, counts=counts(f, "count,index\n3\n")),
        "no unit is called ''",
    ),
    "no cell": (lambda f: replace(ALL, counts=counts(f, ",,\n")), "no unit is called ',,'"),
    "a huge cell": (
        lambda f: replace(ALL, counts=counts(f, f"index,count\n{'x' * 200_000},1\n")),
        "is not valid CSV",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(shelf: Path, tmp_path: Path, name: str) -> None:
    made, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        select_units(shelf / "net.onnx", Job(), made(tmp_path))


def test_outputs_with_several_values_per_unit_are_refused(shelf: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 3, FEATURES), np.float32))
    with pytest.raises(UsageError, match="returns several values per unit"):
        select_units(shelf / "open.onnx", Job(data=tmp_path / "x.npy"), ALL)


def test_scores_that_do_not_fit_in_memory_are_refused(
    shelf: Path, labeled: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.jobs.predict._LARGEST_SCORES", 50)
    with pytest.raises(UsageError, match="do not fit in memory") as error:
        select_units(shelf / "net.onnx", labeled, F1)
    assert error.value.hint == "use --samples 7 or fewer"


def test_a_wrong_statistic_would_be_seen(shelf: Path, labeled: Job, features: Array) -> None:
    """Other weights give other numbers: the comparison above can fail."""
    choice: UnitChoice = select_units(shelf / "net.onnx", labeled, F1)
    other = np.bincount((-features @ KERNEL).argmax(axis=1), minlength=UNITS)
    assert [row.count for row in choice.rows] != other.tolist()


def test_any_number_of_labels_per_sample_is_refused(
    shelf: Path, tmp_path: Path, features: Array
) -> None:
    np.savez(tmp_path / "d.npz", x=features, labels=np.ones((COUNT, UNITS), np.uint8))
    with pytest.raises(UsageError, match="any number of labels"):
        select_units(shelf / "net.onnx", Job(data=tmp_path / "d.npz"), ALL)


# --- detectors ----------------------------------------------------------------------------------


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    (tmp_path / "ssd.tflite").write_bytes(ssd().content(*ROWS))
    shape = (6, 1, SIZES[0], SIZES[0], CHANNELS)
    images = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    np.savez(tmp_path / "images.npz", x=images, labels=np.zeros(6, np.int64))
    return tmp_path


def detections(folder: Path) -> Array:
    """(images, classes) the best score of each class, from the runtime itself."""
    network = Interpreter(str(folder / "ssd.tflite"))
    network.allocate_tensors()
    (x,), outputs = network.get_input_details(), network.get_output_details()
    found = np.zeros((6, CLASSES))
    for i, image in enumerate(np.load(folder / "images.npz")["x"]):
        network.set_tensor(x["index"], image)
        network.invoke()
        rows = {each["name"]: network.get_tensor(each["index"]).ravel() for each in outputs}
        _, classes, scores, count = (rows[name] for name in ROWS)
        for unit, score in list(zip(classes, scores, strict=True))[: int(count[0])]:
            found[i, int(unit)] = max(found[i, int(unit)], score)
    return found


def test_classes_of_a_detector_are_counted_by_image(detector: Path) -> None:
    expected = (detections(detector) > 0.5).sum(axis=0)
    assert expected.min() > 0
    job = Job(data=detector / "images.npz")
    choice = select_units(detector / "ssd.tflite", job, SelectOptions(top=2))
    assert [row.count for row in choice.rows] == expected.tolist()
    assert [row.active for row in choice.rows] == pytest.approx((expected / 6).tolist())
    assert set(choice.kept) == set(np.argsort(-expected, kind="stable")[:2].tolist())
    assert (choice.moved, choice.confused) == ({}, {})


def test_an_image_without_a_detection_counts_for_no_class() -> None:
    scores = np.array([[0.2, 0.6], [0.0, 0.0], [0.7, 0.8]], np.float32)
    assert Predictions(scores, is_detector=True).counts.tolist() == [1, 2]
    assert Predictions(scores).counts.tolist() == [1, 2]  # the first of equal scores
    assert Predictions(scores[::2], is_detector=True).counts.tolist() == [1, 2]
    assert Predictions(scores[::2]).counts.tolist() == [0, 2]


def test_quality_of_a_detector_is_refused(detector: Path) -> None:
    with pytest.raises(UsageError, match="f1 of a detector needs the boxes of each image"):
        select_units(
            detector / "ssd.tflite", Job(data=detector / "images.npz"), SelectOptions(min_f1=0.5)
        )


def test_original_indices_of_a_detector_are_refused(detector: Path) -> None:
    """They are no indices of the units that the file has."""
    model = open_model(detector / "ssd.tflite")
    options = CutOptions(keep=[1, 4], restore_ids=True)
    prune_model(model, options, Job(verify=False)).model.write(detector / "small.tflite")
    with pytest.raises(UsageError, match="does not return the scores of head 'boxes'"):
        select_units(
            detector / "small.tflite", Job(data=detector / "images.npz"), SelectOptions(top=1)
        )
