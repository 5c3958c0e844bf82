"""Faults: each changes one thing in a correctly cut file. For tests, and for the benchmark.

A fault takes the content of a file and a random generator. It returns None where the file has
nothing that it could change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from exporter.formats.tflite.pack import pack
from exporter.formats.tflite.schema import File, metadata, set_metadata, unpack
from exporter.remap import Remap

Random = np.random.Generator
Fault = Callable[[bytes, Random], bytes | None]
Head = dict[str, Any]  # of a remap, as JSON


@dataclass(frozen=True)
class Kind:
    """One kind of fault; None where a format has nothing of the kind."""

    onnx: Fault | None = None
    tflite: Fault | None = None

    def of(self, kind: str) -> Fault | None:
        return self.onnx if kind == "onnx" else self.tflite


def on_proto(change: Callable[[ModelProto, Random], bool]) -> Fault:
    """A fault from a function that changes a parsed file, and tells whether it did."""

    def fault(content: bytes, random: Random) -> bytes | None:
        model = ModelProto.FromString(content)
        return bytes(model.SerializeToString()) if change(model, random) else None

    return fault


def on_file(change: Callable[[File, Random], bool]) -> Fault:
    """As `on_proto`, of an unpacked TFLite file."""

    def fault(content: bytes, random: Random) -> bytes | None:
        file = unpack(content)
        return pack(file, "faulty") if change(file, random) else None

    return fault


def of_remap(change: Callable[[Head, Random], bool], number: int = 0) -> Kind:
    """A kind that changes the remap in files of both formats.

    Args:
        number: of the head; files that do not have so many stay unchanged.
    """

    def changed(text: str, random: Random) -> str | None:
        record = json.loads(Remap.from_json(text).to_json())
        has_head = number < len(record["heads"])
        is_new = has_head and change(record["heads"][number], random)
        return json.dumps(record) if is_new else None

    def in_proto(model: ModelProto, random: Random) -> bool:
        (entry,) = (each for each in model.metadata_props if each.key == "exporter.remap")
        new = changed(entry.value, random)
        entry.value = new or ""
        return new is not None

    def in_file(file: File, random: Random) -> bool:
        data = metadata(file.model, "exporter.remap")
        new = None if data is None else changed(data.tobytes().decode(), random)
        set_metadata(file.model, "exporter.remap", (new or "").encode())
        return new is not None

    return Kind(on_proto(in_proto), on_file(in_file))


def _rotate_kept(head: Head, _: Random) -> bool:
    if len(head["kept"]) < 2:
        return False
    head["kept"] = [*head["kept"][1:], head["kept"][0]]
    if len(head["new_to_old"]) == len(head["kept"]):
        head["new_to_old"] = [*head["new_to_old"][1:], head["new_to_old"][0]]
    return True


def _other_unit(head: Head, random: Random) -> bool:
    free = sorted(set(range(head["old_units"])) - set(head["kept"]))
    plain = all(isinstance(unit, int) for unit in head["new_to_old"])
    if not free or not plain or head["mode"] != "slice":
        return False
    old, new = head["kept"][-1], int(random.choice(free))
    for key in ("kept", "new_to_old"):
        head[key] = [new if unit == old else unit for unit in head[key]]
    return True


def _set(key: str, value: Callable[[Any], Any]) -> Callable[[Head, Random], bool]:
    def change(head: Head, _: Random) -> bool:
        new = value(head[key])
        is_new = bool(new != head[key])
        head[key] = new
        return is_new

    return change


def _mode(head: Head, random: Random) -> bool:
    """A mask in a narrower head is the same file as a slice whose width is restored."""
    restored = bool(head["options"]["restore_width"])
    change = _set("mode", lambda mode: "zero" if mode == "slice" else "slice")
    return not restored and change(head, random)


def _option(key: str, value: Any) -> Callable[[Head, Random], bool]:
    def change(head: Head, _: Random) -> bool:
        is_new = bool(head["options"].get(key) != value)
        head["options"][key] = value
        return is_new

    return change


def _vocabulary(key: str, value: Callable[[Any], Any]) -> Callable[[Head, Random], bool]:
    def change(head: Head, _: Random) -> bool:
        known = head["options"].get("vocabulary")
        if known:
            known[key] = value(known.get(key))
        return bool(known)

    return change


def _dropped(head: Head, _: Random) -> bool:
    names = head["options"].get("drop_outputs")
    head["options"]["drop_outputs"] = (names or [])[1:]
    return bool(names)


def _ids(head: Head, _: Random) -> bool:
    """Whether the model returns old indices, where it returns indices."""
    options = head["options"]
    has_ids = bool(options.get("restore_ids") or options.get("ids"))
    options["restore_ids"] = not options.get("restore_ids")
    return has_ids


def _rotate_labels(head: Head, _: Random) -> bool:
    labels = head["labels"]
    head["labels"] = labels and [*labels[1:], labels[0]]
    return bool(labels and head["labels"] != labels)


def _add_labels(head: Head, _: Random) -> bool:
    is_new = head["labels"] is None
    head["labels"] = [f"label {i}" for i in range(head["new_units"])]
    return is_new


OF_REMAPS: Mapping[str, Kind] = {
    "order of the kept units": of_remap(_rotate_kept),
    "another kept unit": of_remap(_other_unit),
    "unit axis": of_remap(_set("axis", lambda axis: axis + 1)),
    "activation": of_remap(
        _set("activation", lambda a: "sigmoid" if a == "softmax" else "softmax")
    ),
    "mode": of_remap(_mode),
    "number of units before": of_remap(_set("old_units", lambda units: units + 1)),
    "name of the head": of_remap(_set("name", lambda name: name + "_")),
    "name of the output": of_remap(_set("output", lambda name: name + "_")),
    "value of removed units": of_remap(_option("floor", -7.0)),
    "probabilities": of_remap(_option("probabilities", "absolute")),
    "input of the token ids": of_remap(_vocabulary("inputs", lambda _: ["other"])),
    "token ids move or stay": of_remap(_vocabulary("keep_ids", lambda stay: not stay)),
    "id of unknown tokens": of_remap(
        _vocabulary("unknown", lambda old: 5 if old is None else None)
    ),
    "removed outputs": of_remap(_dropped),
    "old or new indices": of_remap(_ids),
    "units of the second head": of_remap(_other_unit, 1),
    "order of the units of the second head": of_remap(_rotate_kept, 1),
    "labels in another order": of_remap(_rotate_labels),
    "labels from nowhere": of_remap(_add_labels),
}
