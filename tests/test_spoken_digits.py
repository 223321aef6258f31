from __future__ import annotations

import pytest

from aii.spoken_digits import BREAK, Piece, digit_words, pieces, repeat_words, runs


def found(text: str, language: str | None = "en", **kwargs) -> list[tuple[str, int, bool]]:
    """Each run's text, digits, and whether it is open."""
    parts = pieces(text, language)
    return [
        (text[parts[run.first].start : parts[run.last].end], run.digits, run.open)
        for run in runs(parts, **kwargs)
    ]


@pytest.mark.parametrize(
    "text, digits",
    [
        ("four two seven one nine", 5),
        ("4271", 4),
        ("4271 9988, 1234-5678.", 16),
        ("Four, two. Seven!", 3),
        ("four-two-seven", 3),
        ("+44 (20) 7946 0958", 12),
        ("oh seven oh four", 4),
        ("o o seven", 3),
        ("seven oh", 2),
        ("forty two", 2),
        ("forty-two seventy one", 4),
        ("nineteen eighty four", 4),
        ("twelve fifteen", 4),
        ("double four two", 3),
        ("triple nine", 3),
        ("treble nine double seven", 5),
        ("four and two uh seven dash one", 4),
        ("two hundred", 3),
        ("five thousand", 4),
        ("one two for seven", 4),  # misheard: for four
        ("AB1234567", 7),
        ("zeros and nines", 2),
        ("٤٢٧", 3),  # Arabic figures
        ("四二七一九", 5),
    ],
)
def test_one_run_and_its_digits(text: str, digits: int):
    [(whole, count, is_open)] = found(text)
    assert count == digits
    assert is_open
    assert whole.split()[-1].strip(".,!") in text.split()[-1]


@pytest.mark.parametrize("text", ["hello", "", "oh no", "for to too", "and then", "double trouble"])
def test_no_digits(text: str):
    assert found(text) == []


def test_a_word_ends_a_run_and_bridges_do_not_belong_to_its_end():
    assert found("four two and the seven one then") == [
        ("four two", 2, False),
        ("seven one", 2, True),
    ]


def test_more_than_three_bridges_end_a_run():
    assert found("four and uh then two") == [("four and uh then two", 2, True)]
    assert found("four and uh um then two") == [("four", 1, False), ("two", 1, True)]


def test_homophones_count_between_digits_only():
    assert found("two to four") == [("two to four", 3, True)]
    assert found("go to two") == [("two", 1, True)]
    assert found("two for us") == [("two", 1, False)]
    assert found("two to") == [("two", 1, True)]  # what follows is not known yet


def test_a_run_that_goes_on_from_before():
    [run] = runs(pieces("and seven one of them"), inside=True)
    assert run.leading
    [run] = runs(pieces("oh one"), inside=True)
    assert (run.first, run.digits) == (0, 2)
    [run] = runs(pieces("I say seven"), inside=True)
    assert not run.leading


def test_a_break_ends_a_run():
    four, two = Piece(0, 4, "unit", 1), Piece(5, 8, "unit", 1)
    assert [run.digits for run in runs([four, BREAK, two])] == [1, 1]


@pytest.mark.parametrize(
    "language, text, digits",
    [
        ("de", "vier zwo sieben null", 4),
        ("de", "zweiundvierzig dreizehn", 4),
        ("fr", "quatre deux sept", 3),
        ("es", "cuatro dos siete uno", 4),
        ("es", "veintidós", 2),
        ("it", "quattro due sette", 3),
        ("nl", "vier twee zeven", 3),
        ("nl", "tweeënveertig", 2),
        ("pt", "quatro dois meia", 3),
        ("sv", "four two 7", 3),  # no table: English and figures
    ],
)
def test_other_languages(language: str, text: str, digits: int):
    [(_, count, _)] = found(text, language)
    assert count == digits


def test_words_of_other_languages_do_not_count_in_english():
    assert found("die un da due") == []


def test_tables_have_ten_digits_each():
    for language in ("en", "de", "es", "fr", "it", "nl", "pt"):
        assert set(digit_words(language).values()) == set(range(10))
    assert digit_words(None) == digit_words("xx") == digit_words("en")
    assert digit_words("de")["zwo"] == 2
    assert repeat_words("en")["double"] == 2
    assert repeat_words("de") == {}
