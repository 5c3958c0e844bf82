"""Quantize in the child process: the request, and its handler in the child. Models go as files.

The libraries run for minutes on large models, need memory that grows with the calibration data, and
are partly C++. A limit can stop the child, and a crash ends only the child.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from exporter.conversion.process import Child
from exporter.data.samples import Samples
from exporter.formats import KINDS, open_model
from exporter.formats.model import Model
from exporter.output.scratch import scratch_folder
from exporter.quantization.precisions import Ends, QuantizationSpec
from exporter.quantization.quantize import Quantized, check_float, quantize_model, remap_of
from exporter.remap import Remap


def quantize_in(
    child: Child, model: Model, spec: QuantizationSpec, samples: Samples | None
) -> Quantized:
    """`quantize_model` in the child.

    Raises:
        UsageError, ModelError, ConversionError: as `quantize_model` does.
        ConversionError: the child crashed, was too slow, or needed too much memory.
    """
    check_float(model, spec.precision)
    suffix = KINDS[model.kind].suffixes[0]
    made = Path(tempfile.mkdtemp(dir=child.folder), f"made{suffix}")  # removed with the child
    with scratch_folder(child.folder) as folder:
        source = folder / f"float{suffix}"
        model.write(source)
        answer = child.request(
            "quantize",
            f"quantizing {model.name} to {spec.precision}",
            source=str(source),
            target=str(made),
            name=model.name,
            remap=model.remap.to_json() if model.remap else None,
            precision=spec.precision,
            integer_io=spec.integer_io,
            float_io=spec.float_io,
            samples=_write_samples(samples, folder / "samples") if samples else None,
        )
    result = open_model(made)
    result.name, result.remap = model.name, remap_of(model, spec)
    return Quantized(result, tuple(answer["warnings"]))


def _write_samples(samples: Samples, folder: Path) -> dict[str, Any]:
    """One file per input, written sample by sample: the names of inputs cannot all name files."""
    folder.mkdir()
    first = next(samples.feeds())
    files = [
        open_memmap(folder / f"{i}.npy", "w+", values.dtype, (samples.count, *values.shape))
        for i, values in enumerate(first.values())
    ]
    for sample, feed in enumerate(samples.feeds()):
        for file, values in zip(files, feed.values(), strict=True):
            file[sample] = values
    return {"folder": str(folder), "names": list(first), "source": samples.source}


def _read_samples(sent: Mapping[str, Any]) -> Samples:
    values = {
        name: np.load(Path(sent["folder"], f"{i}.npy"), mmap_mode="r", allow_pickle=False)
        for i, name in enumerate(sent["names"])
    }
    return Samples(values, sent["source"])


def _ends(sent: bool | list[str]) -> Ends:
    return sent if isinstance(sent, bool) else tuple(sent)


def serve(source: str, target: str, **request: Any) -> dict[str, Any]:
    """Handle a request in the child: open, quantize, write, return the warnings.

    Args:
        source, target: paths.
        request: the other arguments that `quantize_in` sends.
    """
    model = open_model(source)
    model.name = request["name"]
    model.remap = Remap.from_json(request["remap"]) if request["remap"] else None
    samples = _read_samples(request["samples"]) if request["samples"] else None
    spec = QuantizationSpec(
        request["precision"], _ends(request["integer_io"]), _ends(request["float_io"])
    )
    made = quantize_model(model, spec, samples)
    made.model.write(Path(target))
    return {"warnings": list(made.warnings)}
