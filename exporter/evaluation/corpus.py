"""How often each token occurs in a text, and which tokens are kept whatever their count."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from exporter.data.text import text_batches
from exporter.data.tokenizer import Tokenizer
from exporter.errors import UsageError
from exporter.graph import Array


class TokenCounts(NamedTuple):
    """The tokens of a corpus.

    Attributes:
        counts: (units,) int64, how often each token occurs.
        lines: of the corpus, without blank ones.
    """

    counts: Array
    lines: int


def count_tokens(path: Path, tokenizer: Tokenizer, units: int) -> TokenCounts:
    """Count the tokens of a text file; it is read in parts.

    For example, "the cat sat, the dog ran" contains the token "the" twice.

    Args:
        units: of the head. It may have more units than there are tokens: they have a count of 0.

    Raises:
        UsageError: the file is no text or empty, or the tokenizer has more tokens than units.
    """
    if len(tokenizer.tokens) > units:
        raise UsageError(
            f"{tokenizer.path} has {len(tokenizer.tokens)} tokens, and the head {units} units",
            "give the tokenizer of this model with --tokenizer",
        )
    counts, lines = np.zeros(units, np.int64), 0
    for batch in text_batches(path):
        lines += len(batch)
        ids = [i for each in tokenizer.ids(batch) for i in each]
        counts += np.bincount(np.asarray(ids, np.int64), minlength=units)
    if not counts.any():
        raise UsageError(f"{path} contains no text", "give a text with the words to keep")
    return TokenCounts(counts, lines)
