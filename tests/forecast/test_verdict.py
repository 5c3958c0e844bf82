"""The verdict in words, and the bound that it uses, compared with values computed by hand."""

from __future__ import annotations

import pytest

from exporter.forecast.verdict import Change, LatencyBound, joint_verdict, percent, verdict


@pytest.mark.parametrize(
    ("share", "kept", "saved", "speedup"),
    [
        pytest.param(0.0, 0.1, 0.0, 1.0, id="no work in the head"),
        pytest.param(0.5, 1.0, 0.0, 1.0, id="everything kept"),
        pytest.param(0.5, 1.2, 0.0, 1.0, id="added work is no speedup"),
        pytest.param(0.5, 0.5, 0.25, 4 / 3, id="half of half"),
        pytest.param(0.8, 0.25, 0.6, 2.5, id="most"),
        pytest.param(1.0, 0.1, 0.9, 10.0, id="the head is the model"),
    ],
)
def test_bound(share: float, kept: float, saved: float, speedup: float) -> None:
    """Amdahl: a run takes 1 - share for the body and share * kept for the head."""
    bound = LatencyBound(share, kept)
    assert bound.saved == pytest.approx(saved)
    assert bound.speedup == pytest.approx(speedup)


def test_an_unknown_share_has_no_bound() -> None:
    assert LatencyBound(None, 0.5).saved is None
    assert LatencyBound(None, 0.5).speedup is None


FILES = [
    pytest.param(1000, None, "the size of an uncut file is not known", id="live model"),
    pytest.param(1000, 1000, "the file keeps its size", id="same"),
    pytest.param(996, 1000, "the file keeps its size", id="nearly the same"),
    pytest.param(1004, 1000, "the file keeps its size", id="nearly the same, larger"),
    pytest.param(1030, 1000, "the file becomes 3 % larger", id="larger"),
    pytest.param(590, 1000, "saves 41 % of the file", id="smaller"),
    pytest.param(993, 1000, "saves 0.7 % of the file", id="slightly smaller"),
]


@pytest.mark.parametrize(("size", "before", "expected"), FILES)
def test_file(size: int, before: int | None, expected: str) -> None:
    assert verdict(Change(size, before, LatencyBound(0.0, 1.0))).startswith(f"{expected}; ")


LATENCIES = [
    pytest.param(
        LatencyBound(None, 0.1),
        "no bound of the latency: the file does not show the work of every operation",
        id="unknown",
    ),
    pytest.param(
        LatencyBound(0.5, 1.0), "latency will not change: no work is removed", id="mode zero"
    ),
    pytest.param(
        LatencyBound(0.004, 0.1),
        "latency will not change measurably: the head is 0.4 % of the multiply-adds",
        id="small head",
    ),
    pytest.param(
        LatencyBound(0.5, 0.99),
        "latency will not change measurably: the removed units are 0.5 % of the multiply-adds",
        id="large head, few units removed",
    ),
    pytest.param(
        LatencyBound(0.06, 0.1),
        "latency falls by at most 5.4 %: the head is 6 % of the multiply-adds",
        id="percent",
    ),
    pytest.param(
        LatencyBound(0.6, 0.9),
        "latency falls by at most 6 %: the removed units are 6 % of the multiply-adds",
        id="percent, few units removed",
    ),
    pytest.param(
        LatencyBound(0.58, 0.1),
        "at most 2.1 times as fast: the head is 58 % of the multiply-adds",
        id="factor",
    ),
    pytest.param(
        LatencyBound(0.58, 0.1, head_bytes=1 << 19),
        "at most 2.1 times as fast: the head is 58 % of the multiply-adds",
        id="factor, the head fits into a cache",
    ),
    pytest.param(
        LatencyBound(0.58, 0.1, head_bytes=1 << 20, head_multiply_adds=8 << 20),
        "at most 2.1 times as fast: the head is 58 % of the multiply-adds",
        id="factor, each weight is used several times",
    ),
    pytest.param(
        LatencyBound(0.006, 0.1, head_bytes=1_029_028, head_multiply_adds=256_256),
        "latency will hardly change: the head is 0.6 % of the multiply-adds",
        id="small share, the processor waits for weights",
    ),
    pytest.param(
        LatencyBound(0.58, 0.1, head_bytes=51_200_000),
        "about 2.1 times as fast, or more: the head is 58 % of the multiply-adds, and its 51 MB of "
        "weights exceed small caches",
        id="factor, the head does not fit into a cache",
    ),
    pytest.param(
        LatencyBound(1.0, 0.1, "measured"),
        "at most 10 times as fast: the head is 100 % of the measured time",
        id="measured",
    ),
    pytest.param(
        LatencyBound(0.001, 0.1, "measured"),
        "latency will not change measurably: the head is 0.1 % of the measured time",
        id="measured, small",
    ),
]


@pytest.mark.parametrize(("bound", "expected"), LATENCIES)
def test_latency(bound: LatencyBound, expected: str) -> None:
    assert verdict(Change(590, 1000, bound)) == f"saves 41 % of the file; {expected}"


def changes(*sizes: int, share: float = 0.0) -> dict[str, Change]:
    """Files a, b, ... that had 1000 bytes each."""
    bound = LatencyBound(share, 0.5)
    return {chr(97 + i): Change(size, 1000, bound) for i, size in enumerate(sizes)}


SMALL = "latency will not change measurably: the head is 0 % of the multiply-adds"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param((590,), "saves 41 % of the file", id="one"),
        pytest.param((590, 591), "saves 41 % of the file", id="the same"),
        pytest.param((210, 590, 300), "saves 41 % (b) to 79 % (a) of the file", id="range"),
        pytest.param((1010, 1100), "the file becomes 1 % (a) to 10 % (b) larger", id="larger"),
        pytest.param((590, 1100), "from 41 % (a) smaller to 10 % (b) larger", id="both"),
    ],
)
def test_sizes_of_several_files(sizes: tuple[int, ...], expected: str) -> None:
    assert joint_verdict(changes(*sizes)) == (f"{expected}; {SMALL}",)


def test_latencies_that_differ_get_a_line_each() -> None:
    slow = Change(590, 1000, LatencyBound(0.58, 0.1))
    assert joint_verdict({**changes(590), "slow": slow}) == (
        "saves 41 % of the file",
        f"a: {SMALL}",
        "slow: at most 2.1 times as fast: the head is 58 % of the multiply-adds",
    )


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, "0 %"),
        (0.0042, "0.42 %"),
        (0.042, "4.2 %"),
        (0.42, "42 %"),
        (0.994, "99 %"),
        (0.996, "100 %"),
        (1.5, "150 %"),
    ],
)
def test_percent(share: float, expected: str) -> None:
    assert percent(share) == expected
