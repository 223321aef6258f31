from __future__ import annotations

import random

import pytest

from training.grammar import (
    DIGITS,
    Grammar,
    date_words,
    digit_words,
    money_words,
    number_words,
    ordinal_words,
    time_words,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (58, "fifty eight"),
        (100, "one hundred"),
        (342, "three hundred and forty two"),
        (1005, "one thousand and five"),
        (9999, "nine thousand nine hundred and ninety nine"),
    ],
)
def test_numbers_in_words(value: int, words: str) -> None:
    assert number_words(value) == words


def test_every_day_of_a_month_has_an_ordinal() -> None:
    days = [ordinal_words(day) for day in range(1, 32)]
    assert len(set(days)) == 31
    assert days[0] == "first"
    assert days[22] == "twenty third"
    assert days[29] == "thirtieth"


def test_plain_digit_strings_have_exactly_the_digits_asked_for() -> None:
    rng = random.Random(1)
    for length in range(1, 9):
        words = digit_words(rng, length, plain=True).split()
        assert len(words) == length
        assert set(words) <= set(DIGITS)


def test_double_and_triple_count_as_so_many_digits() -> None:
    rng = random.Random(2)
    for _ in range(300):
        words = digit_words(rng, 6).split()
        count = 0
        for word, after in zip(words, [*words[1:], ""], strict=True):
            if word in ("double", "triple"):
                count += 1 if word == "double" else 2
                assert after in (*DIGITS, "oh")
            else:
                count += 1
        assert count == 6


def test_grammar_has_enough_templates_and_twenty_held_out() -> None:
    grammar = Grammar()
    assert len(grammar.templates) >= 80
    assert len(grammar.held_out) >= 20
    assert not set(grammar.templates) & set(grammar.held_out)


def test_every_sentence_stays_in_the_vocabulary_of_the_training_sentences() -> None:
    grammar = Grammar()
    known = set(grammar.words())
    rng = random.Random(3)
    for template in [*grammar.templates, *grammar.held_out]:
        for _ in range(5):
            sentence = grammar.expand(template, rng).lower()
            assert set(sentence.split()) <= known, sentence
            assert "<" not in sentence


def test_sentences_depend_on_the_seed_only() -> None:
    grammar = Grammar()
    first = [grammar.sentence(random.Random(5)) for _ in range(3)]
    assert first == [grammar.sentence(random.Random(5)) for _ in range(3)]
    assert grammar.sentence(random.Random(6), held_out=True) != ""


def test_times_dates_and_amounts_are_words_only() -> None:
    rng = random.Random(4)
    for made in (time_words, date_words, money_words):
        for _ in range(50):
            assert all(c.isalpha() or c in " '" for c in made(rng))
