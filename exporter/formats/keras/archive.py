"""Write `.keras` archives with bytes that depend only on the model.

Keras writes the date and the memory addresses of shared objects into an archive. The date is
replaced by the first day of the zip format, the addresses by running numbers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

FIRST_DAY = (1980, 1, 1, 0, 0, 0)


def write_archive(model: Any, path: Path) -> None:
    """Write a Keras model as `.keras` at exactly this path, with any suffix."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "model.keras"
        model.save(raw)
        with zipfile.ZipFile(raw) as source, zipfile.ZipFile(path, "w") as target:
            for name in sorted(source.namelist()):
                _copy(source, target, name)


def _copy(source: zipfile.ZipFile, target: zipfile.ZipFile, name: str) -> None:
    entry = zipfile.ZipInfo(name, FIRST_DAY)
    if name == "config.json":
        target.writestr(entry, json.dumps(_numbered(json.loads(source.read(name)), {})))
    elif name == "metadata.json":
        metadata = json.loads(source.read(name))
        target.writestr(entry, json.dumps({**metadata, "date_saved": "1980-01-01@00:00:00"}))
    else:
        entry.file_size = source.getinfo(name).file_size
        with source.open(name) as reader, target.open(entry, "w") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)


def _numbered(config: Any, numbers: dict[int, int]) -> Any:
    """The configuration with shared objects numbered by their first use."""
    if isinstance(config, list):
        return [_numbered(entry, numbers) for entry in config]
    if not isinstance(config, dict):
        return config
    copy = {key: _numbered(value, numbers) for key, value in config.items()}
    if isinstance(copy.get("shared_object_id"), int):
        copy["shared_object_id"] = numbers.setdefault(copy["shared_object_id"], len(numbers) + 1)
    return copy
