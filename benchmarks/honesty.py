"""Can the numbers of `bench` be fooled? False claims, coverage, power, and another tool's p50.

    PYTHONPATH=. python benchmarks/honesty.py [--write]   # about ten minutes on a quiet machine
    PYTHONPATH=. python benchmarks/honesty.py --short     # about two minutes

The networks have a known amount of work: n equal layers that share one kernel. A model against
itself is an A/A run: its true ratio is 1, and a verdict of "faster" or "slower" is a false claim.
Against n layers, 1.02 n layers have 2 % more work. Not all of a run depends on the layers, so the
time grows by less: `loop_ratio`, a loop with sessions of its own that uses nothing of the package,
measures by how much while no other process is busy. Intervals are compared with that ratio. Every
second run of `bench` has one busy process for each core next to it. `litert-benchmark` (of
ai-edge-litert) times a TFLite model in turns with `bench`.
It loads the model once in a process, and two loads of one file differ by several percent as long as
they live: so it is started several times, half of them before `bench` and half after it.

Prints Markdown; with --write, the tables go into docs/measuring.md.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from document import write_between
from onnx import TensorProto, helper, numpy_helper

from exporter.formats import open_model
from exporter.formats.model import Model, RunOptions
from exporter.performance.latency import bench_models
from exporter.performance.memory import ModelFile, measure_memory
from exporter.performance.scenario import BenchOptions
from exporter.records import Latency
from tests.builders.tflite_builder import Builder

LAYERS, WIDTH = 100, 256
SLOWER = (2, 5, 10)  # percent of the layers
LOOP_LOADS, LOOP_BLOCKS, LOOP_RUNS = 20, 60, 20
CLAIMS = {"faster", "slower"}
TFLITE_WIDTH, TFLITE_LAYERS = 512, 40
LITERT_BENCHMARK = Path(sys.executable).parent / "litert-benchmark"
TIMED_RUNS = 100, 600  # of one process and the next: the difference leaves out its start
BUSY = "while True: sum(range(10_000))"


def network(layers: int) -> onnx.ModelProto:
    """x[1, WIDTH] -> `layers` times MatMul and Relu with one kernel -> y."""
    random = np.random.default_rng(0)
    kernel = (random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
    nodes, name = [], "x"
    for layer in range(layers):
        nodes.append(helper.make_node("MatMul", [name, "kernel"], [f"z{layer}"]))
        name = "y" if layer == layers - 1 else f"a{layer}"
        nodes.append(helper.make_node("Relu", [f"z{layer}"], [name]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, WIDTH]) for n in ("x", "y")]
    constants = [numpy_helper.from_array(kernel, "kernel")]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tflite_network() -> bytes:
    """x[1, TFLITE_WIDTH] -> dense layers, each with a kernel of its own -> y."""
    builder = Builder()
    name = builder.feed("x", 1, TFLITE_WIDTH)
    for layer in range(TFLITE_LAYERS):
        name = builder.dense(name, TFLITE_WIDTH, f"d{layer}")
    return builder.content(name)


@contextmanager
def neighbors(count: int) -> Iterator[None]:
    """Busy processes, as long as the context lasts."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def bench(original: Model, pruned: Model, seed: int) -> Latency:
    feeds = [{"x": np.random.default_rng(1).normal(size=(1, WIDTH)).astype(np.float32)}]
    return bench_models(original, pruned, feeds, BenchOptions(seed=seed))


def loop_ratio(original: Path, pruned: Path) -> float:
    """Time of a run of `pruned` over that of `original`: what the intervals should contain.

    Two loads of one file differ in speed, so the ratio is a mean over many pairs of loads. Within a
    pair, blocks of runs alternate, and the median leaves out the blocks that were interrupted.
    """
    feed = {"x": np.random.default_rng(1).normal(size=(1, WIDTH)).astype(np.float32)}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    ratios = []
    for _ in range(LOOP_LOADS):
        pair = [onnxruntime.InferenceSession(path, options) for path in (original, pruned)]
        times: list[tuple[float, ...]] = []
        for _ in range(LOOP_BLOCKS):
            times.append(tuple(seconds_of_block(session, feed) for session in pair))
            pair.reverse()  # a drift of the clock hits both sides alike
            times[-1] = times[-1] if len(times) % 2 else times[-1][::-1]
        ratios.append(statistics.median(after / before for before, after in times))
    return statistics.mean(ratios)


def seconds_of_block(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    for _ in range(LOOP_RUNS):
        session.run(None, feed)
    return time.perf_counter() - start


def row(name: str, percent: int, true: float, runs: list[Latency]) -> str:
    """One line of the table; `true` is the ratio that the hand-written loop measured."""
    claims = [run.verdict for run in runs]
    covered = sum(run.speedup_ci95[0] <= 1 / true <= run.speedup_ci95[1] for run in runs)
    found = sum(claim in CLAIMS for claim in claims) if percent == 0 else claims.count("slower")
    busy = claims.count("machine too busy to tell")
    detectable = statistics.median(run.detectable_change or 0.0 for run in runs)
    ratio = statistics.median(1 / run.speedup for run in runs)
    by_cpu = sum(run.basis == "CPU time" for run in runs)
    return (
        f"| {name} | {percent:+} % | {true:.3f} | {ratio:.3f} | {len(runs)} | {found} | {covered} |"
        f" {busy} | {100 * detectable:.1f} % | {by_cpu} |"
    )


def false_claims_and_power(folder: Path, repeats: int) -> Iterator[str]:
    paths = {percent: folder / f"slower{percent}.onnx" for percent in (0, *SLOWER)}
    for percent, path in paths.items():
        onnx.save(network(LAYERS + LAYERS * percent // 100), path)
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    yield f"One-minute load average before the first run: {load}.\n"
    yield (
        "| busy neighbors | layers | ratio of a loop | ratio of bench | runs | claimed | covered |"
        " too busy | detectable | by CPU time |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    original = open_model(paths[0])
    for percent, path in paths.items():
        pruned, true = open_model(path), loop_ratio(paths[0], path) if percent else 1.0
        for name, busy in (("none started", 0), ("one each core", os.cpu_count() or 1)):
            count = repeats * (3 if percent == 0 else 1)
            with neighbors(busy):
                runs = [bench(original, pruned, seed) for seed in range(count)]
            yield row(name, percent, true, runs)


def against_litert_benchmark(folder: Path, repeats: int) -> Iterator[str]:
    """p50 and CPU time of both tools, in turns; both time only the runtime's work.

    On a busy machine the two p50 see different neighbors; CPU times do not.
    """
    path = folder / "net.tflite"
    path.write_bytes(tflite_network())
    model = open_model(path)
    if not LITERT_BENCHMARK.exists():
        yield "litert-benchmark is not installed."
        return
    feeds = [{"x": np.random.default_rng(1).normal(size=(1, TFLITE_WIDTH)).astype(np.float32)}]
    p50, cpu = [], []
    for seed in range(repeats):
        others = [litert_benchmark(path, runs) for runs in TIMED_RUNS]
        ours = bench_models(model, model, feeds, BenchOptions(seed=seed, min_seconds=0.5))
        others += [litert_benchmark(path, runs) for runs in TIMED_RUNS]
        p50.append(ours.p50_ms / statistics.median(median for median, _ in others))
        few, many = (min(others[i::2], key=lambda each: each[1])[1] for i in range(2))
        cpu.append((ours.cpu_ms or 0.0) / ((many - few) / (TIMED_RUNS[1] - TIMED_RUNS[0])))
    yield "| `bench` / `litert-benchmark` | turns | lower quartile | median | upper quartile |"
    yield "|---|---:|---:|---:|---:|"
    for name, ratios in (("p50", p50), ("CPU time", cpu)):
        low, middle, high = statistics.quantiles(ratios, n=4)
        yield f"| {name} | {repeats} | {low:.3f} | {middle:.3f} | {high:.3f} |"


def litert_benchmark(path: Path, runs: int) -> tuple[float, float]:
    """Median time of a run, and the CPU time of the whole process, in milliseconds."""
    result = path.parent / "result.json"
    options = ["--num_runs", str(runs), "--warmup_runs", "50", "--result_json", str(result)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(LITERT_BENCHMARK), "--model", str(path), *options]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(result.read_text())["latency"]["median_ms"], 1e3 * cpu_s


def memory_against_itself(folder: Path, repeats: int) -> Iterator[str]:
    path = folder / "memory.onnx"
    onnx.save(network(LAYERS), path)
    file, feed = ModelFile(open_model(path), path), {"x": np.ones((1, WIDTH), np.float32)}
    runs = [measure_memory(file, file, feed, RunOptions(), "onnxruntime") for _ in range(repeats)]
    changes = [run.bytes / run.original_bytes - 1 for run in runs]
    false = sum(run.verdict != "no measurable change" for run in runs)
    yield (
        f"The memory of a file against itself: {false} of {repeats} runs claim a change; the "
        f"largest difference is {100 * max(map(abs, changes)):.1f} %."
    )


def main() -> None:
    factor = 1 if "--short" in sys.argv[1:] else 4
    start = time.perf_counter()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for section in (
            false_claims_and_power(folder, 2 * factor),
            against_litert_benchmark(folder, 3 * factor),
            memory_against_itself(folder, 4 * factor),
        ):
            for line in section:
                print(line, flush=True)
                lines.append(line)
            print()
            lines.append("")
    print(f"{time.perf_counter() - start:.0f} s")
    if "--write" in sys.argv[1:]:
        write_between("measuring.md", "honesty", "\n".join(lines))


if __name__ == "__main__":
    main()
