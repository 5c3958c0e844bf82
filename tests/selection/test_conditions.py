"""Parsing of conditions: syntax errors with their position, and accepted conditions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.selection.conditions import (
    COMPARISONS,
    SUBJECTS,
    Condition,
    LargestUnits,
    Threshold,
    parse_condition,
)


@pytest.mark.parametrize(
    ("text", "character", "fact"),
    [
        ("", 1, "expected one of > >= < <="),
        ("   ", 4, "expected one of > >= < <="),
        ("0.5", 1, "expected one of > >= < <="),
        ("probability", 12, "expected one of > >= < <="),
        ("probability = 0.5", 13, "expected one of > >= < <="),
        ("probability => 0.5", 13, "expected one of > >= < <="),
        ("probability >> 0.5", 14, "expected a number"),
        ("logit >", 8, "expected a number"),
        ("logit > x", 9, "expected a number"),
        ("logit > nan", 9, "expected a number"),
        ("logit > inf", 9, "expected a number"),
        ("logit > 1e999", 9, "the number is too large"),
        ("logit > 1 2", 11, "'2' follows the end of the condition"),
        ("logit > 1,5", 10, "',5' follows the end of the condition"),
        ("logits > 1", 1, "'logits' is not a value to compare"),
        ("  Probability > 0.1", 3, "'Probability' is not a value to compare"),
        ("probability > 1.5", 15, "a probability is between 0 and 1"),
        ("probability >= -0.1", 16, "a probability is between 0 and 1"),
        ("top", 4, "expected a colon and a whole number"),
        ("top 3", 5, "expected a colon and a whole number"),
        ("top:", 5, "expected a whole number"),
        ("top:0", 5, "at least one unit must be chosen"),
        ("top:00", 5, "at least one unit must be chosen"),
        ("top:-1", 5, "expected a whole number"),
        ("top:2.5", 6, "'.5' follows the end of the condition"),
        ("top:3 units", 7, "'units' follows the end of the condition"),
    ],
)
def test_syntax_errors_show_their_position(text: str, character: int, fact: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_condition(text)
    assert caught.value.message == f"the condition {text!r}, at character {character}: {fact}"
    assert caught.value.hint == "write [probability|logit|abs] (>|>=|<|<=) NUMBER, or top:K"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("probability > 0.2", Threshold("probability", ">", 0.2)),
        ("probability>=.5", Threshold("probability", ">=", 0.5)),
        ("probability <= 1", Threshold("probability", "<=", 1.0)),
        ("logit<-3", Threshold("logit", "<", -3.0)),
        (" abs  >  1e-3 ", Threshold("abs", ">", 0.001)),
        ("> 1.", Threshold(None, ">", 1.0)),
        ("<= +2", Threshold(None, "<=", 2.0)),
        ("top:1", LargestUnits(1)),
        ("top: 12", LargestUnits(12)),
    ],
)
def test_parsed_conditions(text: str, expected: Condition) -> None:
    assert parse_condition(text) == expected


@given(
    st.builds(
        Threshold,
        st.sampled_from([None, *SUBJECTS]),
        st.sampled_from(COMPARISONS),
        st.floats(0.0, 1.0),
    )
    | st.builds(LargestUnits, st.integers(1, 10**6))
)
def test_condition_round_trips_through_str(condition: Condition) -> None:
    assert parse_condition(str(condition)) == condition


@pytest.mark.parametrize(
    ("subject", "activation", "compared"),
    [
        (None, "softmax", "probability"),
        (None, "sigmoid", "probability"),
        (None, "linear", "logit"),
        (None, "relu", "logit"),
        ("logit", "softmax", "logit"),
        ("abs", "linear", "abs"),
        ("probability", "sigmoid", "probability"),
    ],
)
def test_compared_value(subject: None, activation: str, compared: str) -> None:
    assert Threshold(subject, ">", 0.5).subject_for(activation) == compared


def test_probability_needs_an_activation_that_returns_one() -> None:
    with pytest.raises(UsageError, match=r"'probability > 0\.5' compares a probability; linear"):
        Threshold("probability", ">", 0.5).subject_for("linear")


def test_more_units_than_exist_are_refused() -> None:
    LargestUnits(5).check_units(5)
    with pytest.raises(UsageError, match="'top:6' chooses 6 of 5 units"):
        LargestUnits(6).check_units(5)
