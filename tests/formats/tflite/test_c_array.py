"""C files for a TFLite model: compilers accept them, and a program reads the model from them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import ModelError
from exporter.formats.tflite.c_array import identifier, sources
from exporter.remap import HeadRemap, Origin, Remap
from tests.builders.commands import exporter
from tests.builders.onnx_models import classifier as onnx_classifier
from tests.builders.tflite_builder import classifier

COMPILERS = {
    "C99": ("cc", "-std=c99", ".c"),
    "C11": ("cc", "-std=c11", ".c"),
    "C++11": ("c++", "-std=c++11", ".cpp"),
}
ODD_LABELS = ["plain", 'a "quote"', "back\\slash", "tab\tnew\nline", "Käse 1", "??/trigraph", ""]


def head(
    labels: list[str] | None, new_to_old: tuple[int | tuple[int, ...], ...], output: str = "y"
) -> HeadRemap:
    merged = any(isinstance(place, tuple) for place in new_to_old)
    groups = {f"group {i}": place for i, place in enumerate(new_to_old) if isinstance(place, tuple)}
    kept = tuple(u for p in new_to_old for u in (p if isinstance(p, tuple) else (p,)))
    return HeadRemap(
        name=output,
        output=output,
        axis=1,
        part=None,
        mode="slice",
        activation="softmax",
        old_units=20,
        new_units=len(new_to_old),
        kept=kept,
        new_to_old=new_to_old,
        labels=None if labels is None else tuple(labels),
        options={"merge": groups} if merged else {},
    )


def remap(*heads: HeadRemap) -> Remap:
    return Remap(Origin("net.tflite", None), None, heads)


PROGRAM = """
#include <stdio.h>
#include "{name}.h"

int main(void) {{
  size_t i;
  printf("%lu %lu\\n", (unsigned long){name}_len, (unsigned long)((uintptr_t){name} % 16));
  for (i = 0; i < {name}_len; i++) printf("%02x", {name}[i]);
  printf("\\n");
  {body}
  return 0;
}}
"""
LABELS = """
  for (i = 0; i < {upper}_UNITS; i++) {{
    const char *c;
    for (c = {name}_labels[i]; *c; c++) printf("%02x", (unsigned char)*c);
    printf(" %ld\\n", (long){name}_new_to_old[i]);
  }}
"""
MERGED = """
  for (i = 0; i < {upper}_UNITS; i++) {{
    int32_t j;
    for (j = {name}_new_to_old_start[i]; j < {name}_new_to_old_start[i + 1]; j++)
      printf("%ld ", (long){name}_new_to_old[j]);
    printf("\\n");
  }}
"""


def built(folder: Path, files: Mapping[str, str], body: str, standard: str) -> list[str]:
    """The lines that a program prints that is linked with the files."""
    compiler, option, suffix = COMPILERS[standard]
    found = shutil.which(compiler)
    if found is None:
        pytest.skip(f"there is no {compiler}")
    header = next(name for name in files if name.endswith(".h"))
    for name, text in files.items():
        target = folder / (name if name.endswith(".h") else f"model{suffix}")
        target.write_text(text, "ascii")
    name = header.removesuffix(".h")
    body = body.format(name=name, upper=name.upper())
    (folder / f"main{suffix}").write_text(PROGRAM.format(name=name, body=body))
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    inputs = [f"main{suffix}", f"model{suffix}"]
    subprocess.run([found, option, *strict, *inputs, "-o", "program"], cwd=folder, check=True)
    said = subprocess.run([folder / "program"], check=True, capture_output=True, text=True)
    return said.stdout.splitlines()


@pytest.mark.parametrize("standard", COMPILERS)
def test_a_program_reads_the_content_of_the_file(standard: str, tmp_path: Path) -> None:
    content = classifier().content("y") + b"\xff\x00\x01"  # not a multiple of a line
    new_to_old = (4, 0, 19, 3, 7, 8, 9)
    files = sources(content, "small-1.int8.tflite", remap(head(ODD_LABELS, new_to_old)))
    assert list(files) == ["small_1_int8_tflite.h", "small_1_int8_tflite.c"]
    size, data, *units = built(tmp_path, files, LABELS, standard)
    assert size == f"{len(content)} 0"
    assert bytes.fromhex(data) == content
    labels = [(bytes.fromhex(line.split(" ")[0]), int(line.split(" ")[1])) for line in units]
    assert labels == [(t.encode(), u) for t, u in zip(ODD_LABELS, new_to_old, strict=True)]


def test_merged_units_name_all_their_members(tmp_path: Path) -> None:
    files = sources(b"abc", "m.tflite", remap(head(None, (2, (3, 5, 7), 11))))
    assert built(tmp_path, files, MERGED, "C99")[2:] == ["2 ", "3 5 7 ", "11 "]
    assert "labels" not in files["m_tflite.h"]


def test_heads_with_different_units_have_separate_tables(tmp_path: Path) -> None:
    heads = (head(["a", "b"], (0, 1)), head(["a", "b"], (0, 1), "z"), head(None, (5,), "other:0"))
    files = sources(b"abc", "m.tflite", remap(*heads))
    built(tmp_path, files, LABELS, "C++11")
    text = files["m_tflite.h"]
    assert "M_TFLITE_UNITS 2" in text
    assert "M_TFLITE_OTHER_0_UNITS 1" in text
    assert "m_tflite_z" not in text


def test_without_a_remap_there_is_only_the_model(tmp_path: Path) -> None:
    files = sources(b"\x00" * 40, "m.tflite", None)
    assert built(tmp_path, files, "", "C99")[0] == "40 0"
    assert "UNITS" not in files["m_tflite.h"]


def test_a_label_with_a_nul_is_refused() -> None:
    with pytest.raises(ModelError, match="contains a NUL"):
        sources(b"abc", "m.tflite", remap(head(["a\0b"], (0,))))


NAMES = {
    "small.tflite": "small_tflite",
    "pruned.int8.tflite": "pruned_int8_tflite",
    "9 lives.tflite": "model_9_lives_tflite",
    "_x.tflite": "x_tflite",
    "Käse.tflite": "K_se_tflite",
    "": "model",
    "…": "model",
}


@pytest.mark.parametrize("file_name", NAMES)
def test_identifiers(file_name: str) -> None:
    assert identifier(file_name) == NAMES[file_name]


def test_a_file_name_cannot_end_its_comment(tmp_path: Path) -> None:
    for name in ("a*/ int x; /*.tflite", "new\nline.tflite", "ü??/.tflite"):
        files = sources(b"abc", name, remap(head(None, (0,), "*/ out")))
        assert all(text.isascii() for text in files.values())
        assert built(tmp_path, files, "", "C++11")[0] == "3 0"


# --- the commands ---------------------------------------------------------------------------------


def recorded(record: Mapping[str, Any], folder: Path) -> list[str]:
    """The names of the C files in a report; size and hash of each are checked."""
    rows = [row for row in record["artifacts"] if row["kind"] == "c-array"]
    for row in rows:
        content = (folder / row["path"]).read_bytes()
        assert row["bytes"] == len(content)
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
    return [row["path"] for row in rows]


def net(folder: Path) -> Path:
    path = folder / "net.tflite"
    path.write_bytes(classifier(units=6).content("y"))
    return path


def test_prune_writes_the_c_files_next_to_the_artifact(tmp_path: Path) -> None:
    net(tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\nf\n")
    line = "prune net.tflite -o small.tflite --keep e,b --labels labels.txt --to c-array"
    done = exporter(line, tmp_path)
    assert done.code == 0, done.err
    texts = {n: (tmp_path / n).read_text() for n in ("small_tflite.h", "small_tflite.c")}
    size, data, *units = built(tmp_path, texts, LABELS, "C99")
    content = (tmp_path / "small.tflite").read_bytes()
    assert size == f"{len(content)} 0"
    assert bytes.fromhex(data) == content
    assert units == ["62 1", "65 4"]


def test_c_files_that_exist_are_not_replaced(tmp_path: Path) -> None:
    net(tmp_path)
    (tmp_path / "small_tflite.c").write_text("mine")
    line = "prune net.tflite -o small.tflite --keep 1-2 --to c-array"
    done = exporter(f"{line} --json", tmp_path)
    assert done.code == 6
    assert "small_tflite.c exists" in done.record["error"]
    assert (tmp_path / "small_tflite.c").read_text() == "mine"
    assert not (tmp_path / "small.tflite").exists()
    assert exporter(f"{line} --force", tmp_path).code == 0
    assert "small_tflite_len" in (tmp_path / "small_tflite.c").read_text()


def test_run_writes_the_c_files_into_its_folder(tmp_path: Path) -> None:
    net(tmp_path)
    done = exporter("run net.tflite -o out --keep 1-2 --to c-array --no-bench", tmp_path)
    assert done.code == 0, done.err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"pruned.fp32.tflite", "pruned_fp32_tflite.h", "pruned_fp32_tflite.c"} <= written


def test_reports_list_the_c_files(tmp_path: Path) -> None:
    """Each file with size and hash; the table of quality and size has no row for them."""
    net(tmp_path)
    made_up = "--synthetic-calibration --no-bench"
    line = f"run net.tflite -o out --keep 1-2 --precision fp32,int8 --to c-array {made_up}"
    assert exporter(line, tmp_path).code == 0
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    files = recorded(record, tmp_path / "out")
    assert files == [f"pruned_{p}_tflite.{c}" for p in ("fp32", "int8") for c in "hc"]
    rows = {row["path"]: row["precision"] for row in record["artifacts"]}
    assert rows["pruned_int8_tflite.c"] == "int8"
    assert [row["precision"] for row in record["precisions"]] == ["fp32", "int8"]
    assert "pruned_int8_tflite.h" in (tmp_path / "out" / "report.md").read_text()
    for line in (
        f"quantize net.tflite -o small.tflite --precision int8 {made_up} --integer-io",
        "prune net.tflite -o small.tflite --keep 1-2 --force",
    ):
        done = exporter(f"{line} --to c-array --json", tmp_path)
        assert done.code == 0, done.err
        assert recorded(done.record, tmp_path) == ["small_tflite.h", "small_tflite.c"]


def test_c_files_are_requested_together_with_the_model(tmp_path: Path) -> None:
    net(tmp_path)
    done = exporter("quantize net.tflite -o small.c --precision dynamic", tmp_path)
    assert done.code == 2
    assert "--to c-array" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["net.tflite"]


def test_quantize_writes_the_c_files_with_the_table_of_the_cut(tmp_path: Path) -> None:
    net(tmp_path)
    done = exporter("prune net.tflite -o cut.tflite --keep 1,4", tmp_path)
    assert done.code == 0, done.err
    line = "quantize cut.tflite -o small.tflite --precision dynamic --no-bench --to c-array"
    done = exporter(line, tmp_path)
    assert done.code == 0, done.err
    texts = {n: (tmp_path / n).read_text() for n in ("small_tflite.h", "small_tflite.c")}
    content = (tmp_path / "small.tflite").read_bytes()
    assert bytes.fromhex(built(tmp_path, texts, "", "C99")[1]) == content
    assert "SMALL_TFLITE_UNITS 2" in texts["small_tflite.h"]
    assert "  1, 4,\n" in texts["small_tflite.c"]


def test_convert_writes_the_c_files(keras_shelf: Path, tmp_path: Path) -> None:
    """An uncut model has no table."""
    line = f"convert {keras_shelf / 'net.keras'} -o whole.tflite --to c-array --no-verify"
    done = exporter(line, tmp_path)
    assert done.code == 0, done.err
    texts = {n: (tmp_path / n).read_text() for n in ("whole_tflite.h", "whole_tflite.c")}
    content = (tmp_path / "whole.tflite").read_bytes()
    assert bytes.fromhex(built(tmp_path, texts, "", "C99")[1]) == content
    assert "UNITS" not in texts["whole_tflite.h"]


CUT = "--keep 1-2"


@pytest.mark.parametrize(
    "line",
    [
        f"prune net.onnx -o o.onnx {CUT}",
        f"run net.onnx -o o {CUT}",
        "quantize net.onnx -o o.onnx --precision fp16",
    ],
)
def test_other_formats_have_no_c_files(line: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(onnx_classifier().to_bytes())
    done = exporter(f"{line} --to c-array", tmp_path)
    assert done.code == 2, done.err
    assert "TFLite" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_c_files_of_an_uncut_copy_have_a_table(tmp_path: Path) -> None:
    """The file is copied byte for byte and contains no remap; the C files have one."""
    net(tmp_path)
    done = exporter("prune net.tflite -o small.tflite --keep 0-5 --to c-array", tmp_path)
    assert done.code == 0, done.err
    texts = {n: (tmp_path / n).read_text() for n in ("small_tflite.h", "small_tflite.c")}
    assert "SMALL_TFLITE_UNITS 6" in texts["small_tflite.h"]
    assert "  0, 1, 2, 3, 4, 5,\n" in texts["small_tflite.c"]
