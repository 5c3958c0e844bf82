"""Write `docs/applications.md`: one network of every family in `keras.applications`, cut.

Each is built with seeded weights, saved, and given to the commands `inspect` and `run` as a user
would. Names on the command line do those families alone, and write nothing.
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

The smallest network of every family in `keras.applications`, cut by `make applications`, which
writes this page (minutes; it is not part of `make test`). Each has seeded weights - the statistics
of its batch normalizations are those of seeded pictures - and {units} units, of which `{kept}`
stay. `exporter inspect` finds the head, `exporter run --to onnx,tflite` converts, cuts and checks:
the cut file against the uncut one in the same runtime, and against Keras, on {samples} samples.

Nodes and sizes are those of the converted file, before and after the cut; seconds are those of the
whole command, both files together, on an idle machine of two cores.
"""


@dataclass(frozen=True)
class Member:
    """One network of a family.

    Attributes:
        name: of the function in `keras.applications`.
        size: height and width of its pictures: the smallest that it allows, or, where it divides
            them so often that nothing is left to take statistics of, twice that.
        rescales: it takes bytes, 0 to 255, and rescales them itself.
    """

    name: str
    size: int
    rescales: bool = False

    def pictures(self, count: int, seed: int) -> Any:
        """(count, size, size, 3) float32."""
        random, shape = np.random.default_rng(seed), (count, self.size, self.size, 3)
        values = random.uniform(0, 255, shape) if self.rescales else random.normal(size=shape)
        return values.astype(np.float32)


def build(member: Member) -> Any:
    """The network, with weights that all say something."""
    import keras  # noqa: PLC0415 - seconds, which a test of the page does not need

    keras.utils.set_random_seed(SEED)
    network = getattr(keras.applications, member.name)
    model = network(weights=None, input_shape=(member.size, member.size, 3))
    random = np.random.default_rng(SEED)
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:  # biases and scales start as zeros and ones
            weight.assign(weight + random.normal(0.0, 0.1, weight.shape))
    _settle(keras, model, member.pictures(8, SEED))
    return model


def _settle(keras: Any, model: Any, pictures: Any) -> None:
    """Give the batch normalizations the statistics of these pictures."""
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(pictures, training=True)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def command(*arguments: str) -> dict[str, Any]:
    """What a command answers; an error of its own ends this script."""
    done = subprocess.run(
        [sys.executable, "-m", "exporter", *arguments, "--json", "--quiet"],
        stdout=subprocess.PIPE,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise SystemExit(f"exporter {' '.join(arguments)}: {answer['error']}")
    return answer


def measure(member: Member, folder: Path) -> list[list[str]]:
    """One row of the table a format."""
    path, out = folder / f"{member.name}.keras", folder / member.name
    build(member).save(path)
    np.save(folder / "pictures.npy", member.pictures(SAMPLES, SEED + 1))
    (head,) = command("inspect", str(path))["heads"]
    start = time.perf_counter()
    given = [str(path), "-o", str(out), "--keep", KEPT, "--to", "onnx,tflite"]
    options = ["--data", str(folder / "pictures.npy"), "--no-bench", "--keep-original"]
    report = command("run", *given, *options)
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
    """How many operators a file has, all its graphs together."""
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
