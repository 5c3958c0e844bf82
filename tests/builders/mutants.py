"""Damage files at random, as disks, networks and attackers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hypothesis import strategies

# Numbers at which readers go wrong: ends of integer types, and lengths that take all memory.
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 10**9, 2**40, 2**63 - 1)
_TEXTS = (b"\xff\xfe", b"../", b"\0", b"A" * 300, b"{}", b"[]", b"null", b'"', b"1e999", b"-1")


Change = Callable[[bytes, int, bytes], bytes]


@dataclass(frozen=True)
class Edit:
    """One change of a file.

    Attributes:
        at: where, as a share of the file's length.
        kind: name of the change.
        value: a number that it uses.
    """

    at: float
    kind: str
    value: int

    def apply(self, content: bytes) -> bytes:
        place = int(self.at * len(content))
        change = CHANGES[self.kind]
        return content[:place] + change(content[place:], self.value, content)


def _number(after: bytes, value: int, _content: bytes) -> bytes:
    width = 1 + value % 8
    number = _NUMBERS[value % len(_NUMBERS)] % (1 << 8 * width)
    return number.to_bytes(width, "little") + after[width:]


def _text(after: bytes, value: int, _content: bytes) -> bytes:
    text = _TEXTS[value % len(_TEXTS)]
    return text + after[len(text) :]


def _copy(after: bytes, value: int, content: bytes) -> bytes:
    place = (value * 7919) % max(1, len(content))
    return content[place : place + 16] + after[16:]


# kind -> the new rest of the file, from the old rest, a number and the whole content
CHANGES: Mapping[str, Change] = {
    "flip": lambda after, value, _: bytes(b ^ (1 << value % 8) for b in after[:1]) + after[1:],
    "byte": lambda after, value, _: bytes([value % 256]) + after[1:],
    "number": _number,
    "varint": lambda after, value, _: _varint(_NUMBERS[value % len(_NUMBERS)]) + after[1:],
    "text": _text,
    "drop": lambda after, value, _: after[1 + value % 64 :],
    "repeat": lambda after, value, _: after[: 1 + value % 64] + after,
    "copy": _copy,
    "truncate": lambda _after, _value, _content: b"",
}

EDITS = strategies.lists(
    strategies.builds(
        Edit,
        strategies.floats(0, 1, exclude_max=True),
        strategies.sampled_from(sorted(CHANGES)),
        strategies.integers(0, 2**16),
    ),
    min_size=1,
    max_size=6,
)


def mutant(content: bytes, edits: list[Edit]) -> bytes:
    for edit in edits:
        content = edit.apply(content)
    return content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, as protobuf writes a number."""
    content = bytearray()
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])
