"""The types of tensors while a model is edited, in step with what the file states of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, TypeProto, ValueInfoProto

from exporter.errors import ModelError
from exporter.formats.onnx.draw import Drawing
from exporter.formats.onnx.protos import element_type, set_shape, shape_of, tensor_type
from exporter.graph import Shape


class Types:
    """Stated, inferred and edited types; an edit also changes every statement in the file."""

    def __init__(self, graph: GraphProto, drawing: Drawing) -> None:
        self._graph = graph
        self._known: dict[str, TypeProto] = {}
        self._drawn: Mapping[str, TypeProto] = drawing.types
        self._tensors = drawing.graph.tensors

    def of(self, tensor: str) -> TypeProto:
        """A copy of a tensor's type (raises ModelError if neither file nor inference tells)."""
        kind = self._known.get(tensor) or self._drawn.get(tensor)
        if kind is None:
            known = self._tensors.get(tensor)
            if known is None or not known.is_constant:
                raise ModelError(f"the type of the tensor {tensor!r} is not known")
            return tensor_type(known.dtype, known.shape or ())
        result = TypeProto()
        result.CopyFrom(kind)
        return result

    def shape(self, tensor: str) -> Shape | None:
        return shape_of(self.of(tensor))

    def set(self, tensor: str, *, shape: Shape | None = None, dtype: str | None = None) -> None:
        """State another shape or dtype of a tensor that has a type."""
        kind = self.of(tensor)
        if shape is not None:
            set_shape(kind, shape)
        if dtype is not None:
            kind.tensor_type.elem_type = element_type(dtype)
        self._known[tensor] = kind
        for info in self._statements(tensor):
            info.type.CopyFrom(kind)

    def add(self, tensor: str, kind: TypeProto) -> None:
        """The type of a tensor that is new."""
        self._known[tensor] = kind

    def rename_statements(self, tensor: str, name: str) -> None:
        """What the file states of an inner tensor, it states of another name from now on."""
        for info in self._graph.value_info:
            if info.name == tensor:
                info.name = name

    def _statements(self, tensor: str) -> Iterator[ValueInfoProto]:
        for infos in (self._graph.input, self._graph.value_info, self._graph.output):
            yield from (info for info in infos if info.name == tensor)
