"""Trim networks that are trained here on rendered characters, and compare with other ways.

62 classes (digits, capitals, small letters in the fonts of Matplotlib), of which ten are kept.
Three small networks: plain, residual and depthwise-separable. `exporter trim --min-agreement 0.99`
gets 700 unlabeled pictures. Next to it: the original, the original with only its head cut, and
channels removed by the norm of their kernels to the same widths, without a refit. Accuracy and
agreement are measured on 800 other pictures, which no step has seen.

    PYTHONPATH=. nice -n 19 python benchmarks/trim.py                     # ONNX and TFLite
    PYTHONPATH=. nice -n 19 python benchmarks/trim.py --kinds onnx --networks plain
    PYTHONPATH=. nice -n 19 python benchmarks/trim.py --patches           # MobileNet of the zoo
    ... --folder DIR    keeps the trained networks, and uses them again

Training takes a few minutes for each network. Goal: at most 35 % of the multiply-adds, and a
speed-up of 1.8, at 99 % agreement. The latency is that of `exporter.bench`, against the original.
"""

from __future__ import annotations

import argparse
import os
import string
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import matplotlib as mpl
import numpy as np
from keras import layers
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

import exporter
from exporter.channels.groups import ChannelGroup
from exporter.data.samples import Samples
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.multiply_adds import multiply_adds
from exporter.trimming.outputs import Observed, Reference
from exporter.trimming.trimmer import FitOptions, Trimmer

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
KEPT = (0, 5, 11, 17, 20, 28, 33, 40, 47, 55)
SIDE, TRAINED, EPOCHS = 32, 12_000, 5
NETWORKS = ("plain", "residual", "separable")


def pictures(count: int, seed: int, classes: tuple[int, ...] = tuple(range(62))) -> tuple[Any, Any]:
    """(count, 32, 32, 1) float32 from 0 to 1, and the class of each."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    fonts = sorted(f for f in folder.glob("DejaVu*.ttf") if "Display" not in f.name)
    random = np.random.default_rng(seed)
    labels = random.choice(classes, count)
    found = []
    for label in labels:
        font = ImageFont.truetype(fonts[random.integers(len(fonts))], int(random.integers(16, 27)))
        picture = Image.new("L", (SIDE, SIDE), 0)
        draw = ImageDraw.Draw(picture)
        left, top, right, bottom = draw.textbbox((0, 0), CHARACTERS[label], font=font)
        x = (SIDE - right + left) / 2 - left + random.uniform(-3, 3)
        y = (SIDE - bottom + top) / 2 - top + random.uniform(-3, 3)
        fill = int(random.integers(140, 256))
        draw.text((x, y), CHARACTERS[label], fill=fill, font=font)
        turned = picture.rotate(random.uniform(-12, 12), resample=Image.Resampling.BILINEAR)
        values = np.asarray(turned, np.float32) / 255 * random.uniform(0.7, 1)
        values = values + random.normal(0, 0.08, values.shape) + random.uniform(0, 0.2)
        found.append(np.clip(values, 0, 1).astype(np.float32))
    return np.stack(found)[..., None], labels


def train(kind: str, path: Path) -> None:
    def block(
        x: Any, channels: int, strides: int = 1, size: int = 3, *, active: bool = True
    ) -> Any:
        x = layers.Conv2D(channels, size, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(x) if active else x

    keras.utils.set_random_seed(0)
    given = keras.Input((SIDE, SIDE, 1))
    x = given if kind == "plain" else block(given, 32)
    if kind == "plain":
        for channels, strides in ((32, 1), (32, 2), (64, 1), (64, 2), (128, 1), (128, 2)):
            x = block(x, channels, strides)
    elif kind == "residual":
        for channels, strides in ((32, 1), (64, 2), (128, 2)):
            past = x if strides == 1 else block(x, channels, strides, 1, active=False)
            x = block(block(x, channels, strides), channels, active=False)
            x = layers.ReLU()(layers.Add()([x, past]))
    else:
        for channels, strides in ((64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
            x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
            x = block(layers.ReLU()(layers.BatchNormalization()(x)), channels, 1, 1)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(given, layers.Dense(62, activation="softmax", name="scores")(x))
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")

    def rate(epoch: int) -> float:
        return float(1e-3 * (1 + np.cos(np.pi * epoch / EPOCHS)) + 1e-5)

    images, labels = pictures(TRAINED, 0)
    schedule = keras.callbacks.LearningRateScheduler(rate)
    model.fit(images, labels, batch_size=64, epochs=EPOCHS, verbose=2, callbacks=[schedule])
    model.save(path)


def by_norm(group: ChannelGroup, model: Model, count: int) -> Array:
    """The units whose kernels have the largest norms."""
    total = np.zeros(group.units)
    for constant in group.constants:
        read = model.graph().tensors[constant.name].read
        if constant.name in {n.inputs[1] for n in group.producers} and read is not None:
            moved = np.moveaxis(np.square(read()), constant.unit_axis.axis, 0)
            np.add.at(total, constant.unit_axis.units, moved.reshape(len(moved), -1).sum(1))
    return np.sort(np.argsort(total)[group.units - count :])


def rows(kind: str, network: str, folder: Path) -> Iterator[tuple[str, ...]]:
    source, scratch = folder / f"{network}.{kind}", folder / f"{network}.trimmed.{kind}"
    if not source.exists():
        exporter.convert(folder / f"{network}.keras", source)
    original = exporter.open_model(source)
    name = original.graph().inputs[0]
    data, test = pictures(700, 10, KEPT)[0], pictures(800, 11, KEPT)
    np.savez(folder / "data.npz", **{name: data[:, None]})
    report = exporter.trim(
        source, scratch, keep=KEPT, data=folder / "data.npz", min_agreement=0.99, force=True
    )
    head_only = exporter.prune(source, keep=KEPT, verify=False)
    head_path = folder / f"{network}.head.{kind}"
    head_only.model.write(head_path)
    base, small = head_only.model, exporter.open_model(scratch)
    widths = {n: int(text.split(" -> ")[1]) for n, text in report.trimmed[0].channels.items()}
    samples = Samples({name: test[0][:, None]}, "new pictures")
    plain = Trimmer(base, samples, RunOptions(), FitOptions(refits=False))
    groups = {group.name: group for group in plain.channels.groups}
    normed = plain.without({n: by_norm(groups[n], base, width) for n, width in widths.items()})
    truth = np.searchsorted(KEPT, test[1])
    whole = multiply_adds(original.graph()) or 1
    reference = Reference(base, Observed.of(base.graph()), samples, RunOptions())
    accuracy = float((_first(original, samples) == test[1]).mean())
    size = source.stat().st_size
    yield network, kind, "original", f"{accuracy:.1%}", "", f"{size / 1e3:.0f} kB", "100 %", ""
    normed_path = folder / f"{network}.norm.{kind}"
    normed.write(normed_path)
    for title, model, path in (
        ("head only", base, head_path),
        ("by norm, no refit", normed, normed_path),
        ("trim", small, scratch),
    ):
        speed = "" if title.startswith("by") else _speed(source, path, folder / "data.npz")
        yield (
            network,
            kind,
            title,
            f"{float((_first(model, samples) == truth).mean()):.1%}",
            f"{reference.compare(model).agreement:.1%}",
            f"{path.stat().st_size / 1e3:.0f} kB",
            f"{(multiply_adds(model.graph()) or 0) / whole:.1%}",
            speed,
        )


def _first(model: Model, samples: Samples) -> Array:
    """The index of the largest output of each sample."""
    run, (output,) = model.runner(RunOptions()), model.graph().outputs
    return np.array([run(feed)[output].argmax() for feed in samples.feeds()])


def _speed(original: Path, path: Path, data: Path) -> str:
    (row,) = exporter.bench(original, path, data=data, samples=16).latency
    low, high = row.speedup_ci95
    return f"{row.speedup:.2f} [{low:.2f}, {high:.2f}], {row.basis}"


def patches() -> None:
    """Agreement of the zoo's MobileNet on patches of the pictures that scikit-learn ships."""
    zoo = Path(os.environ.get("EXPORTER_ZOO", Path(__file__).parents[2] / "shared" / "zoo"))
    path = zoo / "mobilenet_v1_025_224_float.onnx"
    random = np.random.default_rng(0)
    images = load_sample_images().images
    found = []
    for _ in range(400):
        image = images[random.integers(len(images))]
        y, x = (random.integers(n - 224) for n in image.shape[:2])
        found.append(image[y : y + 224, x : x + 224][:, :: random.choice([-1, 1])])
    name = exporter.open_model(path).graph().inputs[0]
    with tempfile.TemporaryDirectory() as folder:
        data, curve = Path(folder, "data.npz"), Path(folder, "curve.csv")
        inputs: dict[str, Any] = {name: np.stack(found)[:, None].astype(np.float32) / 127.5 - 1}
        np.savez(data, **inputs)
        options: dict[str, Any] = {"target": 0.5, "pareto": curve, "bench": False}
        exporter.trim(path, Path(folder, "small.onnx"), data=data, **options)
        print(curve.read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default="onnx,tflite")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--patches", action="store_true")
    given = parser.parse_args()
    if given.patches:
        patches()
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        columns = "network, kind, file, accuracy, agreement, size, multiply-adds, speed-up [95 %]"
        print("| " + " | ".join(columns.split(", ")) + " |", flush=True)
        for network in given.networks.split(","):
            if not (folder / f"{network}.keras").exists():
                train(network, folder / f"{network}.keras")
            for kind in given.kinds.split(","):
                for row in rows(kind, network, folder):
                    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
