"""A tokenizer for fewer tokens gives a text of kept tokens the same tokens, with new ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from exporter.errors import UsageError
from exporter.tokens.files import TokenFiles

TEXT = (
    "the cat sat on the mat",
    "a dog and a cat ran to the end of the day",
    "reading and writing and running: the letters of many words",
    "internationalization is a long word, and so is tokenization",
)
OTHERS = (
    "el gato negro duerme en la casa grande",
    "los perros corren por las calles antiguas",
    "palabras desconocidas aparecen constantemente",
)


def byte_level() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|user|>"]
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=special)
    made.train_from_iterator([*TEXT, *OTHERS], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<|user|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0), ("<|user|>", 1)]
    )
    made.enable_padding(pad_id=0, pad_token="<|endoftext|>")  # noqa: S106 - a token of text
    return made


def word_suffix() -> Tokenizer:
    """BPE as CLIP uses it: the last symbol of a word has a suffix."""
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>"
    )
    made.train_from_iterator([*TEXT, *OTHERS], trainer)
    return made


def subword_prefix() -> Tokenizer:
    """BPE with a prefix before the symbols inside a word."""
    made = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>"], continuing_subword_prefix="##"
    )
    made.train_from_iterator([*TEXT, *OTHERS], trainer)
    return made


def byte_fallback() -> Tokenizer:
    """BPE as Llama 2 uses it: letters without a token become bytes."""
    vocabulary = {"<unk>": 0, "<s>": 1} | {f"<0x{i:02X}>": i + 2 for i in range(256)}
    trained = word_suffix_free()
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    for token in sorted(trained.get_vocab(), key=trained.get_vocab().get):  # type: ignore[arg-type]
        vocabulary.setdefault(token, len(vocabulary))
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))  # noqa: S106
    made.normalizer = normalizers.Replace(" ", "▁")
    made.add_special_tokens(["<unk>", "<s>"])
    return made


def word_suffix_free() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Replace(" ", "▁")
    made.train_from_iterator([*TEXT, *OTHERS], trainers.BpeTrainer(vocab_size=300))
    return made


def word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - a token of text
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        [*TEXT, *OTHERS], trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    )
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["<pad>", "<unk>"],
        unk_token="<unk>",  # noqa: S106
    )
    made.train_from_iterator([*TEXT, *OTHERS] * 3, trainer)
    made.add_special_tokens(["</s>"])
    made.post_processor = processors.Sequence(
        [
            processors.TemplateProcessing(
                single="$A </s>", special_tokens=[("</s>", made.token_to_id("</s>"))]
            )
        ]
    )
    return made


def word_level() -> Tokenizer:
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))  # noqa: S106 - a token of text
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator([*TEXT, *OTHERS], trainers.WordLevelTrainer(special_tokens=["[UNK]"]))
    return made


TOKENIZERS = (
    byte_level,
    word_suffix,
    subword_prefix,
    byte_fallback,
    word_piece,
    unigram,
    word_level,
)


@pytest.mark.parametrize("make", TOKENIZERS)
def test_a_text_of_kept_tokens_has_the_same_tokens(
    make: Callable[[], Tokenizer], tmp_path: Path
) -> None:
    made = make()
    made.save(str(tmp_path / "tokenizer.json"))
    files, units = TokenFiles.in_folder(tmp_path), made.get_vocab_size()
    used = {i for text in TEXT for i in made.encode(text).ids}
    kept = sorted(used | set(files.needed(used, units, closed=True)))
    assert len(kept) < units
    small = Tokenizer.from_str(files.rewritten(kept, units)["tokenizer.json"])
    assert small.get_vocab_size() == len(kept)
    for text in TEXT:
        before, after = made.encode(text), small.encode(text)
        assert after.tokens == before.tokens
        assert [kept[i] for i in after.ids] == before.ids
    for text in OTHERS:  # no token that the model lacks
        assert max(small.encode(text).ids) < len(kept)


@pytest.mark.parametrize(("make", "unknown"), [(word_piece, "[UNK]"), (unigram, "<unk>")])
def test_the_unknown_token_is_known(
    make: Callable[[], Tokenizer], unknown: str, tmp_path: Path
) -> None:
    made = make()
    made.save(str(tmp_path / "tokenizer.json"))
    assert TokenFiles.in_folder(tmp_path).unknown == made.token_to_id(unknown)


def test_byte_and_special_tokens_and_parts_are_needed(tmp_path: Path) -> None:
    made = byte_level()
    made.save(str(tmp_path / "tokenizer.json"))
    long = max(made.get_vocab().items(), key=lambda item: len(item[0]) * (item[1] > 300))
    files = TokenFiles.in_folder(tmp_path)
    needed = files.needed([long[1]], 500, closed=True)
    assert {needed[i] for i in (0, 1)} == {"an added token"}
    assert sum(why == "a byte token" for why in needed.values()) == 256
    parts = [i for i, why in needed.items() if why == "a part of other tokens"]
    assert all(str(made.id_to_token(i)) in long[0] for i in parts)
    assert len(parts) >= 1
    assert not {"a part of other tokens"} & set(files.needed([long[1]], 500, closed=False).values())


def test_vocab_txt_keeps_special_words(tmp_path: Path) -> None:
    words = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    files = TokenFiles.in_folder(tmp_path)
    assert files.needed([7], 9, closed=True) == dict.fromkeys([0, 2, 3, 4, 5], "a special token")
    assert files.unknown == 2
    assert files.rewritten([0, 2, 7], 9) == {"vocab.txt": "[PAD]\n[UNK]\ncat\n"}


def test_only_a_line_feed_ends_a_word(tmp_path: Path) -> None:
    words = ["[UNK]", "a\u2028b", "c\x85", "the", "cat"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    found = TokenFiles.in_folder(tmp_path).rewritten([0, 2, 4], 5)
    assert found == {"vocab.txt": "[UNK]\nc\x85\ncat\n"}


@pytest.mark.parametrize("kind", ["template", "sequence", "bert"])
def test_tokens_that_are_inserted_are_needed(kind: str, tmp_path: Path) -> None:
    """They are in the vocabulary, and not among the added tokens."""
    words = ["a", "b", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "c"]
    vocabulary = {word: i for i, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    made.post_processor = {
        "template": template,
        "sequence": processors.Sequence([template]),
        "bert": processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3)),
    }[kind]
    made.enable_padding(pad_id=5, pad_token="[PAD]", length=6)  # noqa: S106 - a token of text
    made.save(str(tmp_path / "tokenizer.json"))
    files = TokenFiles.in_folder(tmp_path)
    kept = sorted({1, 6} | set(files.needed([1, 6], 7, closed=True)))
    assert kept == [1, 2, 3, 4, 5, 6]
    small = Tokenizer.from_str(files.rewritten(kept, 7)["tokenizer.json"])
    assert small.encode("c b").tokens == made.encode("c b").tokens
    assert [kept[i] for i in small.encode("c b").ids] == made.encode("c b").ids
    with pytest.raises(UsageError, match="which is not kept"):
        files.rewritten([1, 2, 6], 7)


def test_vocab_json_and_merges_follow(tmp_path: Path) -> None:
    made = byte_level()
    made.model.save(str(tmp_path))
    (tmp_path / "added_tokens.json").write_text('{"<|new|>": 499}')
    files = TokenFiles.in_folder(tmp_path)
    used = {i for text in TEXT for i in made.encode(text, add_special_tokens=False).ids}
    kept = sorted(used | set(files.needed(used, 500, closed=True)))
    assert 499 in kept
    for name, text in files.rewritten(kept, 500).items():
        (tmp_path / name).write_text(text)
    small = Tokenizer(
        models.BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    )
    small.pre_tokenizer = made.pre_tokenizer
    for text in TEXT:
        ids = small.encode(text).ids
        assert [kept[i] for i in ids] == made.encode(text, add_special_tokens=False).ids


CONFIG: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 100,
    "bos_token_id": 1,
    "eos_token_id": [2, 5],
    "pad_token_id": None,
    "decoder_start_token_id": 7,
    "image_token_index": 9,
    "forced_decoder_ids": [[1, 11], [2, None]],
    "suppress_tokens": [3, 4, 5],
    "begin_suppress_tokens": [4],
    "bad_words_ids": [[1, 2], [1, 3]],
    "sequence_bias": [[[1, 3], -1.0], [[2], 2.0]],
    "added_tokens_decoder": {"1": {"content": "<s>"}, "13": {"content": "<x>"}},
    "text_config": {"vocab_size": 100, "eos_token_id": 5},
    "vision_config": {"vocab_size": 99, "layers": [1, 2, 3]},
}


def test_all_ids_of_configurations_follow(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "special_tokens_map.json").write_text("{}")
    files = TokenFiles.in_folder(tmp_path)
    needed = files.needed([2], 100, closed=True)
    assert sorted(needed) == [1, 2, 5, 7, 9, 11, 13]
    assert set(needed.values()) == {"named in config.json"}
    found = files.rewritten([1, 2, 5, 7, 9, 11, 13], 100)
    assert found["special_tokens_map.json"] == "{}"
    assert json.loads(found["config.json"]) == {
        "vocab_size": 7,
        "hidden_size": 100,
        "bos_token_id": 0,
        "eos_token_id": [1, 2],
        "pad_token_id": None,
        "decoder_start_token_id": 3,
        "image_token_index": 4,
        "forced_decoder_ids": [[1, 5], [2, None]],
        "suppress_tokens": [2],
        "begin_suppress_tokens": [],
        "bad_words_ids": [[0, 1]],
        "sequence_bias": [[[1], 2.0]],
        "added_tokens_decoder": {"0": {"content": "<s>"}, "6": {"content": "<x>"}},
        "text_config": {"vocab_size": 7, "eos_token_id": 2},
        "vision_config": {"vocab_size": 99, "layers": [1, 2, 3]},
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "is not valid JSON"),
        ("config.json", "[]", "is not a JSON object"),
        ("spiece.model", "", "cannot be written for fewer tokens"),
        ("tokenizer.json", "{}", "the tokenizer has no vocabulary"),
    ],
)
def test_files_that_cannot_follow_are_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        TokenFiles.in_folder(tmp_path).needed([1], 10, closed=True)
