"""The nodes that read the units of a head and return unit indices, or boxes. Data only.

1. A ranking: an argmax or a top-k over the units, whose indices are indices of units; or a maximum.
2. A detection: the post-process of a detector, which ranks boxes by the units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from exporter.graph import Node, Shape
from exporter.trace.unit_axis import UnitConstant, Width


class Column(NamedTuple):
    """The positions of unit indices in a tensor: `position`, then every `width`-th value."""

    position: int
    width: int
    offset: int = 0  # the value minus the index, for example where a background class is counted

    @property
    def is_whole(self) -> bool:
        """Is every value an index?"""
        return self.width == 1


WHOLE = Column(0, 1)


class Kind(Enum):
    """Which values a tensor contains that follow from unit indices."""

    INDICES = auto()
    FLAT = auto()  # positions in rows of units that are joined; index = position % units
    BLOCKS = auto()  # positions in joined maps of each unit; index = position // size of a map
    ENTRIES = auto()  # of a table in which indices were looked up
    OTHER = auto()


@dataclass(frozen=True)
class Content:
    """The unit indices that a tensor contains.

    Attributes:
        exact: the indices are those that the node returns, in the same order; otherwise they were
            selected at run time, or share the tensor with other values.
        column: where they are; its width is 0 where that is not known.
    """

    kind: Kind
    exact: bool = True
    column: Column = WHOLE


@dataclass(frozen=True, eq=False)
class Reader:
    """A node that returns indices of the units that it reads, or their maximum.

    Attributes:
        node: its operation is a TopK, a maximum or a NonMaxSuppression.
        source: the tensor with the units that it reads.
        contents: output of the model -> its indices, or the table entries that replace them.
        tables: constants in which the indices are looked up; they are cut with the units.
    """

    node: Node
    source: str
    contents: Mapping[str, Content]
    tables: tuple[UnitConstant, ...]

    @property
    def columns(self) -> dict[str, Column]:
        """Output of the model -> where its indices (table entries, if there is one) are."""
        kind = Kind.ENTRIES if self.tables else Kind.INDICES
        found = ((n, c.column) for n, c in self.contents.items() if c.kind is kind)
        return {name: column for name, column in found if column.width}

    def _outputs(self, kind: Kind, *, exact: bool) -> tuple[str, ...]:
        found = self.contents.items()
        return tuple(name for name, c in found if (c.kind, c.exact) == (kind, exact))


@dataclass(frozen=True, eq=False)
class Ranking(Reader):
    """An argmax, a top-k or a maximum over the units.

    Attributes:
        stated: where the file states how many units it returns; None where it returns one.
        copies: the node, then those that move its indices or look them up, in running order.
        rank_axes: tensor -> the axis on which it has one position for each rank.
        shapes: of the tensors in `rank_axes`, and of those with indices.
        fixed: a consumer for which the number of ranks may not change.
        divisions: nodes that divide positions in rows of units by the number of units, of which the
            remainder is an index; or by the size of the map of a unit, of which the quotient is.
        counts: where the file states that number; none if it is measured at run time.
        positions: tensors with positions in joined rows or maps of units.
    """

    stated: Width | None
    copies: tuple[Node, ...]
    rank_axes: Mapping[str, int]
    shapes: Mapping[str, Shape]
    fixed: Node | None = None
    divisions: tuple[Node, ...] = ()
    counts: tuple[Width, ...] = ()
    positions: frozenset[str] = frozenset()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the model that return its indices as they are."""
        return self._outputs(Kind.INDICES, exact=True)

    @property
    def inexact_outputs(self) -> tuple[str, ...]:
        """The outputs that contain some of its indices, or other values too."""
        return self._outputs(Kind.INDICES, exact=False)

    @property
    def looked_up(self) -> tuple[str, ...]:
        """The outputs that return table entries for its indices."""
        return self._outputs(Kind.ENTRIES, exact=True)


@dataclass(frozen=True, eq=False)
class Detection(Reader):
    """The post-process of a detector, which ranks boxes by their class values.

    Attributes:
        rows: the outputs of the model with boxes, class indices, scores and their count; None where
            not all of them are returned.
        dependents: all outputs of the model that are computed from it.
    """

    rows: tuple[str, str, str, str] | None
    dependents: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The outputs of the model with class indices, or with table entries for them."""
        return tuple(self.contents)


@dataclass(frozen=True, eq=False)
class Readers:
    """All readers of a head.

    Attributes:
        from_maximum: outputs of a post-process that reads only the largest value of each box;
            which rows they contain after a cut depends on the input.
        lookups: nodes that look up token ids in a table whose rows are the units.
        looked_up: the computed tensors that such a table consists of.
    """

    rankings: tuple[Ranking, ...] = ()
    detections: tuple[Detection, ...] = ()
    from_maximum: tuple[str, ...] = ()
    lookups: tuple[Node, ...] = ()
    looked_up: frozenset[str] = frozenset()

    @property
    def id_outputs(self) -> tuple[str, ...]:
        """The outputs of the model that contain unit indices."""
        ranked = (n for each in self.rankings for n in (*each.outputs, *each.inexact_outputs))
        detected = (n for each in self.detections if not each.tables for n in each.ids)
        return (*ranked, *detected)

    @property
    def detector_outputs(self) -> tuple[str, ...]:
        """The outputs of the model that are computed from a post-process."""
        found = (name for each in self.detections for name in each.dependents)
        return tuple(dict.fromkeys((*found, *self.from_maximum)))

    @property
    def columns(self) -> dict[str, Column]:
        """Output of the model -> where its unit indices are, if that is known."""
        readers = (*self.detections, *self.rankings)
        return {name: column for each in readers for name, column in each.columns.items()}

    @property
    def tables(self) -> tuple[UnitConstant, ...]:
        """The constants in which unit indices are looked up."""
        ranked = (table for each in self.rankings for table in each.tables)
        return (*ranked, *(table for each in self.detections for table in each.tables))
