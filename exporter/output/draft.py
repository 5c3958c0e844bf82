"""Files and folders that are prepared in a hidden place, and then appear whole or not at all."""

from __future__ import annotations

import filecmp
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from exporter.errors import OutputError
from exporter.output.files import refuse_existing, write_text, writing
from exporter.output.folder import BODY, check_output_folder
from exporter.output.place import WAIT_S, Place
from exporter.output.publish import Plan, held_place, publish


class Draft:
    """A file that is prepared, with the files that belong to it.

    Attributes:
        target: the final path of the file.
        path: where the file is prepared, under the same name.
    """

    def __init__(self, target: Path, place: Place, *, force: bool) -> None:
        self.target, self.path = target, place.new / target.name
        self._place, self._force = place, force
        self._companions: list[str] = []

    def write(self, write: Callable[[Path], object]) -> None:
        """Let `write` write the file at `path`, perhaps with files of its weights next to it."""
        with writing(self.target):
            write(self.path)

    def write_text(self, text: str) -> None:
        """Write the file as UTF-8."""
        self.write(lambda path: write_text(path, text))

    def add_text(self, name: str, text: str) -> None:
        """Prepare a text file that belongs to the file."""
        with writing(self.target.with_name(name)):
            write_text(self.path.with_name(name), text)
        self._companions.append(name)

    def publish(self) -> None:
        """Let all prepared files appear (raises OutputError)."""
        new = self._place.new
        prepared = (Path(folder, name) for folder, _, names in os.walk(new) for name in names)
        known = {self.path.name, *self._companions}
        data = sorted({str(path.relative_to(new)) for path in prepared} - known)
        shared = tuple(filter(BODY.fullmatch, data))
        data = [name for name in data if name not in shared]
        plan = Plan(self.path.name, tuple(self._companions), tuple(data), shared, self._force)
        with writing(self.target):
            self._keep_data_of_others(data)
            publish(self._place, plan)

    def _keep_data_of_others(self, names: Iterable[str]) -> None:
        """Refuse to replace a file that another model in the folder names too."""
        new, folder = self._place.new, self.target.parent
        replaced = [
            name
            for name in names
            if (folder / name).is_file()
            and not filecmp.cmp(new / name, folder / name, shallow=False)
        ]
        others = folder.glob(f"*{self.target.suffix}") if replaced else ()
        for other in others:
            if other.name == self.target.name or not other.is_file():
                continue
            for name in replaced:
                if _names(other, name):
                    raise OutputError(
                        f"{folder / name} belongs to {other.name} too, and would be replaced",
                        "choose another folder with -o",
                    )


@contextmanager
def new_file(target: Path, *, force: bool = False) -> Iterator[Draft]:
    """Lock a target, and prepare a file for it.

        with new_file(Path("small.onnx")) as draft:
            draft.write(model.write)
            draft.publish()

    If the block does not publish the draft, nothing appears.

    Args:
        force: existing files may be replaced.

    Raises:
        OutputError: the target exists, cannot be written, or another process writes it.
    """
    refuse_existing(target, force=force)
    with ExitStack() as stack:
        with writing(target):
            place = stack.enter_context(held_place(target))
        yield Draft(target, place, force=force)


@contextmanager
def new_folder(target: Path, *, force: bool = False, wait_s: float = WAIT_S) -> Iterator[Path]:
    """Lock a target, and prepare a folder for it, which appears when the block ends.

    So do the files that the block writes next to the folder: those with its name and a suffix, and
    bodies. If the block raises an error, nothing appears.

    Args:
        wait_s: seconds to wait for another process that writes the target.

    Raises:
        OutputError: as `check_output_folder`, or the target cannot be written, or another process
            writes it.
    """
    check_output_folder(target, force=force)
    with ExitStack() as stack:
        with writing(target):
            final = target.resolve()
            _make_parents(final, stack)
            place = stack.enter_context(held_place(final, wait_s))
            folder = place.new / final.name
            folder.mkdir()
        yield folder
        check_output_folder(target, force=force)  # another program may have made it meanwhile
        with writing(target):
            names = sorted(each.name for each in place.new.iterdir() if each != folder)
            shared = tuple(filter(BODY.fullmatch, names))
            companions = tuple(name for name in names if name not in shared)
            publish(place, Plan(final.name, companions, shared=shared, force=force))


def _names(file: Path, name: str) -> bool:
    """Does a file contain a name?"""
    with file.open("rb") as opened:
        if not os.fstat(opened.fileno()).st_size:
            return False
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(os.fsencode(name)) >= 0


def _make_parents(target: Path, stack: ExitStack) -> None:
    """Make the missing folders above a target; the stack removes those that stay empty."""
    for parent in reversed(target.parents):
        if not parent.exists():
            parent.mkdir(exist_ok=True)
            stack.callback(_remove_empty, parent)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
