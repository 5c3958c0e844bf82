"""Write to a URL, whole or not at all.

1. The job writes its files to a local folder.
2. All files are uploaded under a temporary key next to the target, SHA256SUMS of a folder or the
   model file itself last. If that fails, the temporary key is removed; the target is as before.
3. From then on, the whole result is under the temporary key. Its files are copied to the target in
   the same order. A folder without SHA256SUMS is not complete, so an old one is removed first.
4. Old files that the result does not have are removed, then the temporary key. If a step before
   this fails, the temporary key stays, and the error names it: there is a whole result at any time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from exporter.errors import ExporterError, OutputError
from exporter.output.folder import MANIFEST
from exporter.output.scratch import scratch_folder
from exporter.storage.urls import (
    READ_ONLY,
    filesystem,
    local_file,
    reason_of,
    redact,
    scheme_of,
    url_path,
)

_HINT = "check the URL, the network, and the credentials in the environment"


@contextmanager
def writable(
    target: str | Path, *, force: bool = False, local: Path | None = None
) -> Iterator[Path]:
    """The local path to write instead of a target; a URL is uploaded when the block ends.

    If the block raises an error, or writes nothing, nothing appears.

    Args:
        force: an existing target may be replaced.
        local: a folder for what is uploaded; None for a temporary one.

    Raises:
        OutputError: the target exists, is read-only, or cannot be written.
    """
    scheme = scheme_of(target)
    if not scheme:
        yield Path(target)
        return
    url = str(target).rstrip("/")
    if scheme == "file":
        yield local_file(url)
        return
    if scheme in READ_ONLY:
        raise OutputError(
            f"{scheme}:// is read-only", "write to a folder, or to s3://, gs:// or az://"
        )
    system, path = filesystem(url)
    name = PurePosixPath(path).name
    if "/" not in path:
        raise OutputError(f"{redact(url)} is a bucket", "add a name: BUCKET/NAME")
    with _reporting(url):
        if system.exists(path) and not force:
            raise OutputError(f"{redact(url)} exists", "use --force to replace it")
    with scratch_folder() if local is None else nullcontext(local) as folder:
        yield url_path(folder / name, url)
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        if files:
            with _reporting(url):
                _publish(system, path, folder, files, url)


def exists(url: str) -> bool:
    """Is there a file or a folder with this URL? (raises OutputError)"""
    system, path = filesystem(url.rstrip("/"))
    with _reporting(url):
        return bool(system.exists(path))


@contextmanager
def _reporting(url: str) -> Iterator[None]:
    """Turn the errors of libraries of storage into one that shows no secrets."""
    try:
        yield
    except ExporterError:
        raise
    except Exception as error:  # noqa: BLE001 - each library has its own errors
        raise OutputError(f"{redact(url)} cannot be written: {reason_of(error)}", _HINT) from None


def _publish(system: Any, path: str, folder: Path, files: list[Path], url: str) -> None:
    parent, _, name = path.rpartition("/")
    names = [each.relative_to(folder).as_posix() for each in files]
    last = name if name in names else f"{name}/{MANIFEST}"
    names.sort(key=lambda each: (each == last, each))
    temporary = f"{parent}/.exporter-{name}-{secrets.token_hex(4)}"
    try:
        for each in names:
            system.put_file(str(folder / each), f"{temporary}/{each}")
    except BaseException:
        with suppress(Exception):  # the error of the upload is the one to show
            system.rm(temporary, recursive=True)
        raise
    is_folder = last != name
    try:
        old = set(system.find(path)) if is_folder and system.exists(path) else set()
        if f"{parent}/{last}" in old:
            system.rm_file(f"{parent}/{last}")
        for each in names:
            system.cp_file(f"{temporary}/{each}", f"{parent}/{each}")
        for each in sorted(old - {f"{parent}/{each}" for each in names}):
            system.rm_file(each)
    except Exception as error:  # noqa: BLE001 - each library has its own errors
        raise OutputError(
            f"{redact(url)} cannot be written: {reason_of(error)}",
            f"the whole result is in {scheme_of(url)}://{temporary}: copy it from there, or repeat "
            "the command with --force",
        ) from None
    with suppress(Exception):  # the result is complete
        system.rm(temporary, recursive=True)
