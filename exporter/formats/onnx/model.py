"""An ONNX model: a parsed file that is never changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Self

from onnx import ModelProto

from exporter.errors import ModelError, interpreting
from exporter.formats.executor import active_executor
from exporter.formats.isolation import runner_of
from exporter.formats.model import Runner, RunOptions, in_turn
from exporter.formats.onnx import shared_body, splice
from exporter.formats.onnx.apply import REMAP, apply_plan, precision_in, remap_in
from exporter.formats.onnx.branches import lifted, nested
from exporter.formats.onnx.classical.join import join
from exporter.formats.onnx.classical.split import split
from exporter.formats.onnx.classical.trees import cut_split_trees
from exporter.formats.onnx.draw import Drawing, draw
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.inference import Known
from exporter.formats.onnx.order import with_sorted_nodes
from exporter.formats.onnx.precision import precision_of
from exporter.formats.onnx.protos import FileNode, file_nodes
from exporter.formats.onnx.starting_at import starting_at
from exporter.formats.onnx.structure import structure_of
from exporter.formats.structure import Structure
from exporter.graph import Graph
from exporter.graph.edits import Plan
from exporter.graph.lengths import Lengths
from exporter.graph.multiply_adds import multiply_adds
from exporter.remap import Remap


class OnnxModel:
    """See `exporter.formats.model.Model`.

    Args:
        proto: the parsed file, as `prepared` returns it.
        nodes: of its graph, if they were read before.
        source: the file that it was parsed from, also after cuts.

    Raises:
        ModelError: the graph is inconsistent, or the remap in the file is damaged.
    """

    kind: str = "onnx"

    def __init__(
        self,
        proto: ModelProto,
        name: str,
        external: ExternalData | None = None,
        known: Known | None = None,
        *,
        nodes: Sequence[FileNode] | None = None,
        source: splice.Source | None = None,
    ) -> None:
        self.name = name
        self.sha256: str | None = None
        known = known or Known()
        self.remap = known.remap or _remap_in(proto, name)
        self.stated_precision = precision_in(proto)
        self._proto = proto
        self._external = external
        self._known = replace(known, external=external)
        self._nodes = nodes
        self._source = source
        self._precision: str | None = None

    @cached_property
    def _drawing(self) -> Drawing:
        return draw(self._proto, self._known, self.remap, self._nodes)

    @property
    def precision(self) -> str:
        """See `exporter.formats.model.Model`."""
        if self._precision is None:
            self._precision = precision_of(self._drawing.graph, self._drawing.constants)
        return self._precision

    @precision.setter
    def precision(self, name: str) -> None:
        self._precision = name

    @property
    def proto(self) -> ModelProto:
        """The parsed file. Do not change it. That of a large file lacks large constants."""
        return self._nested

    @cached_property
    def _nested(self) -> ModelProto:
        return nested(join(self._proto))

    def graph(self) -> Graph:
        """The neutral graph; drawn once."""
        return self._drawing.graph

    @in_turn
    def apply(self, plan: Plan) -> Self:
        """A new model with the plan's edits; this one is not changed."""
        with interpreting(f"applying the cut to {self.name}"):
            external = self._external.copy() if self._external else ExternalData(Path())
            proto, types = apply_plan(self._proto, self._drawing, plan, external)
            proto = cut_split_trees(proto)
            known = replace(
                self._known,
                types=types.stated,
                measured=types.measured,
                remap=plan.remap,
                work=self._known.work or self._work,
            )
            return type(self)(proto, self.name, external, known, source=self._source)

    def with_lengths(self, lengths: Lengths) -> Self:
        """The model, read again with these lengths where the file leaves its layers undecided."""
        known = Known(lengths=lengths)
        if not lengths:
            return self
        return type(self)(self._proto, self.name, self._external, known, source=self._source)

    def starting_at(self, tensors: Collection[str]) -> Self:
        """The part of the model from these tensors on, which become its first inputs."""
        part, nodes = prepared(starting_at(self._nested, tensors, self._drawing.types))
        return type(self)(part, self.name, self._external, nodes=nodes)

    def structure(self) -> Structure:
        """Everything that decides the results of the file."""
        return structure_of(self._proto, self._external, REMAP)

    def runner(self, options: RunOptions) -> Runner:
        """The model in onnxruntime (raises ModelError if it does not load there)."""
        if executor := active_executor():
            return executor.runner(self, options)
        from exporter.formats.onnx.runtime import OnnxRunner  # noqa: PLC0415 - only where it runs

        load = partial(OnnxRunner, self._nested, self.name, options, self._external)
        action, size = f"onnxruntime running {self.name}", self._proto.ByteSize()
        return runner_of(action, size, load, options.threads, self._work)

    def _work(self) -> int | None:
        return self._known.work() if self._known.work else multiply_adds(self.graph())

    def to_bytes(self) -> bytes:
        """The file's content: the same for the same model in every process.

        It refers to constants in other files, and does not contain them.
        """
        external = self._external or ExternalData(Path())
        inside = not external.has_files
        return splice.content_of(self._nested, external, self._source, inside=inside)

    def write(self, path: Path) -> None:
        """Write the file at exactly this path. To write atomically, use `output.files`.

        If constants of the model are in other files, those of the result are in one file in the
        same folder. No other model has a file of that name, so that none is replaced.
        """
        external = self._external or ExternalData(Path())
        stem = Path(self.name).stem if external.has_files else path.stem
        splice.write(self._nested, external, path, stem, self._source)

    def write_sharing(self, path: Path) -> None:
        """Write the file, and the constants that the cut left as they were into a second file.

        Other cuts of the same model that are written into the same folder share it: see
        `shared_body` (raises ModelError if there is nothing to share).
        """
        if self._source is None:
            raise ModelError(f"{self.name} is not the cut of a file", "leave out --share-body")
        external = self._external or ExternalData(Path())
        shared_body.write_sharing(self._nested, external, path, self._source, self.name)

    def write_whole(self, path: Path) -> None:
        """Write the file with the constants that are in other files now."""
        model, values = shared_body.inside(self._nested, self._external or ExternalData(Path()))
        splice.write(model, values, path, path.stem, self._source)


def prepared(
    proto: ModelProto, nodes: Sequence[FileNode] | None = None
) -> tuple[ModelProto, Sequence[FileNode]]:
    """A file as it can be drawn, and its nodes; see `order`, `branches` and `classical`."""
    nodes = file_nodes(proto.graph) if nodes is None else nodes
    for prepare in (with_sorted_nodes, lifted, with_sorted_nodes, split):
        result = prepare(proto, nodes)
        if result is not proto:
            proto, nodes = result, file_nodes(result.graph)
    return proto, nodes


def _remap_in(proto: ModelProto, name: str) -> Remap | None:
    try:
        return remap_in(proto)
    except ModelError as error:
        raise ModelError(f"{name}: {error.message}", error.hint) from error
