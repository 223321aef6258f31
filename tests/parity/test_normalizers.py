"""Normalised texts are openai-whisper's."""

from __future__ import annotations

import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper import normalizers as theirs
from whisper.normalizers.english import EnglishNumberNormalizer as TheirNumbers

from aii import normalizers as ours
from aii.normalizers.english import EnglishNumberNormalizer, EnglishSpellingNormalizer

OUR_TEXT, OUR_NUMBERS = ours.EnglishTextNormalizer(), EnglishNumberNormalizer()
with warnings.catch_warnings():
    # Theirs leave the file of their table open.
    warnings.simplefilter("ignore", ResourceWarning)
    THEIR_TEXT, THEIR_NUMBERS = theirs.EnglishTextNormalizer(), TheirNumbers()

NUMBER_WORDS = sorted(THEIR_NUMBERS.words)
OTHER_WORDS = (
    *("and a half", "and  a half", "5", "10", "0", "0.5", "1.25", "$5", "-3", "¢7", "£1", "€0"),
    *("$0.50", "1st", "2 nd", "1960s", "1a2", "b3c", "10,000", "3,", "1.", "1.5.2", "127.0.0.1"),
    *("a", "the", "cat", "won't", "he's been", "n't", "'s", "i'ma'am", "mr.", "Dr", "hmm", "st"),
    *("(x)", "[y", "]", "<z>", "...", "..", "%", "50%", "%%", "$", "$$.", "café", "ø", "١", "½"),
    *("o'clock", "x'sn't", "'d been't", "colour", "\n", "\t", "MA'AM", "'", "ninth", "nineth"),
)
PIECES = st.sampled_from([*NUMBER_WORDS, *OTHER_WORDS])


def compare(text: str) -> None:
    assert OUR_NUMBERS(text) == THEIR_NUMBERS(text)
    assert OUR_TEXT(text) == THEIR_TEXT(text)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=9), st.sampled_from([" ", "", "  ", ", ", "-"]))
def test_number_words_and_their_company(pieces, between):
    compare(between.join(pieces))


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text(text):
    compare(text)
    for accents in (False, True):
        for letters in (False, True):
            a = ours.BasicTextNormalizer(accents, letters)
            assert a(text) == theirs.BasicTextNormalizer(accents, letters)(text)


def test_long_random_corpus():
    chance = random.Random(7)
    common = ["one", "two", "oh", "hundred", "thousand", "and", "point", "double", "dollars"]
    words = [*NUMBER_WORDS, *OTHER_WORDS, *common * 8]
    for _ in range(6000):
        compare(" ".join(chance.choices(words, k=chance.randrange(1, 9))))


@pytest.mark.parametrize("below", [110, 1130])
def test_counting(below):
    tens = dict(zip(range(2, 10), "twenty thirty forty fifty sixty seventy eighty ninety".split(),
                    strict=True))  # fmt: skip
    small = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen"
    ).split()

    def say(number: int) -> str:
        if number < 20:
            return small[number]
        if number < 100:
            rest = number % 10
            return tens[number // 10] + (f" {small[rest]}" if rest else "")
        unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
        rest = number % unit
        return f"{say(number // unit)} {name}" + (f" and {say(rest)}" if rest else "")

    for number in range(2, below):
        assert OUR_NUMBERS(say(number)) == str(number) == THEIR_NUMBERS(say(number))


def test_every_spelling():
    a, b = EnglishSpellingNormalizer(), THEIR_TEXT.standardize_spellings
    assert a.mapping == b.mapping
    text = " ".join(a.mapping)
    assert a(text) == b(text)


def test_every_character_alone():
    for code in (*range(0xD800), *range(0xE000, 0x20000)):
        text = f"a{chr(code)}b"
        for accents in (False, True):
            a = ours.BasicTextNormalizer(accents)
            assert a(text) == theirs.BasicTextNormalizer(accents)(text)
