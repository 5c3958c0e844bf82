"""A float model in, the same model in another precision out: the libraries, with their traps shut.

What is refused: a model that is quantized already, a kind without a way to the precision, and a
model in which the library found nothing to quantize. What a library left in float is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from exporter.data.samples import Samples
from exporter.errors import ModelError, UsageError
from exporter.formats import KINDS
from exporter.formats.model import Model
from exporter.quantization.precisions import (
    PRECISIONS,
    QUANTIZED,
    QuantizationSpec,
)
from exporter.quantization.unquantized import unquantized


@dataclass(frozen=True, eq=False)
class Quantized:
    """A model in another precision.

    Attributes:
        warnings: what the library did that nobody asked for, one sentence each.
    """

    model: Model
    warnings: tuple[str, ...] = ()


class _Route(Protocol):
    """What the module of a kind holds."""

    def quantize(
        self, model: Model, wish: QuantizationSpec, samples: Samples | None
    ) -> tuple[Model, tuple[str, ...]]:
        """The model, and warnings; the calibration where the precision needs one."""


def check_float(model: Model, precision: str) -> None:
    """Refuse a model that cannot be brought to a precision, before anything is spent on it.

    Raises:
        UsageError: no library takes this kind of model there.
        ModelError: the model is quantized already.
    """
    if model.kind not in PRECISIONS[precision].libraries:
        kinds = [KINDS[kind].title for kind in PRECISIONS[precision].libraries]
        raise UsageError(
            f"{KINDS[model.kind].title} models are not made {precision} here",
            f"{' and '.join(kinds)} files are: use --to" if kinds else "nothing has to be done",
        )
    stated, hint = model.precision, "start from its float32 original"
    if stated in _OTHER_FLOATS:
        raise ModelError(f"{model.name} is {stated}, and the libraries take float32", hint)
    codes = codes_in(model)
    if stated in QUANTIZED or codes is not None:
        what = stated if stated in QUANTIZED else f"in part: {codes!r} holds codes"
        raise ModelError(f"{model.name} is quantized already ({what})", hint)


def is_coarser(model: Model, original: Model) -> bool:
    """Is one of two models quantized, and the other float32?"""
    was_float = original.precision not in QUANTIZED and codes_in(original) is None
    return was_float and (model.precision in QUANTIZED or codes_in(model) is not None)


def codes_in(model: Model) -> str | None:
    """A tensor that holds codes of reals; None where there is none."""
    return next((t.name for t in model.graph().tensors.values() if t.quantization), None)


def quantize_model(
    model: Model, wish: QuantizationSpec, samples: Samples | None = None
) -> Quantized:
    """Bring a float32 model to another precision; the model itself is not changed.

    Args:
        samples: inputs that show the ranges of the activations; only where the precision is
            calibrated.

    Raises:
        UsageError, ModelError: see `check_float`; or nothing in the model can be quantized.
        ConversionError: the library failed.
    """
    precision = PRECISIONS[wish.precision]
    check_float(model, wish.precision)
    route: _Route = import_module(_ROUTES[model.kind])
    made, warnings = route.quantize(model, wish, samples if precision.calibrated else None)
    made.remap = model.remap
    left = unquantized(model.graph(), made.graph())
    library = precision.libraries[model.kind]
    if left.everything:
        raise ModelError(
            f"{library} finds nothing in {model.name} that it can make {wish.precision}",
            "choose another precision",
        )
    if left.operators:
        warnings = (*warnings, f"{library} left float at {wish.precision}: {left}")
    return Quantized(made, warnings)


_OTHER_FLOATS = frozenset({"bf16", "fp64"})

_ROUTES: Mapping[str, str] = {
    "onnx": "exporter.quantization.onnx",
    "tflite": "exporter.quantization.tflite",
}
