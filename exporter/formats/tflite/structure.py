"""The structure of a TFLite file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from exporter.formats.structure import Constant, End, Step, Structure, facts_of
from exporter.formats.tflite import archive, constants
from exporter.formats.tflite.record import Record
from exporter.formats.tflite.schema import File, integers, operator_name, text
from exporter.graph import Array, Shape

_IDENTITY = {"buffer", "name", "shape"}  # fields of a tensor that are compared in another way
_CONNECTIONS = {
    "inputs",
    "outputs",
    "opcodeIndex",
    "debugMetadataIndex",
}  # likewise, of an operator


def structure_of(file: File, skipped: str) -> Structure:
    """The structure of a file: of subgraph 0, with the others as bodies.

    Args:
        skipped: an entry of the metadata that is not part of the structure.
    """
    main, *others = (_subgraph(file, each) for each in file.model.subgraphs)
    facts = facts_of(_facts(file, skipped))
    return Structure(
        main.inputs,
        main.outputs,
        main.steps,
        main.constants,
        facts,
        tensors=main.tensors,
        names=main.names,
        bodies={f"subgraph {i + 1}": each for i, each in enumerate(others)},
    )


def _subgraph(file: File, subgraph: Any) -> Structure:
    tensors = list(subgraph.tensors or ())
    found, computed = {}, {}
    for index, tensor in enumerate(tensors):
        buffer = file.model.buffers[tensor.buffer]
        is_constant = buffer.data is not None and len(buffer.data) and not tensor.isVariable
        if is_constant:
            found[str(index)] = _constant(tensor, buffer)
        else:
            computed[str(index)] = {**_tensor_facts(tensor), "shape": repr(integers(tensor.shape))}

    def ends(indices: Any, values: Mapping[str, Constant]) -> tuple[End, ...]:
        return tuple(_end(str(i), tensors[i], values.get(str(i))) for i in integers(indices))

    return Structure(
        ends(subgraph.inputs, found),
        ends(subgraph.outputs, {}),
        tuple(_step(file, tensors, each) for each in subgraph.operators or ()),
        found,
        tensors=computed,
        names={str(i): text(tensor.name) for i, tensor in enumerate(tensors)},
    )


def _constant(tensor: Any, buffer: Any) -> Constant:
    read = partial(constants.values, tensor, buffer)
    if not constants.is_dense(tensor):  # NumPy has no such type: compare the bytes
        read = partial(_bytes, buffer)
    shape = tuple(integers(tensor.shape))
    return Constant(constants.type_name(tensor), shape, read, _tensor_facts(tensor))


def _bytes(buffer: Any) -> Array:
    return np.asarray(buffer.data, np.uint8)


def _end(key: str, tensor: Any, constant: Constant | None) -> End:
    """An input or output; the values in the file of an input are a fact of it."""
    stated: Shape = tuple(
        None if n < 0 else n for n in integers(tensor.shapeSignature) or integers(tensor.shape)
    )
    dtype = constants.type_name(tensor)
    facts = _tensor_facts(tensor)
    if constant is not None:
        facts["values in the file"] = constant.digest.hex()
    return End(text(tensor.name), key, dtype, stated, facts=facts)


def _step(file: File, tensors: list[Any], operator: Any) -> Step:
    code = file.model.operatorCodes[operator.opcodeIndex]
    name = operator_name(file.model, operator)
    outputs = integers(operator.outputs)
    fields = _plain_fields(operator, _CONNECTIONS)
    options = [fields.pop(key) or {} for key in ("builtinOptions", "builtinOptions2")]
    for each in options:
        fields |= each
    fields["intermediates"] = [_tensor_facts(tensors[i]) for i in integers(operator.intermediates)]
    attributes = {key: repr(value) for key, value in fields.items() if value not in (None, [])}
    return Step(
        name=text(tensors[outputs[0]].name) if outputs else name,
        operator=name,
        attributes={**attributes, "version": str(code.version)},
        inputs=tuple("" if i < 0 else str(i) for i in integers(operator.inputs)),
        outputs=tuple(map(str, outputs)),
    )


def _tensor_facts(tensor: Any) -> dict[str, str]:
    """What decides the meaning of a tensor, besides its shape and values."""
    fields = _plain_fields(tensor, _IDENTITY)
    fields["type"] = constants.type_name(tensor)
    known = fields.pop("quantization") or {}
    fields |= {f"quantization {key}": value for key, value in known.items()}
    if np.size(known.get("scale") or ()) < 2:  # noqa: PLR2004 - one scale has no axis
        fields.pop("quantization quantizedDimension", None)
    return {key: repr(value) for key, value in fields.items() if value not in (None, False, 0)}


def _plain_fields(value: Any, skipped: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of an object of the schema as plain values; None where they are empty.

    Writers state an empty vector or table, or leave it out.
    """
    fields = {key: _plain(each) for key, each in value.items() if key not in set(skipped)}
    return dict(sorted(fields.items()))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist() or None
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value] or None
    if isinstance(value, bytes | str):
        return text(value) or None
    if isinstance(value, Record):
        fields = {key: each for key, each in _plain_fields(value).items() if each is not None}
        return fields or None
    return value


def _facts(file: File, skipped: str) -> Iterator[tuple[str, str]]:
    """Signatures, metadata, files of the archive, and bytes that no tensor reads."""
    for signature in file.model.signatureDefs or ():
        key = f"signature {text(signature.signatureKey)!r}"
        subgraph = file.model.subgraphs[signature.subgraphIndex]
        yield key, f"of subgraph {signature.subgraphIndex}"
        yield f"{key}: inputs", str(_places(signature.inputs, subgraph.inputs))
        yield f"{key}: outputs", str(_places(signature.outputs, subgraph.outputs))
    for entry in file.model.metadata or ():
        name = text(entry.name)
        if name != skipped:
            data = file.model.buffers[entry.buffer].data
            yield f"metadata {name!r}", _sha256(b"" if data is None else data.tobytes())
    for name, content in archive.contents(file.tail) if file.tail else ():
        yield f"file {name!r} of the archive", _sha256(content)
    for i, digest in enumerate(sorted(_unread(file))):
        yield f"bytes that no tensor reads, {i}", digest


def _places(ends: Any, indices: Any) -> Mapping[str, str]:
    """Name in the signature -> place among the inputs or outputs of the subgraph."""
    order = integers(indices)
    return facts_of(
        (
            text(end.name),
            str(order.index(end.tensorIndex))
            if end.tensorIndex in order
            else f"tensor {end.tensorIndex}, which the subgraph does not show",
        )
        for end in sorted(ends or (), key=lambda end: text(end.name))
    )


def _unread(file: File) -> Iterator[str]:
    """The hashes of buffers that neither a tensor nor metadata has."""
    model = file.model
    used = {tensor.buffer for each in model.subgraphs for tensor in each.tensors or ()}
    used |= {entry.buffer for entry in model.metadata or ()} | set(integers(model.metadataBuffer))
    for index, buffer in enumerate(model.buffers):
        if index not in used and buffer.data is not None and len(buffer.data):
            yield _sha256(_bytes(buffer))


def _sha256(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()
