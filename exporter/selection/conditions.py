"""Conditions that choose units while a model runs, for example "logit > 0" or "top:3".

    COND := [probability|logit|abs] (>|>=|<|<=) NUMBER | top:K

`logit` is the value before the last activation, `abs` its magnitude, `probability` the value after
the activation. Without a name, the condition compares the probability after a softmax or sigmoid,
otherwise the logit. `top:K` chooses the K largest logits; of equal ones those with lower indices.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from exporter.errors import UsageError

Subject = Literal["probability", "logit", "abs"]
Comparison = Literal[">", ">=", "<", "<="]

SUBJECTS: tuple[Subject, ...] = ("probability", "logit", "abs")
COMPARISONS: tuple[Comparison, ...] = (">=", "<=", ">", "<")  # the parser tries them in this order
PROBABILITY_ACTIVATIONS = frozenset({"softmax", "sigmoid"})

_WORD = re.compile(r"[A-Za-z_]\w*")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_COUNT = re.compile(r"\d{1,18}")
_HINT = "write [probability|logit|abs] (>|>=|<|<=) NUMBER, or top:K"


@dataclass(frozen=True)
class Threshold:
    """Compare a value of each unit with a number.

    Attributes:
        subject: which value; None for the one that the output contains.
        number: finite.
    """

    subject: Subject | None
    comparison: Comparison
    number: float

    def __str__(self) -> str:
        compared = f"{self.comparison} {self.number!r}"
        return f"{self.subject} {compared}" if self.subject else compared

    def subject_for(self, activation: str) -> Subject:
        """Which value is compared in a head with this activation.

        Raises:
            UsageError: the condition compares a probability; the activation returns none.
        """
        if self.subject == "probability" and activation not in PROBABILITY_ACTIVATIONS:
            raise UsageError(
                f"the condition {str(self)!r} compares a probability; {activation} returns none",
                "compare logit or abs",
            )
        return self.subject or ("probability" if activation in PROBABILITY_ACTIVATIONS else "logit")


@dataclass(frozen=True)
class LargestUnits:
    """The units with the largest logits.

    Attributes:
        count: how many, at least 1.
    """

    count: int

    def __str__(self) -> str:
        return f"top:{self.count}"

    def check_units(self, units: int) -> None:
        """Raise UsageError if there are fewer units than the condition chooses."""
        if self.count > units:
            raise UsageError(
                f"the condition {str(self)!r} chooses {self.count} of {units} units",
                f"write at most top:{units}",
            )


Condition = Threshold | LargestUnits


def parse_condition(text: str) -> Condition:
    """Parse a condition.

    Raises:
        UsageError: a syntax error, with the position of the character; or a condition that chooses
            no unit, or does not depend on the values (`top:0`, `probability > 2`).
    """
    return _Parser(text).condition()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.skip_space()

    def condition(self) -> Condition:
        start = self.position
        word = self.take(_WORD)
        if word == "top":
            return self.top()
        subject = next((known for known in SUBJECTS if known == word), None)
        if word and subject is None:
            self.fail(f"{word!r} is not a value to compare", start)
        found = next((c for c in COMPARISONS if self.text.startswith(c, self.position)), None)
        if found is None:
            self.fail("expected one of > >= < <=")
        self.position += len(found)
        self.skip_space()
        start = self.position
        number = float(self.take(_NUMBER) or self.fail("expected a number"))
        if not math.isfinite(number):
            self.fail("the number is too large", start)
        if subject == "probability" and not 0.0 <= number <= 1.0:
            self.fail("a probability is between 0 and 1", start)
        self.expect_end()
        return Threshold(subject, found, number)

    def top(self) -> LargestUnits:
        if not self.text.startswith(":", self.position):
            self.fail("expected a colon and a whole number")
        self.position += 1
        self.skip_space()
        start = self.position
        count = int(self.take(_COUNT) or self.fail("expected a whole number"))
        if not count:
            self.fail("at least one unit must be chosen", start)
        self.expect_end()
        return LargestUnits(count)

    def take(self, pattern: re.Pattern[str]) -> str:
        """Consume the text that the pattern matches here, and white space after it; "" if none."""
        match = pattern.match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        self.skip_space()
        return match[0]

    def skip_space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def expect_end(self) -> None:
        if self.position < len(self.text):
            self.fail(f"{self.text[self.position :].rstrip()!r} follows the end of the condition")

    def fail(self, fact: str, position: int | None = None) -> NoReturn:
        character = (self.position if position is None else position) + 1
        raise UsageError(f"the condition {self.text!r}, at character {character}: {fact}", _HINT)
