"""Keras files that refer to other files or code, and files that crash their reader."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two valid files of one model, and the targets of links in bad files."""
    made = tmp_path_factory.mktemp("bad")
    keras.utils.set_random_seed(1)
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, activation="softmax", name="y")(layers.Dense(5, name="h")(x))
    model = keras.Model(x, y, name="net")
    model.save(made / "net.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras warns about HDF5
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


def write_archive(path: Path, *contents: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents:
            archive.writestr(name, content)


def with_weights(archive: Members, folder: Path, change: Callable[[Any, Path], None]) -> Members:
    """The weights in the archive, changed."""
    path = folder / "weights.h5"
    path.write_bytes(archive["model.weights.h5"])
    with h5py.File(path, "r+") as file:
        change(file, folder)
    return {**archive, "model.weights.h5": path.read_bytes()}


def with_layer(archive: Members, **entries: Any) -> Members:
    """Change settings of the first Dense, or (with a module) the whole layer."""
    config = json.loads(archive["config.json"])
    layer = config["config"]["layers"][1]
    if "module" in entries:
        inner = {"name": "h", **entries.pop("config", {})}
        layer.update({"config": inner, "registered_name": None, **entries})
    else:
        layer["config"].update(entries)
    return {**archive, "config.json": json.dumps(config).encode()}


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
    def make(archive: Members, folder: Path) -> Members:
        settings = {"vocabulary": str(folder / "vocabulary.txt")}
        return with_layer(archive, module="keras.layers", class_name=kind, config=settings)

    return make


REFUSED: Mapping[str, tuple[Make, str]] = {
    "path out of the archive": (
        lambda archive, _: {**archive, "../out.txt": b"out"},
        "contains '../out.txt', a path outside of the archive",
    ),
    "absolute path": (
        lambda archive, folder: {**archive, f"{folder}/out.txt": b"out"},
        "out.txt', a path outside of the archive",
    ),
    "path out of the assets": (
        lambda archive, _: {**archive, "assets/../../out.txt": b"out"},
        "a path outside of the archive",
    ),
    "metadata is not JSON": (
        lambda archive, _: {**archive, "metadata.json": b"{"},
        "metadata.json is not JSON",
    ),
    "metadata is a list": (
        lambda archive, _: {**archive, "metadata.json": b"[]"},
        "metadata.json is not a JSON object",
    ),
    "configuration is a number": (
        lambda archive, _: {**archive, "config.json": b"3"},
        "config.json is not a JSON object",
    ),
    "weights are not HDF5": (
        lambda archive, _: {**archive, "model.weights.h5": b"none"},
        "net.keras is damaged or truncated: h5py reports: ",
    ),
    "external link": (
        lambda archive, folder: with_weights(archive, folder, _link),
        f"'/{KERNEL}' is stored in another file, which is not read",
    ),
    "external values": (
        lambda archive, folder: with_weights(archive, folder, _raw),
        f"'/{KERNEL}' is stored in another file",
    ),
    "virtual dataset": (
        lambda archive, folder: with_weights(archive, folder, _virtual),
        f"'/{KERNEL}' is stored in another file",
    ),
    "path as a name": (
        lambda archive, _: with_layer(archive, name="../../out"),
        "a Dense has the name '../../out'; Keras allows no slash",
    ),
    "unknown layer": (
        lambda archive, _: with_layer(archive, module="keras.layers", class_name="Nonesuch"),
        "Keras cannot load .*'keras.layers.Nonesuch'",
    ),
    "module next to it": (
        lambda archive, _: with_layer(archive, module="outside_module", class_name="Dense"),
        "layer 'h' is of the custom class 'Dense'",
    ),
    "function of a module next to it": (
        lambda archive, _: with_layer(archive, activation=_function("outside_module", "f")),
        "needs the custom function 'f'",
    ),
    "function of Python": (
        lambda archive, _: with_layer(archive, activation=_function("builtins", "exec")),
        "Could not locate function 'exec'",
    ),
    "function of Keras that downloads": (
        lambda archive, _: with_layer(archive, activation=_function("keras.utils", "get_file")),
        "Keras cannot load .*get_file",
    ),
    "another SavedModel": (
        lambda archive, folder: with_layer(
            archive, module="keras.layers", class_name="TFSMLayer", config={"filepath": str(folder)}
        ),
        "layer 'h' is a TFSMLayer, which runs custom code",
    ),
    "TensorFlow function of Keras 2": (
        lambda archive, _: with_layer(archive, module="tf_keras", class_name="TFOpLambda"),
        "layer 'h' is a TFOpLambda, which calls a TensorFlow function; Keras 3 has no such layer",
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
    write_archive(path, *make(members(folder / "net.keras"), folder).items())
    with pytest.raises(ModelError, match=message) as raised:
        open_keras(path, child)
    assert "\n" not in raised.value.message
    assert not (folder / "imported").exists()
    assert not list(folder.parent.rglob("out.txt"))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_duplicate_member(child: Child, folder: Path, tmp_path: Path) -> None:
    whole = members(folder / "net.keras")
    write_archive(tmp_path / "net.keras", *whole.items(), ("config.json", whole["config.json"]))
    with pytest.raises(ModelError, match=r"contains 'config\.json' twice"):
        open_keras(tmp_path / "net.keras", child)


def _hdf5(folder: Path, path: Path, change: Callable[[Any], None]) -> None:
    path.write_bytes((folder / "net.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)


def test_values_of_an_hdf5_file_in_another_file(child: Child, folder: Path, tmp_path: Path) -> None:
    def change(file: Any) -> None:
        del file["model_weights/h/h/kernel"]
        layout = h5py.VirtualLayout((4, 5), "f4")
        layout[:] = h5py.VirtualSource(str(folder / "outside.h5"), "values", shape=(4, 5))
        file.create_virtual_dataset("model_weights/h/h/kernel", layout)

    _hdf5(folder, tmp_path / "net.h5", change)
    with pytest.raises(ModelError, match="'/model_weights/h/h/kernel' is stored in another file"):
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


# --- accepted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["99.0.0", "banana", 7])
def test_unusual_versions(child: Child, folder: Path, tmp_path: Path, version: Any) -> None:
    """They are read like files of Keras 3."""
    whole = members(folder / "net.keras")
    metadata = {**json.loads(whole["metadata.json"]), "keras_version": version}
    archive = {**whole, "metadata.json": json.dumps(metadata).encode(), "notes.txt": b"notes"}
    write_archive(tmp_path / "net.keras", *archive.items())
    _hdf5(folder, tmp_path / "net.h5", lambda file: file.attrs.update(keras_version=version))
    x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    expected = open_keras(folder / "net.keras", child).runner(RunOptions())({"x": x})["y"]
    for name in ("net.keras", "net.h5"):
        output = open_keras(tmp_path / name, child).runner(RunOptions())({"x": x})["y"]
        np.testing.assert_array_equal(output, expected)


def test_a_group_linked_below_itself(child: Child, folder: Path, tmp_path: Path) -> None:
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


# command -> how to damage its input, name of the input, start of the error
COMMANDS: Mapping[str, tuple[Callable[[Any, Path], Any], str, str]] = {
    "inspect net.keras": (
        _without_weights,
        "net.keras",
        "net.keras is not a .keras archive: it does not contain model.weights.h5",
    ),
    "convert net.keras -o net.onnx": (
        REFUSED["path out of the archive"][0],
        "net.keras",
        "net.keras contains '../out.txt', a path outside of the archive",
    ),
    "run net.keras -o out --keep 0": (
        REFUSED["path as a name"][0],
        "net.keras",
        "net.keras: a Dense has the name '../../out'; Keras allows no slash",
    ),
    "prune net.keras -o cut.keras --keep 0": (
        REFUSED["vocabulary of words"][0],
        "net.keras",
        "net.keras: layer 'h' takes its vocabulary from the file '",
    ),
    "convert net.keras -o net.tflite": (
        REFUSED["module next to it"][0],
        "net.keras",
        "net.keras: layer 'h' is of the custom class 'Dense'",
    ),
    "run net.h5 -o out --keep 0 --to onnx": (
        _out_of_hdf5,
        "net.h5",
        "net.h5: '/model_weights/h/h/kernel' is stored in another file, which is not read",
    ),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_refuse(folder: Path, tmp_path: Path, line: str) -> None:
    """Exit code 3, one line and a hint; nothing is written."""
    make, name, message = COMMANDS[line]
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    if name.endswith(".h5"):
        (work / name).write_bytes((folder / "net.h5").read_bytes())
        with h5py.File(work / name, "r+") as file:
            make(file, elsewhere)
    else:
        write_archive(work / name, *make(members(folder / "net.keras"), elsewhere).items())
    done = commands.exporter(line, work)
    assert (done.code, done.out) == (3, "")
    errors = [line for line in done.err.splitlines() if not line.endswith(" ...")]
    assert errors[0].startswith(f"error: {message}")
    assert [line.partition(": ")[0] for line in errors] == ["error", "hint"]
    assert [path.name for path in work.iterdir()] == [name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work", "work-tmp"]
    assert not list((tmp_path / "work-tmp").iterdir())


def test_a_command_opens_a_file_of_an_unknown_version(
    command_here: Callable[[str, Path], commands.Done], folder: Path, tmp_path: Path
) -> None:
    """And ignores an additional member."""
    whole = members(folder / "net.keras")
    metadata = {**json.loads(whole["metadata.json"]), "keras_version": ["banana"]}
    changed = {"metadata.json": json.dumps(metadata).encode(), "notes.txt": b"notes"}
    write_archive(tmp_path / "net.keras", *(whole | changed).items())
    done = command_here("prune net.keras -o cut.keras --keep 0,2 --json", tmp_path)
    assert (done.code, done.record["ok"]) == (0, True)
    assert set(members(tmp_path / "cut.keras")) == set(whole)


# --- files that crash their reader ----------------------------------------------------------------

FLIP = """
import sys
from pathlib import Path
from exporter.formats.keras.validate import check_file
content, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for place in range(900, 1500):
    flipped = bytearray(content)
    flipped[place] ^= 0xFF
    path.write_bytes(flipped)
    try:
        check_file(path, lambda name: True)
    except Exception:
        pass
path.unlink()
"""


@pytest.mark.usefixtures("isolated_libraries")
def test_a_byte_that_crashes_the_reader(folder: Path, tmp_path: Path) -> None:
    """Find the first such byte; the command survives it."""
    path = tmp_path / "flipped.h5"
    flipping = subprocess.run(
        [sys.executable, "-c", FLIP, str(folder / "net.h5"), str(path)],
        capture_output=True,
        check=False,
        timeout=120,
    )
    if flipping.returncode == 0:
        pytest.skip("this version of HDF5 crashes on none of these bytes")
    done = commands.exporter("inspect flipped.h5 --json", tmp_path)
    assert done.code == 3
    assert done.record["exit"] == 3
    assert done.record["error"].startswith("h5py reading flipped.h5: the process was killed")
    assert done.record["error"].endswith("killed by SIGSEGV")
