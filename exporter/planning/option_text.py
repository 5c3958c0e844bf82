"""Values of options from their texts, as on the command line. A function raises ValueError."""

from __future__ import annotations

import re


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, numbers = text.rpartition("=")
    if not name or not re.fullmatch(r"[0-9]+(,[0-9]+)*", numbers):
        raise ValueError(f"{text!r} is not of the form NAME=1,16")
    return name, tuple(int(number) for number in numbers.split(","))


def parse_dims(text: str) -> tuple[tuple[str, int], ...]:
    pairs = [part.rpartition("=") for part in text.split(",")]
    if not all(name.strip() and re.fullmatch(r"[0-9]+", number) for name, _, number in pairs):
        raise ValueError(f"{text!r} is not of the form NAME=1,NAME=8")
    return tuple((name.strip(), int(number)) for name, _, number in pairs)


def parse_pair(text: str) -> tuple[str, str]:
    first, separator, second = text.partition("=")
    if not (first and separator and second):
        raise ValueError(f"{text!r} is not of the form A=B")
    return first, second


def parse_size(text: str) -> int:
    """Bytes: a number, with K, M, G (thousands), or Ki, Mi, Gi."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMG]?)i?B?", text, re.IGNORECASE)
    if not match or not float(match[1]):
        raise ValueError(f"{text!r} is not a size such as 800M or 4G")
    step = 1024 if "i" in text.lower() else 1000
    return int(float(match[1]) * step ** " KMG".index(match[2].upper() or " "))


_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "": 1.0}


def parse_duration(text: str) -> float:
    """Milliseconds: a number with us, ms or s."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(us|ms|s|)", text)
    if not match or not float(match[1]):
        raise ValueError(f"{text!r} is not a time such as 5ms or 0.2s")
    return float(match[1]) * _MILLISECONDS[match[2]]


def parse_ends(text: str) -> bool | tuple[str, ...]:
    """Names of inputs and outputs; True without any."""
    return tuple(part.strip() for part in text.split(",")) if text else True
