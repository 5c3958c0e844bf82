"""How much a network costs with so many units of each group: multiply-adds, parameters, or work.

Work is an estimate of the time: multiply-adds, and the values that products read and write, each
of which counts as several multiply-adds. A depthwise convolution has few multiply-adds, but takes
as long as its images are large.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from exporter.channels.groups import ChannelGroup
from exporter.errors import UsageError
from exporter.graph import Graph
from exporter.graph.multiply_adds import multiply_adds
from exporter.graph.operations import Linear

_VALUE = 8.0  # multiply-adds that take as long as reading or writing a value
Widths = Mapping[str, int]  # name of a group -> units that stay


@dataclass(frozen=True, eq=False)
class _Part:
    """One product, or one constant: its cost is a product of shares of its axes.

    Attributes:
        axes: for each axis, the share of its positions that each group has.
    """

    cost: float
    axes: tuple[Mapping[str, float], ...]

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(name for axis in self.axes for name in axis)


class Costs:
    """The cost of a network by the widths of its groups.

    Args:
        by: "parameters", "multiply-adds" or "work".

    Raises:
        UsageError: the multiply-adds of a product are not known.
    """

    def __init__(self, graph: Graph, groups: Sequence[ChannelGroup], by: str) -> None:
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
        if by == "work":
            self._parts += _traffic(graph, groups)
        self._of_group: dict[str, list[_Part]] = {group.name: [] for group in groups}
        for part in self._parts:
            for name in part.groups:
                self._of_group[name].append(part)

    def of(self, widths: Widths) -> float:
        """The cost; groups without a width stay whole."""
        return sum(self._cost(part, widths) for part in self._parts)

    def saved(self, widths: Widths, group: str, width: int) -> float:
        """What is saved if one group becomes narrower."""
        after, parts = {**widths, group: width}, self._of_group[group]
        return sum(self._cost(part, widths) - self._cost(part, after) for part in parts)

    def related(self, group: str) -> frozenset[str]:
        """The groups, itself among them, whose savings depend on the width of a group."""
        return frozenset({group}).union(*(part.groups for part in self._of_group[group]))

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


def _traffic(graph: Graph, groups: Iterable[ChannelGroup]) -> Iterable[_Part]:
    """The values that products read and write, for one sample."""
    axes: dict[str, dict[int, dict[str, float]]] = {}
    for group in groups:
        for tensor in group.tensors:
            shares = axes.setdefault(tensor.name, {}).setdefault(tensor.unit_axis.axis, {})
            shares[group.name] = float((tensor.unit_axis.units >= 0).mean())
    for node in graph.nodes:
        if isinstance(node.operation, Linear):
            for name in (*node.inputs, *node.outputs):
                if name and not graph.tensors[name].is_constant:
                    size = prod(n or 1 for n in graph.shape(name))
                    yield _Part(_VALUE * size, tuple(axes.get(name, {}).values()))


def _parameters(graph: Graph, axes: _Axes) -> Iterable[_Part]:
    by_constant = {constant: found for (_, constant), found in axes.items()}
    for tensor in graph.tensors.values():
        if tensor.is_constant and tensor.dtype.startswith("float"):
            size = prod(n or 0 for n in tensor.shape or ())
            yield _Part(float(size), tuple(by_constant.get(tensor.name, {}).values()))
