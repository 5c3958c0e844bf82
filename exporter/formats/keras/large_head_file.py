"""Files of Keras in which one wide Dense layer is narrowed, before Keras sees them.

To build a layer of 250,002 units and load its weights takes Keras several times their size. So the
file is written once more, without them:

1. The layer is looked for in the configuration, and its kernel in the weights. An HDF5 file keeps
   them under the layer's name. An archive does not: there it is the one kernel of the shape that
   the configuration tells, and where there are two of either, nothing is narrowed.
2. The copy states few units and holds distinct values for them, which show where they went.
3. The kernel and the bias are mapped where they lie in the file: an archive's members are stored,
   and HDF5 keeps an array in one piece, unless it was told otherwise. What is chunked or compressed
   is read as it is.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from exporter.formats.keras.files import WEIGHTS, Container
from exporter.formats.keras.hdf5_in_zip import Place, opened, place_of
from exporter.graph import Array

STUB_UNITS = 8


@dataclass(frozen=True, eq=False)
class Narrowed:
    """A file that states few units of one layer, and the weights that it lacks.

    Attributes:
        path: of the narrowed file.
        layer: name of the layer.
        units: how many it has.
        kernel: (features, units) float32, mostly a map of the original file.
        bias: (units,) float32, if it has one.
    """

    path: Path
    layer: str
    units: int
    kernel: Array
    bias: Array | None


def stub_values(shape: tuple[int, ...]) -> Array:
    """Distinct values in float32, none of them 0: a converter would fold a bias of zeros away."""
    count = np.arange(1, np.prod(shape, dtype=int) + 1)
    return (count / len(count)).astype(np.float32).reshape(shape)


def narrow(path: Path, container: Container, folder: Path, bound_bytes: int) -> Narrowed | None:
    """Write a file once more, with its wide layer narrowed.

    Args:
        path: a file that was checked, with what it holds.
        container: what it is.
        folder: private; holds the result, and the weights where they had to be unpacked.
        bound_bytes: how large a kernel has to be.

    Returns:
        None where no layer is so wide, or which it is cannot be told.
    """
    return _NARROW[container](path, folder, bound_bytes)


def _narrow_archive(path: Path, folder: Path, bound_bytes: int) -> Narrowed | None:
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(WEIGHTS)
        if member.file_size < bound_bytes:
            return None
        config = json.loads(archive.read("config.json"))
        place = place_of(path, member) or _unpacked(archive, folder)
        weights, target = folder / "narrowed.weights.h5", folder / "narrowed.keras"
        with opened(place) as source, h5py.File(weights, "w") as copy:
            found = _by_shape(config, source, bound_bytes)
            if found is None:
                return None
            narrowed = _narrowed(found, place, target)
            _copy(source, copy, found.names)
        with zipfile.ZipFile(target, "w") as written:
            written.writestr("config.json", json.dumps(config))
            written.write(weights, WEIGHTS)
            for name in set(archive.namelist()) - {"config.json", WEIGHTS}:
                written.writestr(name, archive.read(name))
    weights.unlink()
    return narrowed


def _narrow_hdf5(path: Path, folder: Path, bound_bytes: int) -> Narrowed | None:
    if path.stat().st_size < bound_bytes:
        return None
    target = folder / "narrowed.h5"
    with h5py.File(path, "r") as source, h5py.File(target, "w") as copy:
        config = json.loads(source.attrs["model_config"])
        found = _by_name(config, source, bound_bytes)
        if found is None:
            return None
        narrowed = _narrowed(found, Place(path, 0), target)
        _copy(source, copy, found.names)
        copy.attrs["model_config"] = json.dumps(config)
    return narrowed


_NARROW: Mapping[Container, Callable[[Path, Path, int], Narrowed | None]] = {
    ".keras": _narrow_archive,
    ".h5": _narrow_hdf5,
}


def _unpacked(archive: zipfile.ZipFile, folder: Path) -> Place:
    """The weights of an archive that packs them, in a file of their own."""
    with archive.open(WEIGHTS) as packed, (folder / "unpacked.h5").open("wb") as target:
        shutil.copyfileobj(packed, target, 1 << 20)
    return Place(folder / "unpacked.h5", 0)


# --- the layer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wide:
    """The settings of a layer, as they stand in the configuration, and its HDF5 datasets."""

    settings: dict[str, Any]
    weights: list[Any]  # the kernel, (features, units), and the bias if it has one

    @property
    def names(self) -> set[str]:
        return {dataset.name for dataset in self.weights}


def _by_shape(config: Any, weights: Any, bound_bytes: int) -> _Wide | None:
    """The Dense layer with the largest kernel in an archive, which does not say whose is which."""
    found = [
        held
        for name, group in (weights.get("layers") or {}).items()
        if name.startswith("dense") and _is_wide(held := _numbered(group), bound_bytes)
    ]
    shapes: list[tuple[int, int]] = [held[0].shape for held in found]
    largest = max(shapes, key=np.prod, default=None)
    if largest is None or shapes.count(largest) != 1:
        return None
    held = found[shapes.index(largest)]
    fitting = [settings for settings in _dense(config) if settings.get("units") == largest[1]]
    return _Wide(fitting[0], held) if len(fitting) == 1 and _fits(fitting[0], held) else None


def _numbered(group: Any) -> list[Any]:
    held = dict(group.get("vars") or {})
    return [held[key] for key in sorted(held)] if set(held) <= {"0", "1"} else []


def _by_name(config: Any, file: Any, bound_bytes: int) -> _Wide | None:
    """The Dense layer with the largest kernel in an HDF5 file."""
    groups = file.get("model_weights") or {}
    found = [_Wide(each, _listed(groups.get(str(each.get("name"))))) for each in _dense(config)]
    wide = [each for each in found if _is_wide(each.weights, bound_bytes)]
    largest = max(wide, key=lambda each: each.weights[0].nbytes, default=None)
    return largest if largest is not None and _fits(largest.settings, largest.weights) else None


def _listed(group: Any) -> list[Any]:
    """The kernel and the bias of a layer in an HDF5 file; nothing where it holds anything else."""
    listed = group.attrs.get("weight_names", ()) if group is not None else ()
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in listed]
    plain = [name.rpartition("/")[2].removesuffix(":0") for name in names]  # as Keras 2 called it
    held = [group.get(name) for name in names]
    return held if plain == ["kernel", "bias"][: len(plain)] and None not in held else []


def _dense(config: Any) -> list[dict[str, Any]]:
    """The settings of the Dense layers that are not inside of others."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else inner  # Keras 2 knew bare lists
    return [
        each["config"]
        for each in layers or []
        if each.get("class_name") == "Dense" and isinstance(each.get("config"), dict)
    ]


def _is_wide(held: list[Any], bound_bytes: int) -> bool:
    """A float32 kernel, and at most a bias; not the variables of a quantized layer."""
    plain = all(values.dtype == np.float32 for values in held)
    return bool(held) and plain and held[0].ndim == 2 and held[0].nbytes >= bound_bytes  # noqa: PLR2004 - a matrix


def _fits(settings: dict[str, Any], held: list[Any]) -> bool:
    """Are these the weights of a layer with these settings?"""
    shapes = [held[0].shape, (settings.get("units"),)][: 1 + bool(settings.get("use_bias", True))]
    return held[0].shape[1] == settings.get("units") and [w.shape for w in held] == shapes


# --- its weights ----------------------------------------------------------------------------------


def _narrowed(found: _Wide, place: Place, target: Path) -> Narrowed:
    """Narrow the layer in its configuration, and map what it had."""
    settings, weights = found.settings, [_mapped(place, dataset) for dataset in found.weights]
    units = int(settings["units"])
    settings["units"] = STUB_UNITS
    return Narrowed(target, settings["name"], units, weights[0], next(iter(weights[1:]), None))


def _mapped(place: Place, dataset: Any) -> Array:
    start = dataset.id.get_offset()
    if start is None or not dataset.dtype.isnative:
        values: Array = dataset[()]
        return values
    offset = place.offset + start
    return np.memmap(place.path, dataset.dtype, "r", offset, dataset.shape)


def _copy(source: Any, target: Any, wide: set[str]) -> None:
    """Everything but the wide layer's weights, and what an optimizer remembers."""
    target.attrs.update(source.attrs)
    for name in source:
        if isinstance(source.get(name, getlink=True), h5py.SoftLink):
            continue  # Keras writes none, and this one may lead nowhere
        inner = source[name]
        if inner.name in wide:
            target[name] = stub_values((*inner.shape[:-1], STUB_UNITS))
        elif any(each.startswith(f"{inner.name}/") for each in wide):
            _copy(inner, target.create_group(name), wide)
        elif inner.name not in {"/optimizer", "/optimizer_weights"}:
            source.copy(inner, target, name)
