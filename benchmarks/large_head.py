"""Convert a head of 250,002 units and 768 features from a `.keras` file to ONNX and TFLite.

Each route runs in its own process: imports, opening, converting, writing. The script samples two
kinds of its memory:

- private memory: anonymous pages (`Anonymous` in smaps_rollup). The target is at most 2.2 times the
  size of the model file.
- resident memory: also includes pages of mapped files, such as the source. The system drops them
  when it needs memory, so there is no target.

The memory of TensorFlow and of the converter is subtracted: the script measures it by converting a
model of eight units. It kills a process at a limit of private memory. The weights are random, which
does not matter to a converter. `--units N` makes the head smaller.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

UNITS, FEATURES = 250_002, 768
SMALL = 8  # units of the model that shows the memory of the libraries
LIMIT_BYTES = 10 * 10**9
SAMPLE_S = 0.02
SEED = 1
KINDS = ("onnx", "tflite")
ROUTES = ("plain", "exporter")

# --- the processes that convert -------------------------------------------------------------------


def save(units: int, path: Path) -> None:
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow

    x = keras.Input((FEATURES,), name="x")
    hidden = keras.layers.Dense(FEATURES, activation="relu", name="hidden")(x)
    head = keras.layers.Dense(units, "softmax", kernel_initializer="zeros", name="y")
    model = keras.Model(x, head(hidden), name="net")
    random = np.random.default_rng(SEED)
    head.kernel.assign(random.standard_normal((FEATURES, units), np.float32) * 0.03)
    model.save(path)


def plain_onnx(source: Path, path: Path) -> None:
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow
    import tf2onnx  # noqa: PLC0415 - likewise

    model = keras.models.load_model(source, compile=False)
    tf2onnx.convert.from_keras(model, opset=17, output_path=str(path))


def plain_tflite(source: Path, path: Path) -> None:
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow
    import tensorflow as tf  # noqa: PLC0415 - likewise

    model = keras.models.load_model(source, compile=False)
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def convert_exporter(source: Path, path: Path) -> None:
    import exporter  # noqa: PLC0415 - only where it is measured
    from exporter.conversion.options import LARGE_HEAD_BYTES  # noqa: PLC0415 - likewise

    bound = min(LARGE_HEAD_BYTES, source.stat().st_size // 2)  # also treats a smaller head as large
    exporter.convert(source, path, verify=False, large_head_bytes=bound)


CONVERTERS: Mapping[tuple[str, str], Callable[[Path, Path], None]] = {
    ("plain", "onnx"): plain_onnx,
    ("plain", "tflite"): plain_tflite,
    ("exporter", "onnx"): convert_exporter,
    ("exporter", "tflite"): convert_exporter,
}

# --- the process that measures --------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessCost:
    """The time and the peak memory of a process, and why it failed; "" if it did not."""

    seconds: float
    private_bytes: int
    resident_bytes: int
    failure: str


def measure(route: str, kind: str, source: Path, path: Path) -> ProcessCost:
    command = [sys.executable, __file__, "--convert", route, kind, str(source), str(path)]
    return run_measured(command, path.parent / "log")


def run_measured(command: list[str], log: Path) -> ProcessCost:
    """Run a process to its end or to the memory limit, and write its output to a log."""
    start, private, resident = time.perf_counter(), 0, 0
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    while process.poll() is None and private <= LIMIT_BYTES:
        now = memory_bytes(process.pid)
        private, resident = max(private, now[0]), max(resident, now[1])
        time.sleep(SAMPLE_S)
    seconds, failure = time.perf_counter() - start, ""
    if process.poll() is None:
        kill(process.pid)
        failure = f"killed at {private / 1e9:.1f} GB"
    code = process.wait()
    if code and not failure:
        failure = f"exit status {code}: {log.read_text().strip()[-200:]}"
    return ProcessCost(seconds, private, resident, failure)


def family(pid: int) -> list[Any]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def memory_bytes(pid: int) -> tuple[int, int]:
    """Private and resident bytes of a process and its descendants."""
    try:
        each = [of_process(member.pid) for member in family(pid)]
    except (psutil.Error, OSError):  # a process just ended
        return 0, 0
    return sum(private for private, _ in each), sum(resident for _, resident in each)


def of_process(pid: int) -> tuple[int, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {key: int(value.split()[0]) << 10 for key, value in (s.split(":") for s in lines)}
    return found["Anonymous"], found["Rss"]


def kill(pid: int) -> None:
    for member in family(pid):
        member.kill()


# --- the table ------------------------------------------------------------------------------------


def agreement(kind: str, source: Path, path: Path) -> str:
    """Compare the output of the file with Keras, on one input."""
    from exporter.formats import open_model  # noqa: PLC0415 - after the measurements
    from exporter.formats.keras.large_head_model import open_large  # noqa: PLC0415 - likewise
    from exporter.formats.model import RunOptions  # noqa: PLC0415 - likewise

    x = np.random.default_rng(SEED).standard_normal((1, FEATURES), np.float32)
    outputs = [
        model.runner(RunOptions())({"x": x})["y"]
        for model in (open_large(source, source.stat().st_size // 2), open_model(path))
    ]
    return f"{kind}: max |difference| to Keras {np.abs(outputs[0] - outputs[1]).max():.1e}"


def main() -> None:
    if sys.argv[1:2] == ["--convert"]:
        route, kind, source, target = sys.argv[2:]
        CONVERTERS[route, kind](Path(source), Path(target))
        return
    if sys.argv[1:2] == ["--save"]:
        save(int(sys.argv[2]), Path(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--agree"]:
        print(agreement(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--routes", default=",".join(ROUTES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compare_routes(Path(name), given.units, given.routes.split(","))


def compare_routes(folder: Path, units: int, routes: list[str]) -> None:
    sources = {count: folder / f"{count}.keras" for count in (SMALL, units)}
    for count, path in sources.items():
        subprocess.run(
            [sys.executable, __file__, "--save", str(count), str(path)],
            check=True,
            capture_output=True,
        )
    size = sources[units].stat().st_size
    print(
        f"{units} units x {FEATURES} features, {size / 1e6:.0f} MB; limit {LIMIT_BYTES / 1e9:g} GB"
    )
    print(f"{'':22}{'':>9}{'private memory':>18}{'resident':>18}")
    print(f"{'':22}{'seconds':>9}" + f"{'MB added':>10}{'x size':>8}" * 2)
    for kind in KINDS:
        for route in routes:
            target = folder / f"{route}.{kind}"
            libraries = measure(route, kind, sources[SMALL], target)
            target.unlink(missing_ok=True)
            cost = measure(route, kind, sources[units], target)
            row = f"{cost.seconds:>9.1f}"
            for added in (
                cost.private_bytes - libraries.private_bytes,
                cost.resident_bytes - libraries.resident_bytes,
            ):
                row += f"{added / 1e6:>10,.0f}{added / size:>8.2f}"
            print(f"{kind:8}{route:14}{row}  {cost.failure}", flush=True)
            if route == "exporter" and not cost.failure:
                command = [sys.executable, __file__, "--agree", kind]
                command += [str(sources[units]), str(target)]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                print(f"{'':8}{done.stdout.strip() or done.stderr.strip()[-200:]}", flush=True)
            target.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
