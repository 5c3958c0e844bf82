"""Samples for token models from a text file: one sample a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.inputs import INTEGERS, InputFit, shape_text, table_lengths
from exporter.data.options import DataOptions
from exporter.data.samples import Samples
from exporter.data.stream import first_samples, read_blocks
from exporter.data.tokenizer import Encoded, Tokenizer, find_tokenizer
from exporter.errors import UsageError, no_such_file
from exporter.graph import Array, Graph
from exporter.selection.text_file import bounded_lines, refuse_special

_LINES = 1000  # tokenized at a time
# What an input takes, by a part of its name; the first that matches.
_ROLES = {
    "type": "types",
    "segment": "types",
    "mask": "attention",
    "id": "ids",
    "token": "ids",
    "word": "ids",
}


def read_text_file(path: Path, graph: Graph, limit: int | None, options: DataOptions) -> Samples:
    """The lines of a text file as token ids, attention masks and token type ids.

    Blank lines are left out. Texts are cut or padded to the length of the inputs.

    Raises:
        UsageError: the model takes no tokens, there is no tokenizer, or the file is no text.
    """
    roles, length = token_inputs(graph, path)
    tokenizer = find_tokenizer(path, options.model, options.tokenizer)
    if next(text_batches(path), None) is None:
        raise UsageError(f"{path} contains no text", "write one sample in each line")
    values: dict[str, Any] = {}
    for name, role in roles.items():
        values[name] = read_blocks(_blocks(path, graph, (name, role, length), tokenizer, limit))
    return Samples(
        values,
        f"{path.name}, tokens of {tokenizer.path.name}",
        warnings=_vocabulary_warning(graph, roles, tokenizer),
        files=(path, tokenizer.path),
    )


def token_inputs(graph: Graph, path: Path) -> tuple[dict[str, str], int]:
    """Input name -> "ids", "attention" or "types"; and their length.

    Raises:
        UsageError: an input has another name or shape, or the length is open.
    """
    roles: dict[str, str] = {}
    lengths = set()
    for name in graph.inputs:
        tensor = graph.tensors[name]
        takes_ids = tensor.dtype in INTEGERS or bool(table_lengths(graph, name))
        lowered = name.casefold()
        role = next((role for part, role in _ROLES.items() if part in lowered), None)
        if role is None and len(graph.inputs) == 1:
            role = "ids"
        shape = tensor.shape or ()
        if role is None or not takes_ids or not shape or {*shape[:-1]} - {1, None}:
            raise UsageError(
                f"input {name!r} of shape {shape_text(shape)} and dtype {tensor.dtype} does not "
                f"take the tokens of {path}",
                "text needs inputs such as input_ids, attention_mask and token_type_ids; for a log "
                "of predictions, use select --counts",
            )
        if shape[-1] is None:
            raise UsageError(
                f"the number of tokens of input {name!r} is open",
                f"give it for each input: --input-shape {name}=1,128",
            )
        roles[name] = role
        lengths.add(shape[-1])
    if sorted(roles.values()) != sorted(set(roles.values())) or "ids" not in roles.values():
        raise UsageError(
            f"the inputs {', '.join(map(repr, roles))} do not have one input of token ids each",
            "give the inputs as .npz",
        )
    if len(lengths) > 1:
        raise UsageError(
            f"the inputs take {' and '.join(map(str, sorted(lengths)))} tokens",
            "give the inputs as .npz",
        )
    return roles, lengths.pop()


def text_batches(path: Path) -> Iterator[list[str]]:
    """The lines of a file that are not blank, a thousand at a time (raises UsageError)."""
    refuse_special(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = (stripped for line in bounded_lines(file, path) if (stripped := line.strip()))
            while batch := list(islice(lines, _LINES)):
                yield batch
    except FileNotFoundError as error:
        raise no_such_file(path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}", "save it as UTF-8") from error


def _blocks(
    path: Path,
    graph: Graph,
    wanted: tuple[str, str, int],
    tokenizer: Tokenizer,
    limit: int | None,
) -> Callable[[], Iterator[Array]]:
    """Starts a pass over the values of an input. Args: wanted: its name, its role, the length."""
    name, role, length = wanted
    shape = tuple(1 if n is None else n for n in graph.shape(name))
    fit = InputFit(f"{path}: input {name!r}", graph, name, (1, *shape), np.dtype(np.int64))

    def values() -> Iterator[Array]:
        for batch in text_batches(path):
            encoded: list[Encoded] = tokenizer.encode(batch, length)
            yield np.array([getattr(each, role) for each in encoded], np.int64)

    def blocks() -> Iterator[Array]:
        first = 0
        for block in first_samples(values(), limit):
            yield fit(block.reshape(-1, *shape), first)
            first += len(block)

    return blocks


def _vocabulary_warning(
    graph: Graph, roles: dict[str, str], tokenizer: Tokenizer
) -> tuple[str, ...]:
    """A SentencePiece file does not say how a model numbers its pieces: some add others."""
    name = next(name for name, role in roles.items() if role == "ids")
    rows = min(table_lengths(graph, name), default=None)
    count = len(tokenizer.tokens)
    if tokenizer.path.suffix != ".model" or rows in {None, count}:
        return ()
    counts = f"{tokenizer.path.name} has {count} tokens, and the model {rows}"
    return (f"{counts}: its ids may be shifted; use tokenizer.json if there is one",)
