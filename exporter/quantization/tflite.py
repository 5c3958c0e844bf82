"""Quantize TFLite files with litert-quantizer.

Files that came out wrong without an error led to these rules:

1. The library does not quantize a file without a signature: a signature is added.
2. Files from before 2020 have operator codes in a field that the library does not read, so that
   every operator counts as an addition: the codes are copied to the new field.
3. The library writes large buffers after the flatbuffer, where other tools lose them: they are
   moved inside.
4. The library drops the archive after the model, with its labels: it is added again.
5. Its calibration averages the ranges of the samples, so that the largest values saturate (10 dB
   instead of 40 on a product and a softmax): minimum and maximum are used instead.
6. With dynamic ranges it quantizes small kernels too, such as those of a depthwise convolution:
   MobileNet V1 lost 6 dB and ran at half the speed of TFLiteConverter's file. Like TFLiteConverter,
   kernels below 1024 values stay float.
7. An output that operators read too comes out wrong, and so do these operators: it is returned
   through a tensor that nothing reads.

1 to 4 and 7 are in `formats.tflite.for_quantizer`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from exporter.data.samples import Samples
from exporter.formats.tflite.for_quantizer import prepared, restored
from exporter.formats.tflite.model import TfliteModel
from exporter.graph.operations import Linear
from exporter.quantization.interface import integer_ends
from exporter.quantization.precisions import PRECISIONS, QuantizationSpec
from exporter.quantization.silence import silenced
from exporter.quantization.tflite_integer_io import with_integer_ends

_EVERYTHING = ".*"  # a pattern for operator names
_MIN_ELEMENTS = 1024  # of a kernel that TFLiteConverter quantizes with dynamic ranges

Result = tuple[TfliteModel, tuple[str, ...]]  # as `quantization.quantize.Quantize`


def to_fp16(model: TfliteModel, spec: QuantizationSpec, samples: Samples | None) -> Result:
    return _quantized(model, spec, samples, _cast_weights)


def to_dynamic(model: TfliteModel, spec: QuantizationSpec, samples: Samples | None) -> Result:
    return _quantized(model, spec, samples, partial(_quantize_weights, model, 8))


def to_int4(model: TfliteModel, spec: QuantizationSpec, samples: Samples | None) -> Result:
    return _quantized(model, spec, samples, partial(_quantize_weights, model, 4))


def to_int8(model: TfliteModel, spec: QuantizationSpec, samples: Samples | None) -> Result:
    return _quantized(model, spec, samples, partial(_quantize_all, 8))


def to_int16x8(model: TfliteModel, spec: QuantizationSpec, samples: Samples | None) -> Result:
    return _quantized(model, spec, samples, partial(_quantize_all, 16))


def _quantized(
    model: TfliteModel,
    spec: QuantizationSpec,
    samples: Samples | None,
    fill: Callable[[Any], None],
) -> Result:
    """Args: fill: adds rules to a RecipeManager."""
    content, signature = prepared(model)
    library = PRECISIONS[spec.precision].quantizers["tflite"].library
    with silenced(library, f"quantize {model.name} to {spec.precision}"):
        from litert_quantizer.quantizer import Quantizer  # noqa: PLC0415 - a second, with SciPy
        from litert_quantizer.recipe_manager import RecipeManager  # noqa: PLC0415 - see above

        recipe = RecipeManager()
        fill(recipe)
        ranges = _ranges(content, {signature: list(samples.feeds())}, recipe) if samples else None
        work = Quantizer(content, recipe.get_quantization_recipe())
        made = bytes(work.quantize(ranges).quantized_model)
    ends = integer_ends(model.graph(), spec)
    return TfliteModel(with_integer_ends(restored(made, model), ends, model.name), model.name), ()


def _ranges(content: bytes, feeds: Any, recipe: Any) -> Any:
    """The minimum and maximum of every tensor.

    `Quantizer.calibrate` computes a moving average of each sample's, which is narrower.
    """
    from litert_quantizer.calibrator import CalibrationMode, Calibrator  # noqa: PLC0415 - see above
    from litert_quantizer.utils.qsv_utils import min_max_update  # noqa: PLC0415

    mode = CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS
    work = Calibrator(content, num_threads=1, mode=mode, qsv_update_func=min_max_update)
    work.calibrate(feeds, recipe)
    return work.get_model_qsvs()


# --- rules: of several that match an operator, the last one applies ------------------------------


def _cast_weights(recipe: Any) -> None:
    from litert_quantizer.algorithm_manager import AlgorithmName  # noqa: PLC0415 - see above
    from litert_quantizer.qtyping import TFLOperationName  # noqa: PLC0415

    every, cast = TFLOperationName.ALL_SUPPORTED, AlgorithmName.FLOAT_CASTING
    recipe.add_weight_only_config(_EVERYTHING, every, 16, algorithm_key=cast)


def _quantize_weights(model: TfliteModel, bits: int, recipe: Any) -> None:
    """Per-channel integer weights; the kernels quantize activations at run time.

    Small kernels stay float, except if the model has no larger one.
    """
    from litert_quantizer import qtyping  # noqa: PLC0415 - see above

    weights = qtyping.TensorQuantizationConfig(
        num_bits=bits, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
    )
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.INTEGER,
        explicit_dequantize=False,
        min_weight_elements=min(_MIN_ELEMENTS, _largest_kernel(model)),
    )
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    recipe.add_quantization_config(_EVERYTHING, every, config)


def _largest_kernel(model: TfliteModel) -> int:
    """The number of values in the largest kernel."""
    graph = model.graph()
    kernels = (
        graph.shape(node.inputs[node.operation.kernel])
        for node in graph.nodes
        if isinstance(node.operation, Linear)
    )
    return max((prod(n or 1 for n in shape or ()) for shape in kernels), default=0)


def _quantize_all(bits: int, recipe: Any) -> None:
    """Activations of so many bits, 8-bit weights; float inputs and outputs."""
    from litert_quantizer.algorithm_manager import AlgorithmName  # noqa: PLC0415 - see above
    from litert_quantizer.qtyping import TFLOperationName  # noqa: PLC0415

    recipe.add_static_config(_EVERYTHING, TFLOperationName.ALL_SUPPORTED, bits, 8)
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        recipe.add_quantization_config(_EVERYTHING, end, algorithm_key=AlgorithmName.NO_QUANTIZE)
