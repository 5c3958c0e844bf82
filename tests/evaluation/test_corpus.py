"""Tokens that occur in a text, with byte and special tokens always kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from exporter.data.tokenizer import find_tokenizer
from exporter.errors import UsageError
from exporter.evaluation.corpus import count_tokens
from exporter.evaluation.criteria import Criteria, decide
from exporter.evaluation.unit_table import count_table
from tests.builders.tokenizers import WORDS, byte_level, word_level

TEXT = "the cat sat\n\nthe dog sat the fish\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT)
    return path


def test_counts(corpus: Path) -> None:
    """Words that are not in the vocabulary are [UNK]."""
    found = count_tokens(corpus, find_tokenizer(corpus, None, word_level(corpus.parent)), 13)
    known = Counter(word if word in WORDS else "[UNK]" for word in TEXT.split())
    assert found.counts.tolist() == [*(known[word] for word in WORDS), 0, 0]
    assert found.lines == 2


def test_counts_of_bytes(corpus: Path) -> None:
    found = count_tokens(corpus, find_tokenizer(corpus, None, byte_level(corpus.parent)), 259)
    assert found.counts[258] == TEXT.count("the")
    assert found.counts[257] == 0  # "th" alone
    assert found.counts.sum() == sum(len(x) for x in TEXT.split("\n")) - 2 * TEXT.count("the")


def test_every_decision_has_a_reason_and_a_number(corpus: Path) -> None:
    tokenizer = find_tokenizer(corpus, None, word_level(corpus.parent))
    counts, _ = count_tokens(corpus, tokenizer, len(WORDS))
    rows = count_table(dict(enumerate(counts.tolist())), len(WORDS), WORDS)
    decisions = decide(rows, Criteria((("count", 2),)), always=tokenizer.fixed)
    reasons = {WORDS[each.unit]: (each.kept, each.reason) for each in decisions}
    assert reasons["[PAD]"] == (True, "special token, count 0")
    assert reasons["[UNK]"] == (True, "special token, count 1")
    assert reasons["the"] == (True, "count 3 >= 2")
    assert reasons["cat"] == (False, "count 1 < 2")
    assert sum(each.kept for each in decisions) == 5 + 2  # "the" and "sat"


def test_refused(corpus: Path) -> None:
    tokenizer = find_tokenizer(corpus, None, word_level(corpus.parent))
    with pytest.raises(UsageError, match="has 11 tokens, and the head 10 units"):
        count_tokens(corpus, tokenizer, 10)
    corpus.write_text(" \n")
    with pytest.raises(UsageError, match="contains no text"):
        count_tokens(corpus, tokenizer, 11)
