"""aii.normalizers on their own."""

from __future__ import annotations

import pytest

from aii.normalizers import BasicTextNormalizer, EnglishTextNormalizer
from aii.normalizers.basic import remove_symbols, remove_symbols_and_diacritics
from aii.normalizers.english import EnglishNumberNormalizer, EnglishSpellingNormalizer

NUMBERS = [
    ("two hundred and thirty", "230"),
    ("twenty million dollars", "$20000000"),
    ("$20 million", "$20000000"),
    ("double oh seven", "007"),
    ("triple six", "666"),
    ("one oh one", "101"),
    ("one", "one"),
    ("the ones", "the ones"),
    ("may twenty second", "may 22nd"),
    ("nineteen sixties", "1960s"),
    ("three point one four", "3.14"),
    ("minus twelve", "-12"),
    ("fifty percent", "50%"),
    ("five per cent", "5%"),
    ("two dollars and seven cents", "$2.07"),
    ("two and a half million", "2500000"),
    ("tea and a half", "tea and a half"),
    ("hundred", "100"),
    ("ninety nine hundredth", "9900th"),
    ("one nine two point one six eight", "192.168"),
    ("thousand and one nights", "1001 nights"),
    ("point taken", "point taken"),
    ("plus or minus", "plus or minus"),
    ("per hour", "per hour"),
    ("a dollar", "a dollar"),
    ("", ""),
    ("9" * 5000, "9" * 5000),
]


@pytest.mark.parametrize("said, written", NUMBERS)
def test_numbers(said, written):
    assert EnglishNumberNormalizer()(said) == written


TEXTS = [
    ("Let's not.", "let us not"),
    ("He's been, hasn't he?", "he has been has not he"),
    ("Dr. Smith (coughs) and [noise] Mr. O'Hara", "doctor smith and mister 0 hara"),
    ("Um, I'm, uh, gonna colour it", "i am going to color it"),
    ("It cost 1,234.50 dollars, i.e. 100%.", "it cost $1234.50 i e 100%"),
    ("naïve café", "naive cafe"),
]


@pytest.mark.parametrize("said, written", TEXTS)
def test_english_text(said, written):
    assert EnglishTextNormalizer()(said) == written


def test_spelling():
    assert EnglishSpellingNormalizer()("mobilisation  of colour") == "mobilization of color"


def test_basic_text():
    assert BasicTextNormalizer()("¡Más [ruido] (risas) Ñandú!") == " más ñandú "
    assert BasicTextNormalizer(remove_diacritics=True)("Ærøskøbing ß") == "aeroskobing ss"
    assert BasicTextNormalizer(split_letters=True)("日本 e\u0301") == "日 本 é"


def test_cleaning():
    assert remove_symbols("a+b ﬁ") == "a b fi"
    assert remove_symbols_and_diacritics("é$%ł", keep="$") == "e$ l"
