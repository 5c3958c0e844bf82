"""What is said of an operation that can be written, and where one is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.errors import ModelError
from exporter.graph import Array


@dataclass(frozen=True, eq=False)
class Site:
    """Where an operation is written: behind which tensor, its attributes, and the rank and dtype of
    its first input.
    """

    behind: str
    attributes: Mapping[str, Any]
    rank: int
    dtype: str

    def axis(self) -> int:
        """The attribute `axis`, counted from the front."""
        axis = int(self.attributes["axis"])
        if not -self.rank <= axis < self.rank:
            raise ModelError(f"there is no axis {axis} among {self.rank}")
        return axis % self.rank


@dataclass(frozen=True)
class Written:
    """How an operation is written.

    Attributes:
        builtin: the schema's name of the operator.
        options: the schema's name of its options; "" where it has none.
        operands: how many there are behind the first input; None for any number.
        fill: sets the options.
        attributes: neutral name -> default; None where it must be given.
        moves: values only change places, so that codes of quantized tensors may pass.
        foreign: operands may be of another dtype than the first input.
        dtype: of the result; "" for that of the first input.
        order: of the operator's inputs, as positions among first input and operands.
        whole: the first input must be of whole numbers, and is cast to such in front.
        coded: codes come in or go out, of the dtype and meaning that the attributes tell.
        versions: of the operator, where its codes are not of its first version's dtypes.
        stated: constants that the operator needs behind these, made from the attributes: values
            as they are, and real ones that take on the first input's codes.
        more: dtypes of further results, which nothing reads; "" for that of the first input.
        place: of the result among all of them.
        since: the first runtime that has it, in the version that is written (TensorFlow's list of
            operator versions).
    """

    builtin: str
    options: str = ""
    operands: int | None = 0
    fill: Callable[[Any, Site], None] = lambda _options, _site: None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    moves: bool = False
    foreign: bool = False
    dtype: str = ""
    order: tuple[int, ...] | None = None
    whole: bool = False
    coded: bool = False
    versions: Mapping[str, int] = field(default_factory=lambda: {"int8": 2})
    stated: Callable[[Site], tuple[Array | float, ...]] = lambda _site: ()
    more: tuple[str, ...] = ()
    place: int = 0
    since: str = "1.14.0"
