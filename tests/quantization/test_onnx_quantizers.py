"""Files that maintained quantizers write of a small network are cut, and the cut is checked.

Some are saved by onnxruntime after its optimization, with fused operators that no quantizer writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16

from exporter.formats.model import RunOptions
from exporter.formats.onnx import open_file
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.verification.limits import LIMITS, cut_precision
from tests.builders.onnx_models import node, numbers, proto

UNITS, KEPT = 10, [7, 1, 4]


def dense() -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["x", "w1"], ["m1"], "product 1"),
        node("Add", ["m1", "b1"], ["h"], "bias 1"),
        node("Relu", ["h"], ["r"], "relu"),
        node("MatMul", ["r", "w2"], ["m2"], "product 2"),
        node("Add", ["m2", "b2"], ["z"], "bias 2"),
        node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    held = {"w1": numbers(64, 32) / 8, "b1": numbers(32), "w2": numbers(32, UNITS), "b2": B2}
    return proto(nodes, held, x=["batch", 64], outputs={"y": ["batch", UNITS]})


def convolution() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "k1", "b1"], ["h"], "conv 1", pads=[1, 1, 1, 1]),
        node("Relu", ["h"], ["r"], "relu"),
        node("GlobalAveragePool", ["r"], ["p"], "mean"),
        node("Conv", ["p", "k2", "b2"], ["c"], "conv 2"),
        node("Flatten", ["c"], ["z"], "flat"),
        node("Softmax", ["z"], ["y"], "softmax", axis=1),
    ]
    held = {"k1": numbers(8, 3, 3, 3), "b1": numbers(8), "k2": numbers(UNITS, 8, 1, 1), "b2": B2}
    return proto(nodes, held, x=["batch", 3, 8, 8], outputs={"y": ["batch", UNITS]})


B2 = numbers(UNITS)
NETWORKS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "dense": dense,
    "convolution": convolution,
}


class Samples(CalibrationDataReader):  # type: ignore[misc]  # untyped
    def __init__(self, network: str) -> None:
        shape = (1, 64) if network == "dense" else (1, 3, 8, 8)
        random = np.random.default_rng(0)
        self.left: Iterator[Array] = (
            random.normal(size=shape).astype(np.float32) for _ in range(10)
        )

    def get_next(self) -> dict[str, Array] | None:
        value = next(self.left, None)
        return None if value is None else {"x": value}


def static(source: Path, target: Path, **how: Any) -> None:
    quantize_static(str(source), str(target), Samples(source.stem), **how)


def dynamic(source: Path, target: Path, **how: Any) -> None:
    quantize_dynamic(str(source), str(target), **how)


def half(source: Path, target: Path, *, keep_io: bool) -> None:
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=keep_io), target)


def blocks(source: Path, target: Path, *, bits: int, quantize: str, level: int = 0) -> None:
    pytest.importorskip("onnx_ir", reason="onnxruntime's quantizer in blocks needs onnx-ir")
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits  # noqa: PLC0415

    model = onnx.load(source)
    model.opset_import[0].version, model.ir_version = 21, 10
    config = nbits.DefaultWeightOnlyQuantConfig(
        block_size=16,
        is_symmetric=False,
        bits=bits,
        quant_format=QuantFormat[quantize],
        accuracy_level=level,
    )
    quantizer = nbits.MatMulNBitsQuantizer(model, algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


S8, U8, S16, S4 = QuantType.QInt8, QuantType.QUInt8, QuantType.QInt16, QuantType.QInt4
QUANTIZERS: Mapping[str, Callable[[Path, Path], None]] = {
    "QDQ": lambda s, t: static(s, t, quant_format=QuantFormat.QDQ, per_channel=True),
    "QDQ, 16 and 8 bits": lambda s, t: static(
        s, t, per_channel=True, weight_type=S8, activation_type=S16
    ),
    "QDQ, 8 and 4 bits": lambda s, t: static(
        s, t, per_channel=True, weight_type=S4, activation_type=U8
    ),
    "QOperator": lambda s, t: static(
        s, t, quant_format=QuantFormat.QOperator, weight_type=S8, activation_type=U8
    ),
    "QOperator, a scale a unit": lambda s, t: static(
        s, t, quant_format=QuantFormat.QOperator, per_channel=True, activation_type=U8
    ),
    "dynamic": lambda s, t: dynamic(s, t, weight_type=U8),
    "dynamic, per-channel": lambda s, t: dynamic(s, t, per_channel=True, weight_type=S8),
    "float16": lambda s, t: half(s, t, keep_io=False),
    "float16, float32 outside": lambda s, t: half(s, t, keep_io=True),
    "MatMulNBits, 4 bits": lambda s, t: blocks(s, t, bits=4, quantize="QOperator"),
    "MatMulNBits, 8 bits": lambda s, t: blocks(s, t, bits=8, quantize="QOperator"),
    "DequantizeLinear in blocks": lambda s, t: blocks(s, t, bits=4, quantize="QDQ"),
}
OPTIMIZED = ("QDQ", "QOperator, a scale a unit", "dynamic, per-channel")


def optimized(source: Path, target: Path) -> None:
    """As onnxruntime saves a graph with fused operators."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.graph_optimization_level = level
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def check_cut(path: Path, mode: str) -> None:
    """The cut check of `exporter prune` passes; quantized logits are bit-identical."""
    done = prune_model(open_file(path), CutOptions(keep=KEPT, mode=mode), Job(samples=4))
    checks = done.results.checks
    assert checks
    assert not [check for check in checks if not check.passed]


CASES = [
    (network, name)
    for network in NETWORKS
    for name in QUANTIZERS
    if network == "dense" or ("locks" not in name and "NBits" not in name)
]


@pytest.mark.parametrize(("network", "name"), CASES)
def test_quantized_files_are_cut(network: str, name: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"{network}.onnx", tmp_path / "quantized.onnx"
    onnx.save(NETWORKS[network](), source)
    QUANTIZERS[name](source, target)
    for mode in ("slice", "zero"):
        check_cut(target, mode)
    if name in OPTIMIZED:
        optimized(target, tmp_path / "optimized.onnx")
        check_cut(tmp_path / "optimized.onnx", "slice")


@pytest.mark.parametrize("bits", [4, 8])
def test_why_blocks_have_wider_limits(bits: int, tmp_path: Path) -> None:
    """With zero points at level 4, the order of a sum depends on the width: beyond 1e-6 of |z|."""
    features, kept = 4096, [3, 8, 21, 30, 33, 35, 39]
    made = proto(
        [node("MatMul", ["x", "w"], ["m"], "product"), node("Add", ["m", "b"], ["z"], "bias")],
        {"w": numbers(features, 40) / 24, "b": numbers(40)},
        x=["batch", features],
        outputs={"z": ["batch", 40]},
    )
    onnx.save(made, tmp_path / "float.onnx")
    blocks(tmp_path / "float.onnx", tmp_path / "n.onnx", bits=bits, quantize="QOperator", level=4)
    original = open_file(tmp_path / "n.onnx")
    done = prune_model(original, CutOptions(keep=kept), Job(samples=1))
    x = np.random.default_rng(0).uniform(size=(4, features)).astype(np.float32)
    wide, narrow = (
        m.runner(RunOptions(batch=4))({"x": x})["z"].astype(np.float64)
        for m in (original, done.model)
    )
    apart = np.abs(narrow - wide[:, kept]).max() / np.abs(wide).max()
    assert cut_precision(original) == "blocks"
    assert apart <= LIMITS["cut", cut_precision(original)].z
    if apart <= LIMITS["cut", "fp32"].z:
        pytest.skip("the kernels for this processor keep to the limit of float32")
