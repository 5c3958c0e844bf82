"""The conditions by which units are chosen while a model runs: one language, as plain data.

    COND := [probability|logit|abs] (>|>=|<|<=) NUMBER | top:K

`logit` is z, the value before the last activation, `abs` its magnitude, and `probability` what the
activation makes of z. Without a name the value is what the output shows: the probability behind a
softmax or sigmoid, else the logit. `top:K` are the K largest z; of equal ones the lower index.
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
COMPARISONS: tuple[Comparison, ...] = (">=", "<=", ">", "<")  # as they are looked for
PROBABLE = frozenset({"softmax", "sigmoid"})  # activations behind which values are probabilities

_WORD = re.compile(r"[A-Za-z_]\w*")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_COUNT = re.compile(r"\d{1,18}")
_HINT = "write [probability|logit|abs] (>|>=|<|<=) NUMBER, or top:K"


@dataclass(frozen=True)
class Threshold:
    """Units whose value stands on one side of a number.

    Attributes:
        subject: which value; None for the one that the output shows.
        number: finite.
    """

    subject: Subject | None
    comparison: Comparison
    number: float

    def __str__(self) -> str:
        compared = f"{self.comparison} {self.number!r}"
        return f"{self.subject} {compared}" if self.subject else compared

    def seen(self, activation: str) -> Subject:
        """Which value is compared behind this activation.

        Raises:
            UsageError: a probability where the activation makes none.
        """
        if self.subject == "probability" and activation not in PROBABLE:
            raise UsageError(
                f"the condition {str(self)!r} asks for a probability, which {activation} does not "
                "make",
                "compare the logit, or its abs",
            )
        return self.subject or ("probability" if activation in PROBABLE else "logit")


@dataclass(frozen=True)
class LargestUnits:
    """The units with the largest logits.

    Attributes:
        count: how many, at least 1.
    """

    count: int

    def __str__(self) -> str:
        return f"top:{self.count}"

    def fit(self, units: int) -> None:
        """Refuse to choose more units than there are (UsageError)."""
        if self.count > units:
            raise UsageError(
                f"the condition {str(self)!r} chooses {self.count} of {units} units",
                f"write at most top:{units}",
            )


Condition = Threshold | LargestUnits


def parse_condition(text: str) -> Condition:
    """What a condition says.

    Raises:
        UsageError: it does not parse, with the character at which it stops doing so; or it can
            never choose (`top:0`, a probability that is compared with a number beyond 0 to 1).
    """
    return _Reader(text).condition()


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.skip()

    def condition(self) -> Condition:
        start = self.place
        word = self.take(_WORD)
        if word == "top":
            return self.top()
        subject = next((known for known in SUBJECTS if known == word), None)
        if word and subject is None:
            self.fail(f"{word!r} is no value to compare", start)
        found = next((c for c in COMPARISONS if self.text.startswith(c, self.place)), None)
        if found is None:
            self.fail("expected one of > >= < <=")
        self.place += len(found)
        self.skip()
        start = self.place
        number = float(self.take(_NUMBER) or self.fail("expected a number"))
        if not math.isfinite(number):
            self.fail("the number is too large", start)
        if subject == "probability" and not 0.0 <= number <= 1.0:
            self.fail("a probability lies between 0 and 1", start)
        self.end()
        return Threshold(subject, found, number)

    def top(self) -> LargestUnits:
        if not self.text.startswith(":", self.place):
            self.fail("expected a colon and a whole number")
        self.place += 1
        self.skip()
        start = self.place
        count = int(self.take(_COUNT) or self.fail("expected a whole number"))
        if not count:
            self.fail("at least one unit must be chosen", start)
        self.end()
        return LargestUnits(count)

    def take(self, pattern: re.Pattern[str]) -> str:
        """What the pattern matches here, and the place behind it; "" where it does not."""
        match = pattern.match(self.text, self.place)
        if match is None:
            return ""
        self.place = match.end()
        self.skip()
        return match[0]

    def skip(self) -> None:
        while self.place < len(self.text) and self.text[self.place].isspace():
            self.place += 1

    def end(self) -> None:
        if self.place < len(self.text):
            self.fail(f"{self.text[self.place :].rstrip()!r} stands behind its end")

    def fail(self, fact: str, place: int | None = None) -> NoReturn:
        at = (self.place if place is None else place) + 1
        raise UsageError(f"the condition {self.text!r}, at character {at}: {fact}", _HINT)
