"""Cut ONNX files of 206 MB, and one with external data, next to copying the result.

    PYTHONPATH=. python benchmarks/splice.py [--rounds N] [--external MEGABYTES] [--write]

- Inline: a body of 46 MB and a head of 62,500 units with 640 features, which are the rows or the
  columns of the kernel. The time of a cut is that of opening, planning, applying and writing, from
  a file that is in memory. The SHA-256 of the source is computed once for each file and process,
  and has a row of its own.
- Variants: the same, planned, applied and written again from one opened model.
- External: a kernel in another file; a third of its units is kept, and all but a few.

Each time is divided by that of copying the files that were written, in the same round. Memory is
what the process of a cut allocates itself; pages of mapped files can be dropped at any time. The
script takes three times the size of the files on the disk. With --write, the table goes into
docs/performance.md.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from document import table, write_between
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporter.formats import open_model
from exporter.formats.model import Model
from exporter.planning.cut import CutOptions, plan_cut

UNITS, FEATURES, LAYERS = 62_500, 640, 28
SEED = 0


def network(constants: list[TensorProto], features: int, units: int, *, rows: bool) -> ModelProto:
    """x -> products with the constants w0, w1, ... -> "kernel" of the head -> softmax "y"."""
    nodes, value = [], "x"
    for name in (tensor.name for tensor in constants if tensor.name.startswith("w")):
        nodes.append(helper.make_node("MatMul", [value, name], [f"h{name}"], name))
        value = f"h{name}"
    nodes.append(helper.make_node("Gemm", [value, "kernel"], ["z"], "head", transB=int(rows)))
    nodes.append(helper.make_node("Softmax", ["z"], ["y"], "softmax", axis=1))
    ends = (("x", features), ("y", units))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w]) for n, w in ends)
    graph = helper.make_graph(nodes, "network", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save_inline(path: Path, *, rows: bool) -> None:
    random = np.random.default_rng(SEED)

    def values(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape, np.float32) * 0.03, name)

    kernel = (UNITS, FEATURES) if rows else (FEATURES, UNITS)
    constants = [values(f"w{i}", FEATURES, FEATURES) for i in range(LAYERS)]
    onnx.save(network([*constants, values("kernel", *kernel)], FEATURES, UNITS, rows=rows), path)


def save_external(path: Path, megabytes: int) -> int:
    """Save a network with its kernel in another file; returns its number of units."""
    units = megabytes * 10**6 // (4 * FEATURES)
    kernel = TensorProto(name="kernel", dims=(units, FEATURES), data_type=TensorProto.FLOAT)
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value="weights")
    path.parent.mkdir()
    block = np.random.default_rng(SEED).standard_normal((1000, FEATURES), np.float32)
    with path.with_name("weights").open("wb") as file:
        for start in range(0, units, len(block)):
            file.write(block[: units - start].tobytes())
    path.write_bytes(network([kernel], FEATURES, units, rows=True).SerializeToString())
    return units


# --- what is measured -----------------------------------------------------------------------------


def some(units: int, kept: int) -> list[int]:
    """Kept units, drawn without a pattern, ascending."""
    return sorted(np.random.default_rng(1).permutation(units)[:kept].tolist())


def cut(model: Model, keep: list[int], target: Path) -> None:
    model.apply(plan_cut(model, CutOptions(keep=keep)).plan).write(target)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def copy_folder(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)


def rounds(action: Callable[[Path], object], folder: Path, count: int) -> list[tuple[float, float]]:
    """The time of an action that writes into a new folder, and of copying what it wrote."""
    found = []
    for _ in range(count + 1):
        made, copied = folder / "made", folder / "copied"
        made.mkdir()
        one = seconds(lambda: action(made / "small.onnx"))  # noqa: B023 - called at once
        found.append((one, seconds(lambda: copy_folder(made, copied))))  # noqa: B023 - likewise
        shutil.rmtree(made)
        shutil.rmtree(copied)
    return found[1:]  # the first one loads libraries and reads the disk


def row(title: str, times: list[tuple[float, float]], goal: str) -> list[str]:
    ours, copies = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    ratio = statistics.median(one / copy for one, copy in times)
    cells = [title, f"{ours:.0f} ms", f"{copies:.0f} ms", f"{ratio:.2f}", goal]
    print(" | ".join(cells), flush=True)
    return cells


def inline(folder: Path, count: int) -> Iterator[list[str]]:
    for layout in ("rows", "columns"):
        path = folder / f"{layout}.onnx"
        save_inline(path, rows=layout == "rows")
        time.sleep(2.5)  # its hash is known from the second cut on only if it is not new
        for kept in (100, UNITS // 2):
            keep, goal = some(UNITS, kept), "1.25" if layout == "rows" else "2"

            def opened(target: Path, path: Path = path, keep: list[int] = keep) -> None:
                cut(open_model(path), keep, target)

            title = f"{layout}, keep {kept:,} of {UNITS:,}"
            yield row(title, rounds(opened, folder, count), goal)
            model = open_model(path)

            def variant(target: Path, model: Model = model, keep: list[int] = keep) -> None:
                cut(model, keep, target)

            yield row(f"{title}, a further variant", rounds(variant, folder, count), "1.5")
        if layout == "rows":
            times = [seconds(lambda: hash_of(path)) for _ in range(count)]  # noqa: B023 - at once
            yield [
                "SHA-256 of the source, once a process",
                f"{min(times) * 1e3:.0f} ms",
                "",
                "",
                "",
            ]
        path.unlink()


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def external(folder: Path, megabytes: int, count: int) -> Iterator[list[str]]:
    path = folder / "external" / "net.onnx"
    units = save_external(path, megabytes)
    for kept in (units // 3, units * 22 // 25):
        peaks: list[float] = []

        def process(target: Path, kept: int = kept, peaks: list[float] = peaks) -> None:
            command = [sys.executable, __file__, "--cut", str(path), str(target), str(kept)]
            peaks.append(float(subprocess.check_output(command, text=True)))

        def opened(target: Path, kept: int = kept) -> None:
            cut(open_model(path), some(units, kept), target)

        size = f"{megabytes:,} MB external, keep {kept / units:.0%}"
        yield row(size, rounds(opened, folder, count), "1.5")
        rounds(process, folder, 0)
        yield [f"{size}: peak of a process", f"{max(peaks):.0f} MB", "", "", "500 MB"]
    shutil.rmtree(path.parent)


def cut_and_print_peak(source: Path, target: Path, kept: int) -> None:
    model = open_model(source)
    keep = some(model.graph().shape("y")[-1] or 0, kept)
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            lines = Path("/proc/self/status").read_text("utf-8").splitlines()
            anonymous = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            peak[0] = max(peak[0], anonymous * 1024 / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    cut(model, keep, target)
    done.set()
    watcher.join()
    print(peak[0])


def main() -> None:
    if sys.argv[1:2] == ["--cut"]:
        cut_and_print_peak(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--external", type=int, default=2500, help="megabytes of the kernel")
    parser.add_argument("--folder", type=Path, help="where the files are written")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        rows = [*inline(Path(name), given.rounds)]
        rows += external(Path(name), given.external, max(1, given.rounds // 3))
    text = table(["cut", "exporter", "copy of the result", "ratio", "goal"], rows)
    print(text)
    if given.write:
        write_between("performance.md", "splice", text)


if __name__ == "__main__":
    main()
