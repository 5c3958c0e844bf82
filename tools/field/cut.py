"""Cut every recorded file with the command line, and check each cut with `check.py`.

Usage: `python cut.py FILES RESULTS.json [NAME ...]`. FILES contains one folder per environment,
each with `files.jsonl`. With names of files or environments, only these are cut again, and the
other rows are kept; `failed` names every file that was not cut.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PYTHON = os.environ.get("FIELD_PYTHON", sys.executable)
TIMEOUT = 900


def kept_units(units: int) -> list[int]:
    """The first, a middle and the last unit; one of two."""
    few: dict[int, list[int]] = {1: [0], 2: [1], 3: [0, 2]}
    return few.get(units) or [0, units // 2, units - 1]


def kind_of(path: Path) -> str:
    """'onnx', 'tflite', 'keras', 'h5' or 'savedmodel'."""
    return "savedmodel" if path.is_dir() else path.suffix.removeprefix(".").replace("hdf5", "h5")


def flags_of(row: Mapping[str, Any]) -> list[str]:
    """The options of a second try: as recorded, and the shape of each input."""
    shapes = row.get("shapes", {}).items()
    return list(row.get("flags", [])) + [
        f for name, dims in shapes for f in ("--input-shape", f"{name}={','.join(map(str, dims))}")
    ]


def command(path: Path, output: Path, row: Mapping[str, Any], flags: Sequence[str]) -> list[str]:
    """The command. SavedModels and Keras files are converted, to ONNX if nothing is stated."""
    target = row.get("to") or {"onnx": "onnx", "tflite": "tflite"}.get(kind_of(path), "onnx")
    start = [PYTHON, "-m", "exporter"]
    if target == path.suffix.removeprefix("."):
        start += ["prune", str(path), "-o", str(output / f"cut.{target}")]
    else:
        start += ["run", str(path), "-o", str(output / "run"), "--to", target, "--no-bench"]
    kept = ",".join(f"{unit}-{unit}" for unit in row["kept"])  # 0 may also be a label
    start += ["--keep", kept, "--json", *flags]
    return start + (["--head", row["name"]] if "name" in row else [])


def cut(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Cut and check one file: without options, and if that is refused, with those of the row."""
    result = cut_with(folder, row, [])
    flags = flags_of(row)
    if result["outcome"] == "refused" and flags:
        return cut_with(folder, row, flags) | {"flags_used": flags}
    return result


def cut_with(folder: Path, row: Mapping[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """Cut and check one file. Returns the row with its outcome."""
    path = folder / row["file"]
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch)
        arguments = command(path, output, row, flags)
        try:
            done = subprocess.run(
                arguments, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return {**row, "outcome": "failed", "sentence": f"not done after {TIMEOUT} s"}
        answer = _json(done.stdout)
        made = [p for p in sorted(output.rglob("*")) if p.suffix in (".onnx", ".tflite", ".keras")]
        if done.returncode not in (0, 1) or not made:
            sentence = answer.get("error") or (done.stderr.strip().splitlines() or [""])[-1]
            outcome = "failed" if done.returncode in (1, 70) else "refused"
            return {
                **row,
                "outcome": outcome,
                "exit": done.returncode,
                "sentence": sentence,
                "hint": answer.get("hint") or "",
            }
        proofs = {a["proof"]["result"] for a in answer["artifacts"] if a.get("proof")}
        result = {
            **row,
            "exit": done.returncode,
            "proof": "proved" if proofs == {"proved"} else "sampled",
        }
        result |= check(path, made[0], output, row)
    if done.returncode == 1:
        failed = [c for c in answer["checks"] if not c["passed"]]
        parts = ("stage", "metric", "value", "limit", "detail")
        note = ", ".join(f"{part} {failed[0].get(part)}" for part in parts) if failed else ""
        outcome = "WRONG" if result["problem"] else "own check failed"
        return {**result, "outcome": outcome, "sentence": note}
    if result["problem"]:
        return {**result, "outcome": "not checked" if result["error"] is None else "WRONG"}
    return {**result, "outcome": "cut and " + result["proof"]}


def check(path: Path, made: Path, output: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Run `check.py` in a process of its own."""
    remap = made.with_name(made.name + ".remap.json")
    remap = remap if remap.exists() else made.with_name("remap.json")
    (output / "row.json").write_text(json.dumps(row))
    arguments = [
        PYTHON,
        str(HERE / "check.py"),
        str(output / "row.json"),
        str(path),
        str(made),
        str(remap),
    ]
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": None, "problem": f"not checked in {TIMEOUT} s"}
    found = _json(done.stdout)
    if not found:
        return {
            "error": None,
            "problem": "not checked: " + (done.stderr.strip().splitlines() or [""])[-1],
        }
    return {"error": found["error"], "problem": found["problem"]}


def _json(text: str) -> dict[str, Any]:
    """The last JSON object of a text."""
    for line in reversed(text.strip().splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {}


def rows_of(files: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every recorded file, with its folder."""
    found = []
    for listing in sorted(files.glob("*/files.jsonl")):
        rows = {}
        for line in listing.read_text().splitlines():
            row = json.loads(line)
            rows[row["file"], row.get("to"), row.get("name")] = (
                row  # a later line replaces an earlier one
            )
        found += [
            (listing.parent, {**row, "environment": listing.parent.name}) for row in rows.values()
        ]
    return found


def main() -> None:
    files, target, names = Path(sys.argv[1]), Path(sys.argv[2]), set(sys.argv[3:])
    old = json.loads(target.read_text()) if target.exists() else []
    results = {key(row): row for row in old}
    for folder, row in rows_of(files):
        outcome = results.get(key(row), {}).get("outcome", "")
        again = {"failed"} if not outcome.startswith("cut") else set()
        if names and not names & {row["file"], row["environment"], *again}:
            continue
        units = row["units"] or row.get("width", 4)
        result = cut(
            folder,
            {
                **row,
                "kept": row.get("kept") or kept_units(units),
                "kind": kind_of(folder / row["file"]),
            },
        )
        results[key(row)] = result
        words = [str(result.get(part, "")) for part in ("outcome", "error", "problem", "sentence")]
        print(f"{row['environment']}/{row['file']}:", *words, flush=True)
        target.write_text(json.dumps(sorted(results.values(), key=key), indent=1) + "\n")


def key(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Identifies a row, and orders the rows."""
    return row["producer"], row["file"], row.get("to") or "", row.get("name") or ""


if __name__ == "__main__":
    main()
