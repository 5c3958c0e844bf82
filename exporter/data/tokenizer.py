"""Tokenizers: text to token ids. `tokenizer.json`, WordPiece's `vocab.txt`, SentencePiece."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from exporter.errors import UsageError, first_line
from exporter.selection.text_file import read_text
from exporter.tokens.tokenizer_json import byte_letters

_FILES = (
    "tokenizer.json",
    "vocab.txt",
    *("tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "spm.model"),
)
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_WORDPIECE_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>", "<|endoftext|>", "</s>")
CONFIG = "tokenizer_config.json"


class Encoded(NamedTuple):
    """The tokens of one text, of equal lengths."""

    ids: list[int]
    attention: list[int]
    types: list[int]


class Tokenizer(Protocol):
    """A tokenizer that was read from a file.

    Attributes:
        path: of the file.
        tokens: every token, by id; "" for an id without one.
        fixed: id -> "special token" or "byte token". With them any text can be written.
    """

    path: Path
    tokens: Sequence[str]
    fixed: Mapping[int, str]

    def encode(self, texts: list[str], length: int) -> list[Encoded]:
        """With the tokens that begin and end a text, cut and padded to the length."""

    def ids(self, texts: list[str]) -> list[list[int]]:
        """All tokens of each text, without the tokens that begin and end it."""


def find_tokenizer(text: Path, model: Path | None, given: Path | None) -> Tokenizer:
    """The tokenizer that is given, else next to the text, else next to the model.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    folders = [text.parent, *([model.parent] if model else [])]
    files = [given] if given else [folder / name for folder in folders for name in _FILES]
    path = next((file for file in files if file.is_file()), None)
    if path is None and given is not None:
        raise UsageError(f"there is no tokenizer {given}", "check the path of --tokenizer")
    if path is None:
        raise UsageError(
            f"there is no tokenizer for {text}",
            f"put {_FILES[0]}, {_FILES[1]} or {_FILES[2]} next to it or to the model, or give "
            "--tokenizer FILE",
        )
    try:
        if path.suffix == ".model":
            return _SentencePiece(path)
        return _WordPieces(path) if path.suffix == ".txt" else _HuggingFace(path)
    except (ImportError, UsageError):
        raise
    except Exception as error:  # the libraries raise plain exceptions
        raise UsageError(
            f"{path} is not a tokenizer: {first_line(error)}",
            "give a tokenizer.json, a vocab.txt of WordPiece, or a SentencePiece .model",
        ) from error


class _HuggingFace:
    """A `tokenizer.json`."""

    path: Path
    tokens: Sequence[str]
    fixed: Mapping[int, str]

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Library  # noqa: PLC0415 - an optional library

        content = read_text(path)
        self._setup(path, Library.from_str(content))
        described = json.loads(content)
        parts = [described.get("pre_tokenizer"), described.get("decoder")]
        if '"ByteLevel"' in json.dumps(parts):
            alphabet = set(byte_letters())
            found = {i: "byte token" for i, token in enumerate(self.tokens) if token in alphabet}
            self.fixed = found | dict(self.fixed)

    def _setup(self, path: Path, library: Any) -> None:
        self.path, self._library = path, library
        vocabulary: dict[str, int] = library.get_vocab(with_added_tokens=True)
        tokens = [""] * (max(vocabulary.values(), default=-1) + 1)
        for token, i in vocabulary.items():
            tokens[i] = token
        self.tokens = tokens
        special = {i for i, each in library.get_added_tokens_decoder().items() if each.special}
        self.fixed = {
            i: "special token" if i in special else "byte token"
            for i, token in enumerate(tokens)
            if i in special or _BYTE.fullmatch(token)
        }
        stated = library.padding or {}
        pad = next((token for token in _PADS if token in vocabulary), None)
        self._pad_id = stated.get("pad_id", vocabulary.get(pad or "", 0))
        self._pad_token = stated.get("pad_token", pad or "")

    def encode(self, texts: list[str], length: int) -> list[Encoded]:
        self._library.enable_truncation(length)
        self._library.enable_padding(length=length, pad_id=self._pad_id, pad_token=self._pad_token)
        found = self._library.encode_batch(texts)
        return [Encoded(each.ids, each.attention_mask, each.type_ids) for each in found]

    def ids(self, texts: list[str]) -> list[list[int]]:
        self._library.no_truncation()
        self._library.no_padding()
        found = self._library.encode_batch_fast(texts, add_special_tokens=False)
        return [each.ids for each in found]


class _WordPieces(_HuggingFace):
    """The `vocab.txt` of a BERT model; `do_lower_case` of tokenizer_config.json next to it."""

    def __init__(self, path: Path) -> None:
        from tokenizers import BertWordPieceTokenizer  # noqa: PLC0415 - an optional library

        lowercase = bool(_config(path).get("do_lower_case", True))
        library = BertWordPieceTokenizer(str(path), lowercase=lowercase)
        library.add_special_tokens(
            [t for t in _WORDPIECE_SPECIAL if library.token_to_id(t) is not None]
        )
        self._setup(path, library._tokenizer)  # noqa: SLF001 - the wrapper lacks methods used here


class _SentencePiece:
    """A SentencePiece model; `add_bos_token` and `add_eos_token` of tokenizer_config.json."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - an optional library

        self.path = path
        self._library = library = SentencePieceProcessor(model_file=str(path))
        pieces = range(library.get_piece_size())
        self.tokens: Sequence[str] = [library.id_to_piece(i) for i in pieces]
        special = [i for i in pieces if library.is_control(i) or library.is_unknown(i)]
        byte = {i: "byte token" for i in pieces if library.is_byte(i)}
        self.fixed: Mapping[int, str] = byte | dict.fromkeys(special, "special token")
        config = _config(path)
        ends = ("add_bos_token", library.bos_id()), ("add_eos_token", library.eos_id())
        self._begin, self._end = ([i] if config.get(name) and i >= 0 else [] for name, i in ends)

    def encode(self, texts: list[str], length: int) -> list[Encoded]:
        room = length - len(self._begin) - len(self._end)
        pad = max(self._library.pad_id(), 0)
        found = []
        for ids in self.ids(texts):
            used = [*self._begin, *ids[:room], *self._end]
            rest = length - len(used)
            mask = [1] * len(used) + [0] * rest
            found.append(Encoded(used + [pad] * rest, mask, [0] * length))
        return found

    def ids(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self._library.encode(texts)
        return found


def _config(path: Path) -> dict[str, Any]:
    """tokenizer_config.json next to a tokenizer; empty if there is none."""
    file = path.parent / CONFIG
    if not file.is_file():
        return {}
    try:
        config = json.loads(read_text(file))
    except ValueError as error:
        raise UsageError(
            f"{file} is not valid JSON: {error}", "correct it, or remove it"
        ) from error
    return config if isinstance(config, dict) else {}
