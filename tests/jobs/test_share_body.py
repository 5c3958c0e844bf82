"""`--share-body` and `unshare`: files, folders, manifests, reports."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import exporter
from exporter.errors import CheckError, ModelError, OutputError, UsageError
from exporter.jobs.redraw import redraw
from exporter.output.manifest import check_manifest
from tests.builders.commands import exporter as command
from tests.builders.onnx_models import node, numbers, proto

VARIANTS = {"low": [0, 1, 2], "high": [17, 18]}
FAST: dict[str, Any] = {"samples": 2, "bench": False, "plots": False}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    nodes = [
        node("MatMul", ["x", "body"], ["h"], "first"),
        node("Relu", ["h"], ["r"], "relu"),
        node("MatMul", ["r", "kernel"], ["y"], "head"),
    ]
    constants = {"body": numbers(6, 300), "kernel": numbers(300, 20)}
    onnx.save(proto(nodes, constants, outputs={"y": ["batch", 20]}), path)
    return path


@pytest.fixture(scope="module")
def own(net: Path) -> Path:
    """The variants, each with all its constants."""
    exporter.run(net, net.parent / "own", variants=VARIANTS, **FAST)
    return net.parent / "own"


@pytest.fixture
def shared(net: Path, tmp_path: Path) -> Path:
    exporter.run(net, tmp_path / "out", variants=VARIANTS, share_body=True, **FAST)
    return tmp_path / "out"


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found}


def body_of(folder: Path) -> Path:
    (body,) = folder.glob("body-*.data")
    return body


def test_variants_are_in_one_folder_with_their_body(shared: Path, own: Path) -> None:
    models = {f"{name}.pruned.fp32.onnx" for name in VARIANTS}
    reports = {name for name in files(own) if not name.endswith(".onnx")}
    assert files(shared) == models | reports | {body_of(shared).name}
    for name in VARIANTS:
        report = exporter.Report.from_json((shared / name / "report.json").read_text())
        (artifact,) = report.artifacts
        assert report.ok
        assert artifact.path == f"../{name}.pruned.fp32.onnx"
        assert artifact.proof is not None
        assert artifact.proof.result == "proved"
        size = (shared / name / artifact.path).stat().st_size + body_of(shared).stat().st_size
        assert artifact.bytes == size


def test_manifests_list_the_model_and_the_body(shared: Path) -> None:
    for folder in (shared, shared / "low"):
        assert check_manifest(folder).passed
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)  # noqa: S607
    assert exporter.verify(shared).ok
    body_of(shared).write_bytes(b"other")
    assert check_manifest(shared / "low").changed == (f"../{body_of(shared).name}",)
    body_of(shared).unlink()
    (shared / "low.pruned.fp32.onnx").unlink()
    assert len(check_manifest(shared / "low").missing) == 2


@pytest.mark.parametrize("name", ["../../net.onnx", "../low/../net.onnx", "/etc/passwd"])
def test_a_manifest_lists_nothing_further_away(name: str, shared: Path) -> None:
    manifest = shared / "low" / "SHA256SUMS"
    manifest.write_text(f"{'0' * 64}  {name}\n" + manifest.read_text())
    assert check_manifest(shared / "low").missing == (name,)


def test_force_replaces_the_folder_and_no_other(shared: Path, net: Path) -> None:
    options: dict[str, Any] = {"variants": VARIANTS, "share_body": True, **FAST}
    with pytest.raises(OutputError, match="exists"):
        exporter.run(net, shared, **options)
    exporter.run(net, shared, force=True, **options)
    (shared / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"contains no report\.json"):
        exporter.run(net, shared, force=True, **options)


def test_pages_are_drawn_again(shared: Path) -> None:
    redraw(shared)
    assert check_manifest(shared).passed
    assert check_manifest(shared / "low").passed


def test_one_selection(net: Path, tmp_path: Path) -> None:
    exporter.run(net, tmp_path / "out", keep=[3], share_body=True, **FAST)
    assert {"pruned.fp32.onnx", body_of(tmp_path / "out").name} <= files(tmp_path / "out")
    assert exporter.verify(tmp_path / "out").ok


def test_prune_into_one_folder(net: Path, own: Path, tmp_path: Path) -> None:
    for name, units in (("low", "0-2"), ("high", "17,18")):
        line = f"prune {net} -o {name}.onnx --keep {units} --share-body --samples 2"
        assert command(line, tmp_path).code == 0
    body = body_of(tmp_path)
    assert body.read_bytes() == numbers(6, 300).tobytes()
    done = command("unshare high.onnx -o whole.onnx", tmp_path)
    assert (done.code, done.out) == (0, "whole.onnx\n"), done.err
    expected = (own / "high" / "pruned.fp32.onnx").read_bytes()
    assert (tmp_path / "whole.onnx").read_bytes() == expected
    sidecars = [(tmp_path / f"{n}.onnx.remap.json").read_bytes() for n in ("high", "whole")]
    assert sidecars[0] == sidecars[1]
    assert "contains all its constants" in command("unshare whole.onnx -o b.onnx", tmp_path).err
    assert command("unshare high.onnx -o whole.onnx", tmp_path).code == 6
    assert command("unshare high.onnx -o high.onnx --force", tmp_path).code == 2
    body.unlink()
    done = command("unshare low.onnx -o low2.onnx", tmp_path)
    assert done.code == 3
    assert body.name in done.err
    assert not (tmp_path / "low2.onnx").exists()


def test_a_folder_is_whole_again(shared: Path, own: Path, tmp_path: Path) -> None:
    written = exporter.unshare(shared, tmp_path / "whole")
    whole = tmp_path / "whole"
    assert files(whole) == files(shared) - {body_of(shared).name}
    assert {path.name for path in written} == {f"{n}.pruned.fp32.onnx" for n in VARIANTS}
    for name in VARIANTS:
        expected = (own / name / "pruned.fp32.onnx").read_bytes()
        assert (whole / f"{name}.pruned.fp32.onnx").read_bytes() == expected
        before, after = (
            json.loads((folder / name / "report.json").read_text()) for folder in (own, whole)
        )
        for key in ("bytes", "sha256"):
            assert after["artifacts"][0][key] == before["artifacts"][0][key]
        assert check_manifest(whole / name).passed
    assert exporter.verify(whole).ok


def test_a_folder_without_reports(net: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    exporter.prune(net, keep=[1], verify=False).save(tmp_path / "in" / "a.onnx", share_body=True)
    exporter.unshare(tmp_path / "in", tmp_path / "out")
    assert files(tmp_path / "out") == {"a.onnx", "a.onnx.remap.json"}


def test_folders_that_are_refused(shared: Path, own: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model in"):
        exporter.unshare(own, tmp_path / "whole")
    with pytest.raises(UsageError, match="is in"):
        exporter.unshare(shared, shared / "whole")
    (shared / "low.pruned.fp32.onnx").write_bytes(b"other")
    with pytest.raises(CheckError, match=r"low\.pruned\.fp32\.onnx is not as it was written"):
        exporter.unshare(shared, tmp_path / "whole")
    (shared / "journal.jsonl").touch()
    with pytest.raises(UsageError, match="batch"):
        exporter.unshare(shared, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_damaged_model_is_refused(shared: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08" + bytes(100))
    with pytest.raises(ModelError, match=r"damaged\.onnx"):
        exporter.unshare(damaged, tmp_path / "whole.onnx")
    (shared / "SHA256SUMS").unlink()
    damaged.rename(shared / "damaged.onnx")
    with pytest.raises(ModelError, match=r"damaged\.onnx"):
        exporter.unshare(shared, tmp_path / "whole")


def test_the_folder_of_the_source_is_not_replaced(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exporter.run(net, out, keep=[1], **FAST)
    (out / "more").mkdir()
    exporter.prune(net, keep=[1], verify=False).save(out / "more" / "a.onnx", share_body=True)
    before = files(out)
    with pytest.raises(UsageError, match=r"the input .*more is in .*out, which --force replaces"):
        exporter.unshare(out / "more", out, force=True)
    assert files(out) == before


def test_other_files_of_a_folder(net: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    exporter.prune(net, keep=[1], verify=False).save(source / "a.onnx", share_body=True)
    (source / "a.onnx.remap.json").write_bytes(b"\xff")
    exporter.unshare(source, tmp_path / "out")
    assert (tmp_path / "out" / "a.onnx.remap.json").read_bytes() == b"\xff"
    with pytest.raises(UsageError, match="is not UTF-8"):
        exporter.unshare(source / "a.onnx", tmp_path / "a.onnx")
    (source / "report.json").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        exporter.unshare(source, tmp_path / "other")


def test_what_cannot_share_is_refused(net: Path, shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="TFLite files contain all their weights"):
        exporter.run(shelf / "net.tflite", out, keep=[1], share_body=True, **FAST)
    with pytest.raises(UsageError, match="quantized after its cut"):
        exporter.run(net, out, keep=[1], share_body=True, precisions=["fp16"], **FAST)
    done = command(f"prune {shelf / 'net.tflite'} -o a.tflite --keep 1 --share-body", tmp_path)
    assert done.code == 2
    assert "TFLite files contain all their weights" in done.err
    assert not files(tmp_path)


def test_files_that_are_quantized_first_share(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {**FAST, "precisions": ["dynamic"], "quantize_first": True}
    exporter.run(net, out, variants=VARIANTS, share_body=True, **options)
    assert {path.name for path in out.glob("*.onnx")} == {
        f"{name}.pruned.dynamic.onnx" for name in VARIANTS
    }
    body = body_of(out)
    assert body.stat().st_size < numbers(6, 300).nbytes / 2
    assert exporter.verify(out).ok


def test_all_units(net: Path, tmp_path: Path) -> None:
    """The file is copied, as without the option."""
    exporter.run(net, tmp_path / "out", variants={"all": list(range(20))}, share_body=True, **FAST)
    assert (tmp_path / "out" / "all.pruned.fp32.onnx").read_bytes() == net.read_bytes()


@pytest.fixture
def external(net: Path, tmp_path: Path) -> Path:
    """The network with its weights in a file in a subfolder."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    path, where = tmp_path / "in" / "net.onnx", "sub/w.bin"
    onnx.save(onnx.load(net), path, save_as_external_data=True, location=where, size_threshold=0)
    return path


def test_all_units_of_a_model_with_its_weights_in_another_file(
    external: Path, own: Path, tmp_path: Path
) -> None:
    """The weights are in a body: a copy could replace a file that another model reads."""
    out = tmp_path / "out"
    exporter.run(external, out, variants={"all": range(20), "low": [0]}, share_body=True, **FAST)
    assert {path.name for path in out.glob("*.*")} - {"index.html"} == {
        "all.pruned.fp32.onnx",
        "low.pruned.fp32.onnx",
        *(path.name for path in out.glob("body-*.data")),
    }
    assert exporter.verify(out).ok
    model = onnx.load(out / "all.pruned.fp32.onnx")
    values = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    assert np.array_equal(values["body"], numbers(6, 300))
    assert np.array_equal(values["kernel"], numbers(300, 20))


@pytest.mark.parametrize("share", [False, True])
def test_a_float_file_that_is_not_wanted_leaves_no_weights(
    share: bool, external: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"precisions": ["dynamic"], "quantize_first": True, **FAST}
    exporter.run(external, tmp_path / "out", variants={"a": [1]}, share_body=share, **options)
    found = {path.name for path in (tmp_path / "out").rglob("*.data")}
    assert all(name.startswith("body-") for name in found), found
    assert len(found) == share


def test_a_failing_variant_leaves_nothing(net: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        exporter.run(net, tmp_path / "out", variants={"a": [1], "b": [99]}, share_body=True, **FAST)
    assert not files(tmp_path)


def test_a_body_that_changed_is_an_error_of_every_command(net: Path, shared: Path) -> None:
    body_of(shared).write_bytes(np.zeros(1800, np.float32).tobytes())
    with pytest.raises(ModelError, match="has changed: its SHA-256"):
        exporter.verify(net, shared / "low.pruned.fp32.onnx")
    with pytest.raises(ModelError, match="has changed: its SHA-256"):
        exporter.prune(shared / "low.pruned.fp32.onnx", keep=[1])
