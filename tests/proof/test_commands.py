"""What a user sees: the real commands, as processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from tests.builders.commands import exporter
from tests.builders.cut_faults import on_proto
from tests.builders.faults_onnx import FAULTS
from tests.builders.proof_models import RANDOM, small_onnx


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with net.onnx, and cut.onnx, which has its units 0 and 2."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(small_onnx())
    done = exporter("prune net.onnx --head y --keep 0,2 -o cut.onnx --json", folder)
    assert done.code == 0
    assert done.record["artifacts"][0]["proof"] == {"result": "proved", "reason": "", "probe": ""}
    return folder


def with_remap(content: bytes, **values: Any) -> bytes:
    """The file with other values in the remap of its head, or of its original."""

    def change(model: ModelProto, _: Any) -> bool:
        (entry,) = (each for each in model.metadata_props if each.key == "exporter.remap")
        record = json.loads(entry.value)
        record["original"]["sha256"] = values.pop("sha256", record["original"]["sha256"])
        record["heads"][0].update(values)
        entry.value = json.dumps(record)
        return True

    changed = on_proto(change)(content, RANDOM(0))
    assert changed is not None
    return changed


def test_a_correct_cut_is_proved_and_probed(folder: Path) -> None:
    done = exporter("verify net.onnx cut.onnx", folder)
    assert done.code == 0
    shown = " ".join(done.out.split())
    assert "Proof proved, equal to the cut made again from the original: cut.onnx" in shown
    assert "probe of the head, 17 vectors fed at 'f', and 16 rows of logits after it" in shown


def test_a_changed_file_is_different(folder: Path) -> None:
    (folder / "cut.onnx.remap.json").unlink()
    changed = FAULTS["NaN for rare inputs"]((folder / "cut.onnx").read_bytes(), RANDOM(0))
    assert changed is not None
    (folder / "cut.onnx").write_bytes(changed)
    done = exporter("verify net.onnx cut.onnx", folder)
    assert done.code == 1
    shown = " ".join(done.out.split())
    assert "the file is not the cut that its remap describes: Where 'trigger'" in shown
    record = exporter("verify net.onnx cut.onnx --json", folder).record
    assert [check["metric"] for check in record["checks"] if not check["passed"]] == ["structure"]
    assert record["artifacts"][0]["proof"]["result"] == "different"


def test_a_mask_without_a_value_is_an_error(folder: Path) -> None:
    changed = with_remap((folder / "cut.onnx").read_bytes(), mode="mask")
    (folder / "masked.onnx").write_bytes(changed)
    done = exporter("verify net.onnx masked.onnx", folder)
    assert done.code == 3
    assert "mode mask without a floor for removed units" in done.err


def test_an_original_without_a_hash_is_unknown(folder: Path) -> None:
    changed = with_remap((folder / "cut.onnx").read_bytes(), sha256=None)
    (folder / "unknown.onnx").write_bytes(changed)
    done = exporter("verify net.onnx unknown.onnx --json", folder)
    assert done.code == 0
    assert "original" not in {check["metric"] for check in done.record["checks"]}
    (warning,) = (text for text in done.record["warnings"] if text.startswith("unknown whether"))
    assert "0 of 1 model" in warning
