"""Units that are no classes, but that the code that reads the output needs. They are kept.

1. The background of a detector, and of a network that classifies every pixel: by its label. Without
   labels, the first unit of a softmax over a convolution next to boxes, as in SSD, or next to a box
   for each class, as in Faster R-CNN; or of classes of which one is chosen for each pixel.
2. The unit for "no object" of a detector: by its label, or the last unit of a softmax over a dense
   layer next to boxes, as in DETR (https://arxiv.org/abs/2005.12872).
3. The blank of a text recognizer that was trained with CTC: by its label. Without labels, the first
   and the last unit of rows of probabilities that are computed from a picture, and of rows of log
   probabilities: libraries choose one of the two. The space that a reader of PaddleOCR's
   dictionaries adds at the end.
4. The special tokens of a language model, by their labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple

from exporter.errors import NotAllowedError
from exporter.graph import Graph
from exporter.graph.operations import Linear, TopK
from exporter.selection import Selection, Units
from exporter.selection.labels import ADDED_BY_READERS
from exporter.selection.lookup import shorten_list
from exporter.selection.select import add_reason, find_units
from exporter.selection.spec import parse
from exporter.trace.axis_parts import boxes_elsewhere
from exporter.trace.class_boxes import boxes_of_classes
from exporter.trace.head import Head
from exporter.trace.tracer import trace_unit_axis

BACKGROUND = {"background", "__background__", "bg"}
_NO_OBJECT = {"no object", "no-object", "no_object", "\u2205"}
_BLANK = {
    *("blank", "<blank>", "[blank]", "<blk>", "_blank_", "ctc_blank", "<ctc_blank>", "<ctc>"),
    *("\u03b5", "<eps>", "<epsilon>"),
}
_BARE_BLANK = {"blank", "\u03b5"}
_WORDS = BACKGROUND | _NO_OBJECT | _BLANK
_TOKEN = re.compile(
    r"\[(CLS|SEP|PAD|UNK|MASK|BOS|EOS)\]|</?(s|pad|unk|mask|bos|eos)>|<\|[a-z_]+\|>"
)
_MATRIX = 2  # axes of the kernel of a dense layer; a convolution has more
_PIXELS = 4  # axes of a tensor with units for each pixel
_ROWS = 3  # axes of a tensor with units for each step of a text
_ADDED_FIRST = {first[0] for first, last in ADDED_BY_READERS if last}


class Special(NamedTuple):
    """A kind of special unit.

    Attributes:
        is_unit: graph, head, unit, label -> is the unit of this kind?
        meaning: what it is, for an error.
        reason: why it is kept.
    """

    is_unit: Callable[[Graph, Head, int, str], bool]
    meaning: str
    reason: str


def keep_special(
    graph: Graph,
    head: Head,
    selection: Selection,
    protect: Units | None,
    used: Collection[int] = (),
    *,
    removed: bool,
    allowed: bool,
) -> Selection:
    """The selection, with the special units of a head and those that the user protects.

    Args:
        graph: contains the head.
        head: of the units.
        selection: its labels name special units.
        protect: the units that the user protects, as in `select`; None for none.
        used: the tokens that the model itself needs.
        removed: the user named the removed units, not the kept ones.
        allowed: special units may be removed.

    Raises:
        NotAllowedError: the user named such a unit among the removed ones.
        UsageError: `protect` names no unit.
    """
    why = {} if allowed else _special_units(graph, head, selection.labels or ())
    why |= dict.fromkeys(used, _USED)
    if protect is not None:
        every = replace(selection, kept=tuple(range(selection.units)), notes=())
        why |= dict.fromkeys(
            find_units(parse(protect, "protect", selection.labels or ()), every)[0], _PROTECTED
        )
    lost = sorted(set(why).difference(selection.kept))
    if not lost:
        return selection
    if removed:
        unit = lost[0]
        raise NotAllowedError(
            f"{selection.describe_unit(unit)} is {why[unit].meaning}",
            "leave it out of --remove, or out of --protect"
            if why[unit] is _PROTECTED
            else "leave it out of --remove"
            if why[unit] is _USED
            else "--allow-remove-special removes it anyway",
        )
    kept = (*lost, *selection.kept)
    reasons, notes = selection.reasons, list(selection.notes)
    for kind in dict.fromkeys(why[unit] for unit in lost):
        units = [unit for unit in lost if why[unit] is kind]
        reasons = add_reason(reasons, units, kind.reason)
        one = selection.describe_unit(units[0])
        text = f"{one} is" if len(units) == 1 else f"units {shorten_list(units)} are"
        notes.append(f"{text} kept: {kind.reason}")
    return replace(
        selection,
        kept=tuple(sorted(kept)) if selection.ascends else kept,
        notes=tuple(notes),
        reasons=reasons,
    )


def _special_units(graph: Graph, head: Head, labels: tuple[str, ...]) -> dict[int, Special]:
    named = [(unit, label.strip()) for unit, label in enumerate(labels)]
    may_be = [(u, t) for u, t in named if t[:1] in {"[", "<"} or t.lower() in _WORDS]
    found = {
        unit: kind
        for unit, label in (may_be if labels else [(0, ""), (head.units - 1, "")])
        for kind in SPECIAL
        if kind.is_unit(graph, head, unit, label)
    }
    if labels and labels[0] in _ADDED_FIRST and labels[-1] == " ":
        found[head.units - 1] = _SPACE
    return found if len(found) < head.units else {}


def _is_background(graph: Graph, head: Head, _unit: int, label: str) -> bool:
    if label.lower() not in BACKGROUND:
        return False
    pixels = len(graph.shape(head.output)) == _PIXELS
    return pixels or _is_detector(graph, head)


def _is_detector(graph: Graph, head: Head) -> bool:
    within = bool(head.axis_parts or head.readers.detections)
    return within or boxes_elsewhere(graph, head.output, head.axis)


def _may_be_background(graph: Graph, head: Head, unit: int, label: str) -> bool:
    if unit or label or _has_others(head):
        return False
    by_class = boxes_of_classes(graph, head, trace_unit_axis)
    return bool(by_class) or _chooses_for_pixels(graph, head) or _is_ssd(graph, head)


def _has_others(head: Head) -> bool:
    """Does the softmax also have positions of no unit, one of which is the background?"""
    return bool(head.axis_parts) or bool(head.tensor(head.z).unit_axis.units.min() < 0)


def _chooses_for_pixels(graph: Graph, head: Head) -> bool:
    """Is one class chosen for each pixel, by a softmax or an argmax?"""
    tensor = head.tensor(head.output)
    sides = [n for axis, n in enumerate(tensor.shape) if axis not in {0, tensor.unit_axis.axis}]
    is_map = len(tensor.shape) == _PIXELS and 1 not in sides
    return is_map and _chooses(head) and not boxes_elsewhere(graph, head.output, head.axis)


def _chooses(head: Head) -> bool:
    ranks = any(not each.positions for each in head.readers.rankings)  # not of all places together
    return (head.competes or ranks) and not _has_others(head)


def _is_ssd(graph: Graph, head: Head) -> bool:
    boxes = boxes_elsewhere(graph, head.output, head.axis)
    return boxes and head.activation == "softmax" and not _is_dense(graph, head)


def _is_blank(graph: Graph, head: Head, unit: int, label: str) -> bool:
    """A bare word may also name a class, as of pages: only a text recognizer has steps. There it
    may also be a letter of the text: the blank is the first or the last unit.
    """
    if label.lower() not in _BARE_BLANK:
        return label.lower() in _BLANK
    return unit in {0, head.units - 1} and len(graph.shape(head.output)) >= _ROWS


def _may_be_blank(graph: Graph, head: Head, unit: int, label: str) -> bool:
    shape = head.tensor(head.output).shape
    inputs = [graph.tensors[name] for name in graph.inputs]
    is_picture = any(len(each.shape or ()) == _PIXELS for each in inputs)
    is_signal = head.activation == "log_softmax" and all("int" not in i.dtype for i in inputs)
    is_row = len(shape) == _ROWS and shape[head.axis] != 1 and head.axis == _ROWS - 1
    one_for_each = shape[1:2] == (1,) and any((i.shape or ())[:1] == shape[:1] for i in inputs)
    at_end = unit in {0, head.units - 1} and not label
    boxes = boxes_elsewhere(graph, head.output, head.axis)
    may_be = at_end and is_row and (is_picture or is_signal) and not (boxes or one_for_each)
    return may_be and _chooses(head) and (head.competes or _is_greedy(graph, head))


def _is_greedy(graph: Graph, head: Head) -> bool:
    """Does the model show the best unit of each step, and nothing else but the head? A detector
    that ranks its classes shows boxes too, or the best of all rows.
    """
    operations = [ranking.node.operation for ranking in head.readers.rankings]
    if any(isinstance(each, TopK) and each.k is not None for each in operations):
        return False
    others = (name for name in graph.outputs if name != head.output)
    return all("int" in graph.tensors[name].dtype for name in others)


def _is_no_object(graph: Graph, head: Head, unit: int, label: str) -> bool:
    if label:
        return label.lower() in _NO_OBJECT
    is_last = unit == head.units - 1 and head.activation == "softmax"
    has_others = bool(head.tensor(head.z).unit_axis.units.min() < 0)  # one of them is "no object"
    return (
        is_last
        and not has_others
        and boxes_elsewhere(graph, head.output, head.axis)
        and _is_dense(graph, head)
    )


def _is_dense(graph: Graph, head: Head) -> bool:
    kernels = (
        node.inputs[node.operation.kernel]
        for node in head.body
        if isinstance(node.operation, Linear)
    )
    return all(len(graph.shape(kernel)) == _MATRIX for kernel in kernels)


SPECIAL = (
    Special(
        _is_background,
        "the class that a detector returns where there is no object",
        "needed by a detector",
    ),
    Special(
        _is_no_object,
        "the class that a detector returns where there is no object",
        "needed by a detector",
    ),
    Special(
        _may_be_background,
        "probably the background: the model has no labels",
        "probably the background, since the model has no labels",
    ),
    Special(
        _is_blank,
        "the blank, which separates the letters of a text",
        "needed by a decoder",
    ),
    Special(
        _may_be_blank,
        "perhaps the blank of a text recognizer: the model has no labels",
        "the first or the last is the blank if this is a text recognizer; the model has no labels",
    ),
    Special(
        lambda _graph, _head, _unit, label: _TOKEN.fullmatch(label) is not None,
        "a special token",
        "needed by a language model",
    ),
)
_USED = Special(
    lambda *_: False, "a token that the model itself uses", "the model compares or inserts it"
)
_SPACE = Special(
    lambda *_: False,
    "the space, which readers add at the end of a dictionary of characters",
    "readers of the dictionary add this space",
)
_PROTECTED = Special(lambda *_: False, "protected and also removed", "protected")
