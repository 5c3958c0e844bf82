"""Every reader of files, with small valid files to damage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import soundfile
from onnx import TensorProto, numpy_helper
from PIL import Image
from pyarrow import parquet

from exporter.data.options import DataOptions, parse_normalize
from exporter.data.read import read_samples
from exporter.evaluation.counts import read_counts
from exporter.evaluation.text_answers import read_transcripts
from exporter.evaluation.true_boxes import read_true_boxes
from exporter.graph import Graph, Tensor
from exporter.jobs.compare import verify_files
from exporter.jobs.inspect import inspect_file
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.jobs.verify_folder import verify_folder
from exporter.output.manifest import write_manifest
from exporter.output.sidecar import read_remap
from exporter.planning.options import CutOptions
from exporter.selection import select
from exporter.selection.labels import read_labels
from tests.builders import fuzz_companions as companions
from tests.builders import onnx_precisions, reports, shelf, tflite_precisions, tokenizers

Files = Mapping[str, bytes]  # path in a folder -> content
_SEED = 3
_LENGTH = 800  # of a waveform


@dataclass(frozen=True)
class Reader:
    """A reader, and its files.

    Attributes:
        seeds: folders; that of the first is valid. The first file is the one to read; each may be
            damaged.
        read: reads the file of this path; may raise an ExporterError.
    """

    seeds: Callable[[], Iterator[Files]]
    read: Callable[[Path], object]


def cut(path: Path) -> None:
    """What the commands `inspect`, `prune` and `verify` do with a file."""
    job = Job(samples=2)
    inspect_file(path, job)
    out = path.with_stem("cut")
    prune_file(path, out, CutOptions(keep=[0, 2]), job)
    verify_files(path, out, job)


# --- model files --------------------------------------------------------------------------------


def _onnx() -> Iterator[Files]:
    for build in shelf.ONNX.values():
        yield {"net.onnx": build().SerializeToString()}
    for kind in onnx_precisions.FUNCTIONS:
        for precision in onnx_precisions.PRECISIONS:
            if model := onnx_precisions.built(kind, precision):
                yield {"net.onnx": model.to_bytes()}


def _tflite() -> Iterator[Files]:
    for build in shelf.TFLITE.values():
        yield {"net.tflite": build()}
    for kind in tflite_precisions.FUNCTIONS:
        for precision in tflite_precisions.PRECISIONS:
            if model := tflite_precisions.built(kind, precision):
                yield {"net.tflite": model.content}


def _external_data() -> Iterator[Files]:
    """Models whose constants are in a file next to them."""
    for name in ("net.onnx", "sigmoid.onnx"):
        model, content = shelf.ONNX[name](), b"\0"
        for tensor in model.graph.initializer:
            raw = numpy_helper.to_array(tensor).tobytes()
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": "w.bin", "offset": len(content), "length": len(raw)}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            content += raw
        yield {"net.onnx": model.SerializeToString(), "w.bin": content}


# --- data ---------------------------------------------------------------------------------------


def _graph(shape: tuple[int, ...], dtype: str = "float32", name: str = "x") -> Graph:
    return Graph((), {name: Tensor(name, shape, dtype)}, (name,), ())


_PICTURE, _WAVE = _graph((1, 8, 8, 3)), _graph((1, _LENGTH))
_PIXELS = DataOptions(normalize=parse_normalize("0..1"))
_ROWS, _TOKENS = _graph((1, shelf.FEATURES)), _graph((1, 6), "int64", "input_ids")


def _samples(graph: Graph, options: DataOptions | None = None) -> Callable[[Path], object]:
    def read(path: Path) -> None:
        samples = read_samples(path, graph, options=options)
        for _ in samples.feeds():
            pass

    return read


def _values() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    chance = np.random.default_rng(_SEED)
    return chance.normal(size=(5, shelf.FEATURES)).astype(np.float32)


def _arrays() -> Iterator[Files]:
    for save in (np.savez, np.savez_compressed):
        content = BytesIO()
        save(content, x=_values(), labels=np.array(["a", "b", "a", "c", "b"]))
        yield {"data.npz": content.getvalue()}
    for values in (_values(), np.asfortranarray(_values())):
        content = BytesIO()
        np.save(content, values)
        yield {"data.npy": content.getvalue()}


def _csv() -> Iterator[Files]:
    names = [f"f{i}" for i in range(shelf.FEATURES)]
    rows = [",".join(names), *(",".join(f"{v:.3f}" for v in row) for row in _values())]
    yield {"data.csv": "\n".join(rows).encode()}
    labels = ["label", *"abacb"]
    yield {"data.csv": "\n".join(f"{a},{b}" for a, b in zip(labels, rows, strict=True)).encode()}


def _parquet() -> Iterator[Files]:
    values = _values()
    columns = {f"f{i}": values[:, i] for i in range(shelf.FEATURES)}
    for table in (pa.table(columns), pa.table({"x": values.tolist(), "label": [*"abacb"]})):
        content = BytesIO()
        parquet.write_table(table, content)
        yield {"data.parquet": content.getvalue()}


def _pictures() -> Iterator[Files]:
    pixels = np.random.default_rng(_SEED).integers(0, 256, (11, 9, 3), np.uint8)
    for suffix in ("png", "jpeg", "bmp", "webp"):
        content = BytesIO()
        Image.fromarray(pixels).save(content, suffix)
        yield {f"data.{suffix}": content.getvalue()}


def _sounds() -> Iterator[Files]:
    wave = np.random.default_rng(_SEED).uniform(-1, 1, 2000)
    for rate, subtype in ((16000, "PCM_16"), (8000, "FLOAT"), (44100, "ULAW")):
        content = BytesIO()
        soundfile.write(content, wave, rate, subtype, format="WAV")
        yield {"data.wav": content.getvalue()}


def _texts() -> Iterator[Files]:
    for write in (
        tokenizers.word_pieces,
        tokenizers.word_level,
        tokenizers.byte_level,
        tokenizers.sentence_pieces,
    ):
        with TemporaryDirectory() as folder:
            write(Path(folder))
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        yield {"data.txt": b"the cat sat\n\nthe dogs ran\n", **files}


# --- units --------------------------------------------------------------------------------------

_LABELS = "\n".join(shelf.LABELS)


def _labels() -> Iterator[Files]:
    yield {"labels.txt": _LABELS.encode()}
    yield {"labels.csv": ("label\n" + _LABELS).encode()}
    rows = "".join(f"{i},{label}\n" for i, label in enumerate(shelf.LABELS))
    yield {"labels.csv": f"index,label\n{rows}".encode()}
    yield {"labels.json": json.dumps(shelf.LABELS).encode()}
    yield {"labels.json": json.dumps({str(i): n for i, n in enumerate(shelf.LABELS)}).encode()}


def _selections() -> Iterator[Files]:
    yield {"keep.txt": b"macaw\n2-4\n*o*\n=owl\n"}
    rows = [{"unit": i, "kept": i < 2, "reason": "f1 0.9 >= 0.6"} for i in range(shelf.UNITS)]
    record = {"schema": "exporter/selection/1", "units": shelf.UNITS, "kept": [0, 1], "table": rows}
    yield {"keep.json": json.dumps(record).encode()}


def _counts() -> Iterator[Files]:
    yield {"counts.csv": b"label,count\nmacaw,3\nowl,1\nhen,0"}
    yield {"counts.csv": b"index,count\n0,7\n3,1\n"}
    yield {"counts.csv": b"macaw\nowl\nowl\n"}


def _boxes() -> Iterator[Files]:
    record = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 3, "name": "macaw"}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4.5], "iscrowd": 0}],
    }
    yield {"truth.json": json.dumps(record).encode()}


def _transcripts() -> Iterator[Files]:
    yield {"truth.csv": b'file,text\na.wav,"the cat, sat"\nb.wav,the dog\n'}


def _remaps() -> Iterator[Files]:
    for keep in ([0, 2], ["macaw", "owl"]):
        yield {"net.remap.json": _pruned(keep)["cut.onnx.remap.json"]}


def _results() -> Iterator[Files]:
    """Folders with a manifest."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in _pruned([0, 2]).items():
            (folder / file).write_bytes(content)
        (folder / "report.json").write_text(reports.PASSING.to_json())
        write_manifest(folder)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield {"SHA256SUMS": files.pop("SHA256SUMS"), **files}


def _pruned(keep: list[int] | list[str]) -> Files:
    with TemporaryDirectory() as name:
        source, out = Path(name, "net.onnx"), Path(name, "cut.onnx")
        source.write_bytes(shelf.ONNX["net.onnx"]().SerializeToString())
        prune_file(source, out, CutOptions(keep=keep, labels=list(shelf.LABELS)), Job(samples=2))
        return {path.name: path.read_bytes() for path in out.parent.iterdir() if path != source}


def _reports() -> Iterator[Files]:
    for report in (reports.PASSING, reports.NONES):
        yield {"report.json": report.to_json().encode()}


def _read_report(path: Path) -> None:
    """A damaged report of which the manifest states the right hash."""
    write_manifest(path.parent)
    verify_folder(path.parent)


def _select(path: Path) -> None:
    select(units=shelf.UNITS, labels=shelf.LABELS, keep=f"@{path}")


READERS: Mapping[str, Reader] = {
    "onnx": Reader(_onnx, cut),
    "tflite": Reader(_tflite, cut),
    "external data": Reader(_external_data, cut),
    "npz, npy": Reader(_arrays, _samples(_ROWS)),
    "csv": Reader(_csv, _samples(_ROWS)),
    "parquet": Reader(_parquet, _samples(_ROWS)),
    "pictures": Reader(_pictures, _samples(_PICTURE, _PIXELS)),
    "wav": Reader(_sounds, _samples(_WAVE, DataOptions(sample_rate=16000))),
    "text, tokenizer": Reader(_texts, _samples(_TOKENS)),
    "labels": Reader(_labels, read_labels),
    "selection": Reader(_selections, _select),
    "counts": Reader(_counts, lambda path: read_counts(path, shelf.UNITS, shelf.LABELS)),
    "true boxes": Reader(_boxes, lambda path: read_true_boxes(path, 1, ["a.png"])),
    "transcripts": Reader(_transcripts, lambda path: read_transcripts(path, 1, ["a.wav"])),
    "remap": Reader(_remaps, read_remap),
    "report": Reader(_reports, _read_report),
    "files of a tokenizer": Reader(companions.vocabularies, companions.cut_vocabulary),
    "labels next to a model": Reader(companions.label_files, companions.cut_with_labels),
    "remap inside a file": Reader(companions.remaps_inside, companions.verify_remap),
    "onnx, trim": Reader(companions.small_networks, companions.trim),
    "plan": Reader(companions.plans, companions.forecast_plan),
    "settings": Reader(companions.settings, companions.use_settings),
    "history": Reader(companions.histories, companions.show_history),
    "result folder": Reader(_results, lambda path: verify_folder(path.parent)),
}
