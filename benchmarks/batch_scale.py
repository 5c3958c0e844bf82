"""Project 1,000 models x 1,000 selections on a cluster, with Dask's own scheduler.

    PYTHONPATH=. nice python benchmarks/batch_scale.py [--seconds 10] [--write]

The costs of a cell are those that `benchmarks/batch.py --write` measured. Dummy tasks that sleep as
long as a cell, with messages and answers of the size of real ones, run on a Dask scheduler with
workers that have many threads: sleeping takes no processor, so that one machine shows how many
cells the scheduler and the client can serve. The other costs of the client are measured on a plan.
With --write, the tables go into docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from distributed import Client, LocalCluster
from document import table, write_between
from onnx import TensorProto, helper, numpy_helper

from exporter.batches.cells import finished_row
from exporter.batches.index import Batch, write_index
from exporter.batches.keys import Keys
from exporter.batches.plan import read_plan
from exporter.batches.run import BatchOptions, run_batch
from exporter.batches.tasks import Tasks

COSTS = Path(__file__).with_name("batch_costs.json")
MODELS = SELECTIONS = 1000
WORKERS = (16, 64, 256, 1024)


def sleep(task: Mapping[str, Any], seconds: float, answer: Any) -> Any:
    """A dummy task: `task` is the message of a real one."""
    del task
    time.sleep(seconds)
    return answer


def rate(
    client: Any, message: Any, answer: Any, seconds: float, slots: int, *, length: float
) -> float:
    """Tasks per second, with two tasks for each slot given out at any time, as a batch does."""
    executor = client.get_executor(pure=False, retries=0)
    running: set[Future[Any]] = set()
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < length or running:
        while spent < length and len(running) < 2 * slots:
            running.add(executor.submit(sleep, message, seconds, answer))
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        done += len(finished)
    return done / (time.perf_counter() - start)


def network(path: Path) -> None:
    """A small classifier."""
    values = np.random.default_rng(0).normal(size=(32, 1000)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "kernel"], ["y"])
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k])
        for n, k in (("x", 32), ("y", 1000))
    ]
    graph = helper.make_graph(
        [node], "net", ends[:1], ends[1:], [numpy_helper.from_array(values, "kernel")]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def client_costs(count: int = 300) -> tuple[dict[str, float], Any, Any]:
    """Seconds of the client for a cell of a plan, a real message, and a real row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network(folder / "net.onnx")
        options = {"bench": False, "plots": False, "samples": 2}
        tables = {"models": {"net": str(folder / "net.onnx")}, "options": options}
        selections = {f"s{i}": f"{i}-{i + 9}" for i in range(count)}
        start = time.perf_counter()
        plan = read_plan({**tables, "selections": selections}, {})
        found = {"read the plan": time.perf_counter() - start}
        one = read_plan({**tables, "selections": {"s0": "0-9"}}, {})
        row = run_batch(one, folder / "out", BatchOptions(workers=1)).cells[0]
        keys = Keys(plan.folder.resolve())
        tasks = Tasks(plan.folder.resolve(), folder / "out", "run", {}, force=False)
        start = time.perf_counter()
        digests = [keys.of(cell).digest for cell in plan.cells]
        found["key"] = time.perf_counter() - start
        start = time.perf_counter()
        for _ in plan.cells:
            finished_row(folder / "out" / "net" / "s0", digests[0])
        found["look at a finished cell (4 threads share it)"] = time.perf_counter() - start
        start = time.perf_counter()
        made = [tasks.of_cell(cell, keys.of(cell))[1] for cell in plan.cells]
        found["make the task"] = time.perf_counter() - start
        start = time.perf_counter()
        write_index(Batch(folder, [row] * count), folder / "out")
        found["row of the index"] = time.perf_counter() - start
    return {title: seconds / count for title, seconds in found.items()}, made[0].message, row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    costs = json.loads(COSTS.read_text())
    client_s, message, row = client_costs()
    cells = MODELS * SELECTIONS
    rows = []
    for workers in WORKERS:
        with (
            LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=2,
                threads_per_worker=workers // 2,
                dashboard_address=None,
                silence_logs=50,
            ) as cluster,
            Client(cluster) as client,  # type: ignore[no-untyped-call]
        ):
            length = max(options.seconds, 4 * costs["cell_s"])
            served = rate(client, message, {"row": row}, costs["cell_s"], workers, length=length)
        ideal = workers / costs["cell_s"]
        converting = MODELS * 2 * costs["conversion_s"] / workers
        hours = (cells / served + converting) / 3600
        written = served * costs["cell_bytes"]
        rows.append(
            (
                str(workers),
                f"{ideal:.0f}",
                f"{served:.0f}",
                f"{served / ideal:.0%}",
                f"{hours:.1f} h",
                f"{written / 1e6:.0f} MB/s",
            )
        )
        print(rows[-1], flush=True)
    header = ["workers", "cells/s, ideal", "cells/s, served", "share", "a million cells", "written"]
    projected = table(header, rows)
    client_rows = [
        (title, f"{1e3 * seconds:.2f} ms", f"{seconds * cells / 60:.0f} min")
        for title, seconds in client_s.items()
    ]
    client_table = table(["work of the client", "for a cell", "for a million"], client_rows)
    cost_rows = [
        ("time of a cell", f"{costs['cell_s']:.2f} s"),
        ("time of a conversion", f"{costs['conversion_s']:.1f} s"),
        ("files of a cell", f"{costs['cell_bytes'] / 1e6:.2f} MB"),
        ("processor time of all cells", f"{cells * costs['cell_s'] / 3600:.0f} core hours"),
        ("conversions", f"{MODELS * 2 * costs['conversion_s'] / 3600:.0f} core hours"),
        ("files of all cells", f"{cells * costs['cell_bytes'] / 1e12:.1f} TB"),
        ("message of a task", f"{len(json.dumps(message)) / 1e3:.1f} kB"),
        ("answer of a task", f"{len(json.dumps(row)) / 1e3:.1f} kB"),
    ]
    cost_table = table(["", "measured, or times 1,000 x 1,000"], cost_rows)
    print(cost_table, client_table, projected, sep="\n")
    if options.write:
        write_between("scale.md", "costs", cost_table)
        write_between("scale.md", "client", client_table)
        write_between("scale.md", "projection", projected)


if __name__ == "__main__":
    main()
