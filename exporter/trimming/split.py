"""Calibration and held-out samples, which never overlap."""

from __future__ import annotations

import hashlib

from exporter.data.samples import Samples
from exporter.graph import Array


def split_samples(samples: Samples, share: float) -> tuple[Samples, Samples]:
    """The samples to calibrate on, and those to measure on.

    Their content decides, not their order: equal samples are on the same side.

    Args:
        share: of the samples that are held out.
    """
    digests = [_digest(feed) for feed in samples.feeds()]
    order = sorted(range(len(digests)), key=lambda i: (digests[i], i))
    count = round(share * len(order))
    while 0 < count < len(order) and digests[order[count]] == digests[order[count - 1]]:
        count += 1
    return samples.at(sorted(order[count:])), samples.at(sorted(order[:count]))


def _digest(feed: dict[str, Array]) -> bytes:
    found = hashlib.sha256()
    for name in sorted(feed):
        values = feed[name]
        found.update(f"{name} {values.dtype} {values.shape} ".encode())
        found.update(values.tobytes() if not values.dtype.hasobject else repr(values).encode())
    return found.digest()
