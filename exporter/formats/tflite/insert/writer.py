"""How an operation is written, and the place where it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.errors import ModelError
from exporter.graph import Array


@dataclass(frozen=True, eq=False)
class Site:
    """Where an operation is written.

    Attributes:
        after: the tensor that is the operation's first input.
        attributes: of the operation.
        rank, dtype: of the first input.
    """

    after: str
    attributes: Mapping[str, Any]
    rank: int
    dtype: str

    def axis(self) -> int:
        """The attribute `axis`, counted from the first axis."""
        axis = int(self.attributes["axis"])
        if not -self.rank <= axis < self.rank:
            raise ModelError(f"there is no axis {axis} among {self.rank}")
        return axis % self.rank


@dataclass(frozen=True)
class Writable:
    """How one operation is written; `formats.writable_operations` says what it takes.

    Attributes:
        builtin: the schema's name of the operator.
        options: the schema's name of its options; "" if it has none.
        fill: sets the options.
        constants: makes the constant inputs that follow the operands, from the attributes. An
            array is written unchanged; a float is a real value, quantized as the first input is.
        moves: values only change position, so that quantized values may pass.
        converts: QUANTIZE or DEQUANTIZE; the attributes give dtype, scale and zero point of the
            quantized values.
        mixed_dtypes: operands may have another dtype than the first input.
        integer_input: the first input must be integers; others are cast to int32 first.
        order: of the operator's inputs, as positions among first input and operands.
        results: dtypes of all results, if there are several: `None` for the one that is read, ""
            for the dtype of the first input. Nothing reads the others.
        versions: of the operator by dtype, for the dtypes that its first version does not have.
        since: the first runtime that has this version (TensorFlow's list of operator versions).
    """

    builtin: str
    options: str = ""
    fill: Callable[[Any, Site], None] = lambda _options, _site: None
    constants: Callable[[Site], tuple[Array | float, ...]] = lambda _site: ()
    moves: bool = False
    converts: bool = False
    mixed_dtypes: bool = False
    integer_input: bool = False
    order: tuple[int, ...] | None = None
    results: tuple[str | None, ...] = (None,)
    versions: Mapping[str, int] = field(default_factory=lambda: {"int8": 2})
    since: str = "1.14.0"
