"""Write `docs/applications.md`: prune one network of every family in `keras.applications`.

Each network is built with seeded weights, saved, and passed to the commands `inspect` and `run`.
With names of networks on the command line, only these are run, and nothing is written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PROJECT = Path(__file__).parent.parent
DOCUMENT = PROJECT / "docs" / "applications.md"
KEPT = "1,7,100-103,999"  # of 1000 units
SAMPLES = 4
SEED = 20

HEAD = """\
# Keras applications

`make applications` prunes the smallest network of every family in `keras.applications` and writes
this page. It takes minutes and is not part of `make test`. Each network has seeded weights, batch
normalization statistics from seeded images, and {units} units, of which `{kept}` are kept.
`exporter inspect` finds the head. `exporter run --to onnx,tflite` converts and prunes the network,
then compares the pruned file with the converted one in the same runtime, and with Keras, on
{samples} samples.

Nodes and sizes belong to the converted file, before and after pruning. Seconds are for the whole
`run` command, with both files, on an idle machine with two cores.
"""


@dataclass(frozen=True)
class Member:
    """One network of a family.

    Attributes:
        name: of the function in `keras.applications`.
        size: height and width of its images: the smallest allowed, or twice that if the network
            halves them so often that no values remain for statistics.
        rescales: the network takes values from 0 to 255 and rescales them itself.
    """

    name: str
    size: int
    rescales: bool = False

    def images(self, count: int, seed: int) -> Any:
        """(count, size, size, 3) float32."""
        random, shape = np.random.default_rng(seed), (count, self.size, self.size, 3)
        values = random.uniform(0, 255, shape) if self.rescales else random.normal(size=shape)
        return values.astype(np.float32)


def build(member: Member) -> Any:
    """Build the network, without weights of 0 or 1 that would hide an error."""
    import keras  # noqa: PLC0415 - seconds, which a test of the page does not need

    keras.utils.set_random_seed(SEED)
    network = getattr(keras.applications, member.name)
    model = network(weights=None, input_shape=(member.size, member.size, 3))
    random = np.random.default_rng(SEED)
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:  # biases are initially 0, scales 1
            weight.assign(weight + random.normal(0.0, 0.1, weight.shape))
    _set_statistics(keras, model, member.images(8, SEED))
    return model


def _set_statistics(keras: Any, model: Any, images: Any) -> None:
    """Give the batch normalizations the statistics of these images."""
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def command(*arguments: str) -> dict[str, Any]:
    """Run a command and return its JSON object; an error ends this script."""
    done = subprocess.run(
        [sys.executable, "-m", "exporter", *arguments, "--json", "--quiet"],
        stdout=subprocess.PIPE,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if "error" in result:
        raise SystemExit(f"exporter {' '.join(arguments)}: {result['error']}")
    return result


def measure(member: Member, folder: Path) -> list[list[str]]:
    """One table row per format."""
    path, out = folder / f"{member.name}.keras", folder / member.name
    build(member).save(path)
    np.save(folder / "images.npy", member.images(SAMPLES, SEED + 1))
    (head,) = command("inspect", str(path))["heads"]
    start = time.perf_counter()
    arguments = [str(path), "-o", str(out), "--keep", KEPT, "--to", "onnx,tflite"]
    options = ["--data", str(folder / "images.npy"), "--no-bench", "--keep-original"]
    report = command("run", *arguments, *options)
    seconds = time.perf_counter() - start
    for warning in report["warnings"]:
        print(f"{member.name}: {warning}", flush=True)
    first = [member.name, str(member.size), f"{head['name']} ({head['activation']})"]
    return [
        [*(first if i == 0 else [""] * 3), *_row(artifact, report, out), _time(i, seconds)]
        for i, artifact in enumerate(report["artifacts"])
    ]


def _time(row: int, seconds: float) -> str:
    return "" if row else f"{seconds:.0f}"


def _row(artifact: Mapping[str, Any], report: Mapping[str, Any], out: Path) -> Iterator[str]:
    checks = [check for check in report["checks"] if check["artifact"] == artifact["path"]]
    failed = [check for check in checks if not check["passed"]]
    yield artifact["route"]
    original = out / f"original{Path(artifact['path']).suffix}"
    yield f"{nodes(original)} -> {nodes(out / artifact['path'])}"
    yield f"{artifact['original_bytes'] / 1e6:.2f} -> {artifact['bytes'] / 1e6:.2f}"
    yield f"{len(failed)} of {len(checks)} FAILED" if failed else f"{len(checks)} passed"


def nodes(path: Path) -> int:
    """Number of operators in a file, all its graphs together."""
    from exporter.formats import open_model  # noqa: PLC0415 - likewise

    return len(open_model(path).graph().nodes)


def document(rows: Sequence[Sequence[str]]) -> str:
    """The whole page."""
    head = HEAD.format(units=1000, kept=KEPT, samples=SAMPLES)
    return head + "\n" + "\n".join(_line(row) for row in (COLUMNS, ["---"] * len(COLUMNS), *rows))


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def main() -> None:
    chosen = [member for member in MEMBERS if member.name in (sys.argv[1:] or NAMES)]
    rows = []
    for member in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(member, Path(folder)):
                print(_line(row), flush=True)
                rows.append(row)
    if len(chosen) == len(MEMBERS):
        DOCUMENT.write_text(document(rows) + "\n", encoding="utf-8")
    if any("FAILED" in cell for row in rows for cell in row):
        raise SystemExit("not all checks passed")


COLUMNS = (
    "network",
    "pixels",
    "head",
    "route",
    "nodes",
    "MB",
    "checks",
    "seconds",
)

MEMBERS = (
    Member("Xception", 71),
    Member("VGG16", 32),
    Member("ResNet50", 32),
    Member("ResNet50V2", 32),
    Member("InceptionV3", 75),
    Member("InceptionResNetV2", 75),
    Member("MobileNet", 32),
    Member("MobileNetV2", 32),
    Member("MobileNetV3Small", 32, rescales=True),
    Member("DenseNet121", 32),
    Member("NASNetMobile", 32),
    Member("EfficientNetB0", 64, rescales=True),
    Member("EfficientNetV2B0", 64, rescales=True),
    Member("ConvNeXtTiny", 32, rescales=True),
)
NAMES = tuple(member.name for member in MEMBERS)

if __name__ == "__main__":
    main()
