"""The tasks of a batch: conversions, and cells that wait for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from exporter.batches.keys import WITHOUT_EFFECT, Key
from exporter.batches.plan import Cell
from exporter.formats import KINDS, size_bytes

CONVERTED = "converted"  # folder of the models that were converted, in the output
# What a process takes at most, measured on the models of the tests: a base, and a multiple of the
# model's size. TensorFlow makes the difference.
_EDGE, _KERAS, _CONVERTING = (300 << 20, 6), (1 << 30, 8), (3 << 29, 10)
OPENING = (  # options that models are opened and converted with
    *("signature", "opset", "batch", "input_shapes", "dims", "large_head_bytes"),
    *("timeout_s", "memory_limit_bytes"),
)


@dataclass
class Task:
    """One task, and how it went.

    Attributes:
        id: names it among the tasks of the batch.
        message: for `host.do`.
        needs: ids of conversions.
        submissions: how often it was given to the scheduler.
    """

    id: str
    message: dict[str, Any]
    needs: tuple[str, ...] = ()
    submissions: int = 0

    @property
    def is_conversion(self) -> bool:
        return bool(self.message["method"] == "convert")

    @property
    def parameters(self) -> dict[str, Any]:
        """Of `work`."""
        found: dict[str, Any] = self.message["parameters"]
        return found


class Tasks:
    """Makes the tasks of the cells of one batch."""

    def __init__(
        self, folder: Path, out: Path, action: str, shared: Mapping[str, Any], *, force: bool
    ) -> None:
        """Set what the tasks have in common.

        Args:
            folder: of the plan.
            out: the output of the batch.
            action: "run" or "forecast".
            shared: further keys of every message for `host.do`.
            force: finished cells are made again.
        """
        self._folder, self._out, self._action, self._shared = folder, out, action, shared
        self._force = force

    def of_cell(self, cell: Cell, key: Key) -> tuple[list[Task], Task]:
        """The conversions that a cell needs, and its own task."""
        conversions = list(self._conversions(cell, key))
        of_kinds = {each.parameters["kind"]: each.parameters["target"] for each in conversions}
        named = {"name": cell.name, "model": cell.model, "selection": cell.selection}
        parameters = {
            **named,
            **self._common(cell, key, key.options),
            "target": str(self._out / cell.name),
            "key": {"digest": key.digest, "files": key.files, "versions": key.versions},
            "converted": of_kinds,
            "force": self._force,
        }
        uses_keras = KINDS[key.kind].convertible
        needs = tuple(each.id for each in conversions)
        task = self._task(self._action, named, parameters, _KERAS if uses_keras else _EDGE, needs)
        # the times of two models that are measured next to each other have no meaning
        task.message["exclusive"] = bool(key.options["bench"]) and self._action == "run"
        return conversions, task

    def _conversions(self, cell: Cell, key: Key) -> Iterator[Task]:
        options = {name: key.options[name] for name in OPENING}
        for kind in key.kinds if KINDS[key.kind].convertible else ():
            if kind == key.kind or not KINDS[kind].converter:
                continue
            used = {name: each for name, each in options.items() if name not in WITHOUT_EFFECT}
            content = [key.files[cell.path], kind, used, key.versions]
            digest = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            name = f"{CONVERTED}/{cell.model}.{kind}.{digest[:12]}"
            parameters = {
                **self._common(cell, key, options),
                "kind": kind,
                "target": str(self._out / name),
            }
            named = {"name": name, "model": cell.model, "selection": ""}
            yield self._task("convert", named, parameters, _CONVERTING)

    def _common(self, cell: Cell, key: Key, options: Mapping[str, Any]) -> dict[str, Any]:
        folder = str(self._folder)
        return {
            "source": cell.path,
            "folder": folder,
            "options": options,
            "versions": key.versions,
            "sha256": key.files[cell.path],
        }

    def _task(
        self,
        method: str,
        cell: Mapping[str, str],
        parameters: Mapping[str, Any],
        need: tuple[int, int],
        needs: tuple[str, ...] = (),
    ) -> Task:
        base, times = need
        size = size_bytes(self._folder / parameters["source"])
        message = {
            **self._shared,
            "id": cell["name"],
            "file": sha256(cell["name"].encode()).hexdigest()[:16],
            "method": method,
            "cell": cell,
            "parameters": parameters,
            "memory_bytes": base + times * size,
            "exclusive": False,
            "affinity": parameters["sha256"],
        }
        return Task(cell["name"], message, needs)
