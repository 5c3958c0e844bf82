"""How much a network costs with so many units of each group: multiply-adds, or parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from exporter.channels.groups import ChannelGroup
from exporter.errors import UsageError
from exporter.graph import Graph
from exporter.graph.multiply_adds import multiply_adds
from exporter.graph.operations import Linear

Widths = Mapping[str, int]  # name of a group -> units that stay


@dataclass(frozen=True, eq=False)
class _Part:
    """One product, or one constant: its cost is a product of shares of its axes.

    Attributes:
        axes: for each axis, the share of its positions that each group has.
    """

    cost: float
    axes: tuple[Mapping[str, float], ...]


class Costs:
    """The cost of a network by the widths of its groups.

    Args:
        by: "parameters" or "multiply-adds".

    Raises:
        UsageError: the multiply-adds of a product are not known.
    """

    def __init__(self, graph: Graph, groups: Iterable[ChannelGroup], by: str) -> None:
        self._units = {group.name: group.units for group in groups}
        axes: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        for group in groups:
            for constant in group.constants:
                units = constant.unit_axis.units
                share = float((units >= 0).mean())
                for use in constant.uses:
                    found = axes.setdefault((use.node, constant.name), {})
                    found.setdefault(constant.unit_axis.axis, {})[group.name] = share
        make = _parameters if by == "parameters" else _products
        self._parts = list(make(graph, axes))

    def of(self, widths: Widths) -> float:
        """The cost; groups without a width stay whole."""
        return sum(self._cost(part, widths) for part in self._parts)

    def saved(self, widths: Widths, group: str, width: int) -> float:
        """What is saved if one group becomes narrower."""
        after = {**widths, group: width}
        parts = [part for part in self._parts if any(group in axis for axis in part.axes)]
        return sum(self._cost(part, widths) - self._cost(part, after) for part in parts)

    def _cost(self, part: _Part, widths: Widths) -> float:
        shares = (
            1.0 - sum(s * (1.0 - self._share(group, widths)) for group, s in axis.items())
            for axis in part.axes
        )
        return part.cost * prod(shares)

    def _share(self, group: str, widths: Widths) -> float:
        return widths.get(group, self._units[group]) / self._units[group]


_Axes = Mapping[tuple[str, str], Mapping[int, Mapping[str, float]]]


def _products(graph: Graph, axes: _Axes) -> Iterable[_Part]:
    for node in graph.nodes:
        cost = multiply_adds(graph, [node])
        if cost is None:
            raise UsageError(
                f"the multiply-adds of {node.operator} {node.name!r} are not known",
                "give --by parameters; for inputs with open lengths, --input-shape",
            )
        operation = node.operation
        if not cost:
            continue
        kernel = node.inputs[operation.kernel] if isinstance(operation, Linear) else ""
        yield _Part(float(cost), tuple(axes.get((node.name, kernel), {}).values()))


def _parameters(graph: Graph, axes: _Axes) -> Iterable[_Part]:
    by_constant = {constant: found for (_, constant), found in axes.items()}
    for tensor in graph.tensors.values():
        if tensor.is_constant and tensor.dtype.startswith("float"):
            size = prod(n or 0 for n in tensor.shape or ())
            yield _Part(float(size), tuple(by_constant.get(tensor.name, {}).values()))
