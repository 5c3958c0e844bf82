"""Compare two models whose inputs and outputs have other names, or images in another layout.

The second model is wrapped: it shows and takes the names of the first. How ends are matched:

1. as the user says (`--map-input a=b`);
2. by equal names;
3. the others by position, if their shapes fit. A note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from exporter.errors import UsageError
from exporter.formats.model import Model, Runner, RunOptions, run_each
from exporter.graph import Array, Graph, Shape
from exporter.graph.edits import AddOutput, Plan

_IMAGE_RANKS = (3, 4, 5)


@dataclass(frozen=True)
class Ends:
    """The inputs or outputs of two models, and how they belong together.

    Attributes:
        names: name in the first model -> name in the second.
        notes: one sentence for each pair that was matched by position.
    """

    names: Mapping[str, str]
    notes: tuple[str, ...] = ()


def match_inputs(first: Model, second: Model, given: Mapping[str, str]) -> Ends:
    """The input of the second model for each of the first.

    Raises:
        UsageError: an unknown name; or an input has no counterpart.
    """
    ends = _match(first, second, given, "input")
    left, right = first.graph(), second.graph()
    for name in left.inputs:
        if name not in ends.names:
            shown = ", ".join(f"{n!r} {_text(right.shape(n))}" for n in right.inputs)
            raise UsageError(
                f"input {name!r} {_text(left.shape(name))} of {first.name} has no counterpart in "
                f"{second.name}",
                f"use --map-input {name}=NAME; its inputs: {shown}",
            )
    return ends


def match_outputs(first: Model, second: Model, given: Mapping[str, str]) -> Ends:
    """The output of the second model for each of the first that has one.

    Raises:
        UsageError: an unknown name.
    """
    return _match(first, second, given, "output")


def need_no_change(first: Model, second: Model, inputs: Ends, outputs: Ends) -> bool:
    """Whether all ends have the same names and layouts in both models."""
    graphs = first.graph(), second.graph()
    renamed = any(
        ours != theirs for ends in (inputs, outputs) for ours, theirs in ends.names.items()
    )
    moved = any(
        _layout(graphs[0].shape(ours), graphs[1].shape(theirs)) not in {(0, 0), None}
        for ours, theirs in inputs.names.items()
    )
    return not (renamed or moved)


def _match(first: Model, second: Model, given: Mapping[str, str], kind: str) -> Ends:
    graphs = first.graph(), second.graph()
    lefts, rights = (list(graph.inputs if kind == "input" else graph.outputs) for graph in graphs)
    for model, known, names in ((first, lefts, given), (second, rights, given.values())):
        if unknown := [name for name in names if name not in known]:
            shown = ", ".join(map(repr, known))
            raise UsageError(f"{model.name} has no {kind} {unknown[0]!r}", f"it has {shown}")
    pairs = dict(given)
    free = [name for name in rights if name not in pairs.values()]
    pairs |= {name: name for name in lefts if name in free and name not in pairs}
    rest = [name for name in lefts if name not in pairs]
    free = [name for name in free if name not in pairs.values()]
    notes = []
    for left, right in zip(rest, free, strict=True) if len(rest) == len(free) else ():
        shapes = graphs[0].shape(left), graphs[1].shape(right)
        fits = len(shapes[0]) == len(shapes[1]) and (kind == "output" or _layout(*shapes))
        if fits:
            pairs[left] = right
            notes.append(
                f"{kind} {left!r} of {first.name} is {right!r} of {second.name}, by position"
            )
    return Ends(pairs, tuple(notes))


def _text(shape: Shape) -> str:
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def _fits(first: Shape, second: Shape) -> bool:
    if len(first) != len(second):
        return False
    return all(m is None or n is None or m == n for m, n in zip(first, second, strict=True))


def _layout(first: Shape, second: Shape) -> tuple[int, int] | None:
    """The axis to move, and where to, so that a value of one shape fits the other; else None."""
    if _fits(first, second):
        return (0, 0)
    if len(first) not in _IMAGE_RANKS or len(first) != len(second):
        return None
    last = len(first) - 1
    for move in ((1, last), (last, 1)):  # channels first -> last, or the reverse
        order = list(first)
        order.insert(move[1], order.pop(move[0]))
        if _fits(tuple(order), second):
            return move
    return None


class Renamed:
    """A model under the names of another one. Only outputs can be added to it.

    Attributes: as `Model`.
    """

    def __init__(self, model: Model, inputs: Ends, outputs: Ends, like: Graph) -> None:
        """Wrap a model.

        Args:
            inputs, outputs: of the other model and of this one.
            like: the graph of the other model.
        """
        self.kind, self.name, self.sha256 = model.kind, model.name, model.sha256
        self.precision, self.remap = model.precision, model.remap
        self._model, self._ends, self._like = model, (inputs, outputs), like
        graph = model.graph()
        ends = {**inputs.names, **outputs.names}
        new = {theirs: ours for ours, theirs in ends.items()}
        taken = set(new.values())
        self._new = {name: new.get(name, _free(name, taken, new)) for name in graph.tensors}
        self._old = {new_name: old for old, new_name in self._new.items()}
        self._moves = {
            ours: _layout(like.shape(ours), graph.shape(theirs)) or (0, 0)
            for ours, theirs in inputs.names.items()
        }

    def graph(self) -> Graph:
        """The graph of the model with the other names."""
        graph, new = self._model.graph(), self._new
        tensors = {
            new[name]: replace(tensor, name=new[name]) for name, tensor in graph.tensors.items()
        }
        nodes = tuple(
            replace(
                node,
                inputs=tuple(new.get(name, name) for name in node.inputs),
                outputs=tuple(new.get(name, name) for name in node.outputs),
            )
            for node in graph.nodes
        )
        return replace(
            graph,
            nodes=nodes,
            tensors=tensors,
            inputs=tuple(new[name] for name in graph.inputs),
            outputs=tuple(new[name] for name in graph.outputs),
            labels={new.get(name, name): labels for name, labels in graph.labels.items()},
            normalization={new.get(n, n): each for n, each in graph.normalization.items()},
        )

    def apply(self, plan: Plan) -> Self:
        """The model with further outputs."""
        edits = tuple(
            AddOutput(self._old[edit.tensor], self._old[edit.name])
            for edit in plan.edits
            if isinstance(edit, AddOutput)
        )
        model = self._model.apply(Plan(edits, plan.remap))
        return type(self)(model, *self._ends, self._like)

    def runner(self, options: RunOptions) -> Runner:
        """Load the model into its runtime."""
        return _RenamedRunner(self._model.runner(options), self._old, self._new, self._moves)

    def write(self, path: Path) -> None:
        """Write the model under its own names."""
        self._model.write(path)


def _free(name: str, taken: set[str], new: Mapping[str, str]) -> str:
    """The name of an inner tensor, changed if an end now has it."""
    return f"{name} (inner)" if name in taken and name not in new else name


class _RenamedRunner:
    def __init__(
        self,
        runner: Runner,
        old: Mapping[str, str],
        new: Mapping[str, str],
        moves: Mapping[str, Sequence[int]],
    ) -> None:
        self.engine = runner.engine
        self._runner, self._old, self._new, self._moves = runner, old, new, moves

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return next(self.run_each([inputs]))

    def run_each(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        for answers in run_each(self._runner, (dict(self._moved(each)) for each in inputs)):
            yield {self._new.get(name, name): values for name, values in answers.items()}

    def _moved(self, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        for name, values in inputs.items():
            move = self._moves.get(name, (0, 0))
            moved = np.ascontiguousarray(np.moveaxis(values, *move))
            yield self._old.get(name, name), moved
