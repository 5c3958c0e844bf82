"""Readers of the files that come with models: of tokenizers, labels, options, plans, histories."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from tokenizers import Tokenizer, models, pre_tokenizers

from exporter.batches.plan import read_plan
from exporter.batches.run import BatchOptions, forecast_batch
from exporter.cli.main import main
from exporter.errors import UsageError
from exporter.jobs.compare import verify_files
from exporter.jobs.history import read_history, save_timings
from exporter.jobs.inspect import inspect_file
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.jobs.trim import trim_file
from exporter.jobs.trim_options import TrimOptions
from exporter.planning.options import CutOptions
from tests.builders import channel_models, language_models, reports, shelf

Files = Mapping[str, bytes]
_JOB = Job(samples=2)


# --- next to a model ----------------------------------------------------------------------------


def vocabularies() -> Iterator[Files]:
    """The files of a tokenizer, next to a language model."""
    names = ["<unk>", "<s>", *(f"t{i}" for i in range(language_models.UNITS - 2))]
    ids = {name: i for i, name in enumerate(names)}
    made = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))  # noqa: S106 - a token of text
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    model = language_models.onnx_model("untied").SerializeToString()
    settings = {"vocab_size": len(ids), "bos_token_id": 1, "eos_token_id": [1, 2]}
    files = {
        "tokenizer.json": made.to_str().encode(),
        "config.json": json.dumps(settings).encode(),
        "generation_config.json": json.dumps({"bad_words_ids": [[3]], **settings}).encode(),
        "special_tokens_map.json": json.dumps({"unk_token": "<unk>"}).encode(),
        "vocab.txt": "\n".join(names).encode(),
    }
    for name, content in files.items():
        yield {name: content, "net.onnx": model} | (files if name == "config.json" else {})


def cut_vocabulary(path: Path) -> None:
    model = path.with_name("net.onnx")
    options, folder = CutOptions(keep="0-20", vocabulary="both"), path.with_name("cut.d")
    folder.mkdir(exist_ok=True)
    prune_file(model, folder / "cut.onnx", options, _JOB)


def label_files() -> Iterator[Files]:
    """Label files that are found by their names."""
    model = shelf.ONNX["net.onnx"]().SerializeToString()
    lines = "\n".join(shelf.LABELS)
    names = {str(i): name for i, name in enumerate(shelf.LABELS)}
    items = "".join(f"  - {name}\n" for name in shelf.LABELS)
    contents = {
        "net.txt": lines,
        "net_labels.txt": lines,
        "en_dict.txt": lines,
        "config.json": json.dumps(
            {"id2label": names, "label2id": {v: k for k, v in names.items()}}
        ),
        "vocab.json": json.dumps({name: i for i, name in enumerate(shelf.LABELS)}),
        "inference.yml": f"PostProcess:\n  character_dict:\n{items}",
    }
    for name, content in contents.items():
        yield {name: content.encode(), "net.onnx": model}


def cut_with_labels(path: Path) -> None:
    model = path.with_name("net.onnx")
    inspect_file(model, _JOB)
    prune_file(model, path.with_name("cut.onnx"), CutOptions(keep=[0, 2]), _JOB)


# --- inside a model -----------------------------------------------------------------------------


@cache
def _cuts() -> Mapping[str, onnx.ModelProto]:
    """A cut file for each mode."""
    made = {}
    with TemporaryDirectory() as name:
        source, out = Path(name, "net.onnx"), Path(name, "cut.onnx")
        source.write_bytes(shelf.ONNX["net.onnx"]().SerializeToString())
        for mode in ("slice", "mask"):
            options = CutOptions(keep=[0, 2], mode=mode, labels=list(shelf.LABELS))
            prune_file(source, out, options, Job(samples=2, force=True))
            made[mode] = onnx.load(out)
    return made


def _remap_of(model: onnx.ModelProto) -> onnx.StringStringEntryProto:
    entry: onnx.StringStringEntryProto
    (entry,) = (each for each in model.metadata_props if each.key == "exporter.remap")
    return entry


def remaps_inside() -> Iterator[Files]:
    """The text of the remap that a cut file contains; its original is the same for all."""
    for mode, model in _cuts().items():
        yield {f"{mode}.json": _remap_of(model).value.encode()}


def verify_remap(path: Path) -> None:
    source, cut = path.with_name("cut.source.onnx"), path.with_name("cut.onnx")
    source.write_bytes(shelf.ONNX["net.onnx"]().SerializeToString())
    model = onnx.ModelProto()
    model.CopyFrom(_cuts()[path.stem])
    _remap_of(model).value = path.read_bytes().decode("utf-8", "replace")
    cut.write_bytes(model.SerializeToString())
    inspect_file(cut, _JOB)
    verify_files(source, cut, _JOB)


def small_networks() -> Iterator[Files]:
    for name in ("plain", "residual"):
        yield {"net.onnx": channel_models.network(name).to_bytes()}


def trim(path: Path) -> None:
    data = path.with_name("data.npz")
    shape = (32, 3, channel_models.SIDE, channel_models.SIDE)
    np.savez(data, x=np.random.default_rng(0).normal(size=shape).astype(np.float32))
    options = TrimOptions(target=0.9, multiple=1)
    try:
        trim_file(path, path.with_name("cut.onnx"), options, None, Job(data=data))
    finally:
        data.unlink()


# --- options, plans and histories ---------------------------------------------------------------


def plans() -> Iterator[Files]:
    model = shelf.ONNX["net.onnx"]().SerializeToString()
    text = """
[options]
bench = false
samples = 2
[models]
net = "net.onnx"
[selections]
birds = ["owl", "hen"]
few = "0-2"
listed = "@keep.txt"
table = { csv = "keep.csv" }
[[cell]]
model = "net"
name = "small"
keep = "0-4"
max-size = 100
"""
    more = {"net.onnx": model, "keep.txt": b"0\n1\n", "keep.csv": b"customer,keep\na,0-2\n"}
    yield {"plan.toml": text.replace('table = { csv = "keep.csv" }\n', "").encode(), **more}
    yield {"plan.toml": text.encode(), **more}


def forecast_plan(path: Path) -> None:
    plan = read_plan(path, {})
    if len(plan.cells) < 10:
        forecast_batch(plan, BatchOptions(workers=1))


def settings() -> Iterator[Files]:
    text = 'samples = 3\nkeep = "0-2"\n[prune]\nforce = true\n[inspect]\nunits = "0:7"\n'
    model = shelf.ONNX["net.onnx"]().SerializeToString()
    yield {"exporter.toml": text.encode(), "net.onnx": model}
    project = (
        '[project]\nname = "x"\n[tool.exporter]\nsamples = 3\n[tool.exporter.prune]\nforce = true\n'
    )
    yield {"pyproject.toml": project.encode(), "net.onnx": model}


def use_settings(path: Path) -> None:
    """Run a command of the command line, which ends with an exit code."""
    said = StringIO()
    line = ["inspect", str(path.with_name("net.onnx")), "--config", str(path)]
    with redirect_stdout(said), redirect_stderr(said):
        try:
            main(line)
        except SystemExit as end:
            if end.code:
                assert end.code in {2, 3, 4, 6}, (end.code, said.getvalue())  # noqa: PT017
                raise UsageError("refused") from None


def histories() -> Iterator[Files]:
    with TemporaryDirectory() as name:
        path = Path(name, "history.sqlite")
        save_timings(path, reports.PASSING, None)
        yield {"history.sqlite": path.read_bytes()}
        with sqlite3.connect(path) as database:
            (text,) = database.execute("SELECT latency FROM timing").fetchone()
        yield {"latency.json": text.encode()}


def show_history(path: Path) -> None:
    """A damaged database, or a sound one with a damaged record."""
    if path.suffix == ".json":
        text = path.read_bytes().decode("utf-8", "replace")
        path.unlink()
        path = path.with_name("cut.sqlite")
        save_timings(path, reports.PASSING, None)
        with sqlite3.connect(path) as database:
            database.execute("UPDATE timing SET latency = ?", (text,))
    read_history(path, 0.05).to_dict()
