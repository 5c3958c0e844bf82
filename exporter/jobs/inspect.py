"""Inspect a model: its inputs, its heads and their shares of it, and its refused outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from exporter.channels.groups import find_channels
from exporter.errors import UsageError, interpreting
from exporter.forecast.forecast import Forecast
from exporter.formats import size_bytes
from exporter.formats.model import Model, unit_labels
from exporter.graph import Graph
from exporter.graph.multiply_adds import multiply_adds
from exporter.jobs.job import Job
from exporter.jobs.label_file import label_file_of
from exporter.selection.lookup import LabelIndex, search_labels
from exporter.trace import trace, with_offers
from exporter.trace.class_maps import ClassMaps
from exporter.trace.head import AxisPart, Head
from exporter.trace.refusals import Refusal

SCHEMA = "exporter/inspect/1"


@dataclass(frozen=True, eq=False)
class HeadFacts:
    """One head, and its share of the model.

    Attributes:
        bytes: of the constants that are cut with the head.
        share_of_bytes: of the files of the model; None if their size is not known, or if they store
            the constants in fewer bytes: compressed, or several constants in one place.
        multiply_adds: of the products of the head for one sample; None if a shape is not known.
        share_of_multiply_adds: of the model; None if the count of any operation is not known.
    """

    head: Head
    dtype: str
    bytes: int
    share_of_bytes: float | None
    multiply_adds: int | None
    share_of_multiply_adds: float | None

    def to_dict(self) -> dict[str, Any]:
        """One entry of `heads` in the `exporter/inspect/1` record."""
        head = self.head
        parts = head.axis_parts or (AxisPart("classes", 0, head.units),)
        shares = {key: value for key, value in vars(self).items() if key not in {"head", "dtype"}}
        return {
            "name": head.name,
            "output": head.output,
            "axis": head.axis,
            "units": head.units,
            "parts": [[part.start, part.stop] for part in parts],
            "part_names": [part.name for part in parts],
            "activation": head.activation,
            "dtype": self.dtype,
            "labels": head.labels and list(head.labels),
            **shares,
        }


@dataclass(frozen=True, eq=False)
class ChannelFacts:
    """A group of channels that are removed together, or channels that stay.

    Attributes:
        name: of the first tensor that they are on.
        channels: of that tensor.
        units: what is removed as a whole; 0 if the channels stay.
        producers, consumers: names of the products that compute the channels, and that sum over
            them.
        bytes: of the constants that become smaller with the group.
        multiply_adds: of these products for one sample; None if a shape is not known.
        reason: why the channels stay; "" for a group.
    """

    name: str
    channels: int
    units: int
    producers: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    bytes: int = 0
    multiply_adds: int | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Inspection:
    """The heads of a model, in the order of its outputs.

    Attributes:
        size_bytes: of the file; None for a live model.
        refused: outputs without a head that can be cut, with reasons.
        masks: names of the heads that are not cut unless the user names them.
        maps: groups of heads that are cut together.
        choices: names of the heads of which the user has to choose; () for a single head.
        forecast: what a cut will bring; None if no units were selected.
        channels: groups of inner channels, and channels that stay; None if not asked for.
        listed: head -> the units whose labels were asked for; None if they were not.
    """

    model: Model
    size_bytes: int | None
    heads: tuple[HeadFacts, ...]
    refused: tuple[Refusal, ...]
    masks: tuple[str, ...] = ()
    maps: tuple[ClassMaps, ...] = ()
    choices: tuple[str, ...] = ()
    forecast: Forecast | None = None
    channels: tuple[ChannelFacts, ...] | None = None
    listed: Mapping[str, tuple[int, ...]] | None = None

    def _repr_html_(self) -> str:
        """The heads in a notebook."""
        from exporter.report.formatting import plural
        from exporter.report.notebook import fragment

        title = f"{self.model.name}: {plural(len(self.heads), 'head')} to cut"
        refused = [f"refused: {each}" for each in self.refused]
        return fragment(title, _head_rows(self.heads), refused)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each head."""
        from exporter.report.notebook import data_frame

        return data_frame(_head_rows(self.heads))

    def to_dict(self) -> dict[str, Any]:
        """The `exporter/inspect/1` record."""
        graph = self.model.graph()
        return {
            "schema": SCHEMA,
            "ok": True,
            "model": {
                "name": self.model.name,
                "kind": self.model.kind,
                "precision": self.model.precision,
                "bytes": self.size_bytes,
                "sha256": self.model.sha256,
            },
            "inputs": [
                {
                    "name": tensor.name,
                    "shape": None if tensor.shape is None else list(tensor.shape),
                    "dtype": tensor.dtype,
                }
                for tensor in map(graph.tensors.__getitem__, graph.inputs)
            ],
            "heads": [facts.to_dict() for facts in self.heads],
            "refused": [asdict(refusal) for refusal in self.refused],
            "forecast": self.forecast and self.forecast.to_dict(),
            "channels": None if self.channels is None else [asdict(each) for each in self.channels],
            **(
                {}
                if self.listed is None
                else {"listed": {k: list(v) for k, v in self.listed.items()}}
            ),
        }


def _head_rows(heads: tuple[HeadFacts, ...]) -> list[dict[str, Any]]:
    """What is one value: labels and parts of an axis are in `to_dict`."""
    return [
        {key: value for key, value in facts.to_dict().items() if not isinstance(value, list | dict)}
        for facts in heads
    ]


def inspect_file(
    source: str | Path | Any, job: Job, pattern: str | None = None, *, channels: bool = False
) -> Inspection:
    """Open a model and inspect it (see `inspect_model`).

    Args:
        source: a path, or a live Keras model.
        job: how the model is opened.
        pattern: which labels are listed; "" for all, None for none.
        channels: list its channels too.
    """
    with job.open(source) as opened, interpreting(f"inspecting {opened.model.name}"):
        size = size_bytes(opened.path) if opened.path else None
        found = inspect_model(opened.model, size, pattern, opened.path)
        return replace(found, channels=channel_facts(opened.model.graph()) if channels else None)


def inspect_model(
    model: Model,
    size: int | None = None,
    pattern: str | None = None,
    path: Path | None = None,
) -> Inspection:
    """Find the heads of a model without running it.

    Args:
        model: of any kind.
        size: of its file, in bytes.
        pattern: which labels are listed; "" for all, None for none.
        path: of its file, next to which a file may have labels.

    Raises:
        UsageError: no head has labels, or no label matches the pattern.
    """
    graph = model.graph()
    found = with_offers(graph, trace(graph))
    total = multiply_adds(graph)
    file = label_file_of(model, path, found.heads) if path else None
    labels = file.labels if file else None
    heads = [replace(head, labels=unit_labels(model, head) or labels) for head in found.heads]
    facts = tuple(_facts(graph, head, size, total) for head in heads)
    return Inspection(
        model,
        size,
        facts,
        found.refusals,
        found.masks,
        found.maps,
        found.choices,
        listed=None if pattern is None else _listed(model, heads, pattern),
    )


def _listed(model: Model, heads: Iterable[Head], pattern: str) -> dict[str, tuple[int, ...]]:
    """Head -> the units whose labels match."""
    labels = {head.name: head.labels for head in heads if head.labels}
    if not labels:
        raise UsageError(
            f"{model.name} has no labels", "give a label file with the selection: --labels FILE"
        )
    found = {name: search_labels(each, pattern) for name, each in labels.items()}
    if not any(found.values()):
        texts = "; ".join(LabelIndex(each).similar(pattern) for each in labels.values())
        raise UsageError(f"no label of {model.name} matches {pattern!r}", texts)
    return found


def _facts(graph: Graph, head: Head, size: int | None, total: int | None) -> HeadFacts:
    cut_bytes = sum(
        graph.tensors[name].size_bytes or 0 for name in {c.name for c in head.constants}
    )
    work = multiply_adds(graph, head.body)
    return HeadFacts(
        head=head,
        dtype=graph.tensors[head.output].dtype,
        bytes=cut_bytes,
        share_of_bytes=cut_bytes / size if size and cut_bytes <= size else None,
        multiply_adds=work,
        share_of_multiply_adds=work / total if work is not None and total else None,
    )


def channel_facts(graph: Graph) -> tuple[ChannelFacts, ...]:
    """The channel groups of a graph in running order, then the channels that stay."""
    found = find_channels(graph)
    groups = [
        ChannelFacts(
            name=group.name,
            channels=int(group.sizes.sum()),
            units=group.units,
            producers=tuple(node.name for node in group.producers),
            consumers=tuple(each.node.name for each in group.consumers),
            bytes=sum(
                graph.tensors[name].size_bytes or 0 for name in {c.name for c in group.constants}
            ),
            multiply_adds=multiply_adds(graph, group.products(graph)),
        )
        for group in found.groups
    ]
    fixed = [ChannelFacts(each.name, each.channels, 0, reason=each.reason) for each in found.fixed]
    return (*groups, *fixed)
