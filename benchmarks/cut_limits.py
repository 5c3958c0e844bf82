"""Measure the differences between a cut file and its original, for the limits in `limits.LIMITS`.

    python benchmarks/cut_limits.py [CUTS]

Each row is one way to store weights. Matrix products of 64, 512 and 4096 features and 50 units,
with softmax or sigmoid, are cut with CUTS (default 5) seeded selections each and compared with
their originals as in `exporter prune`, with batches of 1, 4 and 16 if the batch is open. The table
shows the largest difference of z relative to max(1, max |z|), and the largest difference of y.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from onnxruntime.quantization.onnx_model import ONNXModel

from exporter.formats.model import Model
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.quantization import QuantizationSpec
from exporter.quantization.quantize import quantize_model
from exporter.quantization.silence import silenced
from exporter.records import Check
from exporter.verification.limits import LIMITS, cut_precision

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.builders.tflite_builder import Builder

Build = Callable[[int, str], Model]  # (features, activation) -> model

FEATURES, UNITS, BATCHES = (64, 512, 4096), 50, (1, 4, 16)
LARGEST_Z = 8.0  # approximately, as in trained classifiers
ACTIVATIONS = ("Softmax", "Sigmoid")


def weights(features: int) -> tuple[Array, Array]:
    """Kernel (features, units) and bias (units,)."""
    random = np.random.default_rng(features)
    kernel = random.normal(size=(features, UNITS)) * LARGEST_Z / 3 / features**0.5
    return kernel.astype(np.float32), random.normal(size=UNITS).astype(np.float32)


# --- ONNX ----------------------------------------------------------------------------------------


def onnx(features: int, activation: str) -> OnnxModel:
    kernel, bias = weights(features)
    product = helper.make_node("Gemm", ["x", "kernel", "bias"], ["z"])
    return from_proto(_proto([product], {"kernel": kernel, "bias": bias}, activation), "net.onnx")


def onnx_bfloat16(features: int, activation: str) -> Model:
    kernel, bias = (values.astype(ml_dtypes.bfloat16) for values in weights(features))
    casts = [
        helper.make_node("Cast", [name], [f"{name}_32"], to=TensorProto.FLOAT)
        for name in ("kernel", "bias")
    ]
    product = helper.make_node("Gemm", ["x", "kernel_32", "bias_32"], ["z"])
    model = _proto([*casts, product], {"kernel": kernel, "bias": bias}, activation)
    return from_proto(model, "net.onnx")


def _proto(nodes: list[NodeProto], constants: Mapping[str, Array], activation: str) -> ModelProto:
    features = len(constants["kernel"])
    graph = helper.make_graph(
        [*nodes, helper.make_node(activation, ["z"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", UNITS])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_blocks(bits: int, level: int, *, zero_points: bool = False) -> Build:
    """MatMulNBits with blocks of 32.

    Args:
        level: 1 computes in float32, 4 in int8, 0 in either.
        zero_points: the blocks have zero points.
    """

    def build(features: int, activation: str) -> Model:
        plain = ONNXModel(onnx(features, activation).proto)
        plain.replace_gemm_with_matmul()
        config = DefaultWeightOnlyQuantConfig(
            block_size=32, is_symmetric=not zero_points, bits=bits, accuracy_level=level
        )
        work = MatMulNBitsQuantizer(plain.model, algo_config=config)
        with silenced("onnxruntime", "make blocks"):
            work.process()
        return from_proto(work.model.model, "net.onnx")

    return build


# --- TFLite --------------------------------------------------------------------------------------


def tflite(features: int, activation: str) -> Model:
    kernel, bias = weights(features)
    builder = Builder()
    x = builder.feed("x", 1, features)
    names = [
        builder.constant("kernel", np.ascontiguousarray(kernel.T)),
        builder.constant("bias", bias),
    ]
    z = builder.op("FULLY_CONNECTED", [x, *names], (1, UNITS), "z", "FullyConnectedOptions")
    if activation == "Softmax":
        builder.softmax(z, "y")
    else:
        builder.op("LOGISTIC", [z], (1, UNITS), "y")
    return from_bytes(builder.content("y"), "net.tflite")


# --- both ----------------------------------------------------------------------------------------


def quantized(base: Build, precision: str) -> Build:
    return lambda features, activation: (
        quantize_model(base(features, activation), QuantizationSpec(precision)).model
    )


ROWS: Mapping[str, Build] = {
    "ONNX float32": onnx,
    "ONNX float16": quantized(onnx, "fp16"),
    "ONNX bfloat16 weights": onnx_bfloat16,
    "ONNX dynamic (MatMulInteger)": quantized(onnx, "dynamic"),
    "ONNX int4 in blocks, level 0": onnx_blocks(4, 0),
    "ONNX int4 in blocks, level 4": onnx_blocks(4, 4),
    "ONNX int8 in blocks, level 0": onnx_blocks(8, 0),
    "ONNX int8 in blocks, level 4": onnx_blocks(8, 4),
    "ONNX int4, zero points, level 0": onnx_blocks(4, 0, zero_points=True),
    "ONNX int4, zero points, level 4": onnx_blocks(4, 4, zero_points=True),
    "ONNX int8, zero points, level 4": onnx_blocks(8, 4, zero_points=True),
    "TFLite float32": tflite,
    "TFLite float16": quantized(tflite, "fp16"),
    "TFLite dynamic (hybrid)": quantized(tflite, "dynamic"),
    "TFLite int4 (hybrid)": quantized(tflite, "int4"),
}


def differences(model: Model, cuts: int) -> Iterator[tuple[str, float]]:
    """("z" or "y", the largest difference over max(1, largest |expected|)) for each cut."""
    random = np.random.default_rng(0)
    for seed in range(cuts):
        kept = random.choice(UNITS, int(random.integers(2, UNITS)), replace=False)
        options = CutOptions(keep=sorted(map(int, kept)))
        for batch in BATCHES:
            job = Job(samples=32, seed=seed, batch=batch)
            for check in prune_model(model, options, job).results.checks:
                if check.metric == "max_abs":
                    tensor = "z" if check.output.endswith("(z)") else "y"
                    yield tensor, _scaled(model, tensor, check)


def _scaled(model: Model, tensor: str, check: Check) -> float:
    """The limit of z is relative to max(1, max |expected|)."""
    if check.value is None or check.limit is None:
        raise RuntimeError(f"{check.output} was not measured")
    if tensor == "y":  # probabilities
        return check.value
    return check.value / (check.limit / LIMITS["cut", cut_precision(model)].z)


def main() -> None:
    cuts = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{'':<34}{'precision':<10}{'z':>10}{'limit':>9}{'y':>10}{'limit':>9}")
    for title, build in ROWS.items():
        found: dict[str, list[float]] = {"z": [], "y": []}
        for features in FEATURES:
            for activation in ACTIVATIONS:
                model = build(features, activation)
                for tensor, difference in differences(model, cuts):
                    found[tensor].append(difference)
        row = LIMITS["cut", cut_precision(model)]
        print(
            f"{title:<34}{model.precision:<10}{max(found['z']):>10.1e}{row.z:>9.0e}"
            f"{max(found['y']):>10.1e}{row.y:>9.0e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
