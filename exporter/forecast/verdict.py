"""The verdict on a cut, in words: one clause about the file, one about the latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Source = Literal["counted", "measured"]

SAME_SIZE = 0.005  # share of the file; a smaller change is not worth a number
MEASURABLE = 0.02  # share of the latency; a smaller change is lost in the noise of most machines
NOISY = 0.1  # width of the interval of a measured share; a wider one bounds little
CACHE_BYTES = 1 << 19  # of a small processor
REUSE = 8  # multiply-adds for each byte of the weights; with more, reading them costs little
FASTER = 1.10  # from this speedup on, a factor is easier to read than a percentage


@dataclass(frozen=True)
class LatencyBound:
    """How much faster a model can become by a cut, by Amdahl's law.

    With the share s of the work in the head, and the fraction f of that share that is kept, the
    speedup is at most 1 / (1 - s * (1 - f)): the work of all other operations does not change.
    G. M. Amdahl, "Validity of the single processor approach to achieving large scale computing
    capabilities", AFIPS 1967.

        LatencyBound(share=0.5, kept=0.1).speedup  # 1.82

    The law assumes that each multiply-add takes the same time. If weights do not fit into a cache
    and are used only once, as in a dense layer, the processor waits for them. Then the speedup can
    be larger: keeping a tenth of 50,000 units was 19 times as fast, not 10.

    Attributes:
        share: s, from 0 to 1; None if the work of an operation is not known.
        kept: f; 1 if the cut removes no work.
        source: s is a share of the multiply-adds ("counted"), or of the latency ("measured").
        head_bytes: of the weights of the uncut head.
        head_multiply_adds: of the uncut head; None if they are not known.
        interval: 95 % interval of a measured share; s is its upper end, so that the bound holds.
            None if the share was counted.
    """

    share: float | None
    kept: float
    source: Source = "counted"
    head_bytes: int = 0
    head_multiply_adds: int | None = None
    interval: tuple[float, float] | None = None

    @property
    def is_strict(self) -> bool:
        """Does the processor not wait for the weights, so that the speedup cannot be larger?"""
        is_reused = (self.head_multiply_adds or 0) >= REUSE * self.head_bytes
        return self.head_bytes <= CACHE_BYTES or is_reused

    @property
    def is_noisy(self) -> bool:
        """Was the share measured on a machine that is too busy for a useful bound?"""
        return self.interval is not None and self.interval[1] - self.interval[0] > NOISY

    @property
    def saved(self) -> float | None:
        """The share of the work that the cut removes; None if it is not known."""
        return None if self.share is None else self.share * max(0.0, 1 - self.kept)

    @property
    def speedup(self) -> float | None:
        """The largest speedup, original / pruned; None if it is not known."""
        return None if self.saved is None else 1 / (1 - self.saved)


@dataclass(frozen=True)
class Change:
    """The numbers that a verdict is made from.

    Attributes:
        bytes: of the file after the cut.
        original_bytes: of the uncut file; None if there is none, as for a live model.
        bound: of the latency.
    """

    bytes: int
    original_bytes: int | None
    bound: LatencyBound

    @property
    def growth(self) -> float:
        """The relative change of the size; 0 if it is not known."""
        return self.bytes / self.original_bytes - 1 if self.original_bytes else 0.0

    @property
    def share(self) -> float:
        """The head's share of the work; 0 if it is not known."""
        return self.bound.share or 0.0

    @property
    def saved(self) -> float:
        """The removed share of the work; 0 if it is not known."""
        return self.bound.saved or 0.0

    @property
    def reason(self) -> str:
        work = "multiply-adds" if self.bound.source == "counted" else "measured time"
        if self.share < MEASURABLE or self.saved > self.share / 2:
            return f"the head is {percent(self.share)} of the {work}"
        return f"the removed units are {percent(self.saved)} of the {work}"


def verdict(change: Change) -> str:
    """The first clause of each table that applies.

    verdict(change)  # "saves 41 % of the file; latency will not change measurably: the head is ..."
    """
    return f"{_first(FILE, change)}; {_first(LATENCY, change)}"


def joint_verdict(changes: Mapping[str, Change]) -> tuple[str, ...]:
    """The verdict on several files of one cut, in few lines.

        joint_verdict({"onnx fp32": first, "onnx int8": second})
        # ("saves 41 % (onnx fp32) to 79 % (onnx int8) of the file; latency will not change ...",)

    Args:
        changes: name of a file -> its change; at least one.
    """
    size = _first(FILE, *changes.values()) or _range(changes)
    latency = _first(LATENCY, *changes.values())
    if latency is not None:
        return (f"{size}; {latency}",)
    return (size, *(f"{name}: {_first(LATENCY, each)}" for name, each in changes.items()))


def _range(changes: Mapping[str, Change]) -> str:
    """The smallest and the largest change of the size."""
    by_growth = sorted(changes, key=lambda name: changes[name].growth)
    low, high = by_growth[0], by_growth[-1]
    texts = {name: f"{percent(abs(changes[name].growth))} ({name})" for name in (low, high)}
    if changes[high].growth < 0:
        return f"saves {texts[high]} to {texts[low]} of the file"
    if changes[low].growth > 0:
        return f"the file becomes {texts[low]} to {texts[high]} larger"
    return f"from {texts[low]} smaller to {texts[high]} larger"


def percent(share: float) -> str:
    """0.42 %, 4.2 %, 42 %: two digits."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"  # noqa: PLR2004


Clause = tuple[Callable[[Change], bool], Callable[[Change], str]]


def _first(clauses: tuple[Clause, ...], *changes: Change) -> str | None:
    """The text of the first clause that applies; None if it is not the same for all changes."""
    texts = {next(text(each) for applies, text in clauses if applies(each)) for each in changes}
    return texts.pop() if len(texts) == 1 else None


def _always(_: Change) -> bool:
    return True


FILE: tuple[Clause, ...] = (
    (lambda c: c.original_bytes is None, lambda _: "the size of an uncut file is not known"),
    (lambda c: abs(c.growth) < SAME_SIZE, lambda _: "the file keeps its size"),
    (lambda c: c.growth > 0, lambda c: f"the file becomes {percent(c.growth)} larger"),
    (_always, lambda c: f"saves {percent(-c.growth)} of the file"),
)

LATENCY: tuple[Clause, ...] = (
    (
        lambda c: c.bound.share is None,
        lambda _: "no bound of the latency: the file does not show the work of every operation",
    ),
    (lambda c: c.bound.kept >= 1, lambda _: "latency will not change: no work is removed"),
    (
        lambda c: c.saved < MEASURABLE and c.bound.is_strict,
        lambda c: f"latency will not change measurably: {c.reason}",
    ),
    (lambda c: c.saved < MEASURABLE, lambda c: f"latency will hardly change: {c.reason}"),
    (
        lambda c: c.bound.is_strict and 1 / (1 - c.saved) < FASTER,
        lambda c: f"latency falls by at most {percent(c.saved)}: {c.reason}",
    ),
    (
        lambda c: c.bound.is_strict,
        lambda c: f"at most {1 / (1 - c.saved):.2g} times as fast: {c.reason}",
    ),
    (
        _always,
        lambda c: (
            f"about {1 / (1 - c.saved):.2g} times as fast, or more: {c.reason}, and its "
            f"{c.bound.head_bytes / 1e6:.2g} MB of weights exceed small caches"
        ),
    ),
)
