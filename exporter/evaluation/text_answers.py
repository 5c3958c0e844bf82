"""Texts that a recognizer reads, and their error rates against transcripts.

rapidfuzz counts the edits. jiwer, the other common choice, is a layer over it which returns one
rate for all samples; the intervals need the edits of each sample.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path

import numpy as np

from exporter.errors import UsageError
from exporter.evaluation.read_classes import Subject
from exporter.evaluation.read_outputs import (
    ArtifactScores,
    OriginalScores,
    Outputs,
    not_measurable,
    run_on,
)
from exporter.evaluation.task_quality import Group, groups_of_cases
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.selection.text_file import LARGEST_RECORDS, read_text

BLANKS = frozenset({"<blank>", "[blank]", "blank", "<blk>", "<pad>", "[pad]", "<ctc>", "<eps>"})
SPACES = ("|", "\u2581", "<space>", "[space]")  # labels that mean a space


@dataclass(frozen=True, eq=False)
class TextAnswers:
    """The transcript of each sample, and the text that a model reads."""

    truth: Sequence[str]
    found: Sequence[str]

    def value(self, measure: str, cases: Array, _units: Array) -> float:
        """Edits per character or word of the transcripts; NaN if these have none.

        Edits are insertions, deletions and replacements, as few as possible (Levenshtein 1966).
        """
        edits, lengths = self._characters if measure == "character_error_rate" else self._words
        length = int(lengths[cases].sum())
        return float(edits[cases].sum() / length) if length else float("nan")

    @cached_property
    def _characters(self) -> tuple[Array, Array]:
        return _edits(self.truth, self.found)

    @cached_property
    def _words(self) -> tuple[Array, Array]:
        return _edits([text.split() for text in self.truth], [text.split() for text in self.found])


def _edits(truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> tuple[Array, Array]:
    """(samples,) the edits, and the lengths of the transcripts."""
    from rapidfuzz.distance import Levenshtein  # noqa: PLC0415 - an optional library

    pairs = zip(truth, found, strict=True)
    edits = np.asarray([Levenshtein.distance(a, b) for a, b in pairs])
    return edits, np.asarray([len(text) for text in truth])


@dataclass(frozen=True, eq=False)
class Alphabet:
    """The labels of the units of a recognizer.

    Attributes:
        labels: one for each unit of the original.
        blank: the unit between two equal labels, and where nothing is read.
    """

    labels: tuple[str, ...]
    blank: int

    @classmethod
    def of(cls, names: Sequence[str] | None) -> Alphabet:
        """The alphabet in the labels of the units.

        Raises:
            UsageError: there are no labels, or not exactly one is a blank.
        """
        if names is None or not all(names):
            raise not_measurable(
                "some units have no labels to write texts with", "give them with --labels"
            )
        blanks = [unit for unit, name in enumerate(names) if name.strip().lower() in BLANKS]
        if len(blanks) != 1:
            raise not_measurable(
                f"{len(blanks)} units are called blank",
                "call exactly one <blank>, in the labels of the units",
            )
        has_space = " " in names
        spelled = (" " if not has_space and name in SPACES else name for name in names)
        return cls(tuple(spelled), blanks[0])

    def read(self, units: Array) -> str:
        """The text of the best units of all steps: equal neighbors count once, blanks not at all.

        This is the greedy decoding of connectionist temporal classification (Graves 2006).
        """
        changed = np.ones(len(units), bool)
        changed[1:] = units[1:] != units[:-1]
        read = units[changed]
        return "".join(self.labels[unit] for unit in read.tolist() if unit != self.blank)

    def letters(self, units: Array) -> set[str]:
        """All characters of the labels of these units."""
        return {letter for unit in units.tolist() for letter in self.labels[unit]}


def original_texts(subject: Subject, alphabet: Alphabet) -> tuple[list[str], list[str]]:
    """What the original reads with all units, and with the kept ones only."""
    kept, scores = subject.kept, subject.scores
    chosen = np.asarray(kept.kept)
    every, restricted = [], []
    for outputs, rows in run_on(scores.model, subject.samples, subject.options):
        steps = scores.every_unit(outputs, _steps(scores, outputs, rows))
        every.append(alphabet.read(steps.argmax(axis=1)))
        restricted.append(alphabet.read(chosen[steps[:, chosen].argmax(axis=1)]))
    return every, restricted


def artifact_texts(subject: Subject, artifact: Model, alphabet: Alphabet) -> list[str]:
    """What the new file reads, with the labels of the original.

    Raises:
        UsageError: it does not return the scores of its units.
    """
    scores = subject.scores_of(artifact)
    if scores is None:
        raise not_measurable(
            f"{artifact.name} returns no scores to read a text from",
            "export the model with its scores as an output",
        )
    texts = []
    for outputs, rows in run_on(artifact, subject.samples, subject.options):
        steps = scores.positions(outputs, _steps(scores, outputs, rows))
        texts.append(alphabet.read(subject.kept.at_position[steps.argmax(axis=1)]))
    return texts


def _steps(scores: OriginalScores | ArtifactScores, outputs: Outputs, rows: int) -> int:
    """How many steps the output of one sample has."""
    if rows != 1:
        raise not_measurable(
            f"{scores.model.name} takes {rows} samples at a time",
            "texts are read from models with a batch of 1",
        )
    return scores.rows(outputs)


def text_groups(truth: Sequence[str], alphabet: Alphabet, is_kept: Array) -> tuple[Group, ...]:
    """Samples by the characters of their transcripts.

    "kept": each character is one of a kept unit; "removed": some are of removed units only. A
    transcript with a character of no unit is in "all" only.
    """
    every = alphabet.letters(np.arange(len(is_kept)))
    letters = alphabet.letters(np.flatnonzero(is_kept))
    known = np.asarray([every.issuperset(text) for text in truth], bool)
    kept = np.asarray([letters.issuperset(text) for text in truth], bool)
    return groups_of_cases(known, kept, is_kept)


def read_transcripts(path: Path, count: int, names: Sequence[str] | None) -> list[str]:
    """Read the transcript of each sample.

    Args:
        path: a CSV file with the columns file and text; text alone if samples have no names.
        count: number of samples.
        names: of the samples, relative to their folder; None if the rows are in their order.

    Raises:
        UsageError: not such a file, or it lacks a sample.
    """
    try:
        rows = list(csv.DictReader(StringIO(read_text(path, LARGEST_RECORDS)), restval=""))
    except csv.Error as error:
        raise UsageError(f"{path} is not valid CSV: {error}", "check its quotes") from error
    needed = {"text"} if names is None else {"file", "text"}
    if not rows or not needed <= rows[0].keys():
        columns = " and ".join(sorted(needed))
        raise UsageError(
            f"{path} has no column {columns}", f"write a header: {','.join(sorted(needed))}"
        )
    texts = [row["text"] for row in rows]
    if names is None:
        if len(texts) < count:
            raise UsageError(
                f"{path} has {len(texts)} transcripts for {count} samples",
                "write one row for each sample, in their order",
            )
        return texts[:count]
    by_name = {row["file"].strip(): text for row, text in zip(rows, texts, strict=True)}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UsageError(
            f"{path} has no row for {missing[0]}", "add one, with the path in the folder"
        )
    return [by_name[name] for name in names]
