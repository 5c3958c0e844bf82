"""The devices that a job names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from exporter.devices.address import Address, parse_address
from exporter.devices.device import Device
from exporter.errors import UsageError


class Fleet:
    """The devices of a job, which are connected when they are used first. A context manager."""

    def __init__(self, addresses: Sequence[str], benchmark_model: Path | None = None) -> None:
        """Check the addresses (raises UsageError).

        Args:
            benchmark_model: the program that is sent to Android devices.
        """
        self._addresses = [parse_address(text) for text in addresses]
        self._benchmark_model = benchmark_model
        self._connected: dict[str, Device] = {}
        names = [address.name for address in self._addresses]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"the device {twice} is named twice", "name it once")

    def __bool__(self) -> bool:
        return bool(self._addresses)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        while self._connected:
            self._connected.popitem()[1].close()

    def devices(self, kinds: tuple[str, ...] = (), needed_bytes: int = 0) -> Iterator[Device]:
        """The devices, connected.

        Args:
            kinds: of the models, so far as they are known.
            needed_bytes: of the files that will be sent.

        Raises:
            DeviceError: one of them cannot be reached, or lacks something.
        """
        for address in self._addresses:
            if address.name not in self._connected:
                self._connected[address.name] = self._connect(address, kinds, needed_bytes)
            yield self._connected[address.name]

    def _connect(self, address: Address, kinds: tuple[str, ...], needed_bytes: int) -> Device:
        if address.scheme == "adb":
            from exporter.devices.adb import AdbDevice  # noqa: PLC0415 - only for Android

            return AdbDevice(address, self._benchmark_model)
        from exporter.devices.ssh import SshDevice  # noqa: PLC0415 - only for ssh

        return SshDevice(address, kinds, needed_bytes)
