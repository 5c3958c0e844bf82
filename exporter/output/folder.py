"""Write a folder atomically: it appears complete, or does not appear."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter.errors import OutputError, UsageError
from exporter.output.files import cannot_write, refuse_existing

REPORT = "report.json"  # every result folder contains it, or each of its variants does


@contextmanager
def atomic_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary folder next to the target, which replaces the target when the block ends.

    If the block raises, the temporary folder is removed and the target is unchanged.

    Raises:
        OutputError: as `check_output_folder`, or the target cannot be written.
    """
    check_output_folder(target, force=force)
    target = target.resolve()
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        _remove_empty(new_parents)
        raise cannot_write(target, error) from error
    try:
        yield temporary
        _replace(target, temporary)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.exists():
            _remove_empty(new_parents)


def check_output_folder(target: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output folder before any work is done.

    Args:
        force: replace the folder if it is a result folder; other folders are never replaced.
        inputs: files that the job reads, which must not be in the replaced folder.

    Raises:
        OutputError: the target exists and `force` is not set, or it is not a result folder.
        UsageError: an input is in it.
    """
    if not target.exists():
        return
    refuse_existing(target, force=force)
    hint = "choose another place with -o"
    if not target.is_dir():
        raise OutputError(f"{target} is not a folder", hint)
    for path in inputs:
        if path.resolve().is_relative_to(target.resolve()):
            raise UsageError(f"the input {path} is in {target}, which --force replaces", hint)
    if not _is_result(target):
        raise OutputError(
            f"{target} contains no {REPORT}: --force replaces only folders that a run wrote", hint
        )


def _is_result(folder: Path) -> bool:
    """True for a folder that a run wrote, a folder of such folders, and an empty folder."""
    return (folder / REPORT).exists() or all(
        (entry / REPORT).exists() for entry in folder.iterdir()
    )


def _replace(target: Path, temporary: Path) -> None:
    """Swap the folders with two renames: no one ever sees an incomplete folder."""
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
    """Remove empty folders, given deepest first; stop at the first that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
