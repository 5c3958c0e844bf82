"""Lengths for the open dimensions of inputs: given by the user, or a default of a known name.

Exporters name open dimensions: `batch_size`, `sequence_length`, and sums such as
`past_sequence_length + sequence_length`. Dimensions of one name have one length in all inputs.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.graph.graph import Shape, Tensor


@dataclass(frozen=True)
class Lengths:
    """What the user states about open dimensions.

    Attributes:
        shapes: input name -> its whole shape, batch included.
        dims: name of a dimension -> its length.
    """

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.shapes or self.dims)


def input_shapes(
    inputs: Iterable[Tensor], lengths: Lengths, batch: int = 1
) -> dict[str, Shape | None]:
    """The shape of one sample of each input, batch included; None where a length is not known.

    1. A given shape, or a given length of that name.
    2. A leading dimension is the batch.
    3. The default of a known name; a sum or product of known names.
    4. Without names of dimensions, as in SavedModels: the default length of a sequence, for
       inputs of integers [batch, steps] that are named as those of a tokenizer.
    """
    tensors = tuple(inputs)
    known = {_STEPS: _PARTS[1], **lengths.dims}
    for tensor in tensors:
        pairs = zip(tensor.symbols, lengths.shapes.get(tensor.name, ()), strict=False)
        known = {**{name: length for name, length in pairs if name}, **known}
    leading = {each.symbols[0] for each in tensors if each.symbols and each.symbols[0]}
    names = {name for each in tensors for name in each.symbols if name}
    sound = {n for each in tensors if _is_sound(each) for n in each.symbols[1:]}
    for name in sorted(names - known.keys(), key=lambda each: (not each.isidentifier(), each)):
        is_batch = name in leading or _BATCH.search(name)
        found = _length(name, known, sound=name in sound)
        if found is None and is_batch:
            found = batch
        if found is not None:
            known[name] = found
    return {each.name: _shape(each, lengths, known, batch) for each in tensors}


def _shape(tensor: Tensor, lengths: Lengths, known: Mapping[str, int], batch: int) -> Shape | None:
    if tensor.name in lengths.shapes:
        return tuple(lengths.shapes[tensor.name])
    if tensor.shape is None:
        return None
    names = tensor.symbols or ("",) * len(tensor.shape)
    if not any(names) and _holds_tokens(tensor):
        names = ("", _STEPS)
    pairs = zip(tensor.shape, names, strict=True)
    shape = [known.get(name) if length is None else length for length, name in pairs]
    if shape and shape[0] is None:
        shape[0] = batch
    return tuple(shape)


def _length(name: str, known: Mapping[str, int], *, sound: bool) -> int | None:
    if name in known:
        return known[name]
    if not name.isidentifier():
        return _computed(name, known)
    if sound and _SEQUENCE.search(name):
        return _SOUND
    if _TOTAL.search(name):
        parts = [n for n in known if _PAST.search(n)], [n for n in known if _is_sequence(n)]
        return sum(
            known[names[0]] if names else default
            for names, default in zip(parts, _PARTS, strict=True)
        )
    if _BATCH.search(name):
        return None
    return next((length for pattern, length in _DEFAULTS if pattern.search(name)), None)


def _is_sequence(name: str) -> bool:
    others = (_TOTAL, _PAST, _BATCH, _ENCODER)
    return bool(_SEQUENCE.search(name)) and not any(each.search(name) for each in others)


def _is_sound(tensor: Tensor) -> bool:
    """Has an input the shape of sound: [batch, samples]?"""
    rank = 2
    return tensor.dtype.startswith("float") and len(tensor.shape or ()) == rank


def _holds_tokens(tensor: Tensor) -> bool:
    """Is an input one of a tokenizer: [batch, steps] of integers, with a usual name?"""
    rank = 2
    is_whole = tensor.dtype.startswith(("int", "bool"))
    return is_whole and len(tensor.shape or ()) == rank and bool(_TOKENS.search(tensor.name))


def _computed(text: str, known: Mapping[str, int]) -> int | None:
    """The value of an expression of names; None if it is no sum, product or quotient."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, known)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, known: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(int(value)):
            return value
        case ast.Name(name):
            found = _length(name, known, sound=False)
            if found is None:
                raise KeyError(name)
            return found
        case ast.BinOp(left, symbol, right) if type(symbol) in _OPERATORS:
            return _OPERATORS[type(symbol)](_value(left, known), _value(right, known))
    raise ValueError


_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}

_SOUND = 16_000  # a second, at the usual rate
_PARTS = (4, 8)  # past, sequence
_TOTAL = re.compile(r"(^|_)(total|kv|all)_?(seq|len)", re.IGNORECASE)
_PAST = re.compile(r"past|cache|previous|prefix", re.IGNORECASE)
_BATCH = re.compile(r"batch|^(n|b|bs)$", re.IGNORECASE)
_ENCODER = re.compile(r"encoder", re.IGNORECASE)
_SEQUENCE = re.compile(r"seq|token|length|(^|_)(len|time|frames?|steps?)|^[tsl]$", re.IGNORECASE)
_TOKENS = re.compile(r"ids$|mask|token|segment", re.IGNORECASE)
_STEPS = "\0steps"  # no dimension has this name
_CHANNELS = re.compile(r"^num_channels$", re.IGNORECASE)
_IMAGE = re.compile(r"height|width|^[hw]$", re.IGNORECASE)

# The first pattern that a name contains decides.
_DEFAULTS = ((_PAST, _PARTS[0]), (_SEQUENCE, _PARTS[1]), (_IMAGE, 64), (_CHANNELS, 3))
