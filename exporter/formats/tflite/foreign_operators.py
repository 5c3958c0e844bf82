"""Operators that LiteRT does not contain: what they are, and what the user can do about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from exporter.errors import ModelError


class Compiled(NamedTuple):
    """A part of a network that was compiled for one processor."""

    processor: str
    compiler: str


COMPILED: Mapping[str, Compiled] = {
    "edgetpu-custom-op": Compiled("the Edge TPU", "edgetpu_compiler"),
    "ethos-u": Compiled("the Ethos-U", "vela"),
    "DISPATCH_OP": Compiled("one NPU", "the ahead-of-time compiler"),
}
"""Custom operator -> what it is compiled for."""

_FROZEN = (
    "convert the model again: TFLiteConverter.from_keras_model and from_saved_model freeze its "
    "weights"
)
FLEX = "Flex"  # the names of TensorFlow's operators begin with it


def reason_and_hint(operator: str) -> tuple[str, str] | None:
    """Why an operator is not traced; None if it does not belong to another runtime."""
    if operator in COMPILED:
        processor, compiler = COMPILED[operator]
        return (
            f"it is compiled for {processor}, and its weights cannot be read",
            f"cut the file before {compiler}, then compile the result",
        )
    if operator == "READ_VARIABLE":
        return "its variable is not assigned one constant in the file", _FROZEN
    if operator.startswith(FLEX):
        return (
            f"it is TensorFlow's {operator.removeprefix(FLEX)}, and there is no rule for it",
            "cut the Keras model or SavedModel, or convert it with builtin operators only",
        )
    return None


def cannot_run(name: str, operators: Iterable[str], message: str) -> ModelError:
    """The error for a file that LiteRT cannot run.

    Args:
        name: of the file.
        operators: the names of its custom operators.
        message: of LiteRT.
    """
    custom = tuple(dict.fromkeys(operators))
    for operator in custom:
        if operator in COMPILED:
            processor, compiler = COMPILED[operator]
            return ModelError(
                f"LiteRT cannot run {name}: {operator!r} is compiled for {processor}",
                f"cut the file before {compiler}, then compile the result; or give --no-verify: "
                "the operators after it are cut, and nothing is run",
            )
    if flex := ", ".join(each for each in custom if each.startswith(FLEX)):
        return ModelError(
            f"LiteRT cannot run {name}: it contains operators of TensorFlow ({flex})",
            "give --no-verify, which cuts the file and runs nothing, and check the result with "
            "tf.lite.Interpreter; or convert the model with builtin operators only",
        )
    unknown = next((each for each in custom if each in message), None)
    hint = f"{unknown!r} is an operator of another runtime: give --no-verify, which runs nothing"
    return ModelError(f"LiteRT cannot run {name}: {message}", hint if unknown else "")
