"""A lazy dataclass is a dataclass from its first use on."""

from __future__ import annotations

import dataclasses
import pickle
from dataclasses import field
from typing import Any

import pytest

from exporter.lazy_dataclass import dataclass


@dataclass(frozen=True)
class Point:
    """With a default, and a check."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError


@dataclass
class Shifted:
    """Not frozen."""

    by: int


@dataclasses.dataclass
class Named(Shifted):
    """Derived by the standard decorator."""

    name: str = ""


@dataclass(frozen=True, eq=False)
class Unused:
    """No test makes one."""

    x: int


def test_instances_are_those_of_a_dataclass() -> None:
    assert Point(1) == Point(x=1, y=2)
    assert repr(Point(1, 3)) == "Point(x=1, y=3, tags=[])"
    assert dataclasses.replace(Point(1), y=5) == Point(1, 5)
    assert dataclasses.asdict(Shifted(4)) == {"by": 4}
    with pytest.raises(dataclasses.FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"^$"):
        Point(-1)


def test_fields_of_a_class_without_an_instance() -> None:
    @dataclass(frozen=True)
    class New:
        x: int = 3

    assert [each.name for each in dataclasses.fields(New)] == ["x"]
    assert dataclasses.is_dataclass(New)
    assert New().x == 3


def test_a_derived_class_has_the_fields_of_its_base() -> None:
    assert Named(1, "a") == Named(by=1, name="a")

    class Plain(Shifted):
        pass

    assert Plain(3).by == 3


def test_methods_are_made_at_the_first_use() -> None:
    made: Any = vars(Unused)
    assert "__repr__" not in made
    Unused(1)
    assert "__repr__" in vars(Unused)


@dataclass(frozen=True)
class Sent:
    """Comes from another process: no instance is made here."""

    x: int


def test_instances_from_another_process_are_complete() -> None:
    sent = pickle.PROTO + b"\x04c" + f"{__name__}\nSent\n".encode()
    sent += b")" + pickle.NEWOBJ + b"}U\x01xK\x05s" + pickle.BUILD + pickle.STOP
    one, two = pickle.loads(sent), pickle.loads(sent)  # noqa: S301 - written above
    assert (one.x, repr(one)) == (5, "Sent(x=5)")
    assert one == two
