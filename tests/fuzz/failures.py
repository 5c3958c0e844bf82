"""Files on which a reader once failed, made as small as possible: (name of the reader, files)."""

from __future__ import annotations

from collections.abc import Mapping

from tests.builders import language_models

FAILURES: tuple[tuple[str, Mapping[str, bytes]], ...] = (
    ("report", {"report.json": b"\xff"}),  # no UTF-8, with a manifest that states its hash
    (
        "plan",
        {
            "plan.toml": b'[models]\nm = "m.onnx"\n[selections]\ns = "0"',
            "m.onnx": b"\x08\x08\x12\xff",  # a damaged model of one cell
        },
    ),
    (
        "files of a tokenizer",
        {
            "tokenizer.json": b'{"model": {"type": "WordLevel", "vocab": {"a": 0, "b": [1]}}}',
            "net.onnx": language_models.onnx_model("untied").SerializeToString(),
        },
    ),
)
