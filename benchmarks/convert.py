"""Compare the conversion from Keras to ONNX with plain tf2onnx: time and additional memory.

Each conversion runs in its own process, which imports everything and builds the model before the
clock starts. The script samples its resident memory and kills it at a limit, because plain tf2onnx
filled the memory of a machine with 23 GB when it converted VGG16. The weights are random, which
does not matter to a converter. Arguments: names of models (default: all).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

LIMIT_BYTES = 8 * 10**9
SAMPLE_S = 0.02
OPSET = 17
SEED = 1
MODELS = ("MobileNetV2", "LSTM", "ResNet50", "VGG16")
ROUTES = ("tf2onnx", "exporter")

# --- the process that converts --------------------------------------------------------------------


def build(name: str) -> Any:
    import keras  # noqa: PLC0415 - the parent needs no TensorFlow

    keras.utils.set_random_seed(SEED)
    if name != "LSTM":
        return getattr(keras.applications, name)(weights=None)
    values = keras.Input((50, 256), name="x")
    mixed = keras.layers.LSTM(512, return_sequences=True)(values)
    mixed = keras.layers.LSTM(512)(mixed)
    return keras.Model(values, keras.layers.Dense(20_000, activation="softmax")(mixed))


def convert_plain(model: Any, path: Path) -> None:
    import tf2onnx  # noqa: PLC0415 - the parent needs no TensorFlow

    tf2onnx.convert.from_keras(model, opset=OPSET, output_path=str(path))


def convert_exporter(model: Any, path: Path) -> None:
    from exporter.conversion.options import ConvertOptions  # noqa: PLC0415 - likewise
    from exporter.conversion.to_onnx import convert  # noqa: PLC0415 - the parent needs no TensorFlow
    from exporter.formats.keras.model import KerasModel  # noqa: PLC0415 - likewise

    convert(KerasModel(model), path, ConvertOptions(opset=OPSET))


CONVERTERS: Mapping[str, Callable[[Any, Path], None]] = {
    "tf2onnx": convert_plain,
    "exporter": convert_exporter,
}


def convert_one(name: str, route: str, path: Path) -> None:
    """Print that the model is built, wait for a line, convert, and print times and results."""
    model = build(name)
    import exporter.conversion.to_onnx  # noqa: F401, PLC0415 - before the clock, for both routes

    print(json.dumps({"loaded": True}), flush=True)
    sys.stdin.readline()
    start, used = time.perf_counter(), time.process_time()
    CONVERTERS[route](model, path)
    times = {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - used}
    print(json.dumps(times), flush=True)
    print(json.dumps(outcome(model, path)), flush=True)


def outcome(model: Any, path: Path) -> dict[str, Any]:
    import onnx  # noqa: PLC0415 - the parent needs none of these
    import onnxruntime  # noqa: PLC0415

    random = np.random.default_rng(SEED)
    values = random.normal(size=(1, *model.inputs[0].shape[1:])).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output = session.run(None, {session.get_inputs()[0].name: values})[0]
    graph = onnx.load(path).graph
    return {
        "difference": float(np.abs(output - np.asarray(model(values, training=False))).max()),
        "nodes": len(graph.node),
        "lstm": Counter(node.op_type for node in graph.node)["LSTM"],
        "bytes": path.stat().st_size,
    }


# --- the process that measures --------------------------------------------------------------------


def measure(name: str, route: str, folder: Path) -> dict[str, Any]:
    """The printed results of the process, its additional memory in bytes, and why it ended."""
    path, output = folder / f"{name}.{route}.onnx", folder / "output"
    command = [sys.executable, __file__, "--convert", name, route, str(path)]
    with output.open("w") as out, (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=log)
    wait_for(process, output, "loaded")
    before = resident(process)
    assert process.stdin is not None  # noqa: S101 - opened as a pipe
    start = time.perf_counter()
    process.stdin.write(b"\n")
    process.stdin.flush()
    found: dict[str, Any] = {"loaded_bytes": before}
    peak = watch(process, output)
    found["peak_bytes"] = max(0, peak - before)
    found["watched_s"] = time.perf_counter() - start
    if process.poll() is None and peak > LIMIT_BYTES:
        process.kill()
        found["died"] = f"killed at {peak / 1e9:.1f} GB"
    code = process.wait()
    if code and "died" not in found:
        found["died"] = f"exit status {code}"
    for line in results(output):
        found |= line
    return found


def watch(process: subprocess.Popen[bytes], output: Path) -> int:
    """The highest resident memory until the conversion or the process ends, or at the limit."""
    peak = 0
    while process.poll() is None and peak <= LIMIT_BYTES:
        peak = max(peak, resident(process))
        if any("seconds" in line for line in results(output)):
            break
        time.sleep(SAMPLE_S)
    return peak


def wait_for(process: subprocess.Popen[bytes], output: Path, key: str) -> None:
    while process.poll() is None and not any(key in line for line in results(output)):
        time.sleep(SAMPLE_S)


def results(output: Path) -> list[dict[str, Any]]:
    """The JSON lines that the process printed so far; libraries may print other lines."""
    lines = output.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{")]


def resident(process: subprocess.Popen[bytes]) -> int:
    try:
        return int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:
        return 0


# --- the table ------------------------------------------------------------------------------------


def show(name: str, route: str, found: Mapping[str, Any]) -> None:
    died = found.get("died")
    if died:
        row = [f">{found['watched_s']:.1f}", "", f">{found['peak_bytes'] / 1e6:,.0f}"]
    else:
        row = [
            f"{found['seconds']:.1f}",
            f"{found['cpu_s']:.1f}",
            f"{found['peak_bytes'] / 1e6:,.0f}",
        ]
        row += [str(found["nodes"]), str(found["lstm"]), f"{found['difference']:.1e}"]
    print(line(name, route, *row) + (f"  {died}" if died else ""), flush=True)


def show_ratio(plain: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """The ratios; "<" if the process of the plain route was killed."""
    if "died" in ours:
        return
    sign = "<" if "died" in plain else ""
    seconds = ours["seconds"] / plain.get("seconds", plain["watched_s"])
    memory = ours["peak_bytes"] / plain["peak_bytes"]
    used = f"{ours['cpu_s'] / plain['cpu_s']:.2f}" if "cpu_s" in plain else ""
    print(line("", "ratio", f"{sign}{seconds:.2f}", used, f"{sign}{memory:.2f}"), flush=True)


def line(name: str, route: str, *values: str) -> str:
    return f"{name:12} {route:9}" + "".join(f"{value:>11}" for value in values)


def main() -> None:
    if sys.argv[1:2] == ["--convert"]:
        convert_one(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        return
    print(f"memory limit {LIMIT_BYTES / 1e9:g} GB")
    print(line("", "", "seconds", "CPU s", "MB added", "nodes", "LSTM nodes", "difference"))
    for name in sys.argv[1:] or MODELS:
        found = {}
        for route in ROUTES:
            with tempfile.TemporaryDirectory() as folder:
                found[route] = measure(name, route, Path(folder))
            show(name, route, found[route])
        show_ratio(found["tf2onnx"], found["exporter"])


if __name__ == "__main__":
    main()
