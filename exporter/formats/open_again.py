"""Open the same model file many times: a loop over selections cuts one file again and again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from exporter.formats.kinds import KINDS, kind_of, open_model
from exporter.output.files import FileState, file_state, is_settled

if TYPE_CHECKING:
    from exporter.formats.model import Model


class _Opened(NamedTuple):
    """A model that stays open, and the state of its files."""

    path: Path
    states: dict[Path, FileState]
    model: Model


_LAST: list[_Opened] = []  # at most one: a model may be large


def open_again(path: str | Path) -> Model:
    """`open_model`; but the file that was opened last is not read again if it did not change.

    The model is shared, so it must not be changed. Keras models, which users may train, are opened
    each time.
    """
    path = Path(path)
    last = next(iter(_LAST), None)
    if last is not None and last.path == path and _is_unchanged(last.states):
        return last.model
    kind = KINDS[kind_of(path)]
    _LAST.clear()
    if not kind.opened_here:
        return open_model(path)
    now, model = time.time_ns(), open_model(path)
    states = {file: file_state(file) for file in kind.files_of(path)}
    if all(is_settled(state, now) for state in states.values()):
        _LAST[:] = [_Opened(path, states, model)]
    return model


def _is_unchanged(states: dict[Path, FileState]) -> bool:
    try:
        return all(file_state(file) == state for file, state in states.items())
    except OSError:
        return False
