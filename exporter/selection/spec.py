"""The selection language: what a user writes, as entries that know where they stand."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, SupportsIndex, cast

from exporter.errors import UsageError
from exporter.selection.labels import read_text, text_lines

_NUMBER = re.compile(r"(-?)([0-9]+)")
_RANGE = re.compile(r"([0-9]+)\s*-\s*([0-9]+)")
_OPENING_QUOTE = re.compile(r"\s*[=@]?\s*(['\"])")
_GLOB = re.compile(r"[*?\[]")
_SHOWN = 60  # characters of an entry in a message
_BEYOND = 10**18  # more digits than this make no index, and int() refuses thousands of them


@dataclass(frozen=True)
class Name:
    """A label."""

    text: str


@dataclass(frozen=True)
class Glob:
    """A pattern over labels."""

    text: str


@dataclass(frozen=True)
class Entry:
    """One entry of a selection.

    Attributes:
        text: as it was written.
        place: where it stands, for messages.
        value: an index, a range of them, a label or a pattern over labels.
        could_be_label: written as text, and read as something else than a label.
    """

    text: str
    place: str
    value: int | range | Name | Glob
    could_be_label: bool = False

    def __str__(self) -> str:
        return _shown(self.text, self.place)

    def error(self, fact: str, hint: str) -> UsageError:
        """The error to raise about this entry."""
        return _error(self.text, self.place, fact, hint)


def parse(selection: str | Iterable[Any], option: str) -> tuple[Entry, ...]:
    """The entries of a selection, in the order in which they are written.

    In a string, commas separate the entries. An entry is

    1. digits: an index;
    2. `A-B`: the indices from A to B, both included;
    3. `@file`: the entries in that file, one a line, commas included; blank lines are passed over,
       and a file cannot name another one;
    4. `=text`: the label that reads `text`, whatever that looks like;
    5. anything else with `*`, `?` or `[` in it: a pattern over labels;
    6. anything else: a label.

    Quotes, single or double, around an entry or around what follows its `=` or `@`, protect
    commas and outer white space and nothing else: `'3'` is an index. Within an entry they are
    letters (`carpenter's kit`).

    Of an iterable, each whole number (NumPy's too) is an index, and each string is one entry,
    read like a line of a file: commas separate nothing, and a label that looks like a number, a
    range or a pattern needs its `=`.

    Args:
        selection: a string, or an iterable of whole numbers and strings.
        option: what messages call it.

    Raises:
        UsageError: no entry, an empty one, an unclosed quote, a negative index, a reversed range,
            a file that cannot be read, an item that is neither a whole number nor a string; it
            shows the entry and its place.
    """
    if isinstance(selection, str):
        return tuple(_from_text(selection, option))
    if isinstance(selection, bytes | bytearray) or not isinstance(selection, Iterable):
        raise UsageError(
            f"{option} is neither a string nor a sequence: {selection!r}", f"write {option}=[3, 7]"
        )
    return tuple(_from_items(selection, option))


# --- where entries come from --------------------------------------------------------------------


def _from_text(text: str, option: str) -> Iterator[Entry]:
    if not text.strip():
        raise UsageError(f"{option} is empty", "name indices, ranges or labels: 0,3-5,cat")
    start, number = 0, 0
    while start <= len(text):
        number += 1
        place = f"{option} entry {number} at character {_letter(text, start) + 1}"
        end = _end(text, start, place)
        yield from _entries(text[start:end], place)
        start = end + 1


def _end(text: str, start: int, place: str) -> int:
    """Where the entry that starts there ends: at a comma outside its quotes, or at the end."""
    end = _comma(text, start)
    opening = _OPENING_QUOTE.match(text, start, end)
    if not opening:
        return end
    closing = text.find(opening[1], opening.end())
    if closing < 0:
        raise _error(
            text[start:].strip(),
            place,
            f"the quote {opening[1]} is not closed",
            "close it; a label that begins with a quote goes into quotes of the other kind",
        )
    end = _comma(text, closing)
    behind = text[closing + 1 : end].strip()
    if behind:
        raise _error(
            text[start:end].strip(),
            place,
            f"{behind!r} stands behind the closing quote",
            "put the whole entry into quotes",
        )
    return end


def _comma(text: str, start: int) -> int:
    found = text.find(",", start)
    return len(text) if found < 0 else found


def _letter(text: str, start: int) -> int:
    """Where the next character other than white space stands, if one does."""
    while start < len(text) - 1 and text[start].isspace():
        start += 1
    return start


def _from_items(items: Iterable[Any], option: str) -> Iterator[Entry]:
    for number, item in enumerate(items, 1):
        place = f"{option} entry {number}"
        if isinstance(item, str):
            yield from _entries(item, place)
        else:
            yield Entry(str(item), place, _item(item, place))


def _from_file(path: str, place: str) -> Iterator[Entry]:
    """The entries in a file; a file in a file is refused, so that none can name itself."""
    try:
        lines = text_lines(read_text(path))
    except UsageError as error:
        raise _error(f"@{path}", place, error.message, error.hint) from error
    if not any(lines):
        raise _error(f"@{path}", place, "the file has no entry", "write one entry a line")
    for number, line in enumerate(lines, 1):
        if line:
            yield from _entries(line, f"{path}:{number}", inside=path)


def _item(item: object, place: str) -> int:
    number = whole(item)
    if number is None:
        raise _error(
            str(item),
            place,
            f"is neither a whole number nor a string, but of type {type(item).__name__}",
            "give indices and labels; for a boolean mask, numpy.flatnonzero(mask)",
        )
    return _index(number, str(number), place)


def whole(value: object) -> int | None:
    """A whole number, NumPy's too, as an int; None for all else.

    A boolean is no number here: a mask would mean the units 0 and 1.
    """
    if type(value) is int:  # the common case, and a subclass such as bool is not
        return value
    try:
        return None if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    except TypeError:
        return None


# --- what an entry says -------------------------------------------------------------------------


def _entries(written: str, place: str, inside: str | None = None) -> Iterator[Entry]:
    text = written.strip()
    body = _unquoted(text)
    sign, rest = body[:1], _unquoted(body[1:].strip())
    if not body or (sign in "=@" and not rest):
        raise _error(text, place, "the entry is empty", "remove it, or a comma too many")
    if sign == "=":
        yield Entry(text, place, Name(rest))
    elif sign == "@" and inside:
        raise _error(
            text, place, "a file cannot name another one", f"={body} is the label of that name"
        )
    elif sign == "@":
        yield from _from_file(rest, place)
    else:
        value = _value(body, text, place)
        yield Entry(text, place, value, could_be_label=not isinstance(value, Name))


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    return text[1:-1] if quoted else text


def _value(body: str, text: str, place: str) -> int | range | Name | Glob:
    if number := _NUMBER.fullmatch(body):
        return _index(-_number(number[2]) if number[1] else _number(number[2]), text, place)
    ends = _RANGE.fullmatch(body)
    if not ends:
        return Glob(body) if _GLOB.search(body) else Name(body)
    first, last = _number(ends[1]), _number(ends[2])
    if last < first:
        raise _error(text, place, "the range is reversed", f"write {last}-{first}")
    return range(first, last + 1)


def _index(index: int, text: str, place: str) -> int:
    if index < 0:
        raise _error(
            text,
            place,
            "an index cannot be negative",
            f"count from the front; ={index} is the label of that name",
        )
    return index


def _number(digits: str) -> int:
    """int() refuses thousands of digits; so many are out of every range anyway."""
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) < len(str(_BEYOND)) else _BEYOND


def _error(text: str, place: str, fact: str, hint: str) -> UsageError:
    return UsageError(f"{_shown(text, place)}: {fact}", hint)


def _shown(text: str, place: str) -> str:
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f"{place}, {short!r}"
