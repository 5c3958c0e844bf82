"""Make a hundred variants of one network in both formats: from one conversion, or by hand.

By hand means for each variant: build a narrower Keras model, copy the weights of the body and of
the kept units, and run both converters. The script makes three variants by hand and extrapolates
their time; the start (imports, the network) counts once. The other ways are `exporter.run` with a
hundred variants, without any check, and with a check of every cut and every file.

Each way is its own process. The script samples the private memory (anonymous pages) of the process
and its descendants. The network is MobileNetV2 at 96 x 96 with 1000 classes and random weights; a
variant keeps twelve classes. `--variants N` changes their number.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from large_head import ProcessCost, run_measured

SIDE, KEPT = 96, 12
VARIANTS, BY_HAND = 100, 3
OPSET = 17
SEED = 1
SAMPLES = 4  # to check each variant on


def kept(number: int) -> list[int]:
    """The classes of a variant."""
    return [int(unit) for unit in np.random.default_rng(number).permutation(1000)[:KEPT]]


# --- the processes that are measured --------------------------------------------------------------


def network(units: int) -> Any:
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow

    return keras.applications.MobileNetV2((SIDE, SIDE, 3), weights=None, classes=units)


def save(path: Path) -> None:
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow

    keras.utils.set_random_seed(SEED)
    network(1000).save(path)


def by_hand(source: Path, out: Path, count: int) -> None:
    """Print the time of each variant; the rest of the time of the process counts once."""
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow
    import tensorflow as tf  # noqa: PLC0415 - likewise
    import tf2onnx  # noqa: PLC0415 - likewise

    original = keras.models.load_model(source, compile=False)
    for number in range(count):
        start = time.perf_counter()
        pruned, units = network(KEPT), kept(number)
        *body, kernel, bias = original.get_weights()
        pruned.set_weights([*body, kernel[:, units], bias[units]])
        folder = out / str(number)
        folder.mkdir(parents=True)
        tf2onnx.convert.from_keras(pruned, opset=OPSET, output_path=str(folder / "pruned.onnx"))
        content = tf.lite.TFLiteConverter.from_keras_model(pruned).convert()
        (folder / "pruned.tflite").write_bytes(content)
        print(f"seconds {time.perf_counter() - start}", flush=True)


def by_exporter(source: Path, out: Path, count: int, *, verify: bool = False) -> None:
    import exporter  # noqa: PLC0415 - only where it is measured

    variants = {str(number): kept(number) for number in range(count)}
    options: dict[str, Any] = {"verify": verify, "bench": False, "samples": SAMPLES}
    reports = exporter.run(source, out, variants=variants, keep_order=True, **options)
    assert all(report.ok for report in reports.values())  # noqa: S101 - wrong variants do not count


def by_exporter_checked(source: Path, out: Path, count: int) -> None:
    by_exporter(source, out, count, verify=True)


WAYS: Mapping[str, Callable[[Path, Path, int], None]] = {
    "by hand": by_hand,
    "exporter": by_exporter,
    "exporter, checked": by_exporter_checked,
}

# --- the process that measures --------------------------------------------------------------------


def measure(way: str, source: Path, folder: Path, count: int) -> ProcessCost:
    out, log = folder / way, folder / "log"
    command = [sys.executable, __file__, "--make", way, str(source), str(out), str(count)]
    return run_measured(command, log)


def extrapolated(cost: ProcessCost, log: Path, count: int) -> float:
    """The seconds for `count` variants, extrapolated from the variants that were made."""
    lines = log.read_text(errors="replace").splitlines()
    each = [float(line.split()[1]) for line in lines if line.startswith("seconds ")]
    return cost.seconds - sum(each) + count * sum(each) / len(each)


def agreement(folder: Path) -> str:
    """Compare the outputs of a variant by hand and one by exporter, on one image."""
    from exporter.formats import open_model  # noqa: PLC0415 - after the measurements
    from exporter.formats.model import RunOptions  # noqa: PLC0415 - likewise

    x = np.random.default_rng(SEED).random((1, SIDE, SIDE, 3), np.float32)
    differences = []
    for kind in ("onnx", "tflite"):
        files = (
            folder / "by hand/0" / f"pruned.{kind}",
            folder / "exporter/0" / f"pruned.fp32.{kind}",
        )
        outputs: list[Any] = []
        for file in files:
            model = open_model(folder / file)
            (name,) = model.graph().inputs
            outputs += model.runner(RunOptions())({name: x}).values()
        differences.append(f"{kind} {np.abs(outputs[0] - outputs[1]).max():.1e}")
    return ", ".join(differences)


def main() -> None:
    if sys.argv[1:2] == ["--make"]:
        way, source, out, count = sys.argv[2:]
        WAYS[way](Path(source), Path(out), int(count))
        return
    if sys.argv[1:2] == ["--save"]:
        save(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=VARIANTS)
    count = parser.parse_args().variants
    with tempfile.TemporaryDirectory() as name:
        compare_ways(Path(name), count)


def compare_ways(folder: Path, count: int) -> None:
    source = folder / "net.keras"
    subprocess.run(
        [sys.executable, __file__, "--save", str(source)], check=True, capture_output=True
    )
    print(f"MobileNetV2 at {SIDE} x {SIDE}, {count} variants of {KEPT} classes, ONNX and TFLite")
    print(f"{'':20}{'seconds':>9}{'ratio':>8}{'peak MB':>9}{'ratio':>8}")
    hand = measure("by hand", source, folder, BY_HAND)
    if hand.failure:
        sys.exit(hand.failure)
    seconds = extrapolated(hand, folder / "log", count)
    first = f"{seconds:>9.0f}{'':8}{hand.private_bytes / 1e6:>9,.0f}{'':8}"
    print(
        f"{'by hand':20}{first}  {BY_HAND} variants in {hand.seconds:.0f} s, extrapolated",
        flush=True,
    )
    for way in ("exporter", "exporter, checked"):
        cost = measure(way, source, folder, count)
        times = f"{cost.seconds:>9.0f}{cost.seconds / seconds:>8.3f}"
        peak = cost.private_bytes
        memory = f"{peak / 1e6:>9,.0f}{peak / hand.private_bytes:>8.2f}"
        print(f"{way:20}{times}{memory}  {cost.failure}", flush=True)
    print(f"max |difference| of a variant to the one by hand: {agreement(folder)}")


if __name__ == "__main__":
    main()
