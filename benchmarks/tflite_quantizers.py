"""Compare TFLiteConverter on a Keras model with litert-quantizer on the converted file.

    python benchmarks/tflite_quantizers.py [FOLDER]

The networks are the digits network and, if FOLDER exists (default: EXPORTER_ZOO, else
../shared/zoo), MobileNet V1 0.25 as a Keras model with the weights of the float file in it. Both
quantizers are calibrated on the same inputs and keep float inputs and outputs. Quality is measured
on other inputs; the speedup is relative to the float file.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import exporter
from exporter.conversion.digits_network import train
from exporter.data.digits import split_digits
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.graph import Graph
from exporter.quantization import PRECISIONS
from exporter.verification.metrics import Block, comparable, measure

Array = np.ndarray[tuple[int, ...], Any]

COMPARED = ("fp16", "dynamic", "int8", "int16x8")  # precisions that both support
PROJECT = Path(__file__).parent.parent


def by_converter(network: keras.Model, precision: str, inputs: Array) -> bytes:
    """Quantize a Keras model with TFLiteConverter, at batch 1.

    Args:
        inputs: (samples, ...), to calibrate on.
    """
    shape = (1, *network.input.shape[1:])
    call = tf.function(
        network.call, input_signature=[tf.TensorSpec(shape, tf.float32, name=network.input.name)]
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    sixteen = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    match precision:
        case "fp16":
            converter.target_spec.supported_types = [tf.float16]
        case "int8" | "int16x8":
            converter.representative_dataset = lambda: ([each[np.newaxis]] for each in inputs)
            integer = tf.lite.OpsSet.TFLITE_BUILTINS_INT8 if precision == "int8" else sixteen
            converter.target_spec.supported_ops = [integer]
    return bytes(converter.convert())


def compare_quantizers(
    name: str, network: keras.Model, seen: Array, unseen: Array, folder: Path
) -> None:
    """Print a row for each precision and library.

    Args:
        seen: inputs to calibrate on.
        unseen: inputs to measure with.
    """
    source, original = folder / f"{name}.keras", folder / f"{name}.tflite"
    network.save(source)
    exporter.convert(source, original)
    np.save(folder / "seen.npy", seen)
    np.save(folder / "unseen.npy", unseen)
    expected = np.asarray(network(unseen))
    print(f"{name:<11}{'':<20}{'SQNR':>9}{'top-1':>8}{'bytes':>11}{'speedup':>10}{'made in':>9}")
    for precision in COMPARED:
        for library, make in _libraries(network, original, precision, seen).items():
            file = folder / f"{name}.{precision}.{library}.tflite"
            start = time.perf_counter()
            make(file)
            seconds = time.perf_counter() - start
            block = Block(*comparable(expected, _outputs(file, unseen)), axis=1)
            values = {metric: measure(metric, block) for metric in ("sqnr_db", "top1")}
            row = exporter.bench(original, file, data=folder / "unseen.npy").latency[0]
            print(
                f"{precision:<11}{library:<20}{values['sqnr_db']:>6.1f} dB{values['top1']:>8.1%}"
                f"{file.stat().st_size:>11,}{row.speedup:>9.2f}x{seconds:>7.2f} s",
                flush=True,
            )


def _libraries(
    network: keras.Model, original: Path, precision: str, seen: Array
) -> Mapping[str, Callable[[Path], Any]]:
    calibrated = PRECISIONS[precision].calibrated
    data: Any = {"calibration": original.with_name("seen.npy")} if calibrated else {}
    return {
        "TFLiteConverter": lambda file: file.write_bytes(by_converter(network, precision, seen)),
        "litert-quantizer": lambda file: exporter.quantize(
            original, file, precision=precision, verify=False, bench=False, **data
        ),
    }


def _outputs(file: Path, inputs: Array) -> Array:
    model = open_model(file)
    runner, graph = model.runner(RunOptions()), model.graph()
    (name,), (output,) = graph.inputs, graph.outputs
    return np.concatenate([runner({name: each[np.newaxis]})[output] for each in inputs])


# --- the networks -------------------------------------------------------------------------------


def digits(folder: Path) -> None:
    train(folder / "trained.keras", 0)
    training, held_out = split_digits()
    network = keras.models.load_model(folder / "trained.keras")
    compare_quantizers("digits", network, training.images[:200], held_out.images, folder)


DEPTHWISE_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def mobilenet(file: Path) -> keras.Model:
    """A Keras model of the same architecture, with the weights of the file."""
    weights = list(_weights(file))
    image = keras.Input((224, 224, 3), name="image")
    values = _convolution(image, len(weights[0][1]), 3, 2)
    for i, stride in enumerate(DEPTHWISE_STRIDES):
        values = keras.layers.DepthwiseConv2D(3, strides=stride, padding="same")(values)
        values = keras.layers.ReLU(6.0)(values)
        values = _convolution(values, len(weights[2 + 2 * i][1]), 1, 1)
    values = keras.layers.GlobalAveragePooling2D(keepdims=True)(values)
    values = keras.layers.Conv2D(len(weights[-1][1]), 1)(values)
    network = keras.Model(image, keras.layers.Softmax()(keras.layers.Flatten()(values)))
    layers = [layer for layer in network.layers if layer.weights]
    for layer, given in zip(layers, weights, strict=True):
        layer.set_weights(list(given))
    return network


def _convolution(values: Any, width: int, size: int, stride: int) -> Any:
    values = keras.layers.Conv2D(width, size, strides=stride, padding="same")(values)
    return keras.layers.ReLU(6.0)(values)


def _weights(file: Path) -> Iterator[tuple[Array, Array]]:
    """Kernel in the layout of Keras and bias of each convolution of a `.tflite` file, in order."""
    graph = open_model(file).graph()
    for node in graph.nodes:
        if node.operator in {"CONV_2D", "DEPTHWISE_CONV_2D"}:
            kernel, bias = (_values(graph, name) for name in node.inputs[1:3])
            axes = (1, 2, 3, 0)  # [out, h, w, in] -> [h, w, in, out], or [1, h, w, c] -> c last
            yield kernel.transpose(axes), bias


def _values(graph: Graph, name: str) -> Array:
    read = graph.tensors[name].read
    if read is None:
        raise ValueError(f"{name} is not a constant")
    return read()


def photographs(zoo: Path, folder: Path) -> None:
    """Calibrate on random crops of the photographs, and measure on other ones."""
    random, crops = np.random.default_rng(0), []
    for path in sorted((zoo / "images").iterdir()):
        image = Image.open(path).convert("RGB")
        crops += [_crop(image, random) for _ in range(12)]
    order = random.permutation(len(crops))
    values = np.stack(crops)[order].astype(np.float32) / np.float32(127.5) - np.float32(1)
    half = len(values) // 2
    network = mobilenet(zoo / "mobilenet_v1_025_224_float.tflite")
    compare_quantizers("MobileNet", network, values[:half], values[half:], folder)


def _crop(image: Image.Image, random: np.random.Generator) -> Array:
    share = random.uniform(0.7, 1.0)
    width, height = (round(share * side) for side in image.size)
    left, top = (
        int(random.integers(0, side - part + 1))
        for side, part in zip(image.size, (width, height), strict=True)
    )
    part = image.crop((left, top, left + width, top + height)).resize((224, 224))
    return np.asarray(part)[:, :: random.choice((-1, 1))]


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EXPORTER_ZOO")
    zoo = Path(given) if given else PROJECT.parent / "shared" / "zoo"
    with tempfile.TemporaryDirectory() as folder:
        digits(Path(folder))
        if zoo.is_dir():
            photographs(zoo, Path(folder))


if __name__ == "__main__":
    main()
