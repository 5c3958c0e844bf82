"""Tables, sounds and texts are data for the commands, without a line of Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from onnx import TensorProto

from tests.builders.commands import exporter
from tests.builders.onnx_models import node, numbers, proto
from tests.builders.tokenizers import WORDS, word_level

HIDDEN, TOKENS = 3, 5


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    random = np.random.default_rng(0)
    for name, width in (("table", 6), ("sound", 400)):
        linear = node("MatMul", ["x", "kernel"], ["scores"], "head")
        kernel = numbers(width, 4, seed=1)
        made = proto(
            [linear], {"kernel": kernel}, x=("batch", width), outputs={"scores": ("batch", 4)}
        )
        (folder / f"{name}.onnx").write_bytes(made.SerializeToString())
    nodes = [
        node("Gather", ["table", "x"], ["rows"], "look up"),
        node("Flatten", ["rows"], ["flat"], "flatten"),
        node("MatMul", ["flat", "kernel"], ["scores"], "head"),
    ]
    constants = {
        "table": numbers(len(WORDS), HIDDEN),
        "kernel": numbers(TOKENS * HIDDEN, len(WORDS), seed=2),
    }
    made = proto(nodes, constants, x=("batch", TOKENS), outputs={"scores": ("batch", len(WORDS))})
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    (folder / "text.onnx").write_bytes(made.SerializeToString())
    rows = random.normal(size=(12, 6))
    lines = [",".join([*map(str, row), str(i % 4)]) for i, row in enumerate(rows)]
    (folder / "data.csv").write_text("\n".join(["a,b,c,d,e,f,label", *lines]) + "\n")
    for i in range(4):
        (folder / "sounds" / str(i)).mkdir(parents=True)
        wave = random.uniform(-1, 1, 1000)
        soundfile.write(folder / "sounds" / str(i) / "a.wav", wave, 16000)
    (folder / "lines.txt").write_text("the cat sat\nthe dog ran\n" * 4)
    word_level(folder)
    return folder


DATA = {
    "table": "--data data.csv",
    "sound": "--data sounds --sample-rate 16000",
    "text": "--data lines.txt",
}


@pytest.mark.parametrize("name", DATA)
def test_data_for_every_command(work: Path, name: str) -> None:
    data, model = DATA[name], f"{name}.onnx"
    done = exporter(f"select {model} {data} --min-count 1 -o {name}.json --json", work)
    assert done.code == 0, done.err
    labeled = [row["support"] for row in done.record["table"]]
    assert labeled == {"table": [3] * 4, "sound": [3, 3, 3, 3]}.get(name, [None] * len(WORDS))
    for command in (
        f"prune {model} -o {name}.small.onnx --keep @{name}.json {data} --json",
        f"verify {model} {name}.small.onnx {data} --samples 3 --json",
        f"quantize {model} -o {name}.int8.onnx --precision int8 {data} --no-bench --json",
    ):
        done = exporter(command, work)
        assert done.code == 0, done.err


def test_tokens_that_occur_in_a_text(work: Path) -> None:
    done = exporter("select text.onnx --occurs-in lines.txt -o words.json", work)
    assert done.code == 0, done.err
    assert "10 of 11 units kept, by 8 samples of lines.txt, tokens of tokenizer.json" in done.out
    table = {row["label"]: row for row in json.loads((work / "words.json").read_text())["table"]}
    assert table["the"]["reason"] == "count 8 >= 1"
    assert table["[MASK]"]["reason"] == "special token, count 0"
    assert not table["##s"]["kept"]


REFUSED = {
    "select text.onnx --occurs-in lines.txt --data lines.txt -o a.json": "are both given",
    "select table.onnx --occurs-in lines.txt -o a.json": "has 11 tokens, and the head 4 units",
    "select table.onnx --counts lines.txt -o a.json": "no unit is called 'the cat sat'",
    "select table.onnx --data lines.txt --min-count 1 -o a.json": "does not take the tokens",
    "select sound.onnx --data sounds --min-count 1 -o a.json": "the sample rate of input 'x' is",
    "select table.onnx --data data.csv --resize pad --min-count 1 -o a.json": "--resize is for",
}


@pytest.mark.parametrize("command", REFUSED)
def test_refused(work: Path, command: str) -> None:
    done = exporter(command, work)
    assert done.code == 2
    assert REFUSED[command] in done.err
    assert "hint: " in done.err
