"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter.errors import OutputError, UsageError
from exporter.output.files import cannot_write

MARK = "report.json"  # a folder that a job wrote holds it, or each of its variants does


@contextmanager
def atomic_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary folder beside the target, which takes the target's place when the block ends.

    Where the block raises, nothing stays behind and what stood there is untouched.

    Raises:
        OutputError: as `refuse_existing`, or the target cannot be written.
    """
    refuse_existing(target, force=force)
    target = target.resolve()
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        _remove_empty(made)
        raise cannot_write(target, error) from error
    try:
        yield temporary
        _publish(temporary, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.exists():
            _remove_empty(made)


def refuse_existing(target: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse a target before any work is done.

    Args:
        force: replace a folder that a job wrote. Any other folder is safe from it.
        inputs: files that the job reads, and that must not go with the folder.

    Raises:
        OutputError: the target exists and `force` is not set, or it was not written by a job.
        UsageError: an input lies in it.
    """
    if not target.exists():
        return
    if not force:
        raise OutputError(f"{target} exists", "use --force to replace it")
    elsewhere = "choose another place with -o"
    if not target.is_dir():
        raise OutputError(f"{target} is not a folder", elsewhere)
    for path in inputs:
        if path.resolve().is_relative_to(target.resolve()):
            raise UsageError(
                f"the input {path} lies in {target}, which --force replaces", elsewhere
            )
    if not _is_result(target):
        raise OutputError(f"{target} holds no {MARK}: it is not a job's to replace", elsewhere)


def _is_result(folder: Path) -> bool:
    """A job wrote it, or it is empty."""
    return (folder / MARK).exists() or all((entry / MARK).exists() for entry in folder.iterdir())


def _publish(temporary: Path, target: Path) -> None:
    """Swap the folders with two renames, so that no moment shows a folder that is half there."""
    temporary.chmod(0o755)
    if not target.exists():
        temporary.rename(target)
        return
    old = temporary.with_name(f"{temporary.name}.old")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_empty(folders: Iterable[Path]) -> None:
    """The deepest first; one that holds anything stays."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
