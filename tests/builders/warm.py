"""Import what commands import, before a process forks for each of them."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import exporter

_LIBRARIES = (
    "PIL.Image",
    "ai_edge_litert.interpreter",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "onnxruntime",
    "onnxruntime.quantization",
    "rich._emoji_codes",
    "scipy.stats",
    "sklearn.metrics",
)
# TensorFlow is imported there, and by the process that starts when `__main__` is imported.
_LEFT_OUT = ("__main__", "conversion", "formats.keras", "formats.savedmodel", "layers")


def import_commands() -> None:
    """Import every module of the package that needs no TensorFlow, and the libraries of commands.

    A command in a fork then takes half the time.
    """
    left_out = tuple(f"exporter.{name}" for name in _LEFT_OUT)
    package = Path(exporter.__file__).parent
    paths = (path.relative_to(package.parent) for path in sorted(package.glob("**/*.py")))
    modules = (".".join(path.with_suffix("").parts) for path in paths if path.stem != "__init__")
    import_modules([*_LIBRARIES, *(each for each in modules if not each.startswith(left_out))])


def import_modules(modules: Iterable[str]) -> None:
    for module in modules:
        with suppress(ImportError):  # a minimal environment has no optional libraries
            import_module(module)
    gc.freeze()  # else each fork copies all pages when it collects
