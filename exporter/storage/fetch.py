"""Read a URL through a local cache that is addressed by content.

    CACHE/objects/DIGEST/NAME   a file, or a folder, with the files that belong to it
    CACHE/index/HASH            of a URL: its state when it was read (an ETag, for example), the
                                digest and the name
    CACHE/unfinished/HASH       of a URL: what a batch that ended early has made for it

The digest is the SHA-256 of the lines that `sha256sum` prints for the files. It is checked whenever
the cache is used: a damaged copy is read again. Objects appear whole, by a rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from exporter.errors import ExporterError, UsageError
from exporter.formats import KINDS
from exporter.output.files import sha256_of, writing
from exporter.output.publish import held_place
from exporter.output.scratch import scratch_folder, temporary_files
from exporter.storage.urls import (
    UrlPath,
    filesystem,
    local_file,
    reason_of,
    redact,
    scheme_of,
    url_path,
)

CACHE = "EXPORTER_CACHE"
_STATES = ("ETag", "etag", "LastModified", "last_modified", "mtime", "generation", "md5Hash")


def cache_folder() -> Path:
    """EXPORTER_CACHE, else `exporter` in the user's folder for caches."""
    if given := os.environ.get(CACHE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exporter"


@contextmanager
def held_folder(url: str) -> Iterator[Path]:
    """A locked folder for the files that go to a URL; it is removed if the block raises no error.

    Raises:
        OutputError: another process makes them, or the cache cannot be written.
    """
    folder = cache_folder() / "unfinished" / hashlib.sha256(url.encode()).hexdigest()
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with held_place(folder):
        with writing(folder):
            folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def fetch(url: str) -> Path:
    """The local copy of a file or folder.

    Raises:
        UsageError: there is no such file, access is denied, or a package is missing.
    """
    if scheme_of(url) == "file":
        return local_file(url)
    system, path = filesystem(url)
    try:
        with temporary_files():
            return _fetch(system, path, url)
    except ExporterError:
        raise
    except FileNotFoundError:
        raise UsageError(f"there is no file {redact(url)}", "check the URL") from None
    except Exception as error:  # noqa: BLE001 - each library of storage has its own errors
        # The chain is cut: messages below may contain signed URLs.
        raise UsageError(
            f"{redact(url)} cannot be read: {reason_of(error)}",
            "check the URL, the network, and the credentials in the environment",
        ) from None


def _fetch(system: Any, path: str, url: str) -> UrlPath:
    found = _files(system, path)
    state = json.dumps([[name, _state(info)] for name, (_, info) in found.items()])
    is_known = all(_state(info) for _, info in found.values())
    entry = cache_folder() / "index" / hashlib.sha256(url.encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError):
        known = json.loads(entry.read_text(encoding="utf-8"))
        target = cache_folder() / "objects" / known["digest"]
        companions_unchanged = all(
            _state(system.info(_sibling(path, name))) == seen
            for name, seen in known["companions"].items()
        )
        if is_known and known["state"] == state and companions_unchanged:
            if _digest(target) == known["digest"]:
                return url_path(target / known["name"], url)
            shutil.rmtree(target, ignore_errors=True)
    objects = cache_folder() / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    name = PurePosixPath(path).name
    with scratch_folder(objects) as folder:
        content = folder / "content"
        for relative, (there, _) in found.items():
            _download(system, there, content / relative)
        companions = _companions(system, path, content / name) if len(found) == 1 else {}
        digest = _digest(content)
        _place(content, objects / digest)
    _write(entry, {"state": state, "digest": digest, "name": name, "companions": companions})
    return url_path(objects / digest / name, url)


def _files(system: Any, path: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Name below the parent of the path -> the path there, and what is known about the file."""
    name = PurePosixPath(path).name
    info = system.info(path)
    if info.get("type") != "directory":
        return {name: (path, info)}
    found = {
        f"{name}/{_below(there, path)}": (there, each)
        for there, each in system.find(path, detail=True).items()
        if each.get("type") != "directory" and not there.endswith("/")
    }
    if not found:
        raise FileNotFoundError(path)
    return dict(sorted(found.items()))


def _below(there: str, path: str) -> str:
    """The rest of a path; a name that leads elsewhere is refused."""
    rest = there.removeprefix(path).lstrip("/")
    if not rest or ".." in PurePosixPath(rest).parts or "\\" in rest:
        raise UsageError(f"{redact(there)} has an unsafe name", "rename it")
    return rest


def _companions(system: Any, path: str, model: Path) -> dict[str, Any]:
    """Read the files that an ONNX model refers to; returns their states."""
    if model.suffix.lower() not in KINDS["onnx"].suffixes:
        return {}
    found = {}
    for file in KINDS["onnx"].files_of(model)[1:]:
        name = file.relative_to(model.parent).as_posix()
        there = _sibling(path, _below(f"/{name}", "/"))
        found[name] = _state(system.info(there))
        _download(system, there, file)
    return found


def _sibling(path: str, name: str) -> str:
    return f"{path.rpartition('/')[0]}/{name}"


def _state(info: Mapping[str, Any]) -> str:
    """What changes when the content changes; "" if the storage does not tell."""
    found = [str(info[name]) for name in _STATES if info.get(name)]
    return " ".join([*found, str(info.get("size"))]) if found else ""


def _download(system: Any, there: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    system.get_file(there, str(target))


def _digest(folder: Path) -> str:
    """Of all files of a folder; "" without any."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    lines = [f"{sha256_of(each)}  {each.relative_to(folder).as_posix()}\n" for each in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else ""


def _place(content: Path, target: Path) -> None:
    """Move a folder to its place; another process may have put the same content there."""
    try:
        content.rename(target)
    except OSError:
        if _digest(target) != target.name:
            raise


def _write(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path.parent) as folder:
        (folder / "entry").write_text(json.dumps(record), encoding="utf-8")
        (folder / "entry").replace(path)
