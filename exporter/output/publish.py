"""Let prepared content appear under its final names, all of it or nothing.

One rename is enough for a single file, and for a folder, which is exchanged with the old one.
Several files, or a folder and files, that belong together need several renames:

1. Everything is on the disk before the first rename, also the plan: the list of the files.
2. Files with weights of the model come first: they are named after their content.
3. Without an old model, the model is the last file to appear. With one, the old files that belong
   to it are moved away, then the model is replaced, then the new files follow. So an old model is
   never next to a new remap, or a new model next to an old remap.
4. If a rename fails, the renames before it are undone. If the process is killed, the plan is left,
   and the next process that writes in this folder carries out the rest of it.
"""

from __future__ import annotations

import errno
import filecmp
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import Timeout

from exporter.errors import OutputError
from exporter.output.files import flush_folder, flush_to_disk, flush_tree
from exporter.output.place import WAIT_S, Place, places_in
from exporter.output.rename import exchange, move


@dataclass(frozen=True)
class Plan:
    """Content that appears together.

    Attributes:
        main: the name of the file that the others belong to, or of a folder.
        companions: names of files that make sense only next to the main file.
        data: paths of files that the main file reads. One that is there with the same bytes is
            left as it is.
        shared: such files that other files may read too: they stay if a later rename fails.
        force: existing files are replaced.
    """

    main: str
    companions: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    force: bool = False


@contextmanager
def held_place(target: Path, wait_s: float = WAIT_S) -> Iterator[Place]:
    """Lock a target while it is written; first finish or remove what killed processes left.

    Raises:
        OutputError: another process writes the target.
        OSError: the folder of the target cannot be written.
    """
    place = Place.of(target)
    try:
        with place.locked(wait_s):
            _recover(place)
            _sweep(target.parent, place)
            place.new.mkdir()
            yield place
    except Timeout as error:
        raise OutputError(
            f"another exporter is writing {target}",
            "wait until it has ended, or choose another place with -o",
        ) from error


def _sweep(folder: Path, own: Place) -> None:
    """Finish or remove what killed processes left in a folder; running ones are not disturbed."""
    with suppress(PermissionError):  # a folder may be written and not read
        for place in places_in(folder):
            if place.path != own.path:
                with suppress(OSError, OutputError), place.locked():  # Timeout is an OSError
                    _recover(place)


def _recover(place: Place) -> None:
    """Carry out the rest of a plan, then remove the temporary files."""
    if place.plan.exists():
        plan = Plan(**json.loads(place.plan.read_text("utf-8")))
        with suppress(FileExistsError, OutputError):  # someone else has made such a file meanwhile
            _Publication(place, plan).carry_out()
    place.clear()


def publish(place: Place, plan: Plan) -> None:
    """Let the prepared content appear next to its place.

    Raises:
        FileExistsError: a file has one of the names, and the plan does not replace it.
        OSError: a rename failed; those before it were undone.
    """
    publication = _Publication(place, plan)
    publication.refuse_folders()
    flush_tree(place.new)
    try:
        if plan.companions or plan.data or plan.shared:
            publication.write_plan()
        publication.carry_out()
    except BaseException:
        publication.undo()
        place.plan.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # everything is in place: carrying it out again would do nothing
        place.plan.unlink(missing_ok=True)


class _Publication:
    """The renames of a plan. A prepared file that is gone shows that its rename was done."""

    def __init__(self, place: Place, plan: Plan) -> None:
        self._place, self._plan = place, plan
        self._folder, self._new, self._old = place.path.parent, place.new, place.old
        self._undo: list[tuple[Callable[[Path, Path], object], Path, Path]] = []

    def refuse_folders(self) -> None:
        """Refuse to replace a folder by a file."""
        plan = self._plan
        for name in (plan.main, *plan.companions, *plan.data, *plan.shared):
            target = self._folder / name
            if target.is_dir() and not (self._new / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))

    def write_plan(self) -> None:
        place = self._place
        place.plan_draft.write_text(json.dumps(asdict(self._plan)), "utf-8")
        flush_to_disk(place.plan_draft)
        place.plan_draft.replace(place.plan)
        flush_folder(place.path)

    def carry_out(self) -> None:
        plan = self._plan
        for name in plan.shared:
            if not self._is_there(name):
                try:
                    self._put(name)
                except FileExistsError as error:
                    if not self._is_there(name):  # another process has just put it there
                        raise OutputError(
                            f"{self._folder / name} exists as a link, or with other content",
                            "use --force to replace it",
                        ) from error
                self._undo.clear()
        for name in plan.data:
            if not self._is_there(name):
                self._put(name)
        for name in plan.companions:
            if plan.force and (self._new / name).exists() and os.path.lexists(self._folder / name):
                self._old.mkdir(exist_ok=True)
                self._rename(os.replace, self._folder / name, self._old / name)
        is_new = not os.path.lexists(self._folder / plan.main)
        names = (*plan.companions, plan.main) if is_new else (plan.main, *plan.companions)
        for name in names:
            self._put(name)
        flush_folder(self._folder)

    def _is_there(self, name: str) -> bool:
        """Has a file in the folder the bytes of the prepared one already?

        A link does not count: models that read it would be refused.
        """
        source, target = self._new / name, self._folder / name
        both = source.exists() and target.is_file()
        if not both or target.is_symlink() or target.stat().st_nlink > 1:
            return False
        return filecmp.cmp(source, target, shallow=False)

    def undo(self) -> None:
        """Take the renames back, the newest first. Raises OSError if one of them fails."""
        while self._undo:
            rename, source, target = self._undo.pop()
            rename(source, target)

    def _put(self, name: str) -> None:
        """Give one prepared file or folder its place, if that is still to be done."""
        source, target = self._new / name, self._folder / name
        if not source.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (self._plan.force and os.path.lexists(target)):
            self._rename(move, source, target)
        elif source.is_dir():
            self._replace_folder(source, target)
        else:
            self._back_up(name)
            self._rename(os.replace, source, target)

    def _replace_folder(self, source: Path, target: Path) -> None:
        has_others = self._plan.companions or self._plan.shared
        # after an exchange, recovery would take the old folder for one that is still to be moved
        if not has_others and exchange(source, target):
            self._undo.append((exchange, source, target))
            return
        self.write_plan()  # for a moment, neither folder has the name
        self._old.mkdir(exist_ok=True)
        self._rename(move, target, self._old / target.name)
        self._rename(move, source, target)

    def _back_up(self, name: str) -> None:
        target, backup = self._folder / name, self._old / name
        backup.parent.mkdir(parents=True, exist_ok=True)
        backup.unlink(missing_ok=True)
        try:
            os.link(target, backup, follow_symlinks=False)
        except OSError:  # no hard links: for a moment, neither file has the name
            self.write_plan()
            self._rename(os.replace, target, backup)
        else:
            self._undo.append((os.replace, backup, target))

    def _rename(self, rename: Callable[[Path, Path], object], source: Path, target: Path) -> None:
        rename(source, target)
        self._undo.append((os.replace, target, source))
