"""A child process for many tests: starting one means importing TensorFlow, which takes seconds."""

from __future__ import annotations

from exporter.conversion.process import Child


class SharedChild(Child):
    """A child that a `with` block does not end; `close` does."""

    def __exit__(self, *_: object) -> None:
        """Keep the process for the next test."""
