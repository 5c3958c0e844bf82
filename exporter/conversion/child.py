"""The child process: it imports TensorFlow, opens Keras models, converts, trains and quantizes.

`python -m exporter.conversion.child FOLDER`; see `process` for the protocol.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from exporter.conversion.options import ConvertOptions
from exporter.conversion.run_samples import run_samples
from exporter.conversion.serialization import decode_plan, encode_graph
from exporter.conversion.serving import Answer, serve
from exporter.errors import ConversionError, interpreting
from exporter.formats import KINDS
from exporter.formats.model import RunOptions
from exporter.graph import Array
from exporter.output.files import writing

OPENERS: Mapping[str, str] = {
    "keras": "exporter.formats.keras.large_head_model",
    "savedmodel": "exporter.formats.savedmodel.model",
}
TRAINERS: Mapping[str, str] = {"digits": "exporter.conversion.digits_network"}
QUANTIZER = "exporter.quantization.remote"


class Session:
    """The opened models, by handle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: dict[str, Any] = {}
        self.opened = 0

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """The result of one request (raises what its method raises)."""
        for handle in request["forget"]:
            self.models.pop(handle, None)
        return METHODS[request["method"]](self, **request["parameters"])

    def model(self, handle: str) -> Any:
        if handle not in self.models:
            raise ConversionError(
                "the process that had opened the model has ended", "open the model again"
            )
        return self.models[handle]

    def keep(self, model: Any) -> Answer:
        self.opened += 1
        handle = f"{os.getpid()}-{self.opened}"  # not reused by a later child
        self.models[handle] = model
        facts = {name: getattr(model, name) for name in ("kind", "name", "sha256", "precision")}
        return {"handle": handle, **facts}

    # --- the methods ------------------------------------------------------------------------------

    def load(self, kind: str) -> Answer:
        """Import the libraries of a kind, before the time to open a model counts."""
        import_module(OPENERS[kind])
        return {}

    def open(self, path: str, large_head_bytes: int) -> Answer:
        module = import_module(OPENERS["keras"])
        with interpreting(f"opening {path}"):
            return self.keep(module.open_large(Path(path), large_head_bytes))

    def open_folder(self, path: str, signature: str | None) -> Answer:
        module = import_module(OPENERS["savedmodel"])
        with interpreting(f"opening {path}"):
            return self.keep(module.open_file(Path(path), signature))

    def open_exported(self, path: str, info: dict[str, Any]) -> Answer:
        """Load the SavedModel to which the parent exported a live model."""
        module = import_module(OPENERS["savedmodel"])
        info = {**info, "outputs": tuple(info["outputs"])}
        return self.keep(module.SavedModel(Path(path), module.ModelInfo(**info)))

    def graph(self, handle: str) -> Answer:
        return {"graph": encode_graph(self.model(handle).graph())}

    def read(self, handle: str, constant: str) -> Answer:
        """Write the values of a constant to a file, which the parent removes."""
        read = self.model(handle).graph().tensors[constant].read
        with tempfile.NamedTemporaryFile(suffix=".npy", dir=self.folder, delete=False) as file:
            np.save(file, _storable(read()), allow_pickle=False)
        return {"path": file.name}

    def apply(self, handle: str, edits: list[dict[str, Any]]) -> Answer:
        return self.keep(self.model(handle).apply(decode_plan(edits)))

    def engine(self, handle: str) -> Answer:
        return {"engine": self.model(handle).runner(RunOptions()).engine}

    def run(self, handle: str, names: list[str], count: int, path: str) -> Answer:
        """Run some samples; the outputs are written next to the inputs."""
        with np.load(path, allow_pickle=False) as file:
            feeds = [
                {name: file[f"arr_{sample * len(names) + i}"] for i, name in enumerate(names)}
                for sample in range(count)
            ]
        outputs = run_samples(self.model(handle), feeds)
        target = Path(path).with_name("outputs.npz")
        np.savez(target, *(_storable(each) for row in outputs for each in row.values()))
        return {"names": list(outputs[0]), "path": str(target)}

    def write(self, handle: str, path: str) -> Answer:
        with writing(Path(path)):
            self.model(handle).write(Path(path))
        return {}

    def convert(self, handle: str, kind: str, path: str, options: dict[str, Any]) -> Answer:
        convert = import_module(KINDS[kind].converter).convert
        done = convert(self.model(handle), Path(path), ConvertOptions(**options))
        return {"route": done.route, "warnings": done.warnings}

    def train(self, what: str, path: str, seed: int) -> Answer:
        """Train a network of TRAINERS."""
        return {"score": import_module(TRAINERS[what]).train(Path(path), seed)}

    def quantize(self, source: str, target: str, **options: Any) -> Answer:
        """Write a file in another precision."""
        answer: Answer = import_module(QUANTIZER).serve(source, target, **options)
        return answer


METHODS: Mapping[str, Callable[..., Answer]] = {
    name: getattr(Session, name)
    for name in (
        *("load", "open", "open_folder", "open_exported", "graph", "read", "apply", "engine"),
        *("run", "write", "convert", "train", "quantize"),
    )
}


def _storable(values: Array) -> Array:
    """NumPy files have no bfloat16: its values cross as float32, without loss."""
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


if __name__ == "__main__":
    serve(Session)
