"""Which inputs and outputs of a quantized model are integer, by name."""

from __future__ import annotations

from exporter.errors import ModelError, UsageError, nearest
from exporter.graph import Graph
from exporter.quantization.precisions import Ends, QuantizationSpec


def integer_ends(graph: Graph, spec: QuantizationSpec) -> frozenset[str]:
    """The float inputs and outputs of a model that its quantized version has as integers.

    Names in `spec` are exceptions where the other field is True: `integer_io=True` with
    `float_io=("scores",)` makes all but the scores integer.

    Args:
        graph: of the float32 model.

    Raises:
        UsageError: a name that no input or output has, or of one that is not float32.
    """
    every = frozenset(n for n in (*graph.inputs, *graph.outputs) if _is_float(graph, n))
    for ends in (spec.integer_io, spec.float_io):
        for name in () if isinstance(ends, bool) else ends:
            _check(graph, name, every)
    return _named(spec.integer_io, every) - _named(spec.float_io, frozenset())


def stays_float(end: str, reason: str) -> ModelError:
    """The error for an input or output that a library did not quantize."""
    return ModelError(f"the {end} stays float: {reason}", "leave it out of --integer-io")


def _named(ends: Ends, every: frozenset[str]) -> frozenset[str]:
    """The names, or `every` for True."""
    if isinstance(ends, bool):
        return every if ends else frozenset()
    return frozenset(ends)


def _check(graph: Graph, name: str, every: frozenset[str]) -> None:
    known = dict.fromkeys((*graph.inputs, *graph.outputs))
    if name not in known:
        similar = nearest(name, known)
        hint = f"did you mean {similar!r}? " if similar else ""
        raise UsageError(
            f"there is no input or output {name!r}", f"{hint}there are {', '.join(known)}"
        )
    if name not in every:
        raise UsageError(
            f"{name!r} is {graph.tensors[name].dtype}, which quantization does not change",
            f"name float32 inputs and outputs: {', '.join(sorted(every)) or 'there are none'}",
        )


def _is_float(graph: Graph, name: str) -> bool:
    return graph.tensors[name].dtype == "float32"
