"""The heads of a graph, and the choice of one of them. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.errors import ModelError, UsageError
from exporter.trace.class_boxes import without_boxes
from exporter.trace.class_maps import ClassMaps
from exporter.trace.gathered_heads import is_likely
from exporter.trace.head import Head
from exporter.trace.refusals import Refusal, may_be_boxes


@dataclass(frozen=True)
class Trace:
    """All heads of a graph, in the order of its outputs, and the outputs without one.

    Attributes:
        masks: names of heads that must be chosen by name; see `mask_maps`.
        maps: groups of heads that are cut together; see `find_class_maps`.
        boxes: name of a head -> the boxes of its classes, which are cut with them.
        gathered: heads of the other outputs, whose units a Gather may take; () unless asked for.
    """

    heads: tuple[Head, ...]
    refusals: tuple[Refusal, ...]
    masks: tuple[str, ...] = ()
    maps: tuple[ClassMaps, ...] = ()
    boxes: Mapping[str, tuple[Head, ...]] = field(default_factory=dict)
    gathered: tuple[Head, ...] = ()

    def head(self, name: str | None = None) -> Head:
        """The head of that name; without a name the only one.

        Outputs that show the same units (logits and probabilities) count as one head, and so do the
        class maps of a detector.

        Raises:
            ModelError: no output has a head; the message names the refusing operation.
            UsageError: there are several heads and no name, or no head has that name; or the only
                head may be boxes.
        """
        if not self.heads and not self.gathered:
            raise self._no_head()
        for head in (*self.heads, *self.gathered):
            if head.name == name:
                return head
        known = ", ".join(repr(head.name) for head in (*self.heads, *self.gathered))
        if name is None and not self.heads:
            return self._only_gathered()
        if name is not None:
            refused = next((each for each in self.refusals if each.output == name), None)
            if refused is None:
                raise UsageError(f"no head is named {name!r}", f"heads: {known}")
            raise UsageError(str(refused), refused.hint or f"heads: {known}")
        if self.choices:
            raise UsageError(
                f"the model has several heads: {known}",
                "choose one with --head NAME, or several with --cut NAME=SPEC for each",
            )
        first = self._default()[0]
        if self.refusals and may_be_boxes(first):
            raise UsageError(
                f"the only head is {first.name!r}, whose 4 values in each row may be a box; "
                f"refused is {self.refusals[0]}",
                f"--head {first.name} cuts it anyway",
            )
        return first

    @property
    def choices(self) -> tuple[str, ...]:
        """The names of the heads of which the user has to choose; () if they count as one."""
        heads = self._default()
        is_one = all(head.output in heads[0].other_outputs for head in heads[1:])
        return () if is_one else tuple(head.name for head in heads)

    def _default(self) -> tuple[Head, ...]:
        """The heads that may be cut if the user names none: of class maps the first."""
        boxes = [each for of_head in self.boxes.values() for each in of_head]
        heads = without_boxes([h for h in self.heads if h.name not in self.masks], boxes)
        found = [maps for maps in self.maps if all(map(maps.covers, heads))]
        best = [maps for maps in found if maps.known == max(each.known for each in found)]
        return (self.head(best[0].names[0]),) if len(best) == 1 else heads

    def cut_with(self, name: str) -> tuple[str, ...]:
        """The names of the heads that are cut together with a head, that head first."""
        maps = next((each.names for each in self.maps if name in each.names), ())
        return (name, *(other for other in maps if other != name))

    def _only_gathered(self) -> Head:
        """The head of the only output, on the axis that is most likely."""
        likely = [head for head in self.gathered if is_likely(head)]
        if len(likely) != 1:
            names = ", ".join(repr(head.name) for head in self.gathered)
            raise UsageError(
                f"the units of several outputs can be gathered: {names}",
                "choose one with --head NAME",
            )
        return likely[0]

    def _no_head(self) -> ModelError:
        count = len(self.refusals) - 1
        more = f" (and {count} more outputs are refused)" if count > 0 else ""
        named = [each for each in self.refusals if each.operation] or [self.refusals[0]]
        shown = next((each for each in self.refusals if each.hint), named[0])
        return ModelError(
            f"no head can be cut: {shown}{more}",
            shown.hint or "`exporter inspect MODEL` shows what was tried",
        )
