"""Write `requirements/`: the exact versions of all dependencies that are installed here.

Each file includes the one before it, so that each version is listed once. Run `make pins` in an
environment in which `make check` has passed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parent.parent
HEAVY = {"tensorflow", "tf2onnx", "litert-quantizer", "onnx-ir"} | {
    *("scikit-learn", "scipy", "pycocotools", "rapidfuzz"),
    *("pyarrow", "sentencepiece", "tokenizers", "soundfile", "matplotlib", "pandas"),
    *("aiohttp", "fsspec"),
    "distributed",
}

HEADS = {
    "no-tensorflow.txt": "# Run time without TensorFlow: for .onnx and .tflite models.",
    "run.txt": "# Run time, complete.\n-r no-tensorflow.txt",
    "dev.txt": "# Run time, tests, checks.\n-r run.txt",
}


def closure(wanted: Iterable[str]) -> set[str]:
    """The canonical names of these requirements and of all their dependencies."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        extras = requirement.extras or {""}
        for text in metadata.requires(name) or []:
            child = Requirement(text)
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(child)
    return found


def group(project: dict[str, list[str | dict[str, str]]], name: str) -> list[str]:
    """The requirements of a dependency group, included groups too."""
    result: list[str] = []
    for entry in project[name]:
        result += [entry] if isinstance(entry, str) else group(project, entry["include-group"])
    return result


def pins() -> dict[str, str]:
    """File name -> its contents."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    own = project["project"]["name"]
    wanted = [text for each in extras.values() for text in each if not text.startswith(own)]
    run = project["project"]["dependencies"] + wanted
    light = [text for text in run if canonicalize_name(Requirement(text).name) not in HEAVY]
    sets = [light, run, run + group(project["dependency-groups"], "dev")]
    result, above = {}, set[str]()
    for (file, head), requirements in zip(HEADS.items(), sets, strict=True):
        names = closure(requirements)
        lines = [f"{name}=={metadata.version(name)}" for name in sorted(names - above)]
        result[file] = "\n".join([head, *lines, ""])
        above |= names
    return result


if __name__ == "__main__":
    for file, text in pins().items():
        (PROJECT / "requirements" / file).write_text(text, "utf-8")
