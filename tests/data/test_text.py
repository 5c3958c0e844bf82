"""Text files for token models: one sample a line, with the tokenizer of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from exporter.data.options import DataOptions
from exporter.data.read import read_samples
from exporter.data.tokenizer import find_tokenizer
from exporter.errors import UsageError
from exporter.graph import Graph, Node, Shape, Tensor
from exporter.graph.operations import Gather
from tests.builders.tokenizers import (
    SENTENCES,
    WORDS,
    byte_level,
    sentence_pieces,
    word_level,
    word_pieces,
)

BERT = ("input_ids", "attention_mask", "token_type_ids")
MEDIAPIPE = ("serving_default_input_word_ids:0", "input_mask", "segment_ids")


def graph(
    names: tuple[str, ...] = BERT,
    shape: Shape | None = (1, 6),
    dtype: str = "int64",
    rows: int | None = None,
) -> Graph:
    """Inputs of one shape; with `rows`, the first indexes a table of so many rows."""
    tensors = {name: Tensor(name, shape, dtype) for name in names}
    nodes: tuple[Node, ...] = ()
    if rows is not None:
        tensors["table"] = Tensor("table", (rows, 4), "float32", read=lambda: np.zeros((rows, 4)))
        nodes = (Node("look up", "Gather", Gather(0), ("table", names[0]), ("y",)),)
    return Graph(nodes, tensors, names, ())


def text(folder: Path, content: str = "the cat sat\n\nthe dogs ran the cat sat\n") -> Path:
    path = folder / "lines.txt"
    path.write_text(content)
    return path


# "the cat sat" and "the dog ##s ran" with [CLS] and [SEP], cut and padded to 6, by hand
IDS = [[2, 5, 6, 7, 3, 0], [2, 5, 8, 9, 10, 3]]
MASKS = [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("names", [BERT, MEDIAPIPE, BERT[:2], BERT[:1], ("x",)])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_word_pieces(tmp_path: Path, names: tuple[str, ...], dtype: str) -> None:
    word_pieces(tmp_path)
    samples = read_samples(text(tmp_path), graph(names, dtype=dtype))
    got = [samples.values[name] for name in names]
    assert all(each.dtype == dtype and each.shape == (2, 1, 6) for each in got)
    expected = (IDS, MASKS, [[0] * 6] * 2)
    for values, wanted in zip(got, expected, strict=False):
        assert values[:, 0].tolist() == wanted
    assert samples.source == "lines.txt, tokens of vocab.txt"
    assert [path.name for path in samples.files] == ["lines.txt", "vocab.txt"]


def test_a_tokenizer_of_the_library(tmp_path: Path) -> None:
    word_level(tmp_path)
    samples = read_samples(text(tmp_path, "the cat sat\nthe fish\n"), graph())
    assert samples.values["input_ids"][:, 0].tolist() == [IDS[0], [2, 5, 1, 3, 0, 0]]
    assert samples.values["attention_mask"][1, 0].tolist() == [1, 1, 1, 1, 0, 0]


def test_case_of_word_pieces(tmp_path: Path) -> None:
    word_pieces(tmp_path)
    path = text(tmp_path, "THE cat\n")
    ids = [5, 1]  # of "the", and of a word that is not in the vocabulary
    for lowers, first in zip((True, False), ids, strict=True):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowers}))
        assert read_samples(path, graph()).values["input_ids"][0, 0, 1] == first
    (tmp_path / "tokenizer_config.json").write_text("[]")
    assert read_samples(path, graph()).values["input_ids"][0, 0, 1] == 5
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(UsageError, match=r"tokenizer_config\.json is not valid JSON"):
        read_samples(path, graph())


@pytest.mark.parametrize(
    ("config", "begin", "end"),
    [({}, [], []), ({"add_bos_token": True, "add_eos_token": True}, [1], [2])],
)
def test_sentence_pieces(
    tmp_path: Path, config: Mapping[str, bool], begin: list[int], end: list[int]
) -> None:
    path = sentence_pieces(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    samples = read_samples(text(tmp_path, "the cat sat\n"), graph(shape=(1, 12)))
    pieces = SentencePieceProcessor(model_file=str(path)).encode("the cat sat")
    expected = [*begin, *pieces, *end]
    assert len(expected) < 12
    got = samples.values["input_ids"][0, 0].tolist()
    assert got == expected + [0] * (12 - len(expected))
    assert samples.values["attention_mask"].sum() == len(expected)
    short = read_samples(text(tmp_path, "the cat sat\n"), graph(shape=(1, 2)))
    assert short.values["input_ids"][0, 0].tolist() == [
        *begin,
        *pieces[: 2 - len(begin + end)],
        *end,
    ]


def test_the_vocabulary_of_sentence_pieces_is_compared(tmp_path: Path) -> None:
    path = sentence_pieces(tmp_path)
    count = len(find_tokenizer(text(tmp_path), None, path).tokens)
    (warning,) = read_samples(text(tmp_path), graph(rows=count + 1)).warnings
    assert warning.startswith(f"tokenizer.model has {count} tokens, and the model {count + 1}")
    assert read_samples(text(tmp_path), graph(rows=count)).warnings == ()


def test_where_a_tokenizer_is_found(tmp_path: Path) -> None:
    """The option, then the folder of the text, then the folder of the model."""
    for name in ("text", "model", "other"):
        (tmp_path / name).mkdir()
        word_pieces(tmp_path / name)
    path, model, other = text(tmp_path / "text"), tmp_path / "model" / "a.onnx", tmp_path / "other"
    given = find_tokenizer(path, model, other / "vocab.txt").path
    next_to_text = find_tokenizer(path, model, None).path
    (tmp_path / "text" / "vocab.txt").unlink()
    last = find_tokenizer(path, model, None).path
    assert [each.parent.name for each in (given, next_to_text, last)] == ["other", "text", "model"]
    (tmp_path / "model" / "vocab.txt").unlink()
    with pytest.raises(UsageError, match="there is no tokenizer for") as error:
        read_samples(path, graph(), options=DataOptions(model=model))
    assert "tokenizer.json, vocab.txt" in error.value.hint
    with pytest.raises(UsageError, match=r"there is no tokenizer .*none\.json"):
        find_tokenizer(path, None, tmp_path / "none.json")


@pytest.mark.parametrize("name", ["tokenizer.json", "spm.model"])
def test_damaged_tokenizers_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=f"{name} is not a tokenizer") as error:
        read_samples(text(tmp_path), graph())
    assert error.value.hint


def test_a_limit_takes_the_first_lines(tmp_path: Path) -> None:
    word_pieces(tmp_path)
    samples = read_samples(text(tmp_path, "the cat\n" * 3000), graph(), 1500)
    assert samples.count == 1500
    assert read_samples(tmp_path / "lines.txt", graph()).count == 3000


# --- tokens that are always kept ----------------------------------------------------------------

FIXED: dict[str, tuple[Callable[[Path], Path], list[int], list[int], int]] = {
    "WordPiece": (word_pieces, [0, 1, 2, 3, 4], [], len(WORDS)),
    "tokenizer.json": (word_level, [0, 1, 2, 3, 4], [], len(WORDS)),
    "byte-level BPE": (byte_level, [0], list(range(1, 257)), 259),
    "SentencePiece": (sentence_pieces, [0, 1, 2], list(range(3, 259)), 0),
}


@pytest.mark.parametrize("name", FIXED)
def test_special_and_byte_tokens(tmp_path: Path, name: str) -> None:
    make, special, bytes_, count = FIXED[name]
    found = find_tokenizer(text(tmp_path), None, make(tmp_path))
    assert sorted(i for i, why in found.fixed.items() if why == "special token") == special
    assert sorted(i for i, why in found.fixed.items() if why == "byte token") == bytes_
    assert count in {0, len(found.tokens)}


def test_ids_have_no_ends_and_no_limit(tmp_path: Path) -> None:
    found = find_tokenizer(text(tmp_path), None, word_level(tmp_path))
    found.encode(["the"], 3)  # which truncates and pads
    assert found.ids(["the cat sat the dog ran", "the"]) == [[5, 6, 7, 5, 8, 10], [5]]
    assert find_tokenizer(text(tmp_path), None, byte_level(tmp_path)).ids(["the"]) == [[258]]
    pieces = find_tokenizer(text(tmp_path), None, sentence_pieces(tmp_path))
    assert pieces.ids(SENTENCES[:1])[0]


# --- refused ------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Graph, str, str]] = {
    "an image": (graph(("image",), (1, 8, 8, 3), "float32"), "a\n", "does not take the tokens of"),
    "floats": (graph(("x",), dtype="float32"), "a\n", "dtype float32 does not take the tokens"),
    "an unknown input": (graph(("input_ids", "pixels")), "a\n", "input 'pixels' of shape"),
    "several texts": (graph(("ids", "mask"), (2, 6)), "a\n", "input 'ids' of shape"),
    "any rank": (graph(("ids",), None), "a\n", "input 'ids' of shape"),
    "an open length": (
        graph(shape=(None, None)),
        "a\n",
        "number of tokens of input 'input_ids' is",
    ),
    "two inputs of ids": (
        graph(("input_ids", "decoder_input_ids")),
        "a\n",
        "do not have one input",
    ),
    "no ids": (graph(("mask", "segment")), "a\n", "do not have one input of token ids"),
    "blank lines": (graph(), "\n \n", "contains no text"),
    "a small table": (graph(rows=5), "the\n", "contains the index 5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    word_pieces(tmp_path)
    model, content, message = REFUSED[name]
    with pytest.raises(UsageError, match=message) as error:
        read_samples(text(tmp_path, content), model)
    assert error.value.hint


def test_lengths_that_differ_are_refused(tmp_path: Path) -> None:
    word_pieces(tmp_path)
    tensors = {n: Tensor(n, (1, size), "int32") for n, size in (("ids", 6), ("mask", 8))}
    with pytest.raises(UsageError, match="take 6 and 8 tokens"):
        read_samples(text(tmp_path), Graph((), tensors, ("ids", "mask"), ()))


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    word_pieces(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        read_samples(tmp_path / "a.txt", graph())
    with pytest.raises(UsageError, match="there is no file"):
        read_samples(tmp_path / "none.txt", graph())
