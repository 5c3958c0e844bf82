"""The new id of each token that is kept."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.errors import UsageError


class NewIds:
    """The new id of each token.

    Args:
        kept: the ids of the kept tokens, in the order of their new ids.
    """

    def __init__(self, kept: Sequence[int]) -> None:
        self.kept = tuple(kept)
        self._new = {old: new for new, old in enumerate(self.kept)}

    def __contains__(self, old: int) -> bool:
        return old in self._new

    def __getitem__(self, old: int) -> int:
        """The new id; UsageError if the token is removed."""
        if old not in self._new:
            raise UsageError(
                f"the tokenizer inserts token {old}, which is not kept",
                "keep it, or use --keep-ids",
            )
        return self._new[old]
