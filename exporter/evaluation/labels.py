"""From the labels of data to the units of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from exporter.errors import UsageError
from exporter.evaluation.kept_units import KeptUnits
from exporter.evaluation.unit_table import UNLABELED
from exporter.formats.model import Model, unit_labels
from exporter.graph import Array
from exporter.remap import HeadRemap
from exporter.selection.labels import read_labels
from exporter.selection.lookup import shorten_list
from exporter.trace.head import Head

_MOST_DIGITS = 18  # of a count or an index: more do not fit in 64 bits


def units_of_labels(labels: Sequence[str | int], units: int, names: Sequence[str] | None) -> Array:
    """(samples,) unit index of each label; UNLABELED if no unit has it.

    Raises:
        UsageError: several units have one of the labels.
    """
    exact: dict[str, list[int]] = {}
    folded: dict[str, list[int]] = {}
    for unit, name in enumerate(names or ()):
        if name:  # "" is a unit without a label
            exact.setdefault(name, []).append(unit)
            folded.setdefault(name.casefold(), []).append(unit)
    return np.asarray([_unit_of(label, units, exact, folded) for label in labels])


def _unit_of(
    label: str | int,
    units: int,
    exact: Mapping[str, Sequence[int]],
    folded: Mapping[str, Sequence[int]],
) -> int:
    if isinstance(label, int):
        return label if 0 <= label < units else UNLABELED
    if label not in exact and is_whole(label) and int(label) < units:
        return int(label)
    found = exact.get(label) or folded.get(label.casefold()) or [UNLABELED]
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} units are called {label!r}: {shorten_list(found)}",
            "name the class by its unit index",
        )
    return found[0]


def is_whole(text: str) -> bool:
    """Is the text a whole number that fits in 64 bits?"""
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def labels_of_units(
    model: Model, head: Head, given: str | Path | Sequence[str] | None
) -> tuple[str, ...] | None:
    """The given labels of the units, or those in a file; else those in the model.

    Raises:
        UsageError: not one label for each unit.
    """
    if given is None:
        return unit_labels(model, head)
    names = read_labels(given) if isinstance(given, str | Path) else tuple(given)
    if len(names) != head.units:
        raise UsageError(
            f"{len(names)} labels for the {head.units} units of head {head.name!r}",
            "give one label per unit, in the order of the units",
        )
    return names


def names_of_units(kept: KeptUnits, table: HeadRemap | None) -> tuple[str, ...] | None:
    """The names of the original's units that a remap knows; "" for the others.

    A merged unit has the name of its lowest member.
    """
    if table is None or table.labels is None:
        return None
    names = [""] * kept.units
    for units, label in zip(kept.positions, table.labels, strict=True):
        names[min(units)] = label
    return tuple(names)
