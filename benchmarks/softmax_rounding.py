"""Measure the softmax of runtimes against float64, for the limits in `limits.LIMITS`.

    python benchmarks/softmax_rounding.py

A softmax over 10 to 250,002 units, in onnxruntime and in LiteRT with and without its delegate. The
inputs are normal values; one high value and zeros; and 30 high values and zeros, as in mode zero.
The table shows the largest |difference|.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, helper

from exporter.graph import Array
from exporter.verification.limits import Basis, limits

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.builders.tflite_builder import Builder

Softmax = Callable[[Array], Array]

ROWS, WIDTHS = 8, (10, 100, 1001, 6625, 30522, 250_002)


def in_float64(z: Array) -> Array:
    raised = np.exp(z.astype(np.float64) - z.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def inputs(units: int) -> list[Array]:
    """Three arrays (ROWS, units) float32."""
    random = np.random.default_rng(units)
    normal, level = random.normal(size=(ROWS, units)), np.log(units)
    one, several = np.zeros_like(normal), np.zeros_like(normal)
    one[:, 3] = level
    several[:, :30] = 2 * normal[:, :30] + level - 3
    return [values.astype(np.float32) for values in (normal, one, several)]


def onnxruntime_softmax(units: int) -> Softmax:
    shape = [ROWS, units]
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["z"], ["y"], axis=-1)],
        "softmax",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return lambda z: np.asarray(session.run(None, {"z": z})[0])


def litert_softmax(resolver: OpResolverType) -> Callable[[int], Softmax]:
    def build(units: int) -> Softmax:
        builder = Builder()
        builder.softmax(builder.feed("z", ROWS, units), "y")
        network = Interpreter(
            model_content=builder.content("y"), experimental_op_resolver_type=resolver
        )
        network.allocate_tensors()
        (source,), (result,) = network.get_input_details(), network.get_output_details()

        def run(z: Array) -> Array:
            network.set_tensor(source["index"], z)
            network.invoke()
            return np.asarray(network.get_tensor(result["index"]))

        return run

    return build


RUNTIMES: Mapping[str, Callable[[int], Softmax]] = {
    "onnxruntime": onnxruntime_softmax,
    "LiteRT, XNNPACK": litert_softmax(OpResolverType.BUILTIN),
    "LiteRT": litert_softmax(OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES),
}


def main() -> None:
    print(f"{'units':>8}{'limit':>12}" + "".join(f"{name:>18}" for name in RUNTIMES))
    for units in WIDTHS:
        allowed = limits(Basis("cut", "fp32", "probability", units), np.zeros(1)).difference
        assert allowed is not None  # noqa: S101 - narrows the type; a cut has limits
        worst = []
        for build in RUNTIMES.values():
            softmax = build(units)
            worst.append(max(np.abs(softmax(z) - in_float64(z)).max() for z in inputs(units)))
        print(f"{units:>8}{allowed[0]:>12.1e}" + "".join(f"{value:>18.1e}" for value in worst))


if __name__ == "__main__":
    main()
