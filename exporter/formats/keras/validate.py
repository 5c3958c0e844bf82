"""Check an untrusted Keras file before Keras loads it.

Keras builds whichever class a file names, and runs deep inside C libraries that a damaged file can
crash. So the container is checked first, then every class in the configuration: only classes of
Keras pass, and of these only classes that carry no code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.errors import ModelError
from exporter.formats.keras.files import (
    HINT_OUTSIDE,
    KerasFile,
    container_of,
    hdf5_config,
    open_hdf5,
    read_archive,
)
from exporter.formats.keras.keras2 import counterpart, is_keras_2
from exporter.graph import Array

_FUNCTION_LAYERS = {"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"}  # of Keras 2
_CODE_LAYERS = {
    *("Lambda", "__lambda__"),
    *("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
}
_OUR_PACKAGE = "exporter.layers"
OUR_CLASSES = frozenset({"ConditionalUnits", "UnitMask", "ZeroedUnits"})
_HINT_FUNCTION = (
    "open it with the TensorFlow that wrote it, save it with tf.saved_model.save, and cut that"
)
_HINT_CODE = "build the model again with a built-in layer instead"
_HINT_CUSTOM = (
    "load it in Python with the package that defines the class, save it with "
    "model.export(FOLDER), and cut that folder"
)


def check_without_libraries(path: Path) -> KerasFile | None:
    """Check as much of a file as can be checked without importing a library.

    Returns:
        A `.keras` file, with only its weights unchecked; None for an HDF5 file.

    Raises:
        UsageError: there is no such file.
        ModelError: empty, truncated, damaged, not a Keras file, or it names a Lambda or a class
            that is not of Keras.
    """
    if container_of(path) == ".h5":
        return None
    file = read_archive(path)
    check_classes(file.config, path.name)
    return file


def check_hdf5(path: Path, archive: KerasFile | None) -> Mapping[str, Array]:
    """Read the HDF5 part of a Keras file once; imports h5py, which a damaged file can hang.

    Args:
        archive: as `check_without_libraries` returned it.

    Raises:
        ModelError: damaged, weights without a model, or values that are stored in another file.
    """
    with open_hdf5(path, ".keras" if archive else ".h5") as weights:
        if archive is None:
            hdf5_config(weights, path)
        _check_links(weights, path)
    return {}


def check_file(path: Path, is_layer: Callable[[str], bool]) -> KerasFile:
    """Check a whole file; imports h5py.

    Args:
        is_layer: does Keras have a layer or model class of this name? HDF5 files name classes
            without their module.

    Raises:
        UsageError, ModelError: as `check_without_libraries`; also for weights without a model, and
            for values that are stored in another file.
    """
    archive = check_without_libraries(path)
    with open_hdf5(path, ".keras" if archive else ".h5") as weights:
        file = archive or hdf5_config(weights, path)
        _check_links(weights, path)
    if archive is None:
        check_classes(file.config, path.name)
    if archive is None or is_keras_2(file.version):  # classes are found by their names alone
        for layer in _layers(file.config):
            described = f"{path.name}: {_described(layer)}"
            if not is_layer(counterpart(layer["class_name"], described)):
                raise _custom(path.name, layer)
    return file


def _check_links(file: Any, path: Path) -> None:
    """Refuse an HDF5 file that reads values from another file (ModelError)."""
    import h5py  # noqa: PLC0415 - loads a C library that the parent process does not need

    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:  # a group may be linked below itself
            continue
        seen.add(address)
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):  # to another object of this file, or to nothing
                continue
            inner = None if isinstance(link, h5py.ExternalLink) else group[name]
            if inner is None or _is_external(inner):
                shown = f"{group.name.rstrip('/')}/{name}"
                raise ModelError(
                    f"{path.name}: {shown!r} is stored in another file, which is not read",
                    HINT_OUTSIDE,
                )
            if hasattr(inner, "keys"):
                waiting.append(inner)


def _is_external(item: Any) -> bool:
    return bool(getattr(item, "external", None) or getattr(item, "is_virtual", False))


# --- classes --------------------------------------------------------------------------------------


def check_classes(config: Any, source: str) -> None:
    """Refuse classes that carry code or are not of Keras.

    Args:
        config: a model's configuration as Keras serializes it.
        source: the file or the model, for the message.

    Raises:
        ModelError: names the layer and its class.
    """
    for entry in _objects(config):
        described = f"{source}: {_described(entry)} is a {entry['class_name']}"
        if entry["class_name"] in _FUNCTION_LAYERS:
            raise ModelError(
                f"{described}, which calls a TensorFlow function; Keras 3 has no such layer",
                _HINT_FUNCTION,
            )
        if entry["class_name"] in _CODE_LAYERS:
            raise ModelError(f"{described}, which runs custom code", _HINT_CODE)
        _check_settings(entry, source)
        if not _is_known(entry, {"keras", "tf_keras", "builtins"}):
            raise _custom(source, entry)


def _is_known(entry: dict[str, Any], packages: set[str]) -> bool:
    """Is the class of one of these packages, or one of our layers?"""
    module = entry.get("module", "keras") or "__main__"  # Keras writes null for __main__
    ours = module.startswith(_OUR_PACKAGE) and entry["class_name"] in OUR_CLASSES
    return ours or module.split(".", maxsplit=1)[0] in packages


def _check_settings(entry: dict[str, Any], source: str) -> None:
    """Refuse settings that name a file to read, and names that Keras 3 does not allow."""
    settings = entry.get("config")
    if not isinstance(settings, dict):
        return
    if isinstance(settings.get("vocabulary"), str):
        raise ModelError(
            f"{source}: {_described(entry)} takes its vocabulary from the file "
            f"{settings['vocabulary']!r}, which is not read",
            HINT_OUTSIDE,
        )
    name = settings.get("name")
    if isinstance(name, str) and "/" in name:
        raise ModelError(
            f"{source}: a {entry['class_name']} has the name {name!r}; Keras allows no slash",
            "rename the layer",
        )


def check_live(model: Any) -> None:
    """Refuse a live model with layers that carry code or are not of Keras (ModelError)."""
    for entry in _live_entries(model):
        check_classes(entry, f"the model {model.name!r}")


def custom_class_of(model: Any) -> str | None:
    """Describe the first layer of a live model that is not of Keras; None if all are.

    Raises:
        ModelError: a Lambda, or another layer that carries code.
    """
    entries = list(_live_entries(model))
    for entry in entries:
        if entry["class_name"] in _CODE_LAYERS:
            check_classes(entry, f"the model {model.name!r}")
    for entry in entries:
        name = _described(entry)
        if not _is_known(entry, {"keras"}):
            return f"{name} is of the class {entry['class_name']!r}, which is not of Keras"
        if entry["function"] is not None:
            return f"{name} needs the custom function {entry['function']!r}"
    return None


def _live_entries(model: Any) -> Iterator[dict[str, Any]]:
    """A live model and all of its layers, each as a configuration would list it."""
    for layer in model._flatten_layers():  # noqa: SLF001 - Keras has no public way to inner layers
        kind = type(layer)
        yield {
            "module": kind.__module__,
            "class_name": kind.__name__,
            "config": {"name": layer.name},
            # the registered function that a ConditionalUnits calls
            "function": getattr(getattr(layer, "condition", None), "name", None),
        }


def _custom(source: str, entry: dict[str, Any]) -> ModelError:
    if entry["class_name"] == "function":
        return ModelError(f"{source} needs the custom function {entry['config']!r}", _HINT_CUSTOM)
    return ModelError(
        f"{source}: {_described(entry)} is of the custom class {entry['class_name']!r}",
        _HINT_CUSTOM,
    )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every serialized object in a configuration, outer objects first."""
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
    """The model and all of its layers, as HDF5 files list them: without module names."""
    for entry in _objects(config):
        inner = entry.get("config")
        if isinstance(inner, dict) and isinstance(inner.get("layers"), list):
            yield entry
            for layer in inner["layers"]:
                if isinstance(layer, dict) and isinstance(layer.get("class_name"), str):
                    yield layer


def _described(entry: dict[str, Any]) -> str:
    settings = entry.get("config")
    name = settings.get("name") if isinstance(settings, dict) else None
    return f"layer {name!r}" if name else "an object in it"
