"""Label files next to a model: found by their names, and written again for the units that are left.

1. Text with a label on each line: a file named after the model (net.txt, net_labels.txt), and
   dictionaries of characters such as ppocr_keys_v1.txt and en_dict.txt, but not predictions.txt or
   api_keys.txt. A file `labels.txt` may belong to any model: --labels names it.
2. config.json with `id2label`, as transformers writes it.
3. vocab.json with tokens and their indices, where no other file of a tokenizer depends on it.
4. YAML of PaddleOCR with `character_dict`, such as inference.yml; or the dictionary that it names
   with `character_dict_path`, if that is next to the model or below its folder.

A dictionary of characters may leave out the labels that its reader adds (`ADDED_BY_READERS`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from exporter.errors import UsageError
from exporter.selection.labels import ADDED_BY_READERS, Added, without_added
from exporter.selection.text_file import read_text

Rewrite = Callable[[Sequence[str]], str]  # labels of the entries that are left -> text of the file
_Read = tuple[tuple[str, ...], Rewrite]

_DICTIONARY = re.compile(r"((.*[^a-z])?dict|(.*ppocr_?)?keys)([^a-z].*)?\.txt")
_TOKENIZER = {"tokenizer.json", "merges.txt", "tokenizer_config.json", "spiece.model"}
_DICTIONARY_PATH = re.compile(r"^\s*(?:character_)?dict_path:[ \t]*(\S.*)$", re.MULTILINE)
_ITEM = re.compile(r"(\s*)- (.*)")


@dataclass(frozen=True)
class LabelFile:
    """A file with the labels of a head.

    Attributes:
        labels: one a unit.
        around: those of them that the file does not contain.
        rewrite: the text of the file with other labels.
    """

    path: Path
    labels: tuple[str, ...]
    around: Added
    rewrite: Rewrite

    def text(self, labels: Sequence[str]) -> str:
        """The text for the units that are left.

        Args:
            labels: one for each of them.
        """
        return self.rewrite(without_added(labels, self.around))


def nearby_labels(model: Path, units: int, *, is_text: bool) -> LabelFile | None:
    """The first file next to a model with a label for each unit; None if there is none.

    Args:
        model: a file.
        units: of its head.
        is_text: the head may return characters, so that a blank and a space may be left out.
    """
    for path, read in _candidates(model):
        try:
            found = read(read_text(path))
        except (UsageError, ValueError, RecursionError):
            continue
        if found is None:
            continue
        entries, rewrite = found
        for first, last in ADDED_BY_READERS if is_text else ADDED_BY_READERS[:1]:
            labels = (*first, *entries, *last)
            if len(labels) == units:
                return LabelFile(path, labels, (first, last), rewrite)
    return None


def has_candidates(model: Path) -> bool:
    """Is there a file next to a model whose name says that it may have labels?"""
    return bool(candidates(model))


def candidates(model: Path) -> list[Path]:
    """The files next to a model whose names say that they may have labels."""
    return [path for path, _ in _candidates(model)] if model.is_file() else []


def _candidates(model: Path) -> Iterator[tuple[Path, Callable[[str], _Read | None]]]:
    """The files whose names say that they may have labels, those of this model first."""
    try:
        names = sorted(path.name for path in model.parent.iterdir() if path.is_file())
    except OSError:
        return
    stem = model.stem
    own = {f"{stem}.txt", f"{stem}_labels.txt", f"{stem}.labels.txt", f"{stem}.yml", f"{stem}.yaml"}
    readers: Mapping[str, Callable[[str], _Read | None]] = {
        "config.json": _config,
        **({} if _TOKENIZER & set(names) else {"vocab.json": _vocabulary}),
        **{name: _lines for name in names if _DICTIONARY.fullmatch(name)},
        **{name: _yaml for name in names if name.endswith((".yml", ".yaml"))},
        **dict.fromkeys(_named_dictionaries(model, names), _lines),
        **{name: _lines for name in own if name.endswith(".txt")},
    }
    for name in sorted(readers, key=lambda each: each not in own):
        if name in names or "/" in name:
            yield model.parent / name, readers[name]


def _named_dictionaries(model: Path, names: Sequence[str]) -> Iterator[str]:
    """The dictionaries that YAML files name, as paths from the model's folder."""
    for name in names:
        if not name.endswith((".yml", ".yaml")):
            continue
        try:
            found = _DICTIONARY_PATH.search(read_text(model.with_name(name)))
        except UsageError:
            continue
        given = PurePosixPath(_scalar(found[1].strip()) if found else "")
        inside = not given.is_absolute() and ".." not in given.parts
        for path in (str(given) if inside else "", given.name):
            if path and (model.parent / path).is_file():
                yield path
                break


# --- the formats ----------------------------------------------------------------------------------


def _lines(text: str) -> _Read:
    """Not stripped: a character may be a space."""
    lines = text.removesuffix("\n").split("\n")
    labels = [line.removesuffix("\r") for line in lines]
    return tuple(labels), lambda new: "".join(f"{label}\n" for label in new)


def _config(text: str) -> _Read | None:
    """`id2label`; `label2id` and `num_labels` follow, and every other key stays."""
    config = json.loads(text)
    names = config.get("id2label") if isinstance(config, dict) else None
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        return None
    labels = tuple(str(names[str(i)]) for i in range(len(names)))

    def rewrite(new: Sequence[str]) -> str:
        changed: dict[str, Any] = {"id2label": {str(i): label for i, label in enumerate(new)}}
        if "label2id" in config:
            changed["label2id"] = {label: i for i, label in enumerate(new)}
        if "num_labels" in config:
            changed["num_labels"] = len(new)
        return json.dumps({**config, **changed}, indent=2, ensure_ascii=False) + "\n"

    return labels, rewrite


def _vocabulary(text: str) -> _Read | None:
    tokens = json.loads(text)
    if not isinstance(tokens, dict) or sorted(tokens.values()) != list(range(len(tokens))):
        return None
    labels = tuple(sorted(tokens, key=tokens.__getitem__))
    return labels, lambda new: json.dumps({t: i for i, t in enumerate(new)}, ensure_ascii=False)


def _yaml(text: str) -> _Read | None:
    """The items of `character_dict`, one on each line; every other line stays as it is."""
    lines = text.split("\n")
    key = next((i for i, line in enumerate(lines) if line.strip() == "character_dict:"), None)
    if key is None:
        return None
    items: dict[str, str] = {}  # label -> its line
    stop = key + 1
    while stop < len(lines) and (item := _ITEM.fullmatch(lines[stop].rstrip("\r"))):
        items[_scalar(item[2])] = lines[stop]
        stop += 1
    if len(items) != stop - key - 1 or not items:
        return None

    def rewrite(new: Sequence[str]) -> str:
        return "\n".join([*lines[: key + 1], *(items[label] for label in new), *lines[stop:]])

    return tuple(items), rewrite


def _scalar(text: str) -> str:
    """The string that a YAML item states, on one line."""
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        return str(json.loads(text))
    return text.strip()
