"""Quantize in the child process: what crosses, as files, and both ends of it.

The libraries run for minutes on large models, in memory that grows with the calibration data, and
parts of them are C++. In the child a limit ends them, and one that dies takes nothing with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporter.conversion.process import Child
from exporter.data.samples import Samples
from exporter.formats import KINDS, open_model
from exporter.formats.model import Model
from exporter.quantization.precisions import QuantizationSpec
from exporter.quantization.quantize import Quantized, check_float, quantize_model
from exporter.remap import Remap


def quantize_in(
    child: Child, model: Model, wish: QuantizationSpec, samples: Samples | None
) -> Quantized:
    """`quantize_model`, done by the child.

    Raises:
        UsageError, ModelError, ConversionError: as `quantize_model` does.
        ConversionError: the child died, was too slow, or needed too much memory.
    """
    check_float(model, wish.precision)
    suffix = KINDS[model.kind].suffixes[0]
    made = Path(tempfile.mkdtemp(dir=child.folder), f"made{suffix}")  # ends with the child
    with tempfile.TemporaryDirectory(dir=child.folder) as folder:
        source = Path(folder, f"float{suffix}")
        model.write(source)
        answer = child.request(
            "quantize",
            f"making {model.name} {wish.precision}",
            source=str(source),
            target=str(made),
            name=model.name,
            remap=model.remap.to_json() if model.remap else None,
            precision=wish.precision,
            integer_io=wish.integer_io,
            samples=_sent(samples, Path(folder, "samples.npz")) if samples else None,
        )
    result = open_model(made)
    result.name, result.remap = model.name, model.remap
    return Quantized(result, tuple(answer["warnings"]))


def _sent(samples: Samples, path: Path) -> dict[str, Any]:
    """Names stand beside the file: not every name of an input can stand in an archive."""
    np.savez(path, *samples.values.values())
    return {"path": str(path), "names": list(samples.values), "source": samples.source}


def _received(sent: Mapping[str, Any]) -> Samples:
    with np.load(sent["path"], allow_pickle=False) as file:
        values = {name: file[f"arr_{i}"] for i, name in enumerate(sent["names"])}
    return Samples(values, sent["source"])


def serve(source: str, target: str, **told: Any) -> dict[str, Any]:
    """The child's end: open, quantize, write, and tell the warnings.

    Args:
        told: what `quantize_in` sends beside the two places.
    """
    model = open_model(source)
    model.name = told["name"]
    model.remap = Remap.from_json(told["remap"]) if told["remap"] else None
    samples = _received(told["samples"]) if told["samples"] else None
    made = quantize_model(model, QuantizationSpec(told["precision"], told["integer_io"]), samples)
    made.model.write(Path(target))
    return {"warnings": list(made.warnings)}
