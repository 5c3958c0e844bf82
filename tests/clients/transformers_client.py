"""The tokenizer of transformers and a language model, cut on both sides, agree on each token.

Run by `make clients`. The vocabulary is trained on a few sentences, the weights are random.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

EXPORTER = os.environ["EXPORTER"]  # the command
TEXTS = (
    "the pump in the greenhouse runs at noon",
    "open the valve if the soil is dry",
    "a red lamp means that the tank is empty",
)
NEEDED = ("open the valve at noon", "the tank is dry")  # made of tokens that are kept
WIDTH = 8


def trained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def network(units: int) -> onnx.ModelProto:
    """Each token's embedding, times a matrix, times the head of its own."""
    random = np.random.default_rng(0)
    shapes = {"embeddings": (units, WIDTH), "mix": (WIDTH, WIDTH), "head": (WIDTH, units)}
    constants = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Gather", ["embeddings", "input_ids"], ["e"], "lookup"),
        helper.make_node("MatMul", ["e", "mix"], ["m"], "mix"),
        helper.make_node("Tanh", ["m"], ["h"], "tanh"),
        helper.make_node("MatMul", ["h", "head"], ["logits"], "logits"),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "length"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "length", units])
    graph = helper.make_graph(nodes, "language", [ids], [logits], constants)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the original, and of the cut model."""
    before = tmp_path_factory.mktemp("before")
    after = tmp_path_factory.mktemp("after")
    tokenizer = trained()
    tokenizer.save(str(before / "tokenizer.json"))
    config = '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}'
    (before / "tokenizer_config.json").write_text(config)
    onnx.save(network(tokenizer.get_vocab_size()), before / "model.onnx")
    kept = sorted({i for text in NEEDED for i in tokenizer.encode(text).ids})
    command = [EXPORTER, "prune", str(before / "model.onnx"), "-o", str(after / "model.onnx")]
    command += ["--keep", ",".join(f"{i}-{i}" for i in kept), "--vocabulary", "both"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    settings = after / "tokenizer_config.json"
    if not settings.exists():
        settings.write_text(config)
    return before, after


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (found,) = session.run(["logits"], {"input_ids": np.array([ids])})
    values: np.ndarray = np.asarray(found)[0]
    return values


@pytest.mark.parametrize("text", NEEDED)
def test_every_token_has_its_logits(folders: tuple[Path, Path], text: str) -> None:
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in folders)
    ids = old(text)["input_ids"], new(text)["input_ids"]
    tokens = old.convert_ids_to_tokens(ids[0])
    assert new.convert_ids_to_tokens(ids[1]) == tokens
    assert new.decode(ids[1]) == text
    left = sorted(new.get_vocab(), key=new.get_vocab().__getitem__)
    assert len(left) < len(old) - 20  # the 256 bytes are kept
    before, after = (logits(folder, each) for folder, each in zip(folders, ids, strict=True))
    np.testing.assert_array_equal(after, before[:, old.convert_tokens_to_ids(left)])


@pytest.mark.parametrize("text", NEEDED)
def test_greedy_decoding_chooses_the_best_token_that_is_left(
    folders: tuple[Path, Path], text: str
) -> None:
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in folders)
    left = old.convert_tokens_to_ids(sorted(new.get_vocab(), key=new.get_vocab().__getitem__))
    ids = old(text)["input_ids"], new(text)["input_ids"]
    for _ in range(10):
        best = left[int(logits(folders[0], ids[0])[-1, left].argmax())]
        chosen = int(logits(folders[1], ids[1])[-1].argmax())
        assert new.convert_ids_to_tokens(chosen) == old.convert_ids_to_tokens(best)
        ids = [*ids[0], best], [*ids[1], chosen]
