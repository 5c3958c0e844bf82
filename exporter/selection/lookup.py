"""Find units by their labels, with hints if no label matches."""

from __future__ import annotations

import difflib
import fnmatch
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from exporter.selection.spec import ExactLabel, LabelPattern, SelectionEntry

_GLOB = re.compile(r"[*?\[]")
_LISTED = 8  # indices or labels in a message
_SIMILAR = 3  # similar labels in a hint
# How alike the spellings in a hint are, of 1: "makaw" and "macaw" are 0.8, "parrot" and "marmot"
# 0.67. Of three letters, one may differ.
_ALIKE, _ALIKE_IF_SHORT, _SHORT = 0.75, 0.66, 3
_LONG_ENOUGH = 3  # letters: shorter texts begin too many words


class LabelIndex:
    """The labels of all units: label -> units."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    @cached_property
    def exact(self) -> dict[str, list[int]]:
        """Label -> the units with this label."""
        return _units_by_label(self._labels)

    @cached_property
    def _folded_labels(self) -> list[str]:
        return [_folded(label) for label in self._labels]

    @cached_property
    def _without_case(self) -> dict[str, list[int]]:
        return _units_by_label(self._folded_labels)

    def find(self, entry: SelectionEntry, wanted: ExactLabel | LabelPattern) -> list[int]:
        """The unit with this label, or all units that match; UsageError if there is none."""
        if isinstance(wanted, LabelPattern):
            return self._matched(entry, wanted.text)
        found = self.exact.get(wanted.text) or self._without_case.get(_folded(wanted.text), [])
        if not found:
            raise entry.error("no unit has this label", self.similar(wanted.text))
        if len(found) > 1 and not wanted.all_units:
            raise entry.error(
                f"{len(found)} units have this label: {shorten_list(found)}",
                f"name them by index, or write ={wanted.text} for all of them",
            )
        return found

    def _matched(self, entry: SelectionEntry, pattern: str) -> list[int]:
        found = self.matching(pattern)
        if not found:
            raise entry.error(
                "no label matches this pattern",
                f"{self.similar(pattern.strip('*?'))}; write ={pattern} for the literal label",
            )
        return found

    def matching(self, pattern: str) -> list[int]:
        """The units whose labels match: with whole words, or else within words.

        Each is tried with regard to case first, and then without.
        """
        return self._found(_whole_words, pattern) or self.within_words(pattern)

    def within_words(self, pattern: str) -> list[int]:
        """The units whose labels match within words too."""
        return self._found(fnmatch.translate, pattern)

    def _found(self, translate: Callable[[str], str], pattern: str) -> list[int]:
        return _matching(translate(pattern), self._labels) or _matching(
            translate(_folded(pattern)), self._folded_labels
        )

    def similar(self, text: str) -> str:
        """A hint with labels that have the same words, then words that begin alike; or a spelling
        that is similar.
        """
        wanted = _words(_folded(text))
        scores = {label: _shared_words(wanted, _words(label)) for label in self._without_case}
        found = sorted((label for label in scores if scores[label]), key=lambda n: -scores[n])
        alike = _ALIKE_IF_SHORT if len(text) <= _SHORT else _ALIKE
        found = found or difflib.get_close_matches(
            _folded(text), self._without_case, _SIMILAR, alike
        )
        units = [self._without_case[label][0] for label in found[:_SIMILAR]]
        if not units:
            ends = f"the labels run from {self._labels[0]!r} to {self._labels[-1]!r}"
            return f"{ends}: `exporter inspect MODEL --labels` lists them"
        return "similar labels: " + ", ".join(f"{self._labels[unit]!r} ({unit})" for unit in units)


def search_labels(labels: Sequence[str], pattern: str) -> tuple[int, ...]:
    """The units whose labels match a pattern, or contain a text as whole words; all for ""."""
    index = LabelIndex(labels)
    if _GLOB.search(pattern):
        return tuple(index.exact.get(pattern) or index.matching(pattern))
    return tuple(index.matching(f"*{pattern}*"))


def shorten_list(items: Sequence[object]) -> str:
    """1, 2, 3; of many items the first few: 1, 2, 3 and 17 more."""
    shown = ", ".join(str(item) for item in items[:_LISTED])
    more = len(items) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def _folded(text: str) -> str:
    """Without case, and with composed accents: some file systems write them decomposed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _units_by_label(labels: Iterable[str]) -> dict[str, list[int]]:
    units: dict[str, list[int]] = {}
    for unit, label in enumerate(labels):
        units.setdefault(label, []).append(unit)
    return units


def _matching(expression: str, labels: Iterable[str]) -> list[int]:
    matches = re.compile(expression).fullmatch
    return [unit for unit, label in enumerate(labels) if matches(label)]


_BETWEEN_WORDS = r"(?:(?<![^\W_])|(?![^\W_]))"  # not between two letters or digits


def _whole_words(pattern: str) -> str:
    """A regular expression in which * begins and ends between words; ** does not have to.

    A pattern with ? or [ describes letters, and is read as it is.
    """
    if re.search(r"[?\[]", pattern):
        return fnmatch.translate(pattern)
    special = {"*": f"{_BETWEEN_WORDS}(?s:.*){_BETWEEN_WORDS}", "**": "(?s:.*)"}
    pieces = re.split(r"(\*+)", pattern)
    return "".join(special.get(each[:2], re.escape(each)) for each in pieces)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text)


def _shared_words(wanted: Sequence[str], words: Sequence[str]) -> float:
    """How many of the wanted words are there; half for a word that only begins alike."""
    shared = 0.0
    for each in wanted:
        begins = (
            word.startswith(each) or each.startswith(word)
            for word in words
            if min(len(word), len(each)) >= _LONG_ENOUGH
        )
        shared += 1.0 if each in words else 0.5 * any(begins)
    return shared
