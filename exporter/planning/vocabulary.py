"""Cut a vocabulary on both sides: the head, and the table of token embeddings at the input.

1. Without `keep_ids`, an id means the same token at the input and at the output: its new index. The
   model's own constants with token ids become new ids.
2. With `keep_ids`, a table converts original ids to new ones before the embeddings are looked up,
   and the output has its original width. A removed id counts as the unknown token. If the
   vocabulary has none, the table contains an index after the last embedding: runtimes refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Graph
from exporter.graph.edits import Edit, Insert, Replace
from exporter.modes import MODES
from exporter.planning.options import CutOptions
from exporter.remap import HeadRemap
from exporter.selection import Selection
from exporter.trace.head import Head
from exporter.trace.rules.protocol import Refused
from exporter.trace.vocabulary import KEEP_IDS, Vocabulary, find_vocabulary

_UNKNOWN = re.compile(r"\[UNK\]|<unk>|<\|unk\|>|<unknown>", re.IGNORECASE)


def vocabulary_of(graph: Graph, head: Head, options: CutOptions) -> Vocabulary | None:
    """Both sides of the vocabulary, if they are to be cut.

    Raises:
        ModelError: the model has no such table, or computes with token ids; or only the head is to
            be cut, and a table is computed from the same constants.
    """
    if options.cuts_input:
        try:
            return find_vocabulary(graph, head, at_lookups=options.keep_ids)
        except Refused as error:
            helps = error.hint and (error.hint != KEEP_IDS or _keeps_ids(graph, head, options))
            raise ModelError(
                f"the vocabulary of head {head.name!r} cannot be cut on both sides: {error}",
                error.hint if helps else "cut the head alone (--vocabulary output)",
            ) from error
    if head.readers.lookups:
        raise ModelError(
            f"{head.readers.lookups[0]} looks up token ids in the kernel of head {head.name!r}",
            "--vocabulary both cuts the input with it",
        )
    return None


def _keeps_ids(graph: Graph, head: Head, options: CutOptions) -> bool:
    """Could both sides be cut with `keep_ids`, which was not asked for?"""
    try:
        find_vocabulary(graph, head, at_lookups=True)
    except Refused:
        return False
    return not options.keep_ids


def table_entry(
    vocabulary: Vocabulary, selection: Selection, options: CutOptions
) -> dict[str, object]:
    """The entry of a head's table that describes the input side.

    Raises:
        UsageError: the token for removed ids is not kept, or id 0 would change although it is
            masked.
    """
    if vocabulary.masks_zero and selection.kept[0] != 0:
        raise UsageError("id 0 is masked, and has to stay the first one", "leave out --keep-order")
    unknown = options.unknown_id
    if unknown is None:
        labels = enumerate(selection.labels or ())
        named = (unit for unit, label in labels if _UNKNOWN.fullmatch(label.strip()))
        unknown = next((unit for unit in named if unit in selection.kept), None)
    elif unknown not in selection.kept:
        raise UsageError(f"the unknown token {unknown} is not kept", "keep it, or name another one")
    return {"inputs": vocabulary.inputs, "keep_ids": options.keep_ids, "unknown": unknown}


def vocabulary_edits(graph: Graph, vocabulary: Vocabulary, table: HeadRemap) -> Iterator[Edit]:
    """The edits of the ids that the model reads."""
    units = vocabulary.head.units
    new_ids = new_ids_of(table.kept, units, table.options["vocabulary"]["unknown"])
    for each in vocabulary.constants:
        inside = (each.values >= 0) & (each.values < units)
        values = np.where(
            inside, new_ids[np.where(inside, each.values, 0).astype(int)], each.values
        )
        if not np.array_equal(values, each.values):
            yield Replace(each.name, values, (each.use,))
    if table.options["vocabulary"]["keep_ids"]:
        for name in vocabulary.sources:
            dtype = graph.tensors[name].dtype
            yield Insert("look_up", name, (new_ids.astype(dtype),), {"dtype": dtype})


def new_ids_of(kept: Sequence[int], units: int, unknown: int | None) -> Array:
    """The new id of each original one, int64; for removed ones that of the unknown token, or an
    index after the last embedding.
    """
    found = np.full(units, len(kept), np.int64)
    found[np.asarray(kept)] = np.arange(len(kept))
    if unknown is not None:
        found[found == len(kept)] = found[unknown]
    return found


def growth_warning(
    graph: Graph, head: Head, selection: Selection, options: CutOptions
) -> str | None:
    """A warning if a file grows, because an embedding table still needs the whole kernel.

    A kernel that is shared is kept for the lookup, and the head gets a copy of some rows.
    """
    if selection.keeps_all or not MODES[options.mode].narrows or options.cuts_input:
        return None
    kept = selection.kept
    size = 0
    for constant in head.constants:
        uses = {(node.name, slot) for node, slot in graph.consumers.get(constant.name, ())}
        if uses - {tuple(use) for use in constant.uses}:
            tensor = graph.tensors[constant.name]
            share = len(constant.unit_axis.positions(kept)) / len(constant.unit_axis.units)
            size += round((tensor.size_bytes or 0) * share)
    if not size:
        return None
    return (
        f"{size} bytes are added to the file: the table of token embeddings at the input shares "
        "the kernel of the head and keeps all rows, so that the head gets a copy. --vocabulary "
        "both cuts both; --restore-width keeps the ids of the output equal to those of the input"
    )
