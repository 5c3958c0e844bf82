"""Both sides of a vocabulary: a head whose units are tokens, and the tables of token embeddings.

A language model reads token ids, looks them up in a table with one row for each token, and returns
one logit for each token. If both sides are cut, an id means the same token at the input and at the
output. Three questions are answered here:

1. Which lookups read token ids? Those in a table of constants with one row for each unit, whose
   indices are an input of the model. Inputs of positions and segments are no token ids, even if
   their tables happen to have as many rows.
2. Which constants contain token ids? Exporters compare ids with a padding token, or put a token
   before them.
3. Does anything else compute with token ids? Then the cut is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exporter.graph import Array, Graph, Node, Use
from exporter.graph.operations import (
    Concat,
    Expand,
    Gather,
    GatherComputed,
    GatherConstant,
    ShapeOf,
    Slice,
    Split,
    Stack,
)
from exporter.graph.walk import REARRANGE, ancestors, applies, dependents, only_moves
from exporter.trace.axis_walk import AxisWalk
from exporter.trace.build_head import build_head
from exporter.trace.head import Head
from exporter.trace.rules.protocol import Refused
from exporter.trace.unit_axis import UnitConstant

_NO_TOKENS = re.compile(r"position|(^|[^a-z])pos([^a-z]|$)|segment|type|mask|length", re.IGNORECASE)
_PICKS = Expand | Slice | Split | Stack | GatherConstant | GatherComputed | Gather
_JOINS = (Concat, Stack)
_CHOICES = (1, 2)  # slots of the values of a "where"; slot 0 is the condition


@dataclass(frozen=True, eq=False)
class IdConstant:
    """A constant with token ids.

    Attributes:
        values: as in the file; negative ones are no tokens.
        use: the input that reads it next to token ids.
    """

    name: str
    values: Array
    use: Use

    def tokens(self, units: int) -> Array:
        """The token ids among its values: those from 0 to the number of units."""
        whole = self.values[(self.values >= 0) & (self.values < units)]
        return np.unique(whole.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Both sides of a vocabulary.

    Attributes:
        head: with the tables of embeddings among its constants.
        inputs: the inputs of the model with token ids.
        sources: the tensors after which the ids are new ones: the inputs, or the indices of the
            lookups.
        constants: with token ids that are read next to those.
        inserted: tokens that the model puts next to ids before they become new ones.
        masks_zero: id 0 is masked, and has to stay 0.
    """

    head: Head
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    constants: tuple[IdConstant, ...]
    inserted: frozenset[int] = frozenset()
    masks_zero: bool = False

    @property
    def used(self) -> frozenset[int]:
        """The tokens that the model itself needs: it compares ids with them, or inserts them."""
        found = {i for each in self.constants for i in each.tokens(self.head.units).tolist()}
        return frozenset(found | self.inserted | ({0} if self.masks_zero else set()))


def find_vocabulary(graph: Graph, head: Head, *, at_lookups: bool) -> Vocabulary:
    """The tables and the inputs of the tokens that are the units of a head.

    Args:
        graph: contains the head.
        head: of the logits.
        at_lookups: the ids become new ones directly before the lookups, not at the inputs.

    Raises:
        Refused: no table has the tokens of the head as its rows, or something computes with ids.
    """
    found = _lookups(graph, head)
    lookups = [node for node, _ in found]
    inputs = tuple(dict.fromkeys(name for _, names in found for name in names))
    walk = AxisWalk(graph)
    walk.run(head.output, head.tensor(head.output).unit_axis, lookups)
    both = build_head(walk, head.output, head.axis, head.units)
    known = {node.name for node in lookups}
    other = next((node for node in both.readers.lookups if node.name not in known), None)
    if other is not None:
        raise Refused(other, "it looks up values that are no token ids of an input")
    joined = _joined(both.constants)
    both = replace(
        both,
        name=head.name,
        labels=head.labels,
        axis_parts=head.axis_parts,
        constants=joined,
    )
    sources = inputs
    if at_lookups:
        indices = dict.fromkeys(node.inputs[1] for node in lookups)
        sources = tuple(n for n in indices if not _follows(graph, n, indices))
    masks_zero = any(getattr(node.operation, "masks_zero", False) for node in lookups)
    constants = tuple(_id_constants(graph, sources, known))
    inserted = _inserted(graph, inputs, head.units) if at_lookups else frozenset[int]()
    return Vocabulary(both, inputs, sources, constants, inserted, masks_zero)


def _joined(constants: Iterable[UnitConstant]) -> tuple[UnitConstant, ...]:
    """One entry for a constant that both sides share, so that it is cut once and still shared."""
    found: list[UnitConstant] = []
    for each in constants:
        for i, known in enumerate(found):
            if known.name == each.name and known.unit_axis.same(each.unit_axis):
                found[i] = replace(known, uses=(*known.uses, *each.uses))
                break
        else:
            found.append(each)
    return tuple(found)


def _follows(graph: Graph, tensor: str, others: Iterable[str]) -> bool:
    """Is a tensor computed from another one of them?"""
    return not (ancestors(graph, [tensor]) - {tensor}).isdisjoint(others)


def _lookups(graph: Graph, head: Head) -> list[tuple[Node, tuple[str, ...]]]:
    """The lookups of token ids, and the inputs that each reads."""
    found = []
    rows = set[str]()
    for node in graph.nodes:
        operation = node.operation
        if not isinstance(operation, Gather) or len(node.inputs) < 2:  # noqa: PLR2004 - table, ids
            continue
        length = dict(enumerate(graph.shape(node.inputs[0]))).get(operation.axis)
        table = ancestors(graph, [node.inputs[0]])
        inputs = _inputs_with_ids(graph, node.inputs[1]) if table.isdisjoint(graph.inputs) else ()
        if inputs and not any(map(_NO_TOKENS.search, inputs)):
            rows.add(str(length))
            if length == head.units:
                found.append((node, inputs))
    if not found:
        shown = f"; tables that inputs index have {', '.join(sorted(rows))} rows" if rows else ""
        raise Refused(
            None,
            f"no table with {head.units} rows is indexed by an input of the model{shown}",
            "cut the head alone (--vocabulary output)",
        )
    return found


def _inputs_with_ids(graph: Graph, tensor: str) -> tuple[str, ...]:
    """The inputs that ids come from, through nodes that only move them; () if others do more."""
    inputs: list[str] = []
    waiting, met = [tensor], set[str]()
    while waiting:
        name = waiting.pop()
        if name in met or graph.tensors[name].is_constant:
            continue
        met.add(name)
        if name in graph.inputs:
            inputs.append(name)
            continue
        node, _ = graph.producers.get(name, (None, 0))
        if node is None or not any(_passes(node, slot) for slot in range(len(node.inputs))):
            return ()
        waiting += [name for slot, name in enumerate(node.inputs) if name and _passes(node, slot)]
    return tuple(inputs)


def _passes(node: Node, slot: int) -> bool:
    """Are ids at this input of a node also its results?"""
    if isinstance(node.operation, _JOINS):
        return True
    if applies(node, "where"):
        return slot in _CHOICES
    return slot == 0 and only_moves(node, "cast", kinds=REARRANGE | _PICKS)


def _id_constants(graph: Graph, sources: Sequence[str], lookups: set[str]) -> Iterator[IdConstant]:
    """The constants next to ids; refused where something else reads ids."""
    ids = dependents(graph, sources, _passes)
    uses = {
        use[0].name + f"/{use[1]}": use for name in ids for use in graph.consumers.get(name, ())
    }
    for node, slot in uses.values():
        if (node.name in lookups and slot == 1) or isinstance(node.operation, ShapeOf):
            continue
        compares, passes = applies(node, "equal", "not_equal"), _passes(node, slot)
        if not compares and not passes:
            raise Refused(node, _use_of_ids(graph, node, slot), KEEP_IDS)
        if not (compares or isinstance(node.operation, _JOINS) or applies(node, "where")):
            continue
        for other, name in enumerate(node.inputs):
            if name in ids or not (compares or _passes(node, other)):
                continue
            read = graph.tensors[name].read
            if read is None:
                raise Refused(node, f"it combines token ids with {name!r}", KEEP_IDS)
            yield IdConstant(name, np.asarray(read()), Use(node.name, other))


def _inserted(graph: Graph, inputs: Sequence[str], units: int) -> frozenset[int]:
    """The tokens that a model joins with ids of its inputs, or puts in place of some of them."""
    ids = dependents(graph, inputs, _passes)
    found = set[int]()
    for node in graph.nodes:
        is_join = isinstance(node.operation, _JOINS) or applies(node, "where")
        others = [n for slot, n in enumerate(node.inputs) if n and _passes(node, slot)]
        if not is_join or ids.isdisjoint(others):
            continue
        for slot, name in enumerate(node.inputs):
            if name in others and name not in ids:
                read = graph.tensors[name].read
                if read is not None:  # lookups that read computed values are of no token ids
                    constant = IdConstant(name, np.asarray(read()), Use(node.name, slot))
                    found.update(constant.tokens(units).tolist())
    return frozenset(found)


def _use_of_ids(graph: Graph, node: Node, slot: int) -> str:
    if isinstance(node.operation, Gather) and slot == 1:
        rows = dict(enumerate(graph.shape(node.inputs[0]))).get(node.operation.axis)
        return f"it looks up token ids in a table with {rows} rows, which is not cut"
    return "it computes with token ids"


KEEP_IDS = "--keep-ids leaves the ids at the input as they are"
