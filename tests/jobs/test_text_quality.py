"""Recognizers before and after: what they read is made by hand, and the edits are counted so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporter
from exporter.errors import UsageError
from exporter.evaluation.text_answers import Alphabet, TextAnswers, read_transcripts
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.jobs.task_quality import QualityMeter
from exporter.planning.cut import CutOptions
from exporter.records import Quality
from tests.builders.onnx_models import node, proto

LABELS = ("<blank>", "a", "b", "c", "d", "|")
STEPS = 9


def recognizer(*, turned: bool = False, ranked: bool = False, batch: int | str = 1) -> OnnxModel:
    """Returns its input: the score of each unit in each step.

    Args:
        turned: the steps are the first axis of the output, as in PyTorch.
        ranked: it returns the best unit of each step only.
    """
    nodes = [
        node("MatMul", ["x", "kernel"], ["m"], "matmul"),
        node("Add", ["m", "bias"], ["z" if turned else "y"], "add"),
    ]
    shape: tuple[int | str, ...] = (batch, STEPS, len(LABELS))
    outputs: dict[str, tuple[int | str, ...]] = {"y": shape}
    if turned:
        nodes.append(node("Transpose", ["z"], ["y"], "turn", perm=[1, 0, 2]))
        outputs = {"y": (STEPS, 1, len(LABELS))}
    if ranked:
        nodes.append(node("ArgMax", ["y"], ["best"], "rank", axis=2, keepdims=0))
        outputs = {"best": (1, STEPS)}
    kernel = np.eye(len(LABELS), dtype=np.float32)
    constants = {"kernel": kernel, "bias": np.zeros(len(LABELS), np.float32)}
    made = proto(nodes, constants, x=shape, outputs=outputs)
    if ranked:
        made.graph.output[0].type.tensor_type.elem_type = 7  # int64
    return from_proto(made, "net.onnx")


def scores(*best: str) -> Array:
    """(samples, steps, units): 3 for the unit that is read, 2 for the one after it."""
    found = np.zeros((len(best), STEPS, len(LABELS)), np.float32)
    for sample, text in zip(found, best, strict=True):
        for step, letter in zip(sample, text.ljust(STEPS, "_"), strict=True):
            unit = 0 if letter == "_" else LABELS.index(letter)
            step[unit] = 3
            step[(unit + 1) % len(LABELS)] = 2
    return found


READ = ("aab_b", "ca_d", "a|b", "ddd")  # is read as "abb", "cad", "a b", "d"
TRUTH = ("abb", "cab", "a b", "dd")
# unit c is removed: where it was read, d has the next score: "dad"
AFTER = ("abb", "dad", "a b", "d")


def written(folder: Path, values: Array, texts: Sequence[str] = TRUTH) -> Job:
    np.savez(folder / "x.npz", x=values)
    rows = "".join(f"{text}\n" for text in texts)
    (folder / "true.csv").write_text(f"text\n{rows}")
    return Job(data=folder / "x.npz", truth=folder / "true.csv")


def value(rows: Sequence[Quality], measure: str, classes: str) -> Quality:
    (found,) = (each for each in rows if (each.measure, each.classes) == (measure, classes))
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_error_rates_before_and_after(tmp_path: Path, turned: bool) -> None:
    job = written(tmp_path, scores(*READ)[:, None])
    cut = CutOptions(remove="c", labels=LABELS)
    found = prune_model(recognizer(turned=turned), cut, job).results.quality
    characters, words = "character_error_rate", "word_error_rate"
    # "cab" read as "cad": 1 of 3; "dd" as "d": 1 of 2. Kept: "abb", "a b" and "dd"
    kept, removed = value(found, characters, "kept"), value(found, characters, "removed")
    assert (kept.samples, removed.samples) == (3, 1)
    assert kept.original == kept.original_kept == kept.value == pytest.approx(1 / 8)
    assert kept.drop == 0
    assert (removed.original, removed.value) == pytest.approx((1 / 3, 2 / 3))
    everything = value(found, characters, "all")
    assert (everything.original, everything.value) == pytest.approx((2 / 11, 3 / 11))
    assert value(found, words, "kept").value == pytest.approx(1 / 4)  # abb, a, b, dd
    assert value(found, words, "all").value == pytest.approx(2 / 5)


def test_the_gate_is_one_minus_the_character_error_rate(tmp_path: Path) -> None:
    job = written(tmp_path, scores(*READ)[:, None])
    for least, passed in ((0.875, True), (0.88, False)):
        gated = Job(data=job.data, truth=job.truth, min_accuracy=least, max_drop=0.0)
        found = prune_model(recognizer(), CutOptions(remove="c", labels=LABELS), gated).results
        checks = {c.metric: c for c in found.checks if c.stage == "quality"}
        assert checks["1 - character_error_rate"].value == pytest.approx(7 / 8)
        assert checks["1 - character_error_rate"].passed == passed
        assert checks["drop"].passed


def test_another_unit_read_costs_edits(tmp_path: Path) -> None:
    """Without its blank, "b_b" is read as what ranks second in the blank's step: b, a, b."""
    job = written(tmp_path, scores("ab_b")[:, None], ["abb"])
    cut = CutOptions(remove=[0], labels=LABELS, allow_remove_special=True)
    found = prune_model(recognizer(), cut, job).results.quality
    kept = value(found, "character_error_rate", "kept")
    # a b a b, and a in the five blank steps at the end: "ababa", 2 edits from "abb"
    assert (kept.original, kept.value) == pytest.approx((0.0, 2 / 3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(None, "have no labels", id="no labels"),
        pytest.param("abcdef", "0 units are called blank", id="no blank"),
        pytest.param(
            ("<blank>", "a", "b", "c", "d", "[PAD]"), "2 units are called blank", id="two blanks"
        ),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, labels: Any, message: str) -> None:
    job = written(tmp_path, scores(*READ)[:, None])
    cut = CutOptions(keep=(0, 1), labels=labels and tuple(labels))
    with pytest.raises(UsageError, match=message) as caught:
        prune_model(recognizer(), cut, job)
    assert caught.value.hint


def test_verify_takes_the_labels_of_the_original(tmp_path: Path) -> None:
    """The remap names kept units only; a text also needs the characters that were removed."""
    job = written(tmp_path, scores(*READ)[:, None])
    original, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    original.write_bytes(recognizer().to_bytes())
    exporter.prune(original, remove="c", labels=LABELS, data=job.data).save(small)
    data: dict[str, Any] = {"data": job.data, "truth": job.truth}
    with pytest.raises(UsageError, match="some units have no labels"):
        exporter.verify(original, small, **data)
    report = exporter.verify(original, small, original_labels=LABELS, **data)
    found = value(report.quality, "character_error_rate", "all")
    assert (found.original, found.value) == pytest.approx((2 / 11, 3 / 11))
    with pytest.raises(UsageError, match="3 labels for the 6 units"):
        exporter.verify(original, small, original_labels=("a", "b", "c"), **data)


def test_a_file_that_is_several_samples_is_refused(tmp_path: Path) -> None:
    """As a long WAV file is, which is read in windows."""
    job = written(tmp_path, scores(*READ)[:, None])
    model = recognizer()
    samples = replace(job.inputs(model), files=(tmp_path / "long.wav",))
    meter = QualityMeter(Job(data=tmp_path, truth=job.truth), model, samples, LABELS)
    with pytest.raises(UsageError, match="not one for each file"):
        meter.measure(model, [])


def test_a_text_needs_scores(tmp_path: Path) -> None:
    """The cut file returns the index of the best unit in each step only."""
    model = recognizer(ranked=True)
    job = written(tmp_path, scores(*READ)[:, None])
    with pytest.raises(UsageError, match="returns no scores to read a text from"):
        prune_model(model, CutOptions(remove="c", labels=LABELS), job)


def test_several_samples_at_a_time_are_refused(tmp_path: Path) -> None:
    job = written(tmp_path, scores(*READ)[:, None])
    with pytest.raises(UsageError, match="takes 2 samples at a time"):
        prune_model(
            recognizer(batch="n"), CutOptions(remove="c", labels=LABELS), replace(job, batch=2)
        )


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([0, 0], ""),
        ([1, 1, 0, 1, 2, 2], "aab"),
        ([5, 1, 5, 0, 5], " a  "),
    ],
)
def test_greedy_decoding(units: list[int], expected: str) -> None:
    assert Alphabet.of(LABELS).read(np.array(units)) == expected


def test_a_bar_is_a_bar_where_there_is_a_space() -> None:
    assert Alphabet.of((*LABELS, " ")).read(np.array([5])) == "|"


@pytest.mark.parametrize(
    ("truth", "found", "characters", "words"),
    [
        (["kitten"], ["sitting"], 3 / 6, 1.0),  # k to s, e to i, and g at the end
        (["a b c", "x"], ["a c", "x y"], (2 + 2) / 6, (1 + 1) / 4),
        (["ab"], [""], 1.0, 1.0),
    ],
)
def test_edits_by_hand(truth: list[str], found: list[str], characters: float, words: float) -> None:
    answers, cases = TextAnswers(truth, found), np.arange(len(truth))
    assert answers.value("character_error_rate", cases, cases) == pytest.approx(characters)
    assert answers.value("word_error_rate", cases, cases) == pytest.approx(words)


def test_no_characters_give_no_rate() -> None:
    nothing = TextAnswers([""], ["a"]).value("character_error_rate", np.arange(1), np.arange(0))
    assert np.isnan(nothing)


def test_transcripts_by_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('file,text\nb.wav,"one, two"\na.wav,three\n')
    assert read_transcripts(path, 2, ["a.wav", "b.wav"]) == ["three", "one, two"]
    assert read_transcripts(path, 1, None) == ["one, two"]


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        pytest.param("", None, "no column text", id="empty"),
        pytest.param("words\na\n", None, "no column text", id="another column"),
        pytest.param("text\na\n", ["a.wav"], "no column file and text", id="no files"),
        pytest.param("text\na\n", None, "1 transcripts for 2 samples", id="too few"),
        pytest.param("file,text\nb,a\n", ["a"], "no row for a", id="another file"),
        pytest.param("text\n" + "a" * 200_000, None, "not valid CSV", id="damaged"),
    ],
)
def test_wrong_transcripts(
    tmp_path: Path, text: str, names: list[str] | None, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_transcripts(path, 2, names)
    assert caught.value.hint
