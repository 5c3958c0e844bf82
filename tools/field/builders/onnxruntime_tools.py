"""onnxruntime's optimizer at each level, its quantizers and its float16 converter.

The sources are files of `torch_exporters.py` and `transformers_family.py`, in folders next to FOLDER.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime import quantization as q
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from recorder import FOLDER, attempt, record, version_of

VERSION = version_of("onnxruntime")
SOURCES = {
    "cnn": (FOLDER.parent / "torch" / "legacy_cnn_softmax.onnx", 10, {}),
    "transformer": (
        FOLDER.parent / "torch" / "dynamo_transformer.onnx",
        10,
        {"high": {"x": 10}, "shapes": {"x": [1, 7]}},
    ),
    "bert": (
        FOLDER.parent / "transformers" / "bert_model.onnx",
        12,
        {
            "high": {"input_ids": 200},
            "shapes": {"input_ids": [1, 7], "attention_mask": [1, 7], "token_type_ids": [1, 7]},
        },
    ),
}
LEVELS = {"basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}


class Images(q.CalibrationDataReader):
    def __init__(self) -> None:
        random = np.random.default_rng(3)
        self.left = [random.normal(size=(2, 3, 32, 32)).astype(np.float32) for _ in range(8)]

    def get_next(self):
        return {"x": self.left.pop()} if self.left else None


def optimized(label: str, level: str) -> None:
    source, units, row = SOURCES[label]
    file = f"{label}_{level}.onnx"
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    options.optimized_model_filepath = str(FOLDER / file)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    text = {str(node.op_type) for node in onnx.load(FOLDER / file).graph.node if node.domain}
    blocked = any(
        node.domain == "com.microsoft.nchwc" for node in onnx.load(FOLDER / file).graph.node
    )
    head = f"{level} optimization" + (f": {', '.join(sorted(text))}" if text else "")
    record(
        "onnxruntime optimizer",
        VERSION,
        file,
        head,
        units,
        **row,
        **({"layout": "NCHWc"} if blocked else {}),
    )


def dynamic(label: str, **options) -> None:
    source, units, row = SOURCES[label]
    file = f"{label}_dynamic{'_channel' * bool(options)}.onnx"
    q.quantize_dynamic(str(source), str(FOLDER / file), **options)
    record(
        "onnxruntime quantizer",
        VERSION,
        file,
        "dynamic int8" + ", per channel" * bool(options),
        units,
        **row,
        limit=2e-5,
    )


def static(label: str, form: str, **options) -> None:
    source, units, row = SOURCES[label]
    file = f"{label}_{form}{'_channel' * bool(options)}.onnx"
    q.quantize_static(
        str(source),
        str(FOLDER / file),
        Images(),
        quant_format=getattr(q.QuantFormat, form),
        **options,
    )
    record(
        "onnxruntime quantizer",
        VERSION,
        file,
        f"static int8, {form}" + ", per channel" * bool(options),
        units,
        **row,
        step=1 / 255,
    )


def four_bits(label: str) -> None:
    source, units, row = SOURCES[label]
    file = f"{label}_int4.onnx"
    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16)
    quantizer.process()
    quantizer.model.save_model_to_file(str(FOLDER / file))
    record("onnxruntime quantizer", VERSION, file, "MatMulNBits, int4", units, **row, limit=2e-5)


def half(label: str) -> None:
    source, units, row = SOURCES[label]
    file = f"{label}_float16.onnx"
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), FOLDER / file)
    record("onnxruntime float16", VERSION, file, "float16 inside", units, **row, limit=4e-3)


FOLDER.mkdir(parents=True, exist_ok=True)
for label in SOURCES:
    for level in LEVELS:
        attempt(f"{label} {level}", lambda: optimized(label, level))
    attempt(f"{label} dynamic", lambda: dynamic(label))
    attempt(f"{label} half", lambda: half(label))
attempt("dynamic per channel", lambda: dynamic("cnn", per_channel=True))
attempt("static", lambda: static("cnn", "QDQ"))
attempt("static per channel", lambda: static("cnn", "QDQ", per_channel=True))
attempt("static operators", lambda: static("cnn", "QOperator"))
for label in ("transformer", "bert"):
    attempt("int4 " + label, lambda: four_bits(label))
