"""Write a copy of a Keras file in which one large Dense layer has few units.

Keras needs several times the size of a layer of 250,002 units to build it and load its weights. So
the file is copied without these weights, before Keras loads it:

1. The layer is found in the configuration, and its kernel in the weights. An HDF5 file stores
   weights under the layer's name. An archive does not: there the kernel is identified by its shape,
   and if two layers or two kernels have that shape, nothing is narrowed.
2. The copy states STUB_UNITS units and contains distinct values for them, so that each can be found
   again after a conversion.
3. The kernel and the bias of the original are memory-mapped in their file: archive members are
   stored uncompressed, and HDF5 stores an array contiguously by default. Chunked or compressed
   arrays are read into memory.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from exporter.formats.keras.files import WEIGHTS, KerasFile
from exporter.formats.keras.hdf5_in_zip import member_offset, open_hdf5_at
from exporter.graph import Array

STUB_UNITS = 8


@dataclass(frozen=True, eq=False)
class NarrowedFile:
    """A copy with few units in one layer, and the original weights of that layer.

    Attributes:
        path: of the copy.
        config: of the copy.
        layer: name of the layer.
        units: of the layer in the original.
        kernel: (features, units) float32, mostly a map of the original file.
        bias: (units,) float32, if the layer has one.
    """

    path: Path
    config: Any
    layer: str
    units: int
    kernel: Array
    bias: Array | None


def stub_values(shape: tuple[int, ...]) -> Array:
    """Distinct float32 values, none of them 0: a converter would remove a bias of zeros."""
    count = np.arange(1, np.prod(shape, dtype=int) + 1)
    return (count / len(count)).astype(np.float32).reshape(shape)


def narrow(file: KerasFile, folder: Path, min_bytes: int) -> NarrowedFile | None:
    """Write the copy of a file without the weights of its largest Dense layer.

    Args:
        file: checked with all of its contents.
        folder: private; receives the copy, and the weights if the archive compresses them.
        min_bytes: size of the smallest kernel that counts as large.

    Returns:
        None if no layer is so large, or if it cannot be identified.
    """
    if file.container == ".keras":
        return _narrow_archive(file, folder, min_bytes)
    return _narrow_hdf5(file, folder, min_bytes)


def _narrow_archive(file: KerasFile, folder: Path, min_bytes: int) -> NarrowedFile | None:
    with zipfile.ZipFile(file.path) as archive:
        member = archive.getinfo(WEIGHTS)
        if member.file_size < min_bytes:
            return None
        config, path, offset = deepcopy(file.config), file.path, member_offset(file.path, member)
        if offset is None:
            path, offset = _unpacked(archive, folder), 0
        weights, target = folder / "narrowed.weights.h5", folder / "narrowed.keras"
        with open_hdf5_at(path, offset) as source, h5py.File(weights, "w") as copy:
            found = _find_by_shape(config, source, min_bytes)
            if found is None:
                return None
            narrowed = _narrowed(found, config, _Hdf5Location(path, offset), target)
            _copy(source, copy, found.names)
        with zipfile.ZipFile(target, "w") as written:
            written.writestr("config.json", json.dumps(config))
            written.write(weights, WEIGHTS)
            for name in set(archive.namelist()) - {"config.json", WEIGHTS}:
                written.writestr(name, archive.read(name))
    weights.unlink()
    return narrowed


def _narrow_hdf5(file: KerasFile, folder: Path, min_bytes: int) -> NarrowedFile | None:
    if file.path.stat().st_size < min_bytes:
        return None
    config, target = deepcopy(file.config), folder / "narrowed.h5"
    with h5py.File(file.path, "r") as source, h5py.File(target, "w") as copy:
        found = _find_by_name(config, source, min_bytes)
        if found is None:
            return None
        narrowed = _narrowed(found, config, _Hdf5Location(file.path, 0), target)
        _copy(source, copy, found.names)
        copy.attrs["model_config"] = json.dumps(config)
    return narrowed


def _unpacked(archive: zipfile.ZipFile, folder: Path) -> Path:
    """Write the compressed weights of an archive to a file."""
    with archive.open(WEIGHTS) as packed, (folder / "unpacked.h5").open("wb") as target:
        shutil.copyfileobj(packed, target, 1 << 20)
    return folder / "unpacked.h5"


# --- find the layer -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LargeLayer:
    """The settings of a layer, to be edited in the configuration, and its HDF5 datasets."""

    settings: dict[str, Any]
    weights: list[Any]  # the kernel, (features, units), and the bias if it has one

    @property
    def names(self) -> set[str]:
        return {dataset.name for dataset in self.weights}


def _find_by_shape(config: Any, weights: Any, min_bytes: int) -> _LargeLayer | None:
    """The Dense layer with the largest kernel in an archive, which lacks the layers' names."""
    found = [
        values
        for name, group in (weights.get("layers") or {}).items()
        if name.startswith("dense") and _is_large(values := _numbered_weights(group), min_bytes)
    ]
    shapes: list[tuple[int, int]] = [values[0].shape for values in found]
    largest = max(shapes, key=np.prod, default=None)
    if largest is None or shapes.count(largest) != 1:
        return None
    values = found[shapes.index(largest)]
    fitting = [
        settings for settings in _dense_layers(config) if settings.get("units") == largest[1]
    ]
    if len(fitting) != 1 or not _fits(fitting[0], values):
        return None
    return _LargeLayer(fitting[0], values)


def _numbered_weights(group: Any) -> list[Any]:
    found = dict(group.get("vars") or {})
    return [found[key] for key in sorted(found)] if set(found) <= {"0", "1"} else []


def _find_by_name(config: Any, file: Any, min_bytes: int) -> _LargeLayer | None:
    """The Dense layer with the largest kernel in an HDF5 file."""
    groups = file.get("model_weights") or {}
    layers = [
        _LargeLayer(settings, _named_weights(groups.get(str(settings.get("name")))))
        for settings in _dense_layers(config)
    ]
    large = [layer for layer in layers if _is_large(layer.weights, min_bytes)]
    largest = max(large, key=lambda layer: layer.weights[0].nbytes, default=None)
    return largest if largest is not None and _fits(largest.settings, largest.weights) else None


def _named_weights(group: Any) -> list[Any]:
    """Kernel and bias of a layer in an HDF5 file; nothing if it has any other weight."""
    listed = group.attrs.get("weight_names", ()) if group is not None else ()
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in listed]
    plain = [name.rpartition("/")[2].removesuffix(":0") for name in names]  # Keras 2 writes ":0"
    found = [group.get(name) for name in names]
    return found if plain == ["kernel", "bias"][: len(plain)] and None not in found else []


def _dense_layers(config: Any) -> list[dict[str, Any]]:
    """The settings of the Dense layers that are not inside other layers."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else inner  # Keras 2: a bare list
    return [
        each["config"]
        for each in layers or []
        if each.get("class_name") == "Dense" and isinstance(each.get("config"), dict)
    ]


def _is_large(weights: list[Any], min_bytes: int) -> bool:
    """A large float32 kernel with at most a bias; a quantized layer has other variables."""
    plain = all(values.dtype == np.float32 for values in weights)
    return bool(weights) and plain and weights[0].ndim == 2 and weights[0].nbytes >= min_bytes  # noqa: PLR2004 - a matrix


def _fits(settings: dict[str, Any], weights: list[Any]) -> bool:
    """Do the shapes of the weights match the settings?"""
    kernel, units = weights[0].shape, settings.get("units")
    expected = [kernel, (units,)][: 1 + bool(settings.get("use_bias", True))]
    return kernel[1] == units and [values.shape for values in weights] == expected


# --- copy without its weights ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Hdf5Location:
    """Where an HDF5 file starts: at an offset in a file."""

    path: Path
    offset: int

    def map(self, dataset: Any) -> Array:
        """Map a dataset, or read it if it is not contiguous."""
        start = dataset.id.get_offset()
        if start is None or not dataset.dtype.isnative:
            values: Array = dataset[()]
            return values
        return np.memmap(self.path, dataset.dtype, "r", self.offset + start, dataset.shape)


def _narrowed(
    found: _LargeLayer, config: Any, original: _Hdf5Location, target: Path
) -> NarrowedFile:
    """Narrow the layer in its configuration, and map its original weights."""
    kernel, *bias = map(original.map, found.weights)
    units = int(found.settings["units"])
    found.settings["units"] = STUB_UNITS
    name = found.settings["name"]
    return NarrowedFile(target, config, name, units, kernel, bias[0] if bias else None)


def _copy(source: Any, target: Any, large: set[str]) -> None:
    """Copy an HDF5 group without the large weights and the optimizer's variables."""
    target.attrs.update(source.attrs)
    for name in source:
        if isinstance(source.get(name, getlink=True), h5py.SoftLink):
            continue  # Keras writes none, and this one may lead to nothing
        inner = source[name]
        if inner.name in large:
            target[name] = stub_values((*inner.shape[:-1], STUB_UNITS))
        elif any(each.startswith(f"{inner.name}/") for each in large):
            _copy(inner, target.create_group(name), large)
        elif inner.name not in {"/optimizer", "/optimizer_weights"}:
            source.copy(inner, target, name)
