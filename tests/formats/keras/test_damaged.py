"""Keras files that want to reach outside of themselves, or that no reader survives."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from exporter.conversion.process import Child
from exporter.conversion.remote import open_keras
from exporter.errors import ModelError
from exporter.formats.model import RunOptions
from tests.builders import commands

Members = dict[str, bytes]
KERNEL = "layers/dense/vars/0"  # of the first layer, (4, 5)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole files of one model, and what bad ones point to."""
    made = tmp_path_factory.mktemp("bad")
    keras.utils.set_random_seed(1)
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, activation="softmax", name="y")(layers.Dense(5, name="h")(x))
    model = keras.Model(x, y, name="net")
    model.save(made / "net.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras dislikes this kind of file
        model.save(made / "net.h5")
    with h5py.File(made / "outside.h5", "w") as file:
        file["values"] = np.full((4, 5), 7.0, np.float32)
    (made / "outside.bin").write_bytes(np.full((4, 5), 7.0, np.float32).tobytes())
    (made / "vocabulary.txt").write_text("one\ntwo\n")
    (made / "outside_module.py").write_text(f"open({str(made / 'imported')!r}, 'w')\n")
    return made


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def put(path: Path, *contents: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents:
            archive.writestr(name, content)


def with_weights(whole: Members, folder: Path, change: Callable[[Any, Path], None]) -> Members:
    """The weights in the archive, changed."""
    path = folder / "weights.h5"
    path.write_bytes(whole["model.weights.h5"])
    with h5py.File(path, "r+") as file:
        change(file, folder)
    return {**whole, "model.weights.h5": path.read_bytes()}


def with_layer(whole: Members, **entries: Any) -> Members:
    """Entries of the first Dense's configuration, or (with a module) of the layer itself."""
    config = json.loads(whole["config.json"])
    layer = config["config"]["layers"][1]
    if "module" in entries:
        inner = {"name": "h", **entries.pop("config", {})}
        layer.update({"config": inner, "registered_name": None, **entries})
    else:
        layer["config"].update(entries)
    return {**whole, "config.json": json.dumps(config).encode()}


def _link(file: Any, folder: Path) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink(str(folder / "outside.h5"), "/values")


def _raw(file: Any, folder: Path) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (4, 5), "f4", external=[(str(folder / "outside.bin"), 0, 80)])


def _virtual(file: Any, folder: Path) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((4, 5), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "outside.h5"), "values", shape=(4, 5))
    file.create_virtual_dataset(KERNEL, layout)


def _function(module: str, name: str) -> dict[str, str]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


Make = Callable[[Members, Path], Members]


def _with_vocabulary(kind: str) -> Make:
    def make(whole: Members, folder: Path) -> Members:
        told = {"vocabulary": str(folder / "vocabulary.txt")}
        return with_layer(whole, module="keras.layers", class_name=kind, config=told)

    return make


REFUSED: Mapping[str, tuple[Make, str]] = {
    "a way out": (
        lambda whole, _: {**whole, "../out.txt": b"out"},
        "holds '../out.txt', which leads out of it",
    ),
    "a place of its own": (
        lambda whole, folder: {**whole, f"{folder}/out.txt": b"out"},
        "out.txt', which leads out of it",
    ),
    "out of its assets": (
        lambda whole, _: {**whole, "assets/../../out.txt": b"out"},
        "which leads out of it",
    ),
    "metadata no JSON": (
        lambda whole, _: {**whole, "metadata.json": b"{"},
        "metadata.json is not JSON",
    ),
    "metadata a list": (
        lambda whole, _: {**whole, "metadata.json": b"[]"},
        "metadata.json is not a JSON object",
    ),
    "configuration a number": (
        lambda whole, _: {**whole, "config.json": b"3"},
        "config.json is not a JSON object",
    ),
    "weights no HDF5": (
        lambda whole, _: {**whole, "model.weights.h5": b"none"},
        "its weights are no HDF5 file",
    ),
    "external link": (
        lambda whole, folder: with_weights(whole, folder, _link),
        f"'/{KERNEL}' lies in another file, which is not read",
    ),
    "external values": (
        lambda whole, folder: with_weights(whole, folder, _raw),
        f"'/{KERNEL}' lies in another file",
    ),
    "virtual dataset": (
        lambda whole, folder: with_weights(whole, folder, _virtual),
        f"'/{KERNEL}' lies in another file",
    ),
    "a path as a name": (
        lambda whole, _: with_layer(whole, name="../../out"),
        "a Dense is called '../../out', and Keras allows no slash",
    ),
    "unknown layer": (
        lambda whole, _: with_layer(whole, module="keras.layers", class_name="Nonesuch"),
        "Keras cannot load .*'keras.layers.Nonesuch'",
    ),
    "a module beside it": (
        lambda whole, _: with_layer(whole, module="outside_module", class_name="Dense"),
        "layer 'h' is of the custom class 'Dense'",
    ),
    "a function of a module beside it": (
        lambda whole, _: with_layer(whole, activation=_function("outside_module", "f")),
        "needs the custom function 'f'",
    ),
    "a function of Python": (
        lambda whole, _: with_layer(whole, activation=_function("builtins", "exec")),
        "Could not locate function 'exec'",
    ),
    "a function of Keras that downloads": (
        lambda whole, _: with_layer(whole, activation=_function("keras.utils", "get_file")),
        "Keras cannot load .*get_file",
    ),
    "another model": (
        lambda whole, folder: with_layer(
            whole, module="keras.layers", class_name="TFSMLayer", config={"filepath": str(folder)}
        ),
        "layer 'h' is a TFSMLayer, which runs code of its own",
    ),
    "vocabulary of words": (
        _with_vocabulary("StringLookup"),
        "layer 'h' takes its vocabulary from the file '.*vocabulary.txt', which is not read",
    ),
    "vocabulary of numbers": (_with_vocabulary("IntegerLookup"), "takes its vocabulary from"),
    "vocabulary of texts": (_with_vocabulary("TextVectorization"), "takes its vocabulary from"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(child: Child, folder: Path, tmp_path: Path, make: Make, message: str) -> None:
    path = tmp_path / "net.keras"
    put(path, *make(members(folder / "net.keras"), folder).items())
    with pytest.raises(ModelError, match=message) as raised:
        open_keras(path, child)
    assert "\n" not in raised.value.message
    assert not (folder / "imported").exists()
    assert not list(folder.parent.rglob("out.txt"))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_that_is_there_twice(child: Child, folder: Path, tmp_path: Path) -> None:
    whole = members(folder / "net.keras")
    put(tmp_path / "net.keras", *whole.items(), ("config.json", whole["config.json"]))
    with pytest.raises(ModelError, match=r"holds 'config\.json' twice"):
        open_keras(tmp_path / "net.keras", child)


def _hdf5(folder: Path, path: Path, change: Callable[[Any], None]) -> None:
    path.write_bytes((folder / "net.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)


def test_values_of_an_old_file_that_lie_elsewhere(
    child: Child, folder: Path, tmp_path: Path
) -> None:
    def change(file: Any) -> None:
        del file["model_weights/h/h/kernel"]
        layout = h5py.VirtualLayout((4, 5), "f4")
        layout[:] = h5py.VirtualSource(str(folder / "outside.h5"), "values", shape=(4, 5))
        file.create_virtual_dataset("model_weights/h/h/kernel", layout)

    _hdf5(folder, tmp_path / "net.h5", change)
    with pytest.raises(ModelError, match="'/model_weights/h/h/kernel' lies in another file"):
        open_keras(tmp_path / "net.h5", child)


def test_a_vocabulary_of_keras_2(child: Child, folder: Path, tmp_path: Path) -> None:
    def change(file: Any) -> None:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["vocabulary"] = str(folder / "vocabulary.txt")
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"

    _hdf5(folder, tmp_path / "net.h5", change)
    with pytest.raises(ModelError, match="takes its vocabulary from the file"):
        open_keras(tmp_path / "net.h5", child)


# --- must be opened -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["99.0.0", "banana", 7])
def test_odd_versions(child: Child, folder: Path, tmp_path: Path, version: Any) -> None:
    """The version only says how to read a file; these are read as those of Keras 3 are."""
    whole = members(folder / "net.keras")
    metadata = {**json.loads(whole["metadata.json"]), "keras_version": version}
    archive = {**whole, "metadata.json": json.dumps(metadata).encode(), "notes.txt": b"mine"}
    put(tmp_path / "net.keras", *archive.items())
    _hdf5(folder, tmp_path / "net.h5", lambda file: file.attrs.update(keras_version=version))
    x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    expected = open_keras(folder / "net.keras", child).runner(RunOptions())({"x": x})["y"]
    for name in ("net.keras", "net.h5"):
        answer = open_keras(tmp_path / name, child).runner(RunOptions())({"x": x})["y"]
        np.testing.assert_array_equal(answer, expected)


def test_groups_that_hold_themselves(child: Child, folder: Path, tmp_path: Path) -> None:
    def change(file: Any) -> None:
        file["model_weights/soft"] = h5py.SoftLink("/model_weights")
        file["model_weights/nowhere"] = h5py.SoftLink("/nowhere")
        file["model_weights/hard"] = file["model_weights"]

    _hdf5(folder, tmp_path / "net.h5", change)
    assert open_keras(tmp_path / "net.h5", child).graph().outputs == ("y",)


# --- as commands ----------------------------------------------------------------------------------


def _out_of_hdf5(file: Any, folder: Path) -> None:
    del file["model_weights/h/h/kernel"]
    file["model_weights/h/h/kernel"] = h5py.ExternalLink(str(folder / "nowhere.h5"), "/values")


def _without_weights(whole: Members, _folder: Path) -> Members:
    return {name: content for name, content in whole.items() if name != "model.weights.h5"}


# command -> how its input was made, the file's name, and what the error starts with
COMMANDS: Mapping[str, tuple[Callable[[Any, Path], Any], str, str]] = {
    "inspect net.keras": (
        _without_weights,
        "net.keras",
        "net.keras is not a .keras archive: it holds no model.weights.h5",
    ),
    "convert net.keras -o net.onnx": (
        REFUSED["a way out"][0],
        "net.keras",
        "net.keras holds '../out.txt', which leads out of it",
    ),
    "run net.keras -o out --keep 0": (
        REFUSED["a path as a name"][0],
        "net.keras",
        "net.keras: a Dense is called '../../out', and Keras allows no slash",
    ),
    "prune net.keras -o cut.keras --keep 0": (
        REFUSED["vocabulary of words"][0],
        "net.keras",
        "net.keras: layer 'h' takes its vocabulary from the file '",
    ),
    "convert net.keras -o net.tflite": (
        REFUSED["a module beside it"][0],
        "net.keras",
        "net.keras: layer 'h' is of the custom class 'Dense'",
    ),
    "run net.h5 -o out --keep 0 --to onnx": (
        _out_of_hdf5,
        "net.h5",
        "net.h5: '/model_weights/h/h/kernel' lies in another file, which is not read",
    ),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_refuse(folder: Path, tmp_path: Path, line: str) -> None:
    """Exit code 3, one line and a hint; nothing is written, and what is pointed to is not there."""
    make, name, message = COMMANDS[line]
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    if name.endswith(".h5"):
        (work / name).write_bytes((folder / "net.h5").read_bytes())
        with h5py.File(work / name, "r+") as file:
            make(file, elsewhere)
    else:
        put(work / name, *make(members(folder / "net.keras"), elsewhere).items())
    done = commands.exporter(line, work)
    assert (done.code, done.out) == (3, "")
    errors = [told for told in done.err.splitlines() if not told.endswith(" ...")]
    assert errors[0].startswith(f"error: {message}")
    assert [told.partition(": ")[0] for told in errors] == ["error", "hint"]
    assert [path.name for path in work.iterdir()] == [name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work", "work-tmp"]
    assert not list((tmp_path / "work-tmp").iterdir())


def test_a_command_opens_what_a_stranger_version_wrote(folder: Path, tmp_path: Path) -> None:
    """A version that nobody knows, and a member that nobody reads."""
    whole = members(folder / "net.keras")
    metadata = {**json.loads(whole["metadata.json"]), "keras_version": ["banana"]}
    told = {"metadata.json": json.dumps(metadata).encode(), "notes.txt": b"mine"}
    put(tmp_path / "net.keras", *(whole | told).items())
    done = commands.exporter("prune net.keras -o cut.keras --keep 0,2 --json", tmp_path)
    assert (done.code, done.record["ok"]) == (0, True)
    assert set(members(tmp_path / "cut.keras")) == set(whole)


# --- what kills its reader ------------------------------------------------------------------------

FLIP = """
import sys
from pathlib import Path
from exporter.formats.keras.files import check_hdf5
content, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for place in range(900, 1500):
    flipped = bytearray(content)
    flipped[place] ^= 0xFF
    path.write_bytes(flipped)
    try:
        check_hdf5(path, lambda name: True)
    except Exception:
        pass
path.unlink()
"""


def test_a_byte_that_kills_the_reader(folder: Path, tmp_path: Path) -> None:
    """The first such byte of this version's files is looked for; the command outlives it."""
    path = tmp_path / "flipped.h5"
    subprocess.run(
        [sys.executable, "-c", FLIP, str(folder / "net.h5"), str(path)],
        capture_output=True,
        check=False,
        timeout=120,
    )
    if not path.exists():
        pytest.skip("this version of HDF5 survives each of these bytes")
    done = commands.exporter("inspect flipped.h5 --json", tmp_path)
    assert done.code == 5
    assert done.record["exit"] == 5
    assert done.record["error"].startswith("opening flipped.h5: the process that does it was kill")
    assert done.record["error"].endswith("killed by SIGSEGV")
