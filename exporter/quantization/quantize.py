"""Quantize a float32 model with the library that its row of PRECISIONS names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Protocol

from exporter.data.samples import Samples
from exporter.errors import ModelError, UsageError
from exporter.formats import KINDS
from exporter.formats.model import Model
from exporter.graph.edits import Plan
from exporter.quantization.precisions import PRECISIONS, QUANTIZED, QuantizationSpec
from exporter.quantization.unquantized import unquantized
from exporter.remap import Remap


@dataclass(frozen=True, eq=False)
class Quantized:
    """A model in another precision.

    Attributes:
        warnings: what the library changed or left unchanged unexpectedly, one sentence each.
    """

    model: Model
    warnings: tuple[str, ...] = ()


class Quantize(Protocol):
    """A function that a row of PRECISIONS names."""

    def __call__(
        self, model: Model, spec: QuantizationSpec, samples: Samples | None
    ) -> tuple[Model, tuple[str, ...]]:
        """The quantized model, and warnings.

        Args:
            model: a float32 model of the kind that the function is for; not changed.
            spec: of the precision that the function is for.
            samples: to calibrate on; None if the precision is not calibrated.
        """


def check_float(model: Model, precision: str) -> None:
    """Refuse a model that cannot be quantized to a precision.

    Raises:
        UsageError: no library quantizes this kind of model to the precision.
        ModelError: the model is quantized already, or a float that the libraries cannot read.
    """
    quantizers = PRECISIONS[precision].quantizers
    if model.kind not in quantizers:
        kinds = [KINDS[kind].title for kind in quantizers]
        raise UsageError(
            f"{KINDS[model.kind].title} models cannot be quantized to {precision}",
            f"{' and '.join(kinds)} files can: use --to" if kinds else "nothing has to be done",
        )
    stated, hint = model.precision, "start from its float32 original"
    if stated in _OTHER_FLOATS:
        raise ModelError(f"{model.name} is {stated}, and the libraries need float32", hint)
    if stated in QUANTIZED:
        raise ModelError(f"{model.name} is quantized already ({stated})", hint)
    if tensor := quantized_tensor(model):
        raise ModelError(f"{model.name} is quantized in part already: {tensor!r}", hint)


def is_quantized(model: Model) -> bool:
    """Does a model look quantized? Only for messages: how a file looks chooses no limit."""
    return model.precision in QUANTIZED or quantized_tensor(model) is not None


def remap_of(model: Model, spec: QuantizationSpec) -> Remap | None:
    """The remap of a model in another precision, which it states; None for an uncut model."""
    return model.remap and replace(model.remap, precision=spec.precision)


def shows_precision(model: Model, precision: str) -> bool:
    """Does a file contain values of the precision that it states?"""
    if precision == "fp16":
        return any("float16" in t.dtype for t in model.graph().tensors.values())
    return model.precision in QUANTIZED - {"fp16"} or quantized_tensor(model) is not None


def quantized_tensor(model: Model) -> str | None:
    """The name of a quantized tensor; None if there is none."""
    return next((t.name for t in model.graph().tensors.values() if t.quantization), None)


def quantize_model(
    model: Model, spec: QuantizationSpec, samples: Samples | None = None
) -> Quantized:
    """Quantize a float32 model; the model is not changed.

    Args:
        model: of a kind that the precision has a quantizer for.
        spec: the precision, and how to quantize.
        samples: inputs that show the ranges of the activations, if the precision is calibrated.

    Raises:
        UsageError, ModelError: see `check_float`; or nothing in the model can be quantized.
        ConversionError: the library failed.
    """
    check_float(model, spec.precision)
    precision = PRECISIONS[spec.precision]
    quantizer = precision.quantizers[model.kind]
    module, _, name = quantizer.function.rpartition(".")
    quantize: Quantize = getattr(import_module(module), name)
    made, warnings = quantize(model, spec, samples if precision.calibrated else None)
    remap = remap_of(model, spec)
    made = made.apply(Plan((), remap, precision=None if remap else spec.precision))
    remaining = unquantized(model.graph(), made.graph())
    if remaining.is_everything:
        raise ModelError(
            f"{quantizer.library} cannot quantize any weights of {model.name} to {spec.precision}",
            "choose another precision",
        )
    if remaining.operators:
        message = f"{quantizer.library} left float at {spec.precision}: {remaining}"
        warnings = (*warnings, message)
    return Quantized(made, warnings)


_OTHER_FLOATS = frozenset({"bf16", "fp4", "fp64", "fp8"})
