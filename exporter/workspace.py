"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import OutputError
from exporter.models.files import cannot_write


@contextmanager
def building(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary folder beside the target, which takes the target's place when the block ends.

    Where the block raises, nothing stays behind and what stood there is untouched.

    Raises:
        OutputError: the target exists and `force` is not set, it is not a folder, or it cannot be
            written.
    """
    refuse_existing(target, force=force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        yield temporary
        _publish(temporary, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(target: Path, *, force: bool) -> None:
    """Raise as `building` would, before any work is done."""
    if target.exists() and not force:
        raise OutputError(f"{target} exists", "use --force to replace it")
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is not a folder", "choose another place with -o")


def _publish(temporary: Path, target: Path) -> None:
    """Swap the folders with two renames, so that no moment shows a folder that is half there."""
    temporary.chmod(0o755)
    if target.exists():
        old = temporary.with_name(f"{temporary.name}.old")
        target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old)
    else:
        temporary.rename(target)
