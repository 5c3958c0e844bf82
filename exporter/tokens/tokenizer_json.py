"""A `tokenizer.json` of the library `tokenizers`, for fewer tokens.

1. Added tokens (special ones are among them), byte tokens and the unknown token are kept.
2. BPE keeps the tokens that kept ones are merged from (see `merges`), and the merges between kept
   tokens. WordPiece and WordLevel keep the words, Unigram the pieces with their scores.
3. A text whose tokens are all kept gets the same tokens as before: BPE applies the same merges,
   WordPiece finds the same longest match, and the best path of Unigram is still there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from exporter.errors import UsageError
from exporter.tokens.merges import Merges
from exporter.tokens.new_ids import NewIds

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_Record = Mapping[str, Any]


def vocabulary(record: _Record) -> dict[str, int]:
    """Token -> id, with added tokens.

    Raises:
        UsageError: the file has no vocabulary of a known type.
    """
    known = record["model"].get("vocab") if isinstance(record.get("model"), dict) else None
    if not isinstance(known, dict | list):
        raise UsageError("the tokenizer has no vocabulary", "give a tokenizer.json")
    words = known if isinstance(known, dict) else {piece[0]: i for i, piece in enumerate(known)}
    return words | {each["content"]: each["id"] for each in record.get("added_tokens") or ()}


def needed(record: _Record, kept: Collection[int], *, closed: bool) -> dict[int, str]:
    """Tokens that have to be kept -> the reason.

    Args:
        kept: the ids of the tokens that the user keeps.
        closed: with the tokens that kept ones are merged from.
    """
    ids, model = vocabulary(record), record["model"]
    found = dict.fromkeys(_bytes(record, ids), "a byte token")
    unknown = model.get("unk_token")
    if unknown in ids:
        found[ids[unknown]] = "the unknown token"
    if isinstance(model.get("unk_id"), int):
        found[model["unk_id"]] = "the unknown token"
    found |= dict.fromkeys(_inserted(record), "inserted by the tokenizer")
    found |= {each["id"]: "an added token" for each in record.get("added_tokens") or ()}
    if closed and "merges" in model:
        added = {each["id"] for each in record.get("added_tokens") or ()}  # they are not merged
        wanted = {*kept, *found}.difference(added)
        every = Merges(model).closed(token for token, i in ids.items() if i in wanted)
        parts = {ids[token] for token in every if token in ids}.difference(kept, found)
        found |= dict.fromkeys(parts, "a part of other tokens")
    return found


def _bytes(record: _Record, ids: Mapping[str, int]) -> Iterator[int]:
    yield from (i for token, i in ids.items() if _BYTE.fullmatch(token))
    if any(
        "ByteLevel" in each for each in _types([record.get("pre_tokenizer"), record.get("decoder")])
    ):
        yield from (ids[letter] for letter in byte_letters() if letter in ids)


def _inserted(record: _Record) -> Iterator[int]:
    """The tokens that are put around a text, and after it."""
    padding = record.get("padding")
    if isinstance(padding, dict) and "pad_id" in padding:
        yield padding["pad_id"]
    waiting = [record.get("post_processor")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from (
                part[name][1] for name in ("sep", "cls") if isinstance(part.get(name), list)
            )
            for each in (part.get("special_tokens") or {}).values():
                yield from each["ids"]
            waiting += part.get("processors") or ()


def _types(part: Any) -> Iterator[str]:
    """The types of a part of the file, and of those inside."""
    if isinstance(part, dict):
        yield str(part.get("type"))
        part = list(part.values())
    for each in part if isinstance(part, list) else ():
        yield from _types(each)


def byte_letters() -> list[str]:
    """The characters that represent the 256 bytes in byte-level vocabularies, as in GPT-2."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    return [*map(chr, shown), *(chr(256 + i) for i in range(len(others)))]


def rewritten(record: _Record, new: NewIds) -> dict[str, Any]:
    """The same tokenizer with the kept tokens, which have their new ids."""
    model = dict(record["model"])
    known = model["vocab"]
    if isinstance(known, dict):
        words = {token: new[i] for token, i in known.items() if i in new}
        model["vocab"] = dict(sorted(words.items(), key=lambda item: item[1]))
    else:
        model["vocab"] = [known[i] for i in new.kept if i < len(known)]
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = new[model["unk_id"]]
    if "merges" in model:
        pairs = Merges(model).within(set(model["vocab"]))
        as_text = bool(record["model"]["merges"]) and isinstance(record["model"]["merges"][0], str)
        model["merges"] = [" ".join(pair) if as_text else list(pair) for pair in pairs]
    every = record.get("added_tokens") or ()
    added = [dict(each, id=new[each["id"]]) for each in every if each["id"] in new]
    result = dict(record, model=model, added_tokens=added)
    if isinstance(record.get("padding"), dict):
        result["padding"] = dict(record["padding"], pad_id=new[record["padding"]["pad_id"]])
    result["post_processor"] = _processor(record.get("post_processor"), new)
    return result


def _processor(part: Any, new: NewIds) -> Any:
    """The tokens that are put around a text: TemplateProcessing, and those of BERT and RoBERTa."""
    if not isinstance(part, dict):
        return part
    result = dict(part)
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            token, i = part[name]
            result[name] = [token, new[i]]
    if isinstance(part.get("special_tokens"), dict):
        result["special_tokens"] = {
            name: dict(each, ids=[new[i] for i in each["ids"]])
            for name, each in part["special_tokens"].items()
        }
    if isinstance(part.get("processors"), list):
        result["processors"] = [_processor(each, new) for each in part["processors"]]
    return result
