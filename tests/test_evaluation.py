"""aii.evaluation against jiwer and against cases counted by hand."""

from __future__ import annotations

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aii.evaluation import WordErrors, align, total_word_errors, word_errors, words_of

WORDS = st.lists(st.sampled_from(["one", "two", "three", "four"]), max_size=12)


@pytest.mark.parametrize(
    "reference, hypothesis, expected",
    [
        ("press five for billing", "Press five, for billing.", WordErrors(0, 0, 0, 4)),
        ("press five for billing", "press nine for billing", WordErrors(1, 0, 0, 4)),
        ("press five for billing", "press five billing", WordErrors(0, 1, 0, 4)),
        ("press five for billing", "please press five for billing", WordErrors(0, 0, 1, 4)),
        ("one two", "", WordErrors(0, 2, 0, 2)),
        ("", "one two", WordErrors(0, 0, 2, 0)),
        ("", "", WordErrors(0, 0, 0, 0)),
    ],
)
def test_cases_counted_by_hand(reference: str, hypothesis: str, expected: WordErrors) -> None:
    assert word_errors(reference, hypothesis) == expected


@given(reference=WORDS.filter(bool), hypothesis=WORDS)
def test_same_rate_as_jiwer(reference: list[str], hypothesis: list[str]) -> None:
    ours = align(reference, hypothesis)
    assert ours.rate == pytest.approx(jiwer.wer(" ".join(reference), " ".join(hypothesis)))
    assert len(reference) - ours.deletions + ours.insertions == len(hypothesis)


def test_rates() -> None:
    assert WordErrors(1, 1, 0, 4).rate == 0.5
    assert WordErrors().rate == 0.0
    assert WordErrors(insertions=1).rate == float("inf")
    total = total_word_errors([("a b", "a"), ("c", "d e")])
    assert total == WordErrors(1, 1, 1, 3)
    assert str(total) == "word error rate 100.0% (3 words: 1 replaced, 1 missing, 1 invented)"


def test_what_counts_as_a_word() -> None:
    assert words_of("It\u2019s ON-line: 'yes'!") == ["it's", "on", "line", "yes"]
    assert words_of("Zwölf Küche, नमस्ते") == ["zwölf", "küche", "नमस्ते"]
