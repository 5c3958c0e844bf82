"""The selection language, for example "0-3,cat,@wanted.txt": text -> entries with positions."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsIndex, cast

from exporter.errors import UsageError
from exporter.selection.selection_file import SelectionFile, is_selection, read_selection
from exporter.selection.text_file import read_text, text_lines

_NUMBER = re.compile(r"(-?)([0-9]+)")
_RANGE = re.compile(r"([0-9]+)\s*-\s*([0-9]+)")
_OPENING_QUOTE = re.compile(r"\s*[=@]?\s*(['\"])")
_GLOB = re.compile(r"[*?\[]")
_SHOWN = 60  # characters of an entry in a message
_LARGEST = 10**18  # replaces all larger indices: int() refuses thousands of digits


@dataclass(frozen=True)
class ExactLabel:
    """A label to find.

    Attributes:
        all_units: several units may have it.
    """

    text: str
    all_units: bool = False


@dataclass(frozen=True)
class LabelPattern:
    """A pattern that labels match, such as `sea_*`."""

    text: str


@dataclass(frozen=True)
class SelectionEntry:
    """One entry of a selection.

    Attributes:
        text: as the user wrote it.
        position: for messages: "keep entry 2 at character 5" or "wanted.txt:7".
        value: an index, a range of indices, a label or a pattern.
        other: the index or range that text means where it is no label; None for other entries.
        file: the selection file that says that the unit is kept; None for other entries.
    """

    text: str
    position: str
    value: int | range | ExactLabel | LabelPattern
    other: int | range | None = None
    file: SelectionFile | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return _shown(self.text, self.position)

    def error(self, fact: str, hint: str) -> UsageError:
        """The error to raise about this entry."""
        return _error(self.text, self.position, fact, hint)


class HasFile(Protocol):
    """A `Selection`, which is defined above this module."""

    @property
    def as_file(self) -> SelectionFile: ...


def parse(
    selection: str | Iterable[Any] | HasFile, option: str, labels: Iterable[str] = ()
) -> tuple[SelectionEntry, ...]:
    """The entries of a selection, in their order.

    In a string, commas separate the entries. An entry is

    1. text that equals a label: that label;
    2. digits: an index;
    3. `A-B`: the indices from A to B, both included;
    4. `@file`: the entries in that file, one in each line; commas belong to the entry, blank lines
       are ignored, and a file cannot name another file;
    5. `=text`: all units with the label `text`;
    6. other text with `*`, `?` or `[`: a pattern that labels match;
    7. other text: a label.

    Single or double quotes around an entry, or around the text after its `=` or `@`, protect commas
    and outer white space, nothing else: `'3'` is an index, if no label is 3. A quote
    within an entry is a letter (`carpenter's kit`).

    In an iterable, each integer (NumPy's too) is an index, and each string is one entry, read like
    a line of a file: commas do not separate.

    Args:
        selection: a string, an iterable of integers and strings, or a `Selection`.
        option: its name in messages.
        labels: of the units.

    Raises:
        UsageError: no entry, an empty entry, an unclosed quote, a negative index, a reversed range,
            an unreadable file, or an item that is neither an integer nor a string; with the entry
            and its position.
    """
    known = frozenset(labels)
    if isinstance(selection, str):
        return tuple(_from_text(selection, option, known))
    file = getattr(selection, "as_file", None)
    if isinstance(file, SelectionFile):
        return tuple(_from_selection(f"the selection for {option}", file))
    if isinstance(selection, bytes | bytearray) or not isinstance(selection, Iterable):
        raise UsageError(
            f"{option} is neither a string nor a sequence: {selection!r}", f"write {option}=[3, 7]"
        )
    return tuple(_from_items(selection, option, known))


def as_integers(selection: object) -> list[int] | None:
    """The items of a sequence of whole numbers; None for another selection.

    A long selection is such a sequence, and needs no entry with a position for each index.
    """
    as_list = getattr(selection, "tolist", None)  # of a NumPy array
    items = as_list() if as_list else selection
    if not isinstance(items, list | tuple | range) or not all_integers(items):
        return None
    return list(items)


def all_integers(items: Iterable[Any]) -> bool:
    """Is each item an int? A boolean is not."""
    return set(map(type, items)) <= {int}


# --- from a string, an iterable or a file -----------------------------------------------


def _from_text(text: str, option: str, labels: Collection[str]) -> Iterator[SelectionEntry]:
    if not text.strip():
        raise UsageError(f"{option} is empty", "name indices, ranges or labels: 0,3-5,cat")
    start, number = 0, 0
    while start <= len(text):
        number += 1
        position = f"{option} entry {number} at character {_letter(text, start) + 1}"
        end = _end(text, start, position)
        yield from _entries(text[start:end], position, labels)
        start = end + 1


def _end(text: str, start: int, position: str) -> int:
    """The end of the entry that starts there: a comma outside quotes, or the end of the text."""
    end = _comma(text, start)
    opening = _OPENING_QUOTE.match(text, start, end)
    if not opening:
        return end
    closing = text.find(opening[1], opening.end())
    if closing < 0:
        raise _error(
            text[start:].strip(),
            position,
            f"the quote {opening[1]} is not closed",
            "close it; if a label begins with a quote, put it into quotes of the other kind",
        )
    end = _comma(text, closing)
    rest = text[closing + 1 : end].strip()
    if rest:
        raise _error(
            text[start:end].strip(),
            position,
            f"{rest!r} follows the closing quote",
            "put the whole entry into quotes",
        )
    return end


def _comma(text: str, start: int) -> int:
    found = text.find(",", start)
    return len(text) if found < 0 else found


def _letter(text: str, start: int) -> int:
    """The position of the next character that is not white space."""
    while start < len(text) - 1 and text[start].isspace():
        start += 1
    return start


def _from_items(
    items: Iterable[Any], option: str, labels: Collection[str]
) -> Iterator[SelectionEntry]:
    for number, item in enumerate(items, 1):
        position = f"{option} entry {number}"
        if isinstance(item, str):
            is_space = item.isspace() and item in labels
            yield from _entries(f"'{item}'" if is_space else item, position, labels)
        else:
            yield SelectionEntry(str(item), position, _item(item, position))


def _from_file(path: str, position: str, labels: Collection[str]) -> Iterator[SelectionEntry]:
    """The entries in a file. It cannot name another file, so that no file can name itself."""
    try:
        text = read_text(path)
        if is_selection(text):
            yield from _from_selection(path, read_selection(text))
            return
        lines = text_lines(text)
    except UsageError as error:
        raise _error(f"@{path}", position, error.message, error.hint) from error
    if not any(lines):
        raise _error(f"@{path}", position, "the file has no entry", "write one entry in each line")
    for number, line in enumerate(lines, 1):
        if line:
            yield from _entries(line, f"{path}:{number}", labels, inside=path)


def _from_selection(path: str, file: SelectionFile) -> Iterator[SelectionEntry]:
    """An entry for each kept unit."""
    for unit in file.kept:
        yield SelectionEntry(str(unit), path, unit, file=file)


def _item(item: object, position: str) -> int:
    number = as_integer(item)
    if number is None:
        raise _error(
            str(item),
            position,
            f"it is neither an integer nor a string, but of type {type(item).__name__}",
            "give indices and labels; for a boolean mask, numpy.flatnonzero(mask)",
        )
    return _index(number, str(number), position)


def as_integer(value: object) -> int | None:
    """An integer, NumPy's too, as int; None for other values.

    A boolean is refused: a mask would be read as the units 0 and 1.
    """
    if type(value) is int:  # the common case; not bool, which is a subclass
        return value
    try:
        return None if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    except TypeError:
        return None


# --- one entry -------------------------------------------------------------------------


def _entries(
    written: str, position: str, labels: Collection[str], inside: str | None = None
) -> Iterator[SelectionEntry]:
    text = written.strip()
    body = _unquoted(text)
    sign, rest = body[:1], _unquoted(body[1:].strip())
    if body and body in labels:
        yield _label(body, text, position)
    elif not body or (sign in "=@" and not rest):
        raise _error(text, position, "the entry is empty", "remove it, or the extra comma")
    elif sign == "=":
        yield SelectionEntry(text, position, ExactLabel(rest, all_units=True))
    elif sign == "@" and inside:
        raise _error(
            text, position, "a file cannot name another file", f"write ={body} for the label"
        )
    elif sign == "@":
        yield from _from_file(rest, position, labels)
    else:
        yield SelectionEntry(text, position, _value(body, text, position))


def _label(body: str, text: str, position: str) -> SelectionEntry:
    """An entry that equals a label. Several units may have one that looks like a pattern."""
    other: int | range | None = None
    with suppress(UsageError):  # a negative index, a reversed range
        value = _value(body, text, position)
        other = value if isinstance(value, int | range) else None
    is_pattern = _GLOB.search(body) is not None
    return SelectionEntry(text, position, ExactLabel(body, all_units=is_pattern), other)


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    return text[1:-1] if quoted else text


def _value(body: str, text: str, position: str) -> int | range | ExactLabel | LabelPattern:
    if number := _NUMBER.fullmatch(body):
        return _index(-_number(number[2]) if number[1] else _number(number[2]), text, position)
    ends = _RANGE.fullmatch(body)
    if not ends:
        return LabelPattern(body) if _GLOB.search(body) else ExactLabel(body)
    first, last = _number(ends[1]), _number(ends[2])
    if last < first:
        raise _error(text, position, "the range is reversed", f"write {last}-{first}")
    return range(first, last + 1)


def _index(index: int, text: str, position: str) -> int:
    if index < 0:
        raise _error(
            text,
            position,
            "an index cannot be negative",
            f"count from 0; write ={index} for the label",
        )
    return index


def _number(digits: str) -> int:
    """int(digits), or _LARGEST: int() refuses thousands of digits."""
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) < len(str(_LARGEST)) else _LARGEST


def _error(text: str, position: str, fact: str, hint: str) -> UsageError:
    return UsageError(f"{_shown(text, position)}: {fact}", hint)


def _shown(text: str, position: str) -> str:
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f"{position}, {short!r}"
