"""The types of tensors while a model is edited, kept equal to the types that the file states."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, TypeProto

from exporter.errors import ModelError
from exporter.formats.onnx.draw import Drawing
from exporter.formats.onnx.protos import copy_of, element_type, set_shape, shape_of, tensor_type
from exporter.graph import Shape


class Types:
    """Stated, inferred and edited types.

    Args:
        graph: of the result; each change of a type changes the statements in it too.
        drawing: of the source.
    """

    def __init__(self, graph: GraphProto, drawing: Drawing) -> None:
        self._graph = graph
        self._types = dict(drawing.types)
        self._measured = drawing.measured
        self._tensors = drawing.graph.tensors
        self._shapes: dict[str, Shape] = {}  # of the tensors whose shape was set

    @property
    def stated(self) -> Mapping[str, TypeProto]:
        """The type of every tensor."""
        return self._types

    @property
    def measured(self) -> Mapping[str, Shape]:
        """The shapes in one run; see `Drawing`."""
        return {**self._measured, **self._shapes} if self._measured else {}

    def of(self, tensor: str) -> TypeProto:
        """A copy of a tensor's type (raises ModelError if it is neither stated nor inferred)."""
        if tensor in self._types:
            return copy_of(self._types[tensor])
        known = self._tensors.get(tensor)
        if known is None or not known.is_constant:
            raise ModelError(f"the type of the tensor {tensor!r} is not known")
        return tensor_type(known.dtype, known.shape or ())

    def shape(self, tensor: str) -> Shape | None:
        return shape_of(self.of(tensor))

    def set(self, tensor: str, *, shape: Shape | None = None, dtype: str | None = None) -> None:
        """Change the shape or dtype of a tensor, also where the file states it.

        A length that was only measured, and is not changed, stays open.
        """
        kind = self.of(tensor)
        if shape is not None:
            set_shape(kind, self._without_measured(tensor, kind, shape))
            self._shapes[tensor] = shape
        if dtype is not None:
            kind.tensor_type.elem_type = element_type(dtype)
        self._types[tensor] = kind
        for infos in (self._graph.input, self._graph.value_info, self._graph.output):
            for info in infos:
                if info.name == tensor:
                    info.type.CopyFrom(kind)

    def _without_measured(self, tensor: str, kind: TypeProto, shape: Shape) -> Shape:
        known, stated = self._tensors.get(tensor), shape_of(kind)
        before = self._shapes.get(tensor, known.shape if known else None)
        if before is None or stated is None or not len(before) == len(stated) == len(shape):
            return shape
        lengths = zip(shape, before, stated, strict=True)
        return tuple(None if s is None and new == old else new for new, old, s in lengths)

    def add(self, tensor: str, kind: TypeProto) -> None:
        """Set the type of a new tensor."""
        self._types[tensor] = kind

    def rename_statements(self, tensor: str, name: str) -> None:
        """Let the type that the file states for an inner tensor be that of another name."""
        for info in self._graph.value_info:
            if info.name == tensor:
                info.name = name
