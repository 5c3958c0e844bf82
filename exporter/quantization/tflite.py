"""TFLite files by litert-quantizer.

Its traps, each found by a file that came out wrong without a word:

1. A file without a signature stays float: it is given one (`models.tflite.modern`).
2. Operators of files from before 2020 have their code in a field that it does not read, so that
   every one of them passes for an addition: the codes are moved where it looks.
3. Large buffers are written behind the flatbuffer, where other tools lose them: they are brought
   inside.
4. The archive behind the model, with its labels, is dropped: it is put back.
5. Its calibration averages the ranges of the samples, so that the largest values saturate: 10 dB
   instead of 40 on a product and a softmax. The extremes are taken (`_ranges`).
6. Where activations are quantized as the model runs it takes every kernel, those of a few numbers a
   channel too: MobileNet V1 lost 6 dB and ran at half the speed of what TFLiteConverter writes,
   which leaves small kernels float. So does this (`_SMALL`).
7. An output that the model reads too comes out wrong, as do its readers: it is returned as a tensor
   of its own (`models.tflite.apart`).
"""

from __future__ import annotations

from math import prod
from typing import Any

from exporter.data.samples import Samples
from exporter.formats.tflite.for_quantizer import prepared, restored
from exporter.formats.tflite.model import TfliteModel
from exporter.graph.operations import Linear
from exporter.quantization.precisions import PRECISIONS, QuantizationSpec
from exporter.quantization.silence import quantizer

_EVERYTHING = ".*"  # a pattern that operators are matched with
_SMALL = 1024  # numbers in a kernel, below which TFLiteConverter's own dynamic quantization stops


def quantize(
    model: TfliteModel, wish: QuantizationSpec, samples: Samples | None
) -> tuple[TfliteModel, tuple[str, ...]]:
    """See `quantization._Route`."""
    content, signature = prepared(model)
    library = PRECISIONS[wish.precision].libraries["tflite"]
    with quantizer(library, f"make {model.name} {wish.precision}"):
        from litert_quantizer.quantizer import Quantizer  # noqa: PLC0415 - a second, with SciPy

        rules = _rules(wish, min(_SMALL, _largest_kernel(model)))
        ranges = _ranges(content, {signature: list(samples.feeds())}, rules) if samples else None
        work = Quantizer(content, rules.get_quantization_recipe())
        made = bytes(work.quantize(ranges).quantized_model)
    return TfliteModel(restored(made, model), model.name), ()


def _ranges(content: bytes, feeds: Any, rules: Any) -> Any:
    """The smallest and largest value of every tensor.

    `Quantizer.calibrate` takes a moving average of those of each sample, which are narrower.
    """
    from litert_quantizer.calibrator import CalibrationMode, Calibrator  # noqa: PLC0415 - see above
    from litert_quantizer.utils.qsv_utils import min_max_update  # noqa: PLC0415

    mode = CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS
    work = Calibrator(content, num_threads=1, mode=mode, qsv_update_func=min_max_update)
    work.calibrate(feeds, rules)
    return work.get_model_qsvs()


def _largest_kernel(model: TfliteModel) -> int:
    """How many numbers the largest kernel holds: whatever the network, that one is quantized."""
    graph = model.graph()
    kernels = (
        graph.shape(node.inputs[node.operation.kernel])
        for node in graph.nodes
        if isinstance(node.operation, Linear)
    )
    return max((prod(n or 1 for n in shape or ()) for shape in kernels), default=0)


def _rules(wish: QuantizationSpec, smallest: int) -> Any:
    """All operators alike; of equal rules the last one holds.

    Args:
        smallest: kernel that is quantized where activations are as the model runs.
    """
    from litert_quantizer.algorithm_manager import AlgorithmName  # noqa: PLC0415 - see above
    from litert_quantizer.qtyping import TFLOperationName  # noqa: PLC0415
    from litert_quantizer.recipe_manager import RecipeManager  # noqa: PLC0415

    rules, every = RecipeManager(), TFLOperationName.ALL_SUPPORTED
    match wish.precision:
        case "fp16":
            float16 = AlgorithmName.FLOAT_CASTING
            rules.add_weight_only_config(_EVERYTHING, every, 16, algorithm_key=float16)
        case "dynamic" | "int4":
            bits = 8 if wish.precision == "dynamic" else 4
            rules.add_quantization_config(_EVERYTHING, every, _as_it_runs(bits, smallest))
        case "int8" | "int16x8":
            bits = 8 if wish.precision == "int8" else 16
            rules.add_static_config(_EVERYTHING, every, bits, 8)
            for end in () if wish.integer_io else (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
                rules.add_quantization_config(
                    _EVERYTHING, end, algorithm_key=AlgorithmName.NO_QUANTIZE
                )
    return rules


def _as_it_runs(bits: int, smallest: int) -> Any:
    """Integer weights, one scale a channel; the codes of activations are found by the kernels."""
    from litert_quantizer import qtyping  # noqa: PLC0415 - see above

    weights = qtyping.TensorQuantizationConfig(
        num_bits=bits, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
    )
    return qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.INTEGER,
        explicit_dequantize=False,
        min_weight_elements=smallest,
    )
