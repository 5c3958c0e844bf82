"""Find units by their labels, with hints if no label matches."""

from __future__ import annotations

import difflib
import fnmatch
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property

from exporter.selection.spec import ExactLabel, LabelPattern, SelectionEntry

_LISTED = 8  # indices or labels in a message
_SIMILAR = 3  # similar labels in a hint
_LONG_ENOUGH = 3  # letters: shorter texts are contained in too many labels


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
        """The unit with this label, or all units that match; UsageError if there is none.

        A pattern that is itself a label, such as ???, names all units with this label.
        """
        if isinstance(wanted, LabelPattern):
            return self.exact.get(wanted.text) or self._matched(entry, wanted.text)
        found = self.exact.get(wanted.text) or self._without_case.get(_folded(wanted.text), [])
        if not found:
            raise entry.error("no unit has this label", self._similar(wanted.text))
        if len(found) > 1:
            raise entry.error(
                f"{len(found)} units have this label: {shorten_list(found)}", "name them by index"
            )
        return found

    def _matched(self, entry: SelectionEntry, pattern: str) -> list[int]:
        found = _matching(pattern, self._labels) or _matching(_folded(pattern), self._folded_labels)
        if not found:
            raise entry.error(
                "no label matches this pattern",
                f"{self._similar(pattern.strip('*?'))}; write ={pattern} for the literal label",
            )
        return found

    def _similar(self, text: str) -> str:
        """A hint with labels that contain the text or are spelled similarly."""
        wanted = _folded(text)
        containing = (label for label in self._without_case if wanted in label)
        similar = difflib.get_close_matches(wanted, self._without_case, _SIMILAR)
        found = [*containing, *similar] if len(wanted) >= _LONG_ENOUGH else similar
        units = [self._without_case[label][0] for label in list(dict.fromkeys(found))[:_SIMILAR]]
        if not units:
            return f"the labels run from {self._labels[0]!r} to {self._labels[-1]!r}"
        return "similar labels: " + ", ".join(f"{self._labels[unit]!r} ({unit})" for unit in units)


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


def _matching(pattern: str, labels: Iterable[str]) -> list[int]:
    matches = re.compile(fnmatch.translate(pattern)).match
    return [unit for unit, label in enumerate(labels) if matches(label)]
