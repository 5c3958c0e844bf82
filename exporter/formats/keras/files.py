"""What a Keras file must look like before the library is let near it.

The loader runs deep inside C libraries that a damaged file can crash, and builds whatever class a
file names. So the container is checked first, then every class that the configuration names: only
classes of Keras itself pass, and none that carries code.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exporter.errors import ModelError, UsageError
from exporter.formats.keras.hdf5_in_zip import Place, opened, place_of

Container = Literal[".keras", ".h5"]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
WEIGHTS = "model.weights.h5"
MEMBERS = ("config.json", "metadata.json", WEIGHTS)
_CODE = {
    *("Lambda", "__lambda__", "TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"),
    *("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
}
_OWN_PLACE = "exporter.layers"
OWN = frozenset({"ConditionalUnits", "UnitMask", "ZeroedUnits"})  # classes that live there
_HINT_AGAIN = "save or copy the model again"
_HINT_CODE = "build the model anew with built-in layers in its place"
_HINT_OUTSIDE = "save the model anew with all that it needs inside of it"
_HINT_CUSTOM = "only models made of Keras' own layers can be opened"


def check_file(path: Path) -> Container:
    """Check a file's container, and for `.keras` its classes; imports no library.

    Returns:
        What the file is, whatever its name says.

    Raises:
        UsageError: there is no such file.
        ModelError: empty, truncated, damaged, not a Keras file, or it names a Lambda or a class
            that is not of Keras.
    """
    start = _first_bytes(path)
    if start.startswith(HDF5_SIGNATURE):
        return ".h5"
    if not start:
        raise ModelError(f"{path} is empty", _HINT_AGAIN)
    if not start.startswith(b"PK"):
        raise ModelError(
            f"{path} is neither a .keras archive nor an HDF5 file", "name a model that Keras saved"
        )
    check_classes(_archive_config(path), path.name)
    return ".keras"


@dataclass(frozen=True)
class Hdf5:
    """What an HDF5 file says of its model.

    Attributes:
        config: of the model, parsed.
        version: of the Keras that wrote it; None where the file does not say.
    """

    config: Any
    version: str | None


def check_hdf5(path: Path, is_layer: Callable[[str], bool]) -> Hdf5:
    """Check that an HDF5 file holds a whole model, and its classes; imports h5py.

    Args:
        path: a file with the HDF5 signature.
        is_layer: does Keras have a layer or model class of this name?

    Raises:
        ModelError: truncated, weights without a model, Lambda or a class that Keras lacks, or
            values that lie in another file.
    """
    import h5py  # noqa: PLC0415 - loads a C library that only files of this container need

    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            version = file.attrs.get("keras_version")
            _check_inside(file, path)
    except OSError as error:
        raise ModelError(
            f"{path.name} is damaged or truncated: {_first_line(error)}", _HINT_AGAIN
        ) from error
    if config is None:
        raise ModelError(
            f"{path.name} holds no model, at most weights",
            "save the whole model with model.save(...)",
        )
    parsed = _parse(config, path, "model_config")
    check_classes(parsed, path.name)
    for layer in _layers(parsed):
        if not is_layer(layer["class_name"]):
            raise _custom(path.name, layer)
    told = version.decode("ascii", "replace") if isinstance(version, bytes) else version
    return Hdf5(parsed, told if told is None else str(told))


def check_weights(path: Path) -> None:
    """Check that the weights in a `.keras` archive lie in it; imports h5py.

    Raises:
        ModelError: damaged, or values that lie in another file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(WEIGHTS)
            with _unpacked(archive, place_of(path, member)) as file:
                _check_inside(file, path)
    except OSError as error:
        raise ModelError(
            f"{path.name} is damaged: its weights are no HDF5 file", _HINT_AGAIN
        ) from error


@contextmanager
def _unpacked(archive: zipfile.ZipFile, place: Place | None) -> Iterator[Any]:
    import h5py  # noqa: PLC0415 - as above

    if place is not None:
        with opened(place) as file:
            yield file
    else:
        with archive.open(WEIGHTS) as member, h5py.File(member, "r") as file:
            yield file


def _check_inside(file: Any, path: Path) -> None:
    """Refuse an HDF5 file in which something's values lie in another one (ModelError)."""
    import h5py  # noqa: PLC0415 - as above

    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:  # a group may be linked below itself
            continue
        seen.add(place)
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):  # leads to something else in this file, or nowhere
                continue
            inner = None if isinstance(link, h5py.ExternalLink) else group[name]
            if inner is None or _is_elsewhere(inner):
                shown = f"{group.name.rstrip('/')}/{name}"
                raise ModelError(
                    f"{path.name}: {shown!r} lies in another file, which is not read", _HINT_OUTSIDE
                )
            if hasattr(inner, "keys"):
                waiting.append(inner)


def _is_elsewhere(item: Any) -> bool:
    return bool(getattr(item, "external", None) or getattr(item, "is_virtual", False))


def check_classes(config: Any, source: str) -> None:
    """Refuse classes that carry code or are not of Keras.

    Args:
        config: a model's configuration as Keras serializes it.
        source: named in the message: the file or the model.

    Raises:
        ModelError: names the layer and its class.
    """
    for entry in _objects(config):
        if entry["class_name"] in _CODE:
            raise ModelError(
                f"{source}: {_named(entry)} is a {entry['class_name']}, which runs code of its own",
                _HINT_CODE,
            )
        _check_entry(entry, source)
        if not _is_known(entry, {"keras", "builtins"}):
            raise _custom(source, entry)


def _is_known(entry: dict[str, Any], packages: set[str]) -> bool:
    """Is the class of one of these packages, or a layer of our own?"""
    module = entry.get("module", "keras") or "__main__"  # Keras writes null for __main__
    own = module.startswith(_OWN_PLACE) and entry["class_name"] in OWN
    return own or module.split(".", maxsplit=1)[0] in packages


def _check_entry(entry: dict[str, Any], source: str) -> None:
    """Refuse what would be read from a file, and names that Keras 3 does not take."""
    inner = entry.get("config")
    if not isinstance(inner, dict):
        return
    if isinstance(inner.get("vocabulary"), str):
        raise ModelError(
            f"{source}: {_named(entry)} takes its vocabulary from the file "
            f"{inner['vocabulary']!r}, which is not read",
            _HINT_OUTSIDE,
        )
    name = inner.get("name")
    if isinstance(name, str) and "/" in name:
        raise ModelError(
            f"{source}: a {entry['class_name']} is called {name!r}, and Keras allows no slash",
            "rename the layer",
        )


def training_of(path: Path) -> Any:
    """What a checked `.keras` file says that its model was compiled with; None for nothing."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    return config.get("compile_config") if isinstance(config, dict) else None


def check_live(model: Any) -> None:
    """Refuse a live model with layers that carry code or are not of Keras (ModelError)."""
    for entry in _live(model):
        check_classes(entry, f"the model {model.name!r}")


def own_class(model: Any) -> str | None:
    """What in a live model is of a class that is not of Keras; None where nothing is.

    Raises:
        ModelError: a Lambda, or another layer that carries code.
    """
    for entry in _live(model):
        if entry["class_name"] in _CODE:
            check_classes(entry, f"the model {model.name!r}")
    for entry in _live(model):
        if not _is_known(entry, {"keras"}):
            return f"{_named(entry)} is of the class {entry['class_name']!r}, which is not of Keras"
        if entry["needs"] is not None:
            return f"{_named(entry)} needs the custom function {entry['needs']!r}"
    return None


def _live(model: Any) -> Iterator[dict[str, Any]]:
    """A live model, its layers and theirs, as they would stand in its configuration."""
    for layer in model._flatten_layers():  # noqa: SLF001 - Keras has no public way to inner layers
        kind = type(layer)
        entry = {"module": kind.__module__, "class_name": kind.__name__}
        needs = getattr(getattr(layer, "condition", None), "name", None)  # a registered function
        yield {**entry, "config": {"name": layer.name}, "needs": needs}


def _custom(source: str, entry: dict[str, Any]) -> ModelError:
    if entry["class_name"] == "function":
        return ModelError(f"{source} needs the custom function {entry['config']!r}", _HINT_CUSTOM)
    return ModelError(
        f"{source}: {_named(entry)} is of the custom class {entry['class_name']!r}", _HINT_CUSTOM
    )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every serialized object in a configuration, outer ones first."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """The model, its layers, and theirs, as older files list them: without module names."""
    for entry in _objects(config):
        inner = entry.get("config")
        if isinstance(inner, dict) and isinstance(inner.get("layers"), list):
            yield entry
            yield from (
                layer
                for layer in inner["layers"]
                if isinstance(layer, dict) and isinstance(layer.get("class_name"), str)
            )


def _named(entry: dict[str, Any]) -> str:
    inner = entry.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    return f"layer {name!r}" if name else "an object in it"


def _archive_config(path: Path) -> Any:
    """The configuration in a `.keras` archive whose every member is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in MEMBERS if name not in archive.namelist()]
            if missing:
                raise ModelError(
                    f"{path} is not a .keras archive: it holds no {', '.join(missing)}",
                    "save the whole model with model.save(...)",
                )
            _check_members(archive.namelist(), path)
            damaged = archive.testzip()
            if damaged:
                raise ModelError(
                    f"{path} is damaged: the checksum of {damaged} does not fit", _HINT_AGAIN
                )
            text = archive.read("config.json")
            _parse(archive.read("metadata.json"), path, "metadata.json")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"{path} is damaged or truncated: {_first_line(error)}", _HINT_AGAIN
        ) from error
    return _parse(text, path, "config.json")


def _check_members(names: list[str], path: Path) -> None:
    """What else an archive holds is not read; refuse what could be mistaken for what is."""
    for name in names:
        if names.count(name) > 1:
            raise ModelError(f"{path} holds {name!r} twice", _HINT_AGAIN)
        steps = name.replace("\\", "/").split("/")
        if ".." in steps or not steps[0] or ":" in name:
            raise ModelError(f"{path} holds {name!r}, which leads out of it", _HINT_OUTSIDE)


def _parse(text: str | bytes, path: Path, place: str) -> Any:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its {place} is not JSON", _HINT_AGAIN) from error
    if not isinstance(parsed, dict):
        raise ModelError(f"{path}: its {place} is not a JSON object", _HINT_AGAIN)
    return parsed


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(HDF5_SIGNATURE))
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
