"""Memory of a cut and of its proof, for ONNX files of several sizes.

    PYTHONPATH=. python benchmarks/cut_memory.py [--write]

Each file has a head of 10,000 units with 640 features and a body of another size, inside or in a
file of external data. A process opens it, cuts it to a tenth or to half, writes the result, opens
it again and proves it. Memory is what a process allocates itself (pages of mapped files can be
dropped at any time), above that of an interpreter that has imported NumPy. The goal is three times
the kept head, and 24 MB. With --write, the table goes into docs/performance.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from document import table, write_between

FEATURES, UNITS = 640, 10_000
MEASURE = """
import sys, threading
from pathlib import Path
import numpy as np
def allocated():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000
peaks, done = [allocated()], threading.Event()
def watch():
    while not done.wait(0.002):
        peaks[-1] = max(peaks[-1], allocated())
from threading import Thread
start, watcher = peaks[0], Thread(target=watch)
watcher.start()
source, target, kept = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
from exporter.formats import open_model
from exporter.planning.cut import CutOptions, plan_cut
original = open_model(source)
libraries = allocated()
original.apply(plan_cut(original, CutOptions(keep=range(0, 2 * kept, 2))).plan).write(target)
peaks.append(allocated())
from exporter.proof.prove import prove
cut = open_model(target)
proof = prove(original, cut, cut.remap)
assert proof.result == "proved", proof
done.set()
watcher.join()
print(libraries - start, peaks[0] - start, peaks[1] - start)
"""


def save(path: Path, layers: int, *, external: bool) -> None:
    """A head after products of 1.6 MB each."""
    import onnx  # noqa: PLC0415 - the processes that are measured import it themselves
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - likewise

    random, nodes, value = np.random.default_rng(0), [], "x"
    shapes = {f"w{i}": (FEATURES, FEATURES) for i in range(layers)} | {"kernel": (UNITS, FEATURES)}
    constants = [
        numpy_helper.from_array(random.standard_normal(shape, np.float32) * 0.03, name)
        for name, shape in shapes.items()
    ]
    for i in range(layers):
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"h{i}"], f"product{i}"))
        value = f"h{i}"
    nodes.append(helper.make_node("Gemm", [value, "kernel"], ["z"], "head", transB=1))
    nodes.append(helper.make_node("Softmax", ["z"], ["y"], "softmax", axis=1))
    ends = (("x", FEATURES), ("y", UNITS))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w]) for n, w in ends)
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=external, location="weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    given, rows = parser.parse_args(), []
    for layers, external in ((0, False), (100, False), (600, False), (600, True)):
        with tempfile.TemporaryDirectory() as name:
            source = Path(name, "net.onnx")
            save(source, layers, external=external)
            size = sum(path.stat().st_size for path in Path(name).iterdir()) / 1e6
            for kept in (UNITS // 10, UNITS // 2):
                target = Path(name, "out")
                target.mkdir(exist_ok=True)
                command = [sys.executable, "-c", MEASURE, str(source), str(target / "small.onnx")]
                line = subprocess.check_output([*command, str(kept)], text=True)
                head = kept * FEATURES * 4 / 1e6
                megabytes = [f"{float(each):.0f} MB" for each in line.split()]
                place = "external" if external else "inside"
                title = f"{size:,.0f} MB {place}, keep {kept:,}"
                rows.append([title, f"{head:.0f} MB", *megabytes, f"{3 * head + 24:.0f} MB"])
                print(" | ".join(rows[-1]), flush=True)
    header = ["file", "kept head", "after opening", "peak of the cut", "peak of the proof", "goal"]
    text = table(header, rows)
    print(text)
    if given.write:
        write_between("performance.md", "memory", text)


if __name__ == "__main__":
    main()
