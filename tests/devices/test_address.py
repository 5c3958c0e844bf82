"""Addresses of devices."""

from __future__ import annotations

import pytest

from exporter.devices.address import Address, parse_address
from exporter.devices.fleet import Fleet
from exporter.errors import UsageError

REFUSED = [
    ("", "not the address"),
    ("greenhouse", "not the address"),
    ("http://greenhouse", "not the address"),
    ("ssh://", "not the address"),
    ("ssh://-oProxyCommand=touch", "not the address"),
    ("ssh://pi@-F", "not the address"),
    ("ssh://a b", "not the address"),
    ("ssh://pi;reboot@host", "not the address"),
    ("ssh://host?x=1", "options"),
    ("ssh://host/python -c 1", "program"),
    ("ssh://host/$(reboot)", "program"),
    ("adb://user@serial", "not the address"),
    ("adb://-x", "not the address"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_address(text)


@pytest.mark.parametrize("text", ["ssh://pi:hunter2@host", "http://pi:hunter2@host"])
def test_a_password_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert "hunter2" not in str(caught.value)


READ = [
    ("ssh://host", Address("ssh", "host", None, "", "host")),
    ("ssh://pi@host/", Address("ssh", "pi@host", None, "", "host")),
    ("ssh://pi@host:2222", Address("ssh", "pi@host", 2222, "", "host:2222")),
    ("ssh://host/opt/bin/python3", Address("ssh", "host", None, "/opt/bin/python3", "host")),
    ("ssh://[fe80::1]:22", Address("ssh", "fe80::1", 22, "", "fe80::1:22")),
    ("ssh://fe80::1", Address("ssh", "fe80::1", None, "", "fe80::1")),
    ("adb://R58M123", Address("adb", "R58M123", None, "", "R58M123")),
    ("adb://10.0.0.5:5555", Address("adb", "10.0.0.5:5555", None, "", "10.0.0.5:5555")),
    ("adb://R5/data/b", Address("adb", "R5", None, "/data/b", "R5")),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_read(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


def test_a_device_is_named_once() -> None:
    with pytest.raises(UsageError, match="greenhouse is named twice"):
        Fleet(["ssh://greenhouse", "ssh://pi@greenhouse"])
