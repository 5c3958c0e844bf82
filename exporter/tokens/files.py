"""The files next to a model that contain token ids, and the same files for fewer tokens."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import UsageError, interpreting
from exporter.selection.text_file import read_text
from exporter.tokens import configs, tokenizer_json
from exporter.tokens.merges import Merges
from exporter.tokens.new_ids import NewIds

TOKENIZER, WORDS, TOKENS, MERGES = "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"
_ADDED = "added_tokens.json"
_CONFIGS = (
    "config.json",
    "generation_config.json",
    "genai_config.json",
    "tokenizer_config.json",
)
_COPIED = ("special_tokens_map.json", "chat_template.jinja")
_SENTENCE_PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
_SPECIAL_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SUPPORTED = "put a tokenizer.json next to the model, or use --keep-ids"


@dataclass(frozen=True, eq=False)
class TokenFiles:
    """The files of a folder that contain token ids.

    Attributes:
        texts: name -> content.
    """

    folder: Path
    texts: Mapping[str, str]

    @classmethod
    def in_folder(cls, folder: Path) -> TokenFiles:
        """The files in a folder; without any, `texts` is empty.

        Raises:
            UsageError: a file cannot be read, or only a SentencePiece model is there.
        """
        names = [TOKENIZER, WORDS, TOKENS, MERGES, _ADDED, *_CONFIGS, *_COPIED]
        found = {name: read_text(folder / name) for name in names if (folder / name).is_file()}
        pieces = next((name for name in _SENTENCE_PIECES if (folder / name).is_file()), None)
        if pieces and TOKENIZER not in found:
            raise UsageError(f"{folder / pieces} cannot be written for fewer tokens", _SUPPORTED)
        return cls(folder, found)

    def needed(self, kept: Collection[int], units: int, *, closed: bool) -> dict[int, str]:
        """Tokens that have to be kept -> the reason.

        Args:
            kept: the ids of the tokens that the user keeps.
            units: the number of tokens; files may name more.
            closed: with the tokens that kept ones are merged from.

        Raises:
            UsageError, ModelError: a file is damaged.
        """
        with self._interpreting():
            return self._needed(kept, units, closed=closed)

    def _needed(self, kept: Collection[int], units: int, *, closed: bool) -> dict[int, str]:
        found: dict[int, str] = {}
        for name in _CONFIGS:
            if name in self.texts:
                found |= dict.fromkeys(configs.ids_in(self._json(name)), f"named in {name}")
        if TOKENIZER in self.texts:
            every = {*kept, *found}
            found = tokenizer_json.needed(self._json(TOKENIZER), every, closed=closed) | found
        elif WORDS in self.texts:
            words = self._lines(WORDS)
            special = (words.index(word) for word in _SPECIAL_WORDS if word in words)
            found = dict.fromkeys(special, "a special token") | found
        elif TOKENS in self.texts:
            found = tokenizer_json.needed(self._byte_level(), kept, closed=closed) | found
        if _ADDED in self.texts:
            found |= dict.fromkeys(self._json(_ADDED).values(), "an added token")
        return {i: why for i, why in found.items() if 0 <= i < units}

    @property
    def unknown(self) -> int | None:
        """The id of the token for unknown text; None if there is none."""
        if TOKENIZER in self.texts:
            with self._interpreting():
                record = self._json(TOKENIZER)
                model, ids = record["model"], tokenizer_json.vocabulary(record)
                found: int | None = model.get("unk_id", ids.get(model.get("unk_token") or ""))
                return found
        words = self._lines(WORDS)
        return words.index("[UNK]") if "[UNK]" in words else None

    def rewritten(self, kept: Sequence[int], units: int) -> dict[str, str]:
        """Name -> content of each file, with the kept tokens only."""
        new = NewIds(kept)
        with self._interpreting():
            return {name: self._rewritten(name, new, units) for name in self.texts}

    def _interpreting(self) -> AbstractContextManager[None]:
        return interpreting(f"reading the files of the tokenizer in {self.folder}")

    def _json(self, name: str) -> Any:
        try:
            found = json.loads(self.texts[name])
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.folder / name} is not valid JSON: {error}") from error
        if not isinstance(found, dict):
            raise UsageError(f"{self.folder / name} is not a JSON object")
        return found

    def _lines(self, name: str) -> list[str]:
        """The lines; `str.splitlines` also splits at other characters, which tokens may contain."""
        text = self.texts.get(name, "").removesuffix("\n")
        return text.split("\n") if text else []

    def _byte_level(self) -> dict[str, Any]:
        """The vocab.json and merges.txt of GPT-2 and RoBERTa as a tokenizer.json."""
        lines = self._lines(MERGES)
        pairs = [line for line in lines if line and not line.startswith("#version")]
        model = {"type": "BPE", "vocab": self._json(TOKENS), "merges": pairs}
        return {"model": model, "pre_tokenizer": {"type": "ByteLevel"}}

    def _merges(self, new: NewIds) -> str:
        record = self._byte_level()
        kept = {token for token, i in record["model"]["vocab"].items() if i in new}
        first = self._lines(MERGES)[:1]
        version = [line for line in first if line.startswith("#version")]
        return "\n".join([*version, *map(" ".join, Merges(record["model"]).within(kept))]) + "\n"

    def _words(self, new: NewIds) -> str:
        words = self._lines(WORDS)
        return "".join(f"{words[i]}\n" for i in new.kept if i < len(words))

    def _names(self, name: str, new: NewIds) -> str:
        ids = self._json(name).items()
        kept = {token: new[i] for token, i in ids if i in new}
        return _text(dict(sorted(kept.items(), key=lambda item: item[1])))

    def _rewritten(self, name: str, new: NewIds, units: int) -> str:
        if name == TOKENIZER:
            return _text(tokenizer_json.rewritten(self._json(name), new))
        if name in _CONFIGS:
            return _text(configs.rewritten(self._json(name), new, units))
        if name in {TOKENS, _ADDED}:
            return self._names(name, new)
        if name == MERGES:
            return self._merges(new)
        return self._words(new) if name == WORDS else self.texts[name]


def _text(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"
