"""How far apart a cut file and its original are, beside the limits that `parity.LIMITS` sets.

    python benchmarks/cut_limits.py [CUTS]

Each row is one way to keep weights. Products of 64, 512 and 4096 features and 50 units, with a
softmax and with sigmoids behind, are cut to CUTS (default 5) seeded selections each, and run beside
their originals as `exporter prune` does it, at batches of 1, 4 and 16 where that is open.
Told are the worst difference of z, as a multiple of max(1, largest |z|), and that of y.
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
from exporter.jobs.options import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.quantization import QuantizationSpec
from exporter.quantization.quantize import quantize_model
from exporter.quantization.silence import quantizer
from exporter.records import Check
from exporter.verification.limits import LIMITS, cut_precision

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.builders.tflite_builder import Builder

Build = Callable[[int, str], Model]  # of features, and the activation behind

FEATURES, UNITS, BATCHES = (64, 512, 4096), 50, (1, 4, 16)
LARGEST_Z = 8.0  # about: as trained classifiers have it
ACTIVATIONS = ("Softmax", "Sigmoid")


def weights(features: int) -> tuple[Array, Array]:
    """[features, units] and [units]"""
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
    made = _proto([*casts, product], {"kernel": kernel, "bias": bias}, activation)
    return from_proto(made, "net.onnx")


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


def onnx_blocks(bits: int, level: int, *, points: bool = False) -> Build:
    """MatMulNBits of blocks of 32.

    Args:
        level: 1 computes in float32, 4 in int8, 0 as it likes.
        points: the blocks have zero points.
    """

    def build(features: int, activation: str) -> Model:
        plain = ONNXModel(onnx(features, activation).proto)
        plain.replace_gemm_with_matmul()
        config = DefaultWeightOnlyQuantConfig(
            block_size=32, is_symmetric=not points, bits=bits, accuracy_level=level
        )
        work = MatMulNBitsQuantizer(plain.model, algo_config=config)
        with quantizer("onnxruntime", "make blocks"):
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


def made(base: Build, precision: str) -> Build:
    return lambda features, activation: (
        quantize_model(base(features, activation), QuantizationSpec(precision)).model
    )


ROWS: Mapping[str, Build] = {
    "ONNX float32": onnx,
    "ONNX float16": made(onnx, "fp16"),
    "ONNX bfloat16 weights": onnx_bfloat16,
    "ONNX dynamic (MatMulInteger)": made(onnx, "dynamic"),
    "ONNX int4 in blocks, level 0": onnx_blocks(4, 0),
    "ONNX int4 in blocks, level 4": onnx_blocks(4, 4),
    "ONNX int8 in blocks, level 0": onnx_blocks(8, 0),
    "ONNX int8 in blocks, level 4": onnx_blocks(8, 4),
    "ONNX int4, zero points, level 0": onnx_blocks(4, 0, points=True),
    "ONNX int4, zero points, level 4": onnx_blocks(4, 4, points=True),
    "ONNX int8, zero points, level 4": onnx_blocks(8, 4, points=True),
    "TFLite float32": tflite,
    "TFLite float16": made(tflite, "fp16"),
    "TFLite dynamic (hybrid)": made(tflite, "dynamic"),
    "TFLite int4 (hybrid)": made(tflite, "int4"),
}


def differences(model: Model, cuts: int) -> Iterator[tuple[str, float]]:
    """("z" or "y", the largest difference over max(1, largest |expected|)) for each cut."""
    random = np.random.default_rng(0)
    for seed in range(cuts):
        kept = random.choice(UNITS, int(random.integers(2, UNITS)), replace=False)
        choice = CutOptions(keep=sorted(map(int, kept)))
        for batch in BATCHES:
            job = Job(samples=32, seed=seed, batch=batch)
            for check in prune_model(model, choice, job).results.checks:
                if check.metric == "max_abs":
                    what = "z" if check.output.endswith("(z)") else "y"
                    yield what, _scaled(model, what, check)


def _scaled(model: Model, what: str, check: Check) -> float:
    """The limit of z is the table's, times the largest |expected| where that is above 1."""
    if check.value is None or check.limit is None:
        raise RuntimeError(f"nothing was measured of {check.output}")
    if what == "y":  # probabilities
        return check.value
    return check.value / (check.limit / LIMITS["cut", cut_precision(model)].z)


def main() -> None:
    cuts = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{'':<34}{'called':<9}{'z':>10}{'limit':>9}{'y':>10}{'limit':>9}")
    for title, build in ROWS.items():
        found: dict[str, list[float]] = {"z": [], "y": []}
        for features in FEATURES:
            for activation in ACTIVATIONS:
                model = build(features, activation)
                for what, difference in differences(model, cuts):
                    found[what].append(difference)
        row = LIMITS["cut", cut_precision(model)]
        print(
            f"{title:<34}{model.precision:<9}{max(found['z']):>10.1e}{row.z:>9.0e}"
            f"{max(found['y']):>10.1e}{row.y:>9.0e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
