"""The tables of all heads of a file, as every artifact contains them, and their JSON.

A device needs only this package, `exporter.errors` and NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from typing import Any, NamedTuple, cast

import numpy.typing as npt

from exporter.errors import ModelError, UsageError
from exporter.remap.head_remap import OPTIONS, Array, HeadRemap, OnMissing, RelabeledSamples
from exporter.remap.recut import recut
from exporter.remap.unit_text import units_of_text, units_to_text

__all__ = ["SCHEMA", "HeadRemap", "Origin", "Pixels", "RelabeledSamples", "Remap", "compose"]

SCHEMA = "exporter/remap/1"
SHORT_SCHEMA = "exporter/remap/2"  # units may be texts; see `unit_text`


@dataclass(frozen=True)
class Origin:
    """A model that was cut: its name, and the SHA-256 of its file in hex; None without a file."""

    name: str
    sha256: str | None


class Pixels(NamedTuple):
    """How pixels become values: (pixel - mean) / std, one number or one for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Remap:
    """The tables of all heads that were cut.

    Attributes:
        original: the first model in the chain of cuts.
        parent: the model that the last cut read, if it is not the original.
        heads: at least one; names are unique.
        steps: after several cuts, the tables of each cut alone, in the unit indices of the model
            that it cut, so that the cuts can be made again; () after one cut.
        pixels: input -> how pixels become its values, as the file states it for clients: mean and
            standard deviation of the channels; None where it is not known.
        precision: that the file was quantized to; None if it has the precision of the original.

    Raises:
        ModelError: no head, or two with the same name.
    """

    original: Origin
    parent: Origin | None
    heads: tuple[HeadRemap, ...]
    steps: tuple[tuple[HeadRemap, ...], ...] = ()
    pixels: Mapping[str, Pixels | None] = field(default_factory=dict, hash=False)
    precision: str | None = None

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        # Named by a string: this room is below the report, and is used without it on devices.
        text: str = import_module("exporter.report.notebook").remap_fragment(self)
        return text

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each unit of the original."""
        notebook = import_module("exporter.report.notebook")
        return notebook.data_frame(notebook.remap_rows(self))

    def is_same_cut(self, other: Remap | None) -> bool:
        """Whether two files are the same cut of one model, such as a cut and its int8 form."""
        return other is not None and replace(other, precision=self.precision) == self

    def __post_init__(self) -> None:
        names = [head.name for head in self.heads]
        if not names:
            raise ModelError("the remap has no head")
        if len(set(names)) < len(names):
            raise ModelError(f"the remap has two heads with the same name: {', '.join(names)}")

    @classmethod
    def of_cut(cls, cut: Origin, heads: Iterable[HeadRemap], earlier: Remap | None = None) -> Remap:
        """The remap of the result of a cut.

        Args:
            cut: the model that was cut.
            heads: the tables of this cut alone, in the indices of that model.
            earlier: the remap of that model, if it was cut before.
        """
        remap = cls(cut, None, tuple(heads))
        return remap if earlier is None else compose(earlier, remap)

    @classmethod
    def from_json(cls, text: str | bytes) -> Remap:
        """The remap in a JSON text; unknown keys are ignored.

        Raises:
            ModelError: not JSON, another schema, a missing key, a value with a wrong type, or
                fields that contradict each other.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the remap is not valid JSON: {error}") from error
        found = record.get("schema") if isinstance(record, dict) else None
        if found not in {SCHEMA, SHORT_SCHEMA}:
            shown = repr(found) if isinstance(found, str) else "no schema"
            raise ModelError(
                f"the remap has {shown} where {SCHEMA!r} was expected",
                "a newer version of exporter may have written it",
            )
        top = _typed(record, _TOP, "remap")
        parent = record.get("parent")
        return cls(
            _origin(top["original"], "remap.original"),
            None if parent is None else _origin(parent, "remap.parent"),
            _heads(top["heads"], "remap.heads"),
            tuple(
                _heads(tables, f"remap.steps[{i}]") for i, tables in enumerate(top["steps"] or ())
            ),
            {name: known and _pixels(known) for name, known in (top["pixels"] or {}).items()},
            top["precision"],
        )

    def to_json(self, *, short: bool = False) -> str:
        """The JSON text, the same for the same remap: fixed order of keys, newline at the end.

        Args:
            short: write units as short texts, with the schema `exporter/remap/2`, as in model
                files. Equal `kept` and `new_to_old` are written once.
        """
        plain = _short if short else _plain
        heads = ",\n".join(_lines(plain(head), "    ") for head in self.heads)
        parent = None if self.parent is None else _plain(self.parent)
        top: dict[str, Any] = {
            "schema": SHORT_SCHEMA if short else SCHEMA,
            "original": _plain(self.original),
            "parent": parent,
        }
        if self.steps:
            top["steps"] = [[plain(table) for table in tables] for tables in self.steps]
        if self.pixels:
            top["pixels"] = {name: known and known._asdict() for name, known in self.pixels.items()}
        if self.precision is not None:
            top["precision"] = self.precision
        return _lines(top, "")[:-2] + f',\n  "heads": [\n{heads}\n  ]\n}}\n'

    def of(self, head: str | None = None) -> HeadRemap:
        """The table of the named head, or of the only one; UsageError otherwise."""
        names = ", ".join(repr(each.name) for each in self.heads)
        if head is None:
            if len(self.heads) > 1:
                raise UsageError(
                    f"the remap has several heads: {names}", "choose one with head=NAME"
                )
            return self.heads[0]
        for each in self.heads:
            if each.name == head:
                return each
        raise UsageError(f"the remap has no head {head!r}", f"it has {names}")

    def without_logits(self) -> Remap:
        """The same remap for a converted file: a converter does not keep the names of tensors."""
        return replace(self, heads=tuple(replace(head, logits=None) for head in self.heads))

    def to_original(self, indices: npt.ArrayLike, head: str | None = None) -> Array:
        """`HeadRemap.to_original` of the named or only head."""
        return self.of(head).to_original(indices)

    def to_new(self, indices: npt.ArrayLike, missing: int = -1, head: str | None = None) -> Array:
        """`HeadRemap.to_new` of the named or only head."""
        return self.of(head).to_new(indices, missing)

    def relabel(
        self, y: npt.ArrayLike, on_missing: OnMissing = "drop", head: str | None = None
    ) -> RelabeledSamples:
        """`HeadRemap.relabel` of the named or only head."""
        return self.of(head).relabel(y, on_missing)

    def expand(
        self, values: npt.ArrayLike, fill: float = 0.0, axis: int = -1, head: str | None = None
    ) -> Array:
        """`HeadRemap.expand` of the named or only head."""
        return self.of(head).expand(values, fill, axis)

    def label(self, new_index: int, head: str | None = None) -> str:
        """`HeadRemap.label` of the named or only head."""
        return self.of(head).label(new_index)


def compose(earlier: Remap, later: Remap) -> Remap:
    """The remap of a model that was cut twice.

    `original` is the first model, and `parent` the model between the cuts. Heads that only one of
    the cuts changed keep its table; the others are combined by `recut`.

    Args:
        earlier: the remap of the model between the cuts.
        later: the remap of the later cut alone; its `original` is the model between the cuts.

    Raises:
        ModelError, UsageError: see `recut`.
    """
    cut = {head.name: head for head in later.heads}
    heads = [
        recut(head, cut.pop(head.name)) if head.name in cut else head for head in earlier.heads
    ]
    steps = (*(earlier.steps or (earlier.heads,)), later.heads)
    heads = [*heads, *cut.values()]
    precision = later.precision or earlier.precision
    return Remap(earlier.original, later.original, tuple(heads), steps, later.pixels, precision)


def only_remap(texts: Sequence[str | bytes]) -> Remap | None:
    """The remap of a file that contains these texts; None if there is none.

    Raises:
        ModelError: several, of which each reader may use another; or see `Remap.from_json`.
    """
    if len(texts) > 1:
        raise ModelError(f"the file contains {len(texts)} remaps", "only one can be true")
    return Remap.from_json(texts[0]) if texts else None


# --- JSON ---------------------------------------------------------------------------------------


def _plain(record: Origin | HeadRemap) -> dict[str, Any]:
    found = {each.name: getattr(record, each.name) for each in fields(record)}
    options = found.get("options")
    if options is not None:  # most files have none of the newer ones: their bytes stay
        unused = {key for key in ("vocabulary", "gather") if options[key] is None}
        found["options"] = {key: options[key] for key in options if key not in unused}
    return found


def _short(head: HeadRemap) -> dict[str, Any]:
    entries = {**_plain(head), "kept": units_to_text(head.kept, head.old_units)}
    if head.new_to_old == head.kept:
        entries["new_to_old"] = None
    elif tuple not in set(map(type, head.new_to_old)):
        entries["new_to_old"] = units_to_text(cast("Any", head.new_to_old), head.old_units)
    return entries


def _lines(record: Mapping[str, Any], indent: str) -> str:
    """A JSON object with one line for each key, so that a table of 1000 units stays readable."""
    entries = [f"{indent}  {_encode(key)}: {_encode(value)}" for key, value in record.items()]
    return f"{indent}{{\n" + ",\n".join(entries) + f"\n{indent}}}"


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _origin(value: object, where: str) -> Origin:
    return Origin(**_typed(value, _ORIGIN, where))


def _pixels(value: dict[str, list[float]]) -> Pixels:
    return Pixels(tuple(value["mean"]), tuple(value["std"]))


def _heads(values: list[object], where: str) -> tuple[HeadRemap, ...]:
    return tuple(_head(value, f"{where}[{i}]") for i, value in enumerate(values))


def _head(value: object, where: str) -> HeadRemap:
    entries = _typed(value, _HEAD, where)
    options = entries.pop("options") or {}
    entries["options"] = {key: options.get(key) for key in OPTIONS}
    for key in ("part", "labels"):
        entries[key] = None if entries[key] is None else tuple(entries[key])
    kept, places, count = (entries[key] for key in ("kept", "new_to_old", "old_units"))
    kept = entries["kept"] = _units(kept, count, f"{where}.kept")
    entries["new_to_old"] = kept if places is None else _units(places, count, f"{where}.new_to_old")
    return HeadRemap(**entries)


def _units(value: str | list[Any], count: int, where: str) -> tuple[Any, ...]:
    if isinstance(value, list):
        return tuple(tuple(units) if isinstance(units, list) else units for units in value)
    try:
        return units_of_text(value, count)
    except ValueError as error:
        raise ModelError(f"{where} is no text for units: {error}") from error


def _typed(value: object, table: Mapping[str, _Type], where: str) -> dict[str, Any]:
    """The entries with the keys of the table, checked; a missing one counts as null."""
    if not isinstance(value, dict):
        raise ModelError(f"{where} is not an object")
    for key, (expected, fits) in table.items():
        if not fits(value.get(key)):
            raise ModelError(f"{where}.{key} is not {expected}")
    return {key: value.get(key) for key in table}


def _is_text(value: object) -> bool:
    """JSON can contain half a surrogate pair, which no file or terminal can show."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _list_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _or_null(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


def _or_text(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) or fits(value)


def _is_pixels(value: object) -> bool:
    return isinstance(value, dict) and all(
        known is None
        or (
            isinstance(known, dict) and all(_are_numbers(known.get(key)) for key in ("mean", "std"))
        )
        for known in value.values()
    )


_are_numbers = _list_of(lambda value: isinstance(value, int | float))


def _is_part(value: object) -> bool:
    match value:
        case [start, stop]:
            return _is_whole(start) and _is_whole(stop)
        case _:
            return False


_Type = tuple[str, Callable[[object], bool]]
_TEXT: _Type = ("a string", _is_text)
_WHOLE: _Type = ("a whole number", _is_whole)

_TOP: Mapping[str, _Type] = {
    "original": ("an object", lambda value: isinstance(value, dict)),
    "heads": ("a list", lambda value: isinstance(value, list)),
    "pixels": ("an object of means and standard deviations, or null", _or_null(_is_pixels)),
    "steps": (
        "a list of lists, or null",
        _or_null(_list_of(lambda value: isinstance(value, list) and bool(value))),
    ),
    "precision": ("a string or null", _or_null(_is_text)),
}
_ORIGIN: Mapping[str, _Type] = {
    "name": _TEXT,
    "sha256": ("a string or null", _or_null(_is_text)),
}
_HEAD: Mapping[str, _Type] = {
    "name": _TEXT,
    "output": _TEXT,
    "axis": _WHOLE,
    "part": ("[start, stop] or null", _or_null(_is_part)),
    "mode": _TEXT,
    "activation": _TEXT,
    "logits": ("a string or null", _or_null(_is_text)),
    "old_units": _WHOLE,
    "new_units": _WHOLE,
    "kept": ("a list of whole numbers, or text", _or_text(_list_of(_is_whole))),
    "new_to_old": (
        "a list of whole numbers and of lists of them, text, or null",
        _or_null(_or_text(_list_of(lambda value: _is_whole(value) or _list_of(_is_whole)(value)))),
    ),
    "labels": ("a list of strings or null", _or_null(_list_of(_is_text))),
    "options": ("an object or null", _or_null(lambda value: isinstance(value, dict))),
}
