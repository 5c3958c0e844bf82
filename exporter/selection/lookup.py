"""Finding units by their labels, and what a message says where none is found."""

from __future__ import annotations

import difflib
import fnmatch
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property

from exporter.selection.spec import Entry, Glob, Name

_FEW = 8  # indices or labels that a message lists
_NEAR = 3  # near misses that a hint offers
_TELLING = 3  # so many letters in common are no accident


class LabelIndex:
    """The labels of all units, for looking them up."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    @cached_property
    def exact(self) -> dict[str, list[int]]:
        """Each label, and the units that bear it."""
        return _grouped(self._labels)

    @cached_property
    def _folded_labels(self) -> list[str]:
        return [_folded(label) for label in self._labels]

    @cached_property
    def _without_case(self) -> dict[str, list[int]]:
        return _grouped(self._folded_labels)

    def named(self, entry: Entry, wanted: Name | Glob) -> list[int]:
        """The unit of that label, or all that the pattern matches; UsageError if there is none."""
        if isinstance(wanted, Glob):
            return self._matched(entry, wanted.text)
        found = self.exact.get(wanted.text) or self._without_case.get(_folded(wanted.text), [])
        if not found:
            raise entry.error("no unit has this label", self._near(wanted.text))
        if len(found) > 1:
            raise entry.error(
                f"{len(found)} units have this label: {listed(found)}", "name them by index"
            )
        return found

    def _matched(self, entry: Entry, pattern: str) -> list[int]:
        found = _matching(pattern, self._labels) or _matching(_folded(pattern), self._folded_labels)
        if not found:
            raise entry.error(
                "no label matches this pattern",
                f"{self._near(pattern.strip('*?'))}; ={pattern} is the label that reads so",
            )
        return found

    def _near(self, text: str) -> str:
        """A hint with labels that hold the text, and labels that are spelt nearly like it."""
        wanted = _folded(text)
        holding = (each for each in self._without_case if wanted in each)
        alike = difflib.get_close_matches(wanted, self._without_case, _NEAR)
        near = [*holding, *alike] if len(wanted) >= _TELLING else alike
        units = [self._without_case[each][0] for each in list(dict.fromkeys(near))[:_NEAR]]
        if not units:
            return f"the labels run from {self._labels[0]!r} to {self._labels[-1]!r}"
        return "near are " + ", ".join(f"{self._labels[unit]!r} ({unit})" for unit in units)


def listed(items: Sequence[object]) -> str:
    """The items, or the first few and how many more there are."""
    shown = ", ".join(str(item) for item in items[:_FEW])
    more = len(items) - _FEW
    return f"{shown} and {more} more" if more > 0 else shown


def _folded(text: str) -> str:
    """Without case, and accents in one spelling: file systems write them in two."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _grouped(labels: Iterable[str]) -> dict[str, list[int]]:
    units: dict[str, list[int]] = {}
    for unit, label in enumerate(labels):
        units.setdefault(label, []).append(unit)
    return units


def _matching(pattern: str, labels: Iterable[str]) -> list[int]:
    matches = re.compile(fnmatch.translate(pattern)).match
    return [unit for unit, label in enumerate(labels) if matches(label)]
