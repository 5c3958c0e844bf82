"""Write a variant of a model whose unchanged constants are in a file that other variants read too.

Variants of one model differ in their heads. Their other constants, the *body*, can be in one file
in the folder of all variants.

1. The body consists of the large constants that a variant takes unchanged from its uncut file. What
   the cut changed, and small constants, are in the variant itself.
2. The name of the body contains a digest of its content. Variants that leave the same constants
   unchanged have the same body, whoever writes them, and none replaces the body of another one.
3. The variant states the name and the SHA-256 of its body. They are compared when it is opened: a
   runtime would compute with any file of that name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from onnx import ModelProto, TensorProto

from exporter.errors import ModelError
from exporter.formats.onnx.constants import is_constant_node
from exporter.formats.onnx.external_data import (
    VALUES,
    ExternalData,
    is_large,
    padding,
    replace_file,
    size_bytes,
)
from exporter.formats.onnx.protos import all_tensors, copy_of, copy_without, set_metadata
from exporter.formats.onnx.splice import Source, content_of, write_light
from exporter.output.files import FileState, file_state, sha256_of_source
from exporter.output.folder import BODY

KEY = "exporter.body"  # of the metadata
_PATTERNS = {"file": BODY, "sha256": re.compile("[0-9a-f]{64}")}
_RESTORE = "copy it again from the folder that the model was written to, or write the model again"


class Stated(NamedTuple):
    """What a variant states about its body: the file in its folder, and its SHA-256."""

    file: str
    sha256: str


@dataclass(eq=False)
class _Body:
    """The constants that variants share.

    Attributes:
        sources: the constants in the uncut model, by name.
        stated: in each variant.
        references: the same constants in the file.
        template: the uncut file with these references. Every variant is spliced from it.
    """

    sources: Mapping[str, TensorProto]
    stated: Stated
    references: Mapping[str, TensorProto]
    template: Source
    _written: tuple[Path, FileState] | None = None

    @classmethod
    def of(cls, sources: Mapping[str, TensorProto], external: ExternalData, uncut: Source) -> _Body:
        digest = hashlib.sha256()
        for chunk in _content(sources, external):
            digest.update(chunk)
        stated = Stated(f"body-{digest.hexdigest()[:16]}.data", digest.hexdigest())
        references, position = dict[str, TensorProto](), 0
        for name, tensor in sources.items():
            position += padding(position)
            references[name] = _reference(tensor, stated.file, position)
            position += size_bytes(tensor)
        template = _light(uncut.model, references, stated, external)
        for name, tensor in _constants(template):
            if name not in references and is_large(tensor):  # no variant has it
                tensor.CopyFrom(TensorProto(name=tensor.name))
        content = content_of(template, external, uncut, inside=False)
        return cls(
            sources, stated, references, Source(memoryview(content), ModelProto.FromString(content))
        )

    def write(self, folder: Path, external: ExternalData) -> None:
        """Write the file into a folder, unless it is there."""
        path = folder / self.stated.file
        if not self._is_there(path):
            replace_file(path, _content(self.sources, external))
        self._written = path, file_state(path)

    def _is_there(self, path: Path) -> bool:
        try:
            known = self._written == (path, file_state(path))
            return known or sha256_of_source(path) == self.stated.sha256
        except FileNotFoundError:
            return False


class _Uncut:
    """What the variants of one file have in common.

    Attributes:
        sharable: the constants that may be in a body, by name.
        body: of the last variant; mostly, all variants have the same one.
    """

    def __init__(self, source: Source, external: ExternalData) -> None:
        self.body: _Body | None = None
        self.sharable = {
            name: tensor
            for name, tensor in _constants(source.model)
            if (is_large(tensor) or external.is_in_file(tensor)) and size_bytes(tensor)
        }


_KNOWN: WeakKeyDictionary[Source, _Uncut] = WeakKeyDictionary()


def write_sharing(
    model: ModelProto, external: ExternalData, path: Path, source: Source, name: str
) -> None:
    """Write a variant, and its body into the same folder.

    Args:
        model: was cut from the model of `source`.
        external: the values of constants that `model` does not contain.
        path: of the variant.
        source: the uncut file.
        name: of the model, in messages.

    Raises:
        ModelError: the model has no large constant that the cut left unchanged, or one in a place
            from which it cannot be moved.
    """
    if external.has_files:
        _check_places(model, external, name)
    uncut = _KNOWN.get(source)
    if uncut is None:
        uncut = _KNOWN[source] = _Uncut(source, external)
    sharable = uncut.sharable
    shared = {n: tensor for n, tensor in _constants(model) if sharable.get(n) == tensor}
    if not shared:
        raise ModelError(
            f"{name} has no large constant that the cut leaves as it is", "leave out --share-body"
        )
    body = uncut.body
    if body is None or body.sources.keys() != shared.keys():
        body = uncut.body = _Body.of(shared, external, source)
    body.write(path.parent, external)
    light = _light(model, body.references, body.stated, external)
    write_light(light, external, path, body.template, name)


def _light(
    model: ModelProto,
    references: Mapping[str, TensorProto],
    stated: Stated,
    external: ExternalData,
) -> ModelProto:
    """The model with references to the body."""
    light = copy_of(model)
    for name, tensor in _constants(light):
        if name in references:
            tensor.CopyFrom(references[name])
    for _, tensor in _constants(light) if external.has_files else ():
        if external.is_in_file(tensor) and not size_bytes(tensor):  # no range of a file
            tensor.CopyFrom(copy_without(tensor, "data_location", "external_data"))
            tensor.raw_data = b""
    set_metadata(light, KEY, json.dumps(stated._asdict()))
    return light


def _check_places(model: ModelProto, external: ExternalData, name: str) -> None:
    """Refuse constants of inner graphs and of other attributes that are in a file."""
    everywhere = sum(map(external.is_in_file, all_tensors(model.graph)))
    if everywhere != sum(external.is_in_file(tensor) for _, tensor in _constants(model)):
        raise ModelError(
            f"{name} has a constant of an inner graph in another file", "leave out --share-body"
        )


def _constants(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Name -> constant."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if (
            node.op_type == "Constant"
            and is_constant_node(node)
            and node.attribute[0].HasField("t")
        ):
            yield node.output[0], node.attribute[0].t


def _content(sources: Mapping[str, TensorProto], external: ExternalData) -> Iterator[Any]:
    """The bytes of the file."""
    position = 0
    for tensor in sources.values():
        gap = padding(position)
        yield bytes(gap)
        yield from external.chunks(tensor)
        position += gap + size_bytes(tensor)


def _reference(tensor: TensorProto, file: str, position: int) -> TensorProto:
    result = copy_without(tensor, *VALUES)
    result.data_location = TensorProto.EXTERNAL
    entries = {"location": file, "offset": str(position), "length": str(size_bytes(tensor))}
    for key, value in entries.items():
        result.external_data.add(key=key, value=value)
    return result


# --- reading ------------------------------------------------------------------------------------


def without_statement(model: ModelProto, folder: Path, name: str) -> ModelProto:
    """A model without what it states about its body; the same model if it has none.

    Args:
        folder: of the model.
        name: of the model, in messages.

    Raises:
        ModelError: the body is not there, or it is another one.
        OSError: it cannot be read.
    """
    texts = [entry.value for entry in model.metadata_props if entry.key == KEY]
    if not texts:
        return model
    stated = _parsed(texts, name)
    path = folder / stated.file
    if not path.is_file():  # a pipe would be waited for
        raise ModelError(
            f"{name} needs {stated.file} with the SHA-256 {stated.sha256}, which is not next to it",
            _RESTORE,
        )
    found = sha256_of_source(path)
    if found != stated.sha256:
        raise ModelError(
            f"{stated.file} has changed: its SHA-256 is {found}, and {name} was written with "
            f"{stated.sha256}",
            _RESTORE,
        )
    result = copy_without(model, "metadata_props")
    result.metadata_props.extend(each for each in model.metadata_props if each.key != KEY)
    return result


def _parsed(texts: list[str], name: str) -> Stated:
    """What the metadata states (raises ModelError if it is damaged)."""
    try:
        (text,) = texts
        stated = Stated(**json.loads(text))
        if all(pattern.fullmatch(getattr(stated, key)) for key, pattern in _PATTERNS.items()):
            return stated
    except (ValueError, TypeError, RecursionError):
        pass
    raise ModelError(f"{name}: what it states as {KEY!r} is damaged", "write the model again")


def inside(model: ModelProto, external: ExternalData) -> tuple[ModelProto, ExternalData]:
    """The model with all constants in its own file, and their values."""
    values = external.copy()
    values.has_files = False
    result = ModelProto()
    result.CopyFrom(model)
    for tensor in all_tensors(result.graph):
        if external.is_in_file(tensor):
            tensor.CopyFrom(values.inside(tensor))
    return result, values
