"""Token ids in configuration files: config.json, generation_config.json, genai_config.json.

1. Keys that end in `token_id`, `token_ids` or `token_index` contain ids, wherever they are: end,
   begin and padding tokens, forced tokens. They are kept.
2. Lists of tokens that are not to be generated (`suppress_tokens`, `bad_words_ids`) lose the ids of
   removed tokens, which cannot be generated any more.
3. `vocab_size` is the number of tokens, where it was that of the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from exporter.tokens.new_ids import NewIds

_IDS = re.compile(r"(^|_)token_(id|ids|index)$|^force_words_ids$")
_PAIRS = "forced_decoder_ids"  # [position, id]
_SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "suppress_tokens_ids")
_BIAS = "sequence_bias"  # [[ids], bias]
_SIZES = ("vocab_size", "decoder_vocab_size", "n_vocab")
_BY_ID = "added_tokens_decoder"  # of tokenizer_config.json: id -> token


def ids_in(record: Any) -> set[int]:
    """The ids that a configuration needs, without those that it only suppresses."""
    return set(_ids(record))


def _ids(record: Any) -> Iterator[int]:
    for key, value in _entries(record):
        if _IDS.search(key):
            yield from _numbers(value)
        elif key == _PAIRS:
            yield from (pair[1] for pair in value or () if isinstance(pair[1], int))
        elif key == _BY_ID and isinstance(value, dict):
            yield from map(int, value)
        elif not _is_suppressed(key):
            yield from _ids(value)


def _entries(record: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(record, dict):
        yield from record.items()
    elif isinstance(record, list):
        yield from (("", each) for each in record)


def _is_suppressed(key: str) -> bool:
    return key in _SUPPRESSED or key == _BIAS


def _numbers(value: Any) -> Iterator[int]:
    """The ids in nested lists; negative ones are no tokens."""
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        yield value


def rewritten(record: Any, new: NewIds, units: int) -> Any:
    """The same configuration with new ids.

    Args:
        new: contains the ids of `ids_in` that are less than `units`.
        units: the number of tokens before.
    """
    if isinstance(record, list):
        return [rewritten(each, new, units) for each in record]
    if not isinstance(record, dict):
        return record
    return {key: _value(key, value, new, units) for key, value in record.items()}


def _value(key: str, value: Any, new: NewIds, units: int) -> Any:
    if _IDS.search(key):
        return _new(value, new)
    if key in _SIZES:
        return len(new.kept) if value == units else value
    if key == _BY_ID and isinstance(value, dict):
        return {str(new[int(i)]): token for i, token in value.items() if int(i) in new}
    if isinstance(value, list) and key == _PAIRS:
        return [[place, _new(i, new)] for place, i in value]
    if isinstance(value, list) and _is_suppressed(key):
        kept = [each for each in value if all(i in new for i in _suppressed(key, each))]
        return [[_new(each[0], new), each[1]] if key == _BIAS else _new(each, new) for each in kept]
    return rewritten(value, new, units)


def _suppressed(key: str, entry: Any) -> list[int]:
    """The ids of an entry: one, or a sequence of them."""
    ids = entry[0] if key == _BIAS else entry
    return list(ids) if isinstance(ids, list) else [ids]


def _new(value: Any, new: NewIds) -> Any:
    """The new ids in nested lists; other values and unknown ids stay as they are."""
    if isinstance(value, list):
        return [_new(each, new) for each in value]
    is_token = isinstance(value, int) and not isinstance(value, bool) and value in new
    return new[value] if is_token else value
