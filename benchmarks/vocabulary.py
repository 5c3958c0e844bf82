"""Cut a vocabulary on one side and on both: bytes, latency and memory next to the original.

    python benchmarks/vocabulary.py            # 2,048 -> 600 tokens
    python benchmarks/vocabulary.py --large    # also 32,000 -> 4,000 tokens

The models are small networks of tests/builders with a float32 table that is shared with the head,
and with int4 tables of their own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))

from exporter import bench, prune
from tests.builders import language_models

SIZES = {"toy": (2048, 600, 64), "large": (32_000, 4_000, 512)}  # tokens, kept, features
FORMS = ("tied", "int4 untied")


def rows(tokens: int, kept: int, features: int, folder: Path) -> None:
    """Print one row for each form and each way to cut it."""
    language_models.UNITS, language_models.FEATURES = tokens, features
    keep = list(range(0, tokens, tokens // kept))[:kept]
    for form in FORMS:
        source = folder / "model.onnx"
        onnx.save(language_models.onnx_model(form), source)
        before = source.stat().st_size
        print(f"{form}, {tokens} -> {kept} tokens of {features} features: {before} bytes")
        for name in ("output", "both"):
            target = folder / f"{name}.onnx"
            prune(source, keep=keep, vocabulary=name).save(target, force=True)
            report = bench(source, target, bench_seconds=1.0)
            size = target.stat().st_size / before - 1
            row, memory = report.latency[0], report.memory[0]
            speed = f"{row.speedup:.2f}x {row.speedup_ci95}"
            resident = f"{memory.original_bytes} -> {memory.bytes} bytes of memory"
            print(f"  {name}: {size:+.1%} bytes, {speed}, {resident}")


def main() -> None:
    """Run the sizes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    sizes = SIZES if parser.parse_args().large else {"toy": SIZES["toy"]}
    with TemporaryDirectory() as folder:
        for size in sizes.values():
            rows(*size, Path(folder))


if __name__ == "__main__":
    main()
