"""The execution providers of onnxruntime and the delegates of LiteRT, by the user's name.

A provider is NAME or NAME:KEY=VALUE,KEY=VALUE. "" is the default of a runtime: the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.errors import UsageError

_SUFFIX = "ExecutionProvider"
CPU = "CPU" + _SUFFIX
_LIBRARIES = (".so", ".dll", ".dylib")
_RESOLVERS = {"builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
_DEFAULTS = ("", "cpu", "xnnpack")


def split_provider(text: str) -> tuple[str, dict[str, str]]:
    """The name, and the options (raises UsageError if the text has another form)."""
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",")] if rest else []
    if (text and not name) or not all(key and separator for key, separator, _ in pairs):
        raise UsageError(
            f"{text!r} is no provider", "write NAME, or NAME:KEY=VALUE,KEY=VALUE for its options"
        )
    return name, {key: value for key, _, value in pairs}


def onnx_providers(text: str, available: Sequence[str]) -> list[Any]:
    """The providers for `onnxruntime.InferenceSession`. The processor takes what is not supported.

    Args:
        text: of the user.
        available: `onnxruntime.get_available_providers()`.

    Raises:
        UsageError: this build of onnxruntime does not have it.
    """
    name, options = split_provider(text or "cpu")
    short = {each.replace(_SUFFIX, "").lower(): each for each in available}
    found = short.get(name.lower().replace(_SUFFIX.lower(), ""))
    if found is None:
        raise UsageError(
            f"this build of onnxruntime has no provider {name!r}", f"it has {', '.join(short)}"
        )
    return [(found, options), *([] if found == CPU else [CPU])]


def check_active(session: Any, wanted: Sequence[Any]) -> None:
    """Refuse a session whose provider did not start: onnxruntime then uses the processor only."""
    name = wanted[0][0]
    if name not in session.get_providers():
        raise UsageError(
            f"onnxruntime could not start the {name}",
            "check that its libraries and its device are there",
        )


def litert_arguments(text: str, module: Any) -> dict[str, Any]:
    """The arguments of the `Interpreter` of a module of LiteRT.

    Args:
        text: of the user: cpu or xnnpack (the default), builtin, reference, or the library of a
            delegate.

    Raises:
        UsageError: there is no such delegate, or its library cannot be loaded.
    """
    name, options = split_provider(text)
    if name in _DEFAULTS:
        return {}
    if name in _RESOLVERS:
        resolvers = module.OpResolverType
        return {"experimental_op_resolver_type": getattr(resolvers, _RESOLVERS[name])}
    if not any(part in name for part in (*_LIBRARIES, "/")):
        known = ", ".join((*_DEFAULTS[1:], *_RESOLVERS))
        raise UsageError(
            f"this build of LiteRT has no provider {name!r}",
            f"it has {known}; or name the library of a delegate, such as libedgetpu.so.1",
        )
    try:
        return {"experimental_delegates": [module.load_delegate(name, options)]}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"LiteRT cannot load the delegate {name}: {' '.join(str(error).split())}",
            "check its path and its device",
        ) from error


def engine_text(runtime: str, provider: str) -> str:
    """The name of a runtime in records, with a provider that is not the default."""
    return f"{runtime}, {provider}" if provider else runtime
