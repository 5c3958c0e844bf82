"""Remove outputs of a file, with the operators and constants that nothing else needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import compress
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite import archive
from exporter.formats.tflite.metadata import NAME
from exporter.formats.tflite.metadata_tree import NewerSchemaError, read_tree, write_tree
from exporter.formats.tflite.schema import File, integers, metadata, set_metadata, signatures


def remove_outputs(file: File, indices: Collection[int]) -> None:
    """Remove outputs from subgraph 0, its signatures and the metadata. All inputs stay.

    Args:
        file: is changed.
        indices: of the tensors.

    Raises:
        ModelError: the metadata is damaged, or has a newer schema.
    """
    main, before = file.main, _needed(file.main.operators, integers(file.main.outputs))
    positions = [i for i, each in enumerate(integers(main.outputs)) if each in indices]
    main.outputs = _without(main.outputs, indices)
    for each in signatures(file.model):
        each.outputs = [end for end in each.outputs or () if end.tensorIndex not in indices]
    named = {
        end.tensorIndex
        for each in signatures(file.model)
        for end in (*(each.inputs or ()), *each.outputs)
    }
    needed = _needed(main.operators, {*integers(main.outputs), *named})
    made = [set(integers(operator.outputs)) for operator in main.operators]
    kept = [before.isdisjoint(each) or not needed.isdisjoint(each) for each in made]
    stays = set().union({-1}, needed, integers(main.inputs), *compress(made, kept))
    main.operators = list(compress(main.operators, kept))
    removed = set().union(before, *made) - stays
    _remove_tensors(file, removed)
    files = _remove_from_metadata(file.model, positions)
    if files and file.tail:
        file.tail = archive.rewritten(file.tail, file.tail_start, {}, files)


def _needed(operators: Iterable[Any], outputs: Iterable[int]) -> set[int]:
    """The outputs, and all tensors that they are computed from; -1 for inputs left out."""
    needed = set(outputs)
    for operator in reversed(list(operators)):
        if not needed.isdisjoint(integers(operator.outputs)):
            needed.update(integers(operator.inputs))
    return needed


def _without(indices: Any, removed: Collection[int]) -> Any:
    return np.array([each for each in integers(indices) if each not in removed], np.int32)


def _remove_tensors(file: File, removed: Collection[int]) -> None:
    """Remove tensors that nothing names, and the content of buffers that nothing reads."""
    main, model = file.main, file.model
    tensors = list(main.tensors)
    kept = [index for index in range(len(tensors)) if index not in removed]
    new = {-1: -1} | {index: place for place, index in enumerate(kept)}
    main.tensors = [tensors[index] for index in kept]
    for operator in main.operators:
        for field in ("inputs", "outputs", "intermediates"):
            _renumber(operator, field, new)
    for field in ("inputs", "outputs"):
        _renumber(main, field, new)
    for signature in signatures(model):
        for end in (*(signature.inputs or ()), *(signature.outputs or ())):
            end.tensorIndex = new[end.tensorIndex]
    read = {tensor.buffer for each in model.subgraphs for tensor in each.tensors or ()}
    read.update(entry.buffer for entry in model.metadata or ())
    read.update(integers(model.metadataBuffer))
    for unread in {tensors[index].buffer for index in removed} - read:
        model.buffers[unread].data = None


def _renumber(record: Any, field: str, new: Mapping[int, int]) -> None:
    if getattr(record, field) is not None:
        indices = [new[index] for index in integers(getattr(record, field))]
        setattr(record, field, np.array(indices, np.int32))


def _remove_from_metadata(model: Any, positions: Collection[int]) -> set[str]:
    """The names of files in the archive, such as labels, that only these outputs named."""
    data = metadata(model, NAME)
    if data is None:
        return set()
    try:
        tree = read_tree(data.tobytes())
    except NewerSchemaError as error:
        raise ModelError(
            f"{NAME} has a newer schema, and cannot be written without the removed outputs",
            "remove the metadata first",
        ) from error
    before = set(_files_of(tree))
    for subgraph in tree.get("subgraph_metadata", [])[:1]:
        tensors = list(enumerate(subgraph.get("output_tensor_metadata", [])))
        names = {tensor.get("name") for place, tensor in tensors if place in positions}
        subgraph["output_tensor_metadata"] = [t for place, t in tensors if place not in positions]
        for group in subgraph.get("output_tensor_groups", []):
            group["tensor_names"] = [n for n in group.get("tensor_names", []) if n not in names]
    set_metadata(model, NAME, write_tree(tree))
    return before.difference(_files_of(tree))


def _files_of(tree: Any) -> Iterator[str]:
    """The names of all files that metadata names."""
    if isinstance(tree, list):
        for each in tree:
            yield from _files_of(each)
    elif isinstance(tree, dict):
        for file in tree.get("associated_files", ()):
            yield str(file.get("name", ""))
        for each in tree.values():
            yield from _files_of(each)
