"""A hundred variants of one network in both formats: cut out of one conversion, or made by hand.

By hand means for each variant: a narrower Keras model, the weights of the body and of the kept
units set, and each converter run on it. Three variants are made that way and their time is
multiplied; the start (imports, the network) counts once, and the memory is that of the three. The
other ways are `exporter.run` with a hundred variants, once as a converter works, without a check,
and once with every cut and every file proved.

Each way is a process of its own from start to end, watched from outside: its private memory
(anonymous pages), with all that it starts. The network is MobileNetV2 at 96 x 96 with 1000 classes
and random weights; a variant keeps twelve classes. `--variants N` makes fewer.
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
from large_head import Found, watched

SIDE, KEPT = 96, 12
VARIANTS, BY_HAND = 100, 3
OPSET = 17
SEED = 1
PROVED = 4  # samples that each variant is proved on


def kept(number: int) -> list[int]:
    """The classes of a variant; every one keeps others."""
    return [int(unit) for unit in np.random.default_rng(number).permutation(1000)[:KEPT]]


# --- the processes that are watched ---------------------------------------------------------------


def network(units: int) -> Any:
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow

    return keras.applications.MobileNetV2((SIDE, SIDE, 3), weights=None, classes=units)


def save(path: Path) -> None:
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow

    keras.utils.set_random_seed(SEED)
    network(1000).save(path)


def by_hand(source: Path, out: Path, count: int) -> None:
    """Says what each variant took; the rest of the process is what comes once."""
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow
    import tensorflow as tf  # noqa: PLC0415 - likewise
    import tf2onnx  # noqa: PLC0415 - likewise

    whole = keras.models.load_model(source, compile=False)
    for number in range(count):
        start = time.perf_counter()
        small, units = network(KEPT), kept(number)
        *body, kernel, bias = whole.get_weights()
        small.set_weights([*body, kernel[:, units], bias[units]])
        folder = out / str(number)
        folder.mkdir(parents=True)
        tf2onnx.convert.from_keras(small, opset=OPSET, output_path=str(folder / "pruned.onnx"))
        content = tf.lite.TFLiteConverter.from_keras_model(small).convert()
        (folder / "pruned.tflite").write_bytes(content)
        print(f"took {time.perf_counter() - start}", flush=True)


def by_exporter(source: Path, out: Path, count: int, *, verify: bool = False) -> None:
    import exporter  # noqa: PLC0415 - only where it is measured

    variants = {str(number): kept(number) for number in range(count)}
    options: dict[str, Any] = {"verify": verify, "bench": False, "samples": PROVED}
    made = exporter.run(source, out, variants=variants, keep_order=True, **options)
    assert all(report.ok for report in made.values())  # noqa: S101 - a wrong variant costs nothing


def proved(source: Path, out: Path, count: int) -> None:
    by_exporter(source, out, count, verify=True)


WAYS: Mapping[str, Callable[[Path, Path, int], None]] = {
    "by hand": by_hand,
    "exporter": by_exporter,
    "exporter, proved": proved,
}

# --- the process that watches ---------------------------------------------------------------------


def measure(way: str, source: Path, folder: Path, count: int) -> Found:
    out, log = folder / way, folder / "log"
    command = [sys.executable, __file__, "--make", way, str(source), str(out), str(count)]
    return watched(command, log)


def multiplied(found: Found, log: Path, count: int) -> float:
    """Seconds for so many variants, of those that were made and what came once."""
    lines = log.read_text(errors="replace").splitlines()
    each = [float(line.split()[1]) for line in lines if line.startswith("took ")]
    return found.seconds - sum(each) + count * sum(each) / len(each)


def agreement(folder: Path) -> str:
    """What the two ways answer on one picture."""
    from exporter.formats import open_model  # noqa: PLC0415 - after the measurements
    from exporter.formats.model import RunOptions  # noqa: PLC0415 - likewise

    x = np.random.default_rng(SEED).random((1, SIDE, SIDE, 3), np.float32)
    told = []
    for kind in ("onnx", "tflite"):
        files = (
            folder / "by hand/0" / f"pruned.{kind}",
            folder / "exporter/0" / f"pruned.fp32.{kind}",
        )
        answers: list[Any] = []
        for file in files:
            model = open_model(folder / file)
            (name,) = model.graph().inputs
            answers += model.runner(RunOptions())({name: x}).values()
        told.append(f"{kind} {np.abs(answers[0] - answers[1]).max():.1e}")
    return ", ".join(told)


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
        compare(Path(name), count)


def compare(folder: Path, count: int) -> None:
    source = folder / "net.keras"
    subprocess.run(
        [sys.executable, __file__, "--save", str(source)], check=True, capture_output=True
    )
    print(f"MobileNetV2 at {SIDE} x {SIDE}, {count} variants of {KEPT} classes, ONNX and TFLite")
    print(f"{'':20}{'seconds':>9}{'ratio':>8}{'peak MB':>9}{'ratio':>8}")
    hand = measure("by hand", source, folder, BY_HAND)
    if hand.died:
        sys.exit(hand.died)
    seconds = multiplied(hand, folder / "log", count)
    first = f"{seconds:>9.0f}{'':8}{hand.private_bytes / 1e6:>9,.0f}{'':8}"
    print(
        f"{'by hand':20}{first}  {BY_HAND} variants in {hand.seconds:.0f} s, multiplied", flush=True
    )
    for way in ("exporter", "exporter, proved"):
        found = measure(way, source, folder, count)
        times = f"{found.seconds:>9.0f}{found.seconds / seconds:>8.3f}"
        peak = found.private_bytes
        memory = f"{peak / 1e6:>9,.0f}{peak / hand.private_bytes:>8.2f}"
        print(f"{way:20}{times}{memory}  {found.died}", flush=True)
    print(f"max |difference| of a variant to the one by hand: {agreement(folder)}")


if __name__ == "__main__":
    main()
