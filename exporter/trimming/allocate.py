"""How many units each group keeps: the path from the whole network to the narrowest one.

Each step makes one group narrower: the one with the smallest error for the work that it saves. The
error of a group is that of its products (`Elimination`), times the sensitivity of the network's
outputs to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from exporter.channels.groups import ChannelGroup
from exporter.trimming.costs import Costs
from exporter.trimming.eliminate import Elimination


@dataclass(frozen=True, eq=False)
class Step:
    """One network of the path.

    Attributes:
        widths: group -> units that stay.
        cost: as a share of the whole network's.
        error: expected relative squared error of the outputs.
    """

    widths: Mapping[str, int]
    cost: float
    error: float


@dataclass(frozen=True, eq=False)
class Scored:
    """A group, how its units are removed, and how much its errors count."""

    group: ChannelGroup
    elimination: Elimination
    sensitivity: float = 1.0
    multiple: int = 8
    _widths: tuple[int, ...] = field(default=(), repr=False)

    @property
    def widths(self) -> list[int]:
        """The numbers of units that it may keep, descending, without all of them.

        The channels of its first tensor are a multiple of `multiple`.
        """
        size = int(self.group.sizes.max())
        step = self.multiple // int(np.gcd(self.multiple, size))
        return list(range((self.group.units - 1) // step * step, 0, -step))

    def error(self, width: int) -> float:
        return self.sensitivity * self.elimination.error(width)


def path(scored: Sequence[Scored], costs: Costs, work: Costs) -> list[Step]:
    """The steps from the whole network to the one in which no group can become narrower.

    Args:
        costs: of the steps.
        work: what each step saves as much of as it can.
    """
    groups = {each.group.name: each for each in scored}
    widths = {name: each.group.units for name, each in groups.items()}
    whole = costs.of(widths)
    steps = [Step(dict(widths), 1.0, 0.0)]
    choices = {name: _cheapest(each, widths, work) for name, each in groups.items()}
    while True:
        name = min(choices, key=lambda each: choices[each][0], default="")
        if not name or choices[name][0] == np.inf:
            return steps
        widths[name] = choices[name][1]
        for other in work.related(name):
            choices[other] = _cheapest(groups[other], widths, work)
        error = sum(each.error(widths[name]) for name, each in groups.items())
        steps.append(Step(dict(widths), costs.of(widths) / whole, error))


def _cheapest(each: Scored, widths: Mapping[str, int], work: Costs) -> tuple[float, int]:
    """The narrower width of a group with the least error for the work it saves, and that ratio.

    The ratio is infinite if there is none.
    """
    name = each.group.name
    best, now = (np.inf, widths[name]), each.error(widths[name])
    for width in each.widths:
        if width < widths[name] and (saved := work.saved(widths, name, width)) > 0:
            best = min(best, ((each.error(width) - now) / saved, width), key=lambda one: one[0])
    return best
