"""Labels in files next to a model: read for a cut, and written next to the output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.jobs.forecast import forecast_job, inspect_with_forecast
from exporter.jobs.inspect import inspect_file
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.jobs.run import run_job
from exporter.planning.cut import CutOptions
from exporter.remap import Remap
from exporter.selection.nearby_labels import candidates
from tests.builders.onnx_models import classifier, model, node, numbers

NAMES = ["ant", "bee", "cat", "dog", "emu"]
YAML = """\
PostProcess:
  name: CTCLabelDecode
  character_dict:
  - a
  - ''''
  - '-'
  - 'b:'
  - "\\""
Global: {a: 1}
"""
CONFIG = {
    "model_type": "vit",
    "id2label": {str(i): name for i, name in enumerate(NAMES)},
    "label2id": {name: i for i, name in enumerate(NAMES)},
    "num_labels": 5,
}
QUIET = Job(verify=False)


def text_model(units: int) -> Any:
    nodes = [
        node("MatMul", ["x", "k"], ["z"], "head"),
        node("Softmax", ["z"], ["y"], "softmax", axis=-1),
    ]
    return model(nodes, {"k": numbers(6, units)}, x=(1, 8, 6))


def _lines(*labels: str) -> str:
    return "".join(f"{label}\n" for label in labels)


FILES: Mapping[str, tuple[str, str, Any, list[str], Any]] = {  # name, text, model, keep, written
    "lines": ("net_labels.txt", _lines(*NAMES), classifier(), ["cat", "ant"], _lines("ant", "cat")),
    "named after the model": ("net.txt", _lines(*NAMES), classifier(), ["bee"], _lines("bee")),
    "dictionary": (
        "ppocr_keys_v1.txt",
        _lines("0", "1", "A", "=", "@"),
        text_model(7),
        ["1", "@"],
        _lines("1", "@"),
    ),
    "dictionary without space": (
        "en_dict.txt",
        _lines("0", "1", "A", "=", "@"),
        text_model(6),
        ["1", "@"],
        _lines("1", "@"),
    ),
    "transformers": (
        "config.json",
        json.dumps(CONFIG),
        classifier(),
        ["dog", "bee"],
        {
            "model_type": "vit",
            "id2label": {"0": "bee", "1": "dog"},
            "label2id": {"bee": 0, "dog": 1},
            "num_labels": 2,
        },
    ),
    "transformers, names only": (
        "config.json",
        json.dumps({"id2label": CONFIG["id2label"]}),
        classifier(),
        ["bee"],
        {"id2label": {"0": "bee"}},
    ),
    "vocabulary": (
        "vocab.json",
        json.dumps({"<pad>": 0, "|": 1, "e": 2, "t": 4, "a": 3}),
        text_model(5),
        ["t", "e"],
        {"<pad>": 0, "e": 1, "t": 2},
    ),
    "PaddleOCR": (
        "inference.yml",
        YAML,
        text_model(7),
        ['"', "b:"],
        YAML.replace("  - a\n  - ''''\n  - '-'\n", ""),
    ),
}


def write(folder: Path, case: str) -> tuple[Path, str, CutOptions, Any]:
    name, text, made, keep, expected = FILES[case]
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    made.write(folder / "net.onnx")
    return folder / "net.onnx", name, CutOptions(keep=keep), expected


def content(path: Path) -> Any:
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else text


@pytest.mark.parametrize("case", FILES)
def test_the_file_follows_the_cut(tmp_path: Path, case: str) -> None:
    source, name, options, expected = write(tmp_path / "in", case)
    before = (tmp_path / "in" / name).read_bytes()
    (tmp_path / "out").mkdir()
    report = prune_file(source, tmp_path / "out" / "small.onnx", options, QUIET)
    assert content(tmp_path / "out" / name) == expected
    assert any(f"labels read from {name}" in warning for warning in report.warnings)
    assert (tmp_path / "in" / name).read_bytes() == before
    assert isinstance(report.remap, Remap)
    assert set(FILES[case][3]) <= set(report.remap.heads[0].labels or ())


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("zeichen.txt", "./ppocr/utils/zeichen.txt"),
        ("utils/zeichen.txt", '"utils/zeichen.txt"'),
        ("zeichen.txt", "/opt/paddle/zeichen.txt"),
    ],
)
def test_a_dictionary_that_yaml_names(tmp_path: Path, place: str, named: str) -> None:
    (tmp_path / "in" / place).parent.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / place).write_text(_lines("0", "1", "A", "=", "@"))
    yaml = f"Global:\n  character_dict_path: {named}\n  use_space_char: true\n"
    (tmp_path / "in" / "rec.yml").write_text(yaml)
    text_model(7).write(tmp_path / "in" / "net.onnx")
    cut = CutOptions(keep=["1", "@"])
    prune_file(tmp_path / "in" / "net.onnx", tmp_path / "out" / "small.onnx", cut, QUIET)
    assert (tmp_path / "out" / "zeichen.txt").read_text() == _lines("1", "@")


@pytest.mark.parametrize("named", ["../zeichen.txt", "missing.txt", ""])
def test_a_dictionary_elsewhere_is_not_read(tmp_path: Path, named: str) -> None:
    (tmp_path / "zeichen.txt").write_text(_lines("0", "1", "A", "=", "@"))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "rec.yml").write_text(f"Global:\n  character_dict_path: {named}\n")
    (folder / "damaged.yml").write_bytes(b"character_dict_path: \xff")
    text_model(7).write(folder / "net.onnx")
    found = [path.name for path in candidates(folder / "net.onnx")]
    assert sorted(found) == ["damaged.yml", "rec.yml"]


def test_an_output_next_to_the_model_leaves_its_label_file(tmp_path: Path) -> None:
    source, name, options, expected = write(tmp_path, "transformers")
    prune_file(source, tmp_path / "small.onnx", options, QUIET)
    assert content(tmp_path / f"small.{name}") == expected
    assert content(tmp_path / name) == CONFIG
    again = Job(verify=False, force=True)
    prune_file(source, tmp_path / "small.onnx", options, again)
    assert content(tmp_path / name) == CONFIG


def test_a_folder_gets_the_file_too(tmp_path: Path) -> None:
    source, name, options, expected = write(tmp_path / "in", "transformers")
    report = run_job(source, tmp_path / "out", options, Job(verify=False, bench=False))
    assert content(tmp_path / "out" / name) == expected
    assert any(f"labels read from {name}" in warning for warning in report.warnings)


def test_a_forecast_reads_them(tmp_path: Path) -> None:
    source, name, options, _ = write(tmp_path / "in", "transformers")
    job = Job(verify=False, bench=False)
    (made,) = run_job(source, tmp_path / "out", options, job).artifacts
    for found in (
        forecast_job(source, {"": options}, job)[""],
        inspect_with_forecast(source, options, job).forecast,
    ):
        assert found is not None
        assert [each.counts.bytes for each in found.files] == [made.bytes]
        assert any(f"labels read from {name}" in warning for warning in found.warnings)
    assert inspect_with_forecast(source, options, job).heads[0].head.labels == tuple(NAMES)


def test_inspect_shows_them(tmp_path: Path) -> None:
    source, *_ = write(tmp_path, "dictionary")
    assert inspect_file(source, Job()).heads[0].head.labels == ("blank", *"01A=@", " ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("net.txt", _lines(*NAMES[1:]), id="as many as no head has units"),
        pytest.param("config.json", '{"hidden_size": 5}', id="no labels"),
        pytest.param("config.json", '{"id2label": {"1": "a"}}', id="a gap"),
        pytest.param("config.json", "{", id="no JSON"),
        pytest.param("config.json", "[1, 2]", id="a list"),
        pytest.param("vocab.json", '{"a": 0, "b": 2, "c": 3, "d": 4, "e": 5}', id="gaps"),
        pytest.param("vocab.json", "[]", id="no tokens"),
        pytest.param("net.yml", "character_dict:\n- a\n", id="too few"),
        pytest.param("net.yml", "names: [a]\n", id="no dictionary"),
        pytest.param("net.yml", "character_dict:\nend: 1\n", id="an empty dictionary"),
        pytest.param("labels.txt", _lines(*NAMES), id="labels of any model"),
        pytest.param("predictions.txt", _lines(*NAMES), id="results"),
        pytest.param("api_keys.txt", _lines(*NAMES), id="keys of a service"),
    ],
)
def test_other_files_are_not_read(tmp_path: Path, name: str, text: str) -> None:
    classifier().write(tmp_path / "net.onnx")
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="there are no labels"):
        prune_file(tmp_path / "net.onnx", tmp_path / "s.onnx", CutOptions(keep="ant"), QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "net.onnx"])


@pytest.mark.parametrize(
    "name",
    [
        *("dict.txt", "en_dict.txt", "ppocrv5_dict.txt", "dict_v2.txt", "keys.txt", "keys_v1.txt"),
        *("ppocr_keys_v1.txt", "ch_ppocr_keys_v1.txt"),
    ],
)
def test_names_of_dictionaries(tmp_path: Path, name: str) -> None:
    for each in (name, "net.onnx"):
        (tmp_path / each).write_text("")
    assert candidates(tmp_path / "net.onnx") == [tmp_path / name]


def test_a_folder_that_cannot_be_listed_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, *_ = write(tmp_path, "dictionary")

    def refuse(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert candidates(source) == []


def test_the_vocabulary_of_a_tokenizer_is_left_alone(tmp_path: Path) -> None:
    source, *_ = write(tmp_path, "vocabulary")
    (tmp_path / "merges.txt").write_text("e t\n")
    report = prune_file(source, tmp_path / "s.onnx", CutOptions(keep=[1]), QUIET)
    assert isinstance(report.remap, Remap)
    assert report.remap.heads[0].labels is None


def test_given_labels_come_first(tmp_path: Path) -> None:
    source, name, *_ = write(tmp_path, "lines")
    options = CutOptions(keep="v", labels=list("vwxyz"))
    (tmp_path / "out").mkdir()
    prune_file(source, tmp_path / "out" / "s.onnx", options, QUIET)
    assert not (tmp_path / "out" / name).exists()


def test_units_in_place_keep_the_file(tmp_path: Path) -> None:
    source, name, *_ = write(tmp_path / "in", "lines")
    (tmp_path / "out").mkdir()
    prune_file(source, tmp_path / "out" / "s.onnx", CutOptions(keep="ant", mode="zero"), QUIET)
    assert content(tmp_path / "out" / name) == _lines(*NAMES)
    assert np.all([(tmp_path / "out" / f"s.onnx{end}").exists() for end in ("", ".remap.json")])
