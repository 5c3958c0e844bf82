"""The tokens that byte-pair encoding needs to make other tokens.

A text is split into symbols, and the pair of neighbors with the lowest rank is merged until no
merge applies. A token can be made only if each token on its way can. No other token is needed: a
merge across the end of a token that a text contains was never applied in it, so the merges of the
kept tokens are applied in the same order as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple


class Merge(NamedTuple):
    """Two neighbors that become one token."""

    left: str
    right: str


class Merges:
    """The merges of a `tokenizer.json`.

    Args:
        model: the entry "model" of the file, of the type BPE.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        pairs = (each.split(" ") if isinstance(each, str) else each for each in model["merges"])
        self.pairs = [Merge(*pair) for pair in pairs]
        self._rank = {pair: i for i, pair in enumerate(self.pairs)}
        self._prefix = model.get("continuing_subword_prefix") or ""
        self._suffix = model.get("end_of_word_suffix") or ""

    def result(self, pair: Merge) -> str:
        """The token that a merge makes."""
        return pair.left + pair.right.removeprefix(self._prefix)

    def needed(self, token: str) -> set[str]:
        """All tokens on the way to a token, the symbols that it starts from too."""
        symbols = self._symbols(token)
        found = set(symbols)
        while len(symbols) > 1:
            pairs = [Merge(*pair) for pair in pairwise(symbols)]
            ranks = [self._rank.get(pair, len(self.pairs)) for pair in pairs]
            first = min(ranks)
            if first == len(self.pairs):
                break
            at = ranks.index(first)
            symbols[at : at + 2] = [self.result(pairs[at])]
            found.add(symbols[at])
        return found

    def closed(self, tokens: Iterable[str]) -> set[str]:
        """The tokens, and all that they need."""
        return {each for token in tokens for each in (token, *self.needed(token))}

    def within(self, tokens: set[str]) -> list[Merge]:
        """The merges whose parts and results are among these tokens, in the order of their rank."""
        return [pair for pair in self.pairs if {*pair, self.result(pair)} <= tokens]

    def _symbols(self, token: str) -> list[str]:
        """The characters of a token, with the prefix or suffix that the vocabulary writes."""
        inner = self._prefix and token.startswith(self._prefix)
        rest = token.removeprefix(self._prefix) if inner else token
        ends = self._suffix and rest.endswith(self._suffix) and rest != self._suffix
        letters: Sequence[str] = rest.removesuffix(self._suffix) if ends else rest
        symbols = [
            letter if not i and not inner else self._prefix + letter
            for i, letter in enumerate(letters)
        ]
        if ends:
            symbols[-1] += self._suffix
        return symbols
