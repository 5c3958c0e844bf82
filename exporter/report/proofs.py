"""The sentences about what was proved of each file without samples."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.records import Proof, Report


def proofs(report: Report) -> list[str]:
    """A sentence for each result and the files that have it."""
    found: dict[str, list[str]] = {}
    for artifact in report.artifacts:
        for text in _proof(artifact.proof) if artifact.proof else ():
            found.setdefault(text, []).append(artifact.path)
    return [f"{text}: {', '.join(paths)}" for text, paths in found.items()]


def _proof(proof: Proof) -> Iterator[str]:
    if proof.result == "proved":
        yield "proved, equal to the cut made again from the original"
    elif proof.result == "sampled":
        yield f"compared on samples only, {proof.reason}"
    if proof.probe:
        yield f"probe of the head, {proof.probe}"
