"""Compare the remap of a file with the one that its cut leads to, field by field."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from typing import Any

from exporter.proof.compare import TABLE, Difference
from exporter.remap import HeadRemap, Remap

_OF_VALUES = {"logits", "floor", "restore_width", "activation"}  # a quantizer changes these


def compare_remaps(
    expected: Remap, found: Remap, *, quantized: bool = False
) -> Iterator[Difference]:
    """Every field of the tables of all heads.

    Args:
        expected: of the cut that was made again.
        found: in the file.
        quantized: the file was quantized after the cut, or the cut is of a quantized file: what
            follows from the values may differ.
    """
    names = [[head.name for head in remap.heads] for remap in (expected, found)]
    if names[0] != names[1]:
        yield Difference(TABLE, f"the remap is of the heads {names[1]}, expected {names[0]}")
        return
    skipped = set(_OF_VALUES) if quantized else set()
    if expected.pixels != found.pixels:
        yield Difference(TABLE, f"pixels are {found.pixels}, expected {expected.pixels}")
    yield from _heads("", expected.heads, found.heads, skipped)
    for place, (left, right) in enumerate(zip(expected.steps, found.steps, strict=False)):
        yield from _heads(f"step {place} of the ", left, right, skipped)
    if found.steps and len(expected.steps) != len(found.steps):
        counts = f"{len(found.steps)} cuts, expected {len(expected.steps)}"
        yield Difference(TABLE, f"the remap records {counts}")


def _heads(
    where: str,
    expected: Sequence[HeadRemap],
    found: Sequence[HeadRemap],
    skipped: Collection[str],
) -> Iterator[Difference]:
    if len(expected) != len(found):
        yield Difference(TABLE, f"{where}remap has {len(found)} heads, expected {len(expected)}")
    for one, other in zip(expected, found, strict=False):
        for key, text in _tables(one, other, skipped):
            yield Difference(TABLE, f"{where}remap of head {one.name!r}: {key} is {text}")


def _tables(
    expected: HeadRemap, found: HeadRemap, skipped: Collection[str]
) -> Iterator[tuple[str, str]]:
    if found.logits is None:  # an older file, or a converted one
        skipped = {*skipped, "logits"}
    for field in fields(HeadRemap):
        if field.name != "options" and field.name not in skipped:
            yield from _values(
                field.name, getattr(expected, field.name), getattr(found, field.name)
            )
    for key, value in expected.options.items():
        if key not in skipped:
            yield from _values(key, value, found.options[key])


def _values(key: str, expected: Any, found: Any) -> Iterator[tuple[str, str]]:
    if expected == found:
        return
    both = isinstance(expected, tuple) and isinstance(found, tuple) and len(expected) == len(found)
    if both:
        place = next(
            i for i, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]
        )
        yield f"{key}[{place}]", f"{found[place]!r}, expected {expected[place]!r}"
    else:
        yield key, f"{_short(found)}, expected {_short(expected)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."  # noqa: PLR2004 - one line
