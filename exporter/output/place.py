"""The hidden folder next to a target in which its new content is prepared.

1. Its name follows from the target's name: all writers of a target use the same one.
2. Its lock file is locked while a process writes the target. The system frees the lock when the
   process ends, however it ends: content without a locked lock file is left over.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from exporter.errors import OutputError
from exporter.output.files import PLACE

_READABLE = 40  # characters of the target's name: with 255 of them, no room would be left
_LOCK = "lock"
WAIT_S = 0.2  # for a writer that is just removing its place
_POLL_S = 0.02
_ATTEMPTS = 10


class Place:
    """The hidden folder of a target; see the module.

    Attributes:
        new: contains what is prepared, under its final name.
        old: contains what was replaced, until the new content is complete.
        plan: a file that exists while a publication needs several renames (see `publish`).
        plan_draft: the same file before it is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.new, self.old = path / "new", path / "old"
        self.plan, self.plan_draft = path / "plan.json", path / "plan.draft"

    @classmethod
    def of(cls, target: Path) -> Place:
        digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
        return cls(target.with_name(f".exporter-{target.name[:_READABLE]}-{digest}"))

    @contextmanager
    def locked(self, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the lock; remove the place at the end, unless an unfinished plan needs it.

        Raises:
            Timeout: another process holds it.
            OSError: the folder cannot be made or written.
        """
        lock = self._acquire(wait_s)
        try:
            yield
        finally:
            try:
                with suppress(OSError):  # the next process removes what stays
                    if not self.plan.exists():
                        self.clear()
                        Path(lock.lock_file).unlink()  # a process that waits for it makes a new one
            finally:
                with suppress(OSError):
                    lock.release()
            self._remove_if_empty()

    def clear(self) -> None:
        """Remove the content."""
        for file in (self.plan, self.plan_draft):
            file.unlink(missing_ok=True)
        for folder in (self.new, self.old):
            if folder.exists():
                shutil.rmtree(folder)

    def _acquire(self, wait_s: float) -> FileLock:
        lock = FileLock(self.path / _LOCK, thread_local=False)
        for _ in range(_ATTEMPTS):
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
            try:
                self._refuse_foreign()
                with warnings.catch_warnings():  # without flock, the lock is the file itself
                    warnings.simplefilter("ignore")
                    lock.acquire(timeout=wait_s, poll_interval=_POLL_S)
            except FileNotFoundError:  # its last owner just removed the folder
                continue
            except OSError:
                self._remove_if_empty()
                raise
            return lock
        self._remove_if_empty()
        raise Timeout(lock.lock_file)

    def _remove_if_empty(self) -> None:
        with suppress(OSError):
            self.path.rmdir()

    def _refuse_foreign(self) -> None:
        """Refuse a link, or a folder of another user: content must not be put there."""
        found = self.path.lstat()
        mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
        if not (stat.S_ISDIR(found.st_mode) and mine):
            raise OutputError(
                f"{self.path} is not a folder that you made", "remove it, or choose another -o"
            )


def is_place(path: Path) -> bool:
    """Is it the name of a place?"""
    return PLACE.fullmatch(path.name) is not None


def places_in(folder: Path) -> list[Place]:
    """The places in a folder, of running and of killed processes."""
    with os.scandir(folder) as entries:
        return [
            Place(Path(entry.path))
            for entry in entries
            if is_place(Path(entry.path)) and entry.is_dir(follow_symlinks=False)
        ]
