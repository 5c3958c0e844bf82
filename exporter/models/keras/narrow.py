"""Files of Keras in which one wide Dense layer is narrowed, before Keras sees them.

To build a layer of 250,002 units and load its weights takes Keras several times their size. So the
file is written once more, without them:

1. The layer is looked for in the configuration, and its kernel in the HDF5 member: the one of the
   shape that the configuration tells. Where there are two of either, nothing is narrowed.
2. The copy states few units and holds distinct values for them, which show where they went.
3. The kernel and the bias are mapped where they lie in the file: an archive's members are stored,
   and HDF5 keeps an array in one piece, unless it was told otherwise. What is chunked or compressed
   is read as it is.
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from exporter.graph import Array

STUB_UNITS = 8
_WEIGHTS = "model.weights.h5"
_LOCAL_HEADER = 30  # bytes of a zip member's own header, before its name


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


def narrow(path: Path, folder: Path, bound_bytes: int) -> Narrowed | None:
    """Write a `.keras` archive once more, with its wide layer narrowed.

    Args:
        path: an archive that was checked.
        folder: private; holds the result, and the weights where they had to be unpacked.
        bound_bytes: how large a kernel has to be.

    Returns:
        None where no layer is so wide, or which it is cannot be told.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(_WEIGHTS)
        if member.file_size < bound_bytes:
            return None
        config = json.loads(archive.read("config.json"))
        place = _place(archive, path, member, folder)
        with _opened(place) as source:
            found = _wide(config, source, bound_bytes)
            if found is None:
                return None
            entry, group = found
            units = int(entry["units"])
            weights = [_mapped(place, dataset) for dataset in _of_layer(group)]
            entry["units"] = STUB_UNITS
            target = folder / "narrowed.weights.h5"
            with h5py.File(target, "w") as copy:
                _copy(source, copy, group["vars"].name)
        narrowed = folder / "narrowed.keras"
        with zipfile.ZipFile(narrowed, "w") as written:
            written.writestr("config.json", json.dumps(config))
            written.write(target, _WEIGHTS)
            for name in set(archive.namelist()) - {"config.json", _WEIGHTS}:
                written.writestr(name, archive.read(name))
    target.unlink()
    return Narrowed(narrowed, entry["name"], units, weights[0], next(iter(weights[1:]), None))


@dataclass(frozen=True)
class _Place:
    """An HDF5 file that lies inside another file."""

    path: Path
    offset: int


class _Section:
    """A part of a file, as h5py reads files."""

    def __init__(self, place: _Place) -> None:
        self._file = place.path.open("rb")
        self._offset = place.offset
        self._file.seek(place.offset)

    def seek(self, position: int, whence: int = 0) -> int:
        start = self._offset if whence == 0 else 0
        return self._file.seek(start + position, whence) - self._offset

    def tell(self) -> int:
        return self._file.tell() - self._offset

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def read(self, count: int = -1) -> bytes:
        return self._file.read(count)

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        self._file.close()


@contextmanager
def _opened(place: _Place) -> Iterator[Any]:
    with closing(_Section(place)) as section, h5py.File(section, "r") as file:
        yield file


def _place(archive: zipfile.ZipFile, path: Path, member: zipfile.ZipInfo, folder: Path) -> _Place:
    """Where the weights lie: in the archive itself, or, if packed, in a file of their own."""
    if member.compress_type != zipfile.ZIP_STORED:
        with archive.open(member) as packed, (folder / "unpacked.h5").open("wb") as target:
            shutil.copyfileobj(packed, target, 1 << 20)
        return _Place(folder / "unpacked.h5", 0)
    with path.open("rb") as file:
        file.seek(member.header_offset)
        lengths = struct.unpack_from("<HH", file.read(_LOCAL_HEADER), _LOCAL_HEADER - 4)
    return _Place(path, member.header_offset + _LOCAL_HEADER + sum(lengths))


def _wide(config: Any, weights: Any, bound_bytes: int) -> tuple[dict[str, Any], Any] | None:
    """The settings of the Dense layer with the largest kernel, and its group of weights."""
    layers = config.get("config", {}).get("layers", []) if isinstance(config, dict) else []
    dense = [each["config"] for each in layers if each.get("class_name") == "Dense"]
    groups = [
        group
        for name, group in (weights.get("layers") or {}).items()
        if name.startswith("dense") and _is_wide(group, bound_bytes)
    ]
    shapes: list[tuple[int, int]] = [group["vars"]["0"].shape for group in groups]
    largest = max(shapes, key=np.prod, default=None)
    if largest is None or shapes.count(largest) != 1:
        return None
    group, units = groups[shapes.index(largest)], largest[1]
    fitting = [entry for entry in dense if entry.get("units") == units]
    if len(fitting) != 1 or bool(fitting[0].get("use_bias", True)) != ("1" in group["vars"]):
        return None
    return fitting[0], group


def _is_wide(group: Any, bound_bytes: int) -> bool:
    """A float32 kernel, and at most a bias; not the variables of a quantised layer."""
    held = dict(group.get("vars") or {})
    kernel = held.get("0")
    if not set(held) <= {"0", "1"} or kernel is None:
        return False
    plain = all(values.dtype == np.float32 for values in held.values())
    return plain and kernel.ndim == 2 and kernel.nbytes >= bound_bytes  # noqa: PLR2004 - a matrix


def _of_layer(group: Any) -> Iterator[Any]:
    yield from (group["vars"][key] for key in sorted(group["vars"]))


def _mapped(place: _Place, dataset: Any) -> Array:
    start = dataset.id.get_offset()
    if start is None or not dataset.dtype.isnative:
        values: Array = dataset[()]
        return values
    offset = place.offset + start
    return np.memmap(place.path, dataset.dtype, "r", offset, dataset.shape)


def _copy(source: Any, target: Any, wide: str) -> None:
    """Everything but the wide layer's weights, and what an optimizer remembers."""
    target.attrs.update(source.attrs)
    for name, inner in source.items():
        if not hasattr(inner, "items"):
            source.copy(inner, target, name)
        elif inner.name == wide:
            group = target.create_group(name)
            for key, values in inner.items():
                group[key] = stub_values((*values.shape[:-1], STUB_UNITS))
        elif inner.name != "/optimizer":
            _copy(inner, target.create_group(name), wide)
