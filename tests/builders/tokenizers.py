"""Small tokenizers, trained or written for tests."""

from __future__ import annotations

from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "dog", "##s", "ran"]
SENTENCES = ["the cat sat", "the dog ran", "cats and dogs ran", "the end of the day"] * 20


def word_pieces(folder: Path) -> Path:
    """A vocab.txt; the id of a word is its place in WORDS."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def word_level(folder: Path) -> Path:
    """A tokenizer.json with the same words and ids, which adds [CLS] and [SEP]."""
    words = {word: i for i, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - a token of text
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(WORDS[:5])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    path = folder / "tokenizer.json"
    made.save(str(path))
    return path


def byte_level(folder: Path) -> Path:
    """A tokenizer.json of GPT-2's kind: <|endoftext|>, the 256 bytes, then "th" and "the"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|endoftext|>", *alphabet, "th", "the"]
    made = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [("t", "h"), ("th", "e")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    path = folder / "tokenizer.json"
    made.save(str(path))
    return path


def sentence_pieces(folder: Path) -> Path:
    """A SentencePiece model with byte tokens: <unk>, <s>, </s>, 256 bytes, then pieces."""
    prefix = folder / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(prefix),
        vocab_size=290,
        byte_fallback=True,
        model_type="bpe",
        minloglevel=2,
        hard_vocab_limit=False,
    )
    prefix.with_suffix(".vocab").unlink()
    return prefix.with_suffix(".model")
