"""Files by URL, on a real server of the S3 protocol on loopback."""

from __future__ import annotations

import functools
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import exporter
from exporter.batches import host
from exporter.batches.run import Progress
from exporter.cli import prune as prune_command
from exporter.errors import OutputError, UsageError
from exporter.storage import fetch as fetch_module
from exporter.storage import upload as upload_module
from exporter.storage.fetch import CACHE, cache_folder, fetch
from exporter.storage.upload import writable
from exporter.storage.urls import filesystem, redact, scheme_of
from tests.builders.batches import FAST, InThread, content

pytest.importorskip("s3fs")
SECRET = "wJalrXUtnFEMI/K7MDENG"  # noqa: S105 - of the server of this test


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - a second

    found = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    found.start()
    host, port = found.get_host_and_port()
    yield f"http://{host}:{port}"
    found.stop()


@pytest.fixture
def s3(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Any:
    """The file system, with a new bucket `lab`; credentials are in the environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing-key-id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "EXPORTER_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs  # noqa: PLC0415 - a second

    s3fs.S3FileSystem.clear_instance_cache()
    system, _ = filesystem("s3://lab/x")
    if system.exists("lab"):
        system.rm("lab", recursive=True)
    system.mkdir("lab")
    return system


def put(s3: Any, key: str, content: bytes) -> str:
    s3.pipe_file(f"lab/{key}", content)
    return f"s3://lab/{key}"


def keys(s3: Any) -> set[str]:
    s3.invalidate_cache()
    return {key.removeprefix("lab/") for key in s3.find("lab")}


def objects() -> list[str]:
    return sorted(each.name for each in (cache_folder() / "objects").iterdir())


# --- reading --------------------------------------------------------------------------------------


def test_a_file_is_read_once(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = put(s3, "models/net.bin", b"first")
    path = fetch(url)
    assert (path.name, path.read_bytes()) == ("net.bin", b"first")
    monkeypatch.setattr(s3, "get_file", lambda *_: pytest.fail("it was read again"))
    assert fetch(url) == path
    assert len(objects()) == 1


def test_a_changed_file_is_read_again(s3: Any) -> None:
    url = put(s3, "net.bin", b"first")
    before = fetch(url)
    put(s3, "net.bin", b"other")
    assert fetch(url).read_bytes() == b"other"
    assert before.read_bytes() == b"first"  # its content is what addresses it


def test_equal_content_is_kept_once_for_two_urls(s3: Any) -> None:
    assert fetch(put(s3, "a/net.bin", b"same")) == fetch(put(s3, "b/net.bin", b"same"))
    assert len(objects()) == 1


def test_a_damaged_copy_is_read_again(s3: Any) -> None:
    url = put(s3, "net.bin", b"right")
    fetch(url).write_bytes(b"wrong")
    assert fetch(url).read_bytes() == b"right"


def test_a_folder(s3: Any) -> None:
    for name in ("owl/1.txt", "owl/2.txt", "macaw/1.txt"):
        put(s3, f"data/{name}", name.encode())
    folder = fetch("s3://lab/data")
    found = {each.relative_to(folder).as_posix() for each in folder.rglob("*.txt")}
    assert found == {"owl/1.txt", "owl/2.txt", "macaw/1.txt"}


def test_weights_next_to_an_onnx_model(s3: Any, tmp_path: Path) -> None:
    import onnx  # noqa: PLC0415 - here only

    from tests.builders.onnx_models import node, numbers, proto  # noqa: PLC0415

    model = proto([node("MatMul", ["x", "k"], "y")], {"k": numbers(64, 8)}, x=("batch", 64))
    onnx.save(
        model, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    for name in ("net.onnx", "w.bin"):
        put(s3, f"m/{name}", (tmp_path / name).read_bytes())
    path = fetch("s3://lab/m/net.onnx")
    assert (path.parent / "w.bin").read_bytes() == (tmp_path / "w.bin").read_bytes()
    changed = bytes(64 * 8 * 4)
    put(s3, "m/w.bin", changed)  # the model itself is as before
    assert (fetch("s3://lab/m/net.onnx").parent / "w.bin").read_bytes() == changed


MISSING = ["s3://lab/none.onnx", "s3://no-such-bucket/net.onnx"]


@pytest.mark.parametrize("url", MISSING)
def test_missing(s3: Any, url: str) -> None:
    with pytest.raises(UsageError, match="there is no file s3://"):
        fetch(url)
    assert not list(cache_folder().glob("objects/*"))


def test_a_server_that_is_gone(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"403 for key {SECRET} at https://u:pw@host/x?X-Amz-Signature=abc")

    monkeypatch.setattr(s3, "info", fail)
    with pytest.raises(UsageError, match="cannot be read: RuntimeError: 403 for key") as caught:
        fetch("s3://lab/net.onnx")
    for secret in (SECRET, "pw@", "abc"):
        assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="gs:// needs gcsfs, which is not installed") as caught:
        fetch("gs://bucket/net.onnx")
    assert caught.value.hint == "install it: pip install gcsfs"


def test_https_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "net.bin").write_bytes(b"content")
    handler = functools.partial(_Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{found.server_port}/net.bin?token=hidden"
        path: Any = fetch(url)
        found.shutdown()
    assert (path.name.partition("?")[0], path.read_bytes()) == ("net.bin", b"content")
    assert "hidden" not in path.url
    with pytest.raises(OutputError, match="https:// is read-only"), writable("https://host/x"):
        pass


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pw@host/net.onnx?sig=1", "https://***host/net.onnx?***"),
        ("--data s3://b/k and more", "--data s3://b/k and more"),
        ("key testing-secret", "key ***"),
    ],
)
def test_redacted(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "testing-secret")
    assert redact(text) == expected


@pytest.mark.parametrize("text", ["net.onnx", "C:/net.onnx", "ftp://host/x", Path("s3:/b"), None])
def test_no_storage(text: object) -> None:
    assert scheme_of(text) == ""


# --- writing --------------------------------------------------------------------------------------


def write_folder(url: str, names: tuple[str, ...], *, force: bool = False) -> None:
    with writable(url, force=force) as folder:
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)


def test_the_manifest_is_last(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    copy = s3.cp_file

    def remember(old: str, new: str) -> None:
        copied.append(new)
        copy(old, new)

    monkeypatch.setattr(s3, "cp_file", remember)
    write_folder("s3://lab/out", ("SHA256SUMS", "a.onnx", "z.json"))
    assert copied == ["lab/out/a.onnx", "lab/out/z.json", "lab/out/SHA256SUMS"]
    assert keys(s3) == {"out/SHA256SUMS", "out/a.onnx", "out/z.json"}


def test_existing(s3: Any) -> None:
    write_folder("s3://lab/out", ("SHA256SUMS", "old.onnx"))
    with pytest.raises(OutputError, match="s3://lab/out exists"):
        write_folder("s3://lab/out", ("SHA256SUMS",))
    write_folder("s3://lab/out", ("SHA256SUMS", "new.onnx"), force=True)
    assert keys(s3) == {"out/SHA256SUMS", "out/new.onnx"}


def fail_half_way(url: str) -> None:
    with writable(url) as folder:
        folder.mkdir()
        (folder / "half").write_text("x")
        raise KeyError


def test_an_error_of_the_job_writes_nothing(s3: Any) -> None:
    with pytest.raises(KeyError):
        fail_half_way("s3://lab/out")
    assert keys(s3) == set()


@pytest.mark.parametrize("step", ["put_file", "cp_file"])
def test_an_upload_that_fails(s3: Any, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old result stays whole, or the new one is whole under the key that the error names."""
    write_folder("s3://lab/out", ("SHA256SUMS", "a.onnx"))
    real, calls = getattr(s3, step), [0]

    def second_fails(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError(f"no space for {SECRET}")
        return real(*given)

    monkeypatch.setattr(s3, step, second_fails)
    with pytest.raises(OutputError, match="s3://lab/out cannot be written: OSError") as caught:
        write_folder("s3://lab/out", ("SHA256SUMS", "a.onnx", "b.onnx"), force=True)
    assert SECRET not in str(caught.value)
    found = keys(s3)
    temporary = {key for key in found if ".exporter" in key}
    if step == "put_file":
        assert found == {"out/SHA256SUMS", "out/a.onnx"}
        assert not temporary
        return
    assert "out/SHA256SUMS" not in found
    names = {key.rpartition("/")[2] for key in temporary}
    assert names == {"SHA256SUMS", "a.onnx", "b.onnx"}
    (place,) = {key.partition("/")[0] for key in temporary}
    assert f"s3://lab/{place}" in caught.value.hint


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_storage(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system in memory takes the place of the libraries, which need their services."""
    from fsspec.implementations.memory import MemoryFileSystem  # noqa: PLC0415 - an extra

    system = MemoryFileSystem()
    system.store.clear()
    for module in (fetch_module, upload_module):
        monkeypatch.setattr(
            module, "filesystem", lambda url: (system, f"/{url.partition('://')[2]}")
        )
    monkeypatch.setenv("EXPORTER_CACHE", str(tmp_path / "cache"))
    url = f"{scheme}://lab/out"
    write_folder(url, ("SHA256SUMS", "a.onnx"))
    with pytest.raises(OutputError, match="exists"):
        write_folder(url, ("SHA256SUMS",))
    write_folder(url, ("SHA256SUMS", "b.onnx"), force=True)
    assert set(system.find("/lab")) == {"/lab/out/SHA256SUMS", "/lab/out/b.onnx"}
    assert sorted(each.name for each in fetch(url).iterdir()) == ["SHA256SUMS", "b.onnx"]
    system.pipe_file("/lab/labels.txt", b"owl")
    assert fetch(f"{scheme}://lab/labels.txt").read_text() == "owl"
    system.pipe_file("/lab/labels.txt", b"hen")
    assert fetch(f"{scheme}://lab/labels.txt").read_text() == "hen"
    with pytest.raises(UsageError, match=f"no file {scheme}://lab/missing"):
        fetch(f"{scheme}://lab/missing")


def test_a_bucket_is_no_target(s3: Any) -> None:
    with pytest.raises(OutputError, match="is a bucket"), writable("s3://lab"):
        pass


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    with writable(f"file://{tmp_path}/out") as folder:
        assert folder == tmp_path / "out"
    (tmp_path / "a b").write_text("x")
    assert fetch(f"file://{tmp_path}/a%20b").read_text() == "x"


# --- commands -------------------------------------------------------------------------------------


def test_run_from_and_to_s3(s3: Any, shelf: Path, tmp_path: Path) -> None:
    model = put(s3, "in/net.onnx", (shelf / "net.onnx").read_bytes())
    labels = put(s3, "in/labels.txt", (shelf / "labels.txt").read_bytes())
    np.savez(tmp_path / "x.npz", x=np.ones((3, 6), np.float32))
    data = put(s3, "in/x.npz", (tmp_path / "x.npz").read_bytes())
    options: Any = {"keep": ["owl", "hen"], "labels": labels, "data": data, "bench": False}
    report = exporter.run(model, "s3://lab/out", **options)
    assert report.ok
    assert report.options["data"] == data
    assert report.command.startswith("exporter run s3://lab/in/net.onnx -o s3://lab/out --keep")
    local: Any = {**options, "labels": shelf / "labels.txt", "data": tmp_path / "x.npz"}
    exporter.run(shelf / "net.onnx", tmp_path / "out", **local)
    here = {each.name for each in (tmp_path / "out").iterdir()}
    assert keys(s3) - {"in/net.onnx", "in/labels.txt", "in/x.npz"} == {f"out/{n}" for n in here}
    written = s3.cat_file("lab/out/pruned.fp32.onnx")
    assert written == (tmp_path / "out" / "pruned.fp32.onnx").read_bytes()
    assert exporter.verify("s3://lab/out").files.passed
    everything = b"".join(s3.cat_file(f"lab/{key}") for key in keys(s3))
    for secret in (SECRET.encode(), b"testing-key-id"):
        assert secret not in everything


def test_prune_on_the_command_line(s3: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = put(s3, "net.tflite", (shelf / "net.tflite").read_bytes())
    given = [model, "-o", "s3://lab/small.tflite", "--keep", "1,4", "--json", "-q"]
    done = CliRunner().invoke(prune_command.command, given, standalone_mode=False)
    assert done.return_value == 0, done.output
    assert json.loads(done.stdout)["ok"]
    assert keys(s3) == {"net.tflite", "small.tflite", "small.tflite.remap.json"}


# --- plans ----------------------------------------------------------------------------------------


def test_a_plan_of_urls_gives_what_one_of_files_gives(
    s3: Any, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "Child", InThread)
    monkeypatch.chdir(tmp_path)
    names = ("net.onnx", "labels.txt")
    urls = {name: put(s3, f"in/{name}", (shelf / name).read_bytes()) for name in names}
    units = put(s3, "in/units.txt", b"owl\nhen\n")
    customers = f"name,keep,labels\nshop,hen,{urls['labels.txt']}\n".encode()
    plan = {
        "models": {"net": urls["net.onnx"]},
        "selections": {
            "birds": f"@{units}",
            "listed": {"files": [units]},
            "customers": {"csv": put(s3, "in/customers.csv", customers)},
        },
        "options": {**FAST, "labels": urls["labels.txt"]},
        "output": "s3://lab/results",
    }
    batch = exporter.batch(plan)
    assert batch.ok
    local = exporter.batch({**plan, "output": "local"})
    assert local.ok
    prefix = len("lab/results/")
    there = {key[prefix:]: s3.cat_file(key) for key in s3.find("lab/results")}
    here = content(tmp_path / "local")
    assert there.keys() - {"journal.jsonl"} == here.keys()
    assert all(there[name] == here[name] for name in here)
    assert exporter.verify("s3://lab/results").ok

    assert len(exporter.batch(plan).reused) == 3
    put(s3, "in/units.txt", b"owl\n")
    again = exporter.batch(plan)
    assert again.ok
    assert again.reused == {"net/shop"}
    s3.invalidate_cache()
    assert exporter.verify("s3://lab/results").ok
    assert not [key for key in keys(s3) if ".exporter" in key]
    with pytest.raises(UsageError, match="no file s3://lab/none"):
        exporter.batch({**plan, "models": {"net": "s3://lab/none.onnx"}})


def test_a_batch_that_is_stopped_before_its_upload_continues(
    s3: Any, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "Child", InThread)
    monkeypatch.chdir(tmp_path)
    plan = {
        "models": {"net": str(shelf / "net.onnx")},
        "selections": {"one": "0,1", "two": "1,2", "three": "2,3"},
        "options": FAST,
        "output": "s3://lab/stopped",
    }

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exporter.batch(plan, workers=1, on_cell=stop)
    assert not s3.find("lab/stopped")
    assert len(exporter.batch(plan).reused) >= 2  # the third may have been running
    assert exporter.verify("s3://lab/stopped").ok
    assert len(s3.glob("lab/stopped/net/*/*.onnx")) == 3
    assert not list((Path(os.environ[CACHE]) / "unfinished").glob("*/*"))

    # Cells that another machine adds meanwhile stay.
    own = os.environ[CACHE]
    with pytest.raises(KeyboardInterrupt):
        exporter.batch(plan, force=True, workers=1, on_cell=stop)
    monkeypatch.setenv(CACHE, str(tmp_path / "other machine"))
    assert exporter.batch({**plan, "selections": {"four": "3,4"}}).ok
    monkeypatch.setenv(CACHE, own)
    assert len(exporter.batch(plan).reused) >= 2
    assert len(s3.glob("lab/stopped/net/*/*.onnx")) == 4
    assert exporter.verify("s3://lab/stopped").ok


def test_selections_by_url(s3: Any, shelf: Path) -> None:
    url = put(s3, "units.txt", b"1\n3\n")
    for keep in (f"0,@{url}", ["0", f"@{url}"], f"0, @'{url}'"):
        pruned = exporter.prune(shelf / "net.onnx", keep=keep, verify=False)
        assert list(pruned.remap.heads[0].kept) == [0, 1, 3]


@pytest.mark.parametrize("name", ["save", "save_worst"])
def test_files_that_are_only_written_here(name: str, s3: Any, shelf: Path) -> None:
    url = put(s3, "file.npz", b"")
    call: Any = {"save": exporter.bench, "save_worst": exporter.verify}[name]
    with pytest.raises(UsageError, match=f"{name} is s3://lab/file.npz"):
        call(shelf / "net.onnx", shelf / "net.onnx", **{name: url})
