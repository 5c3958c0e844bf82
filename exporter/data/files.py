"""The files that samples are from, by name and SHA-256, for a report."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from exporter.data.samples import Samples


class DataFile(NamedTuple):
    """A file of the user's data.

    Attributes:
        path: as the user's `--data` reaches it.
        sha256: of its content, in hex.
    """

    path: Path
    sha256: str


def hash_files(samples: Samples) -> list[DataFile]:
    """The files that the samples were read from; none for generated samples.

    Images and sounds that were used were hashed when they were read, and are not read again.
    Example: `[(each.path.name, each.sha256) for each in hash_files(samples)]`.
    """
    return [DataFile(path, samples.hashes.get(path) or _sha256(path)) for path in samples.files]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
