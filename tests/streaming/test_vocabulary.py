from __future__ import annotations

import pickle

import pytest

from aii.errors import ConfigError, InputError
from aii.streaming.drafts import Draft
from aii.streaming.vocabulary import Vocabulary

V = Vocabulary()


def words(text: str, language: str = "en", drop: int = 0) -> list[str]:
    tokens = V.encode(text)
    return [word for word, _ in V.words(tokens[: len(tokens) - drop], language)]


def test_words_have_their_punctuation_and_their_tokens():
    tokens = V.encode("Well, don't say it's 12,000!")
    found = V.words(tokens, "en")
    assert [word for word, _ in found] == [" Well,", " don't", " say", " it's", " 12,000!"]
    assert tuple(token for _, run in found for token in run) == tokens


def test_half_a_character_at_the_end_is_no_word():
    tokens = V.encode("naïve ☎")
    assert len(V.encode("☎")) >= 2
    assert words("naïve ☎") == [" naïve", " ☎"]
    assert words("naïve ☎", drop=1) == [" naïve"]
    assert V.words(tokens[:1], "en")[0][0] == " na"


def test_languages_without_spaces_have_a_word_per_character():
    assert words("你好。", "zh")[-1].endswith("。")
    assert len(words("你好吗", "zh")) >= 3


def test_timestamps_and_special_tokens_are_no_words():
    begin = V.timestamp_begin
    tokens = (begin, *V.encode("hi"), begin + 50, V.tokenizer().eot)
    assert [word for word, _ in V.words(tokens, "en")] == [" hi"]
    assert V.text(tokens) == " hi"


@pytest.mark.parametrize(
    "text, language, complete",
    [(" next", "en", True), ("ing", "en", False), (",", "en", False), ("好", "zh", True)],
)
def test_which_tokens_show_that_the_word_before_is_complete(text, language, complete):
    (token, *_) = V.tokenizer().encode(text)
    assert V.begins_word(token, language) is complete


def test_the_end_of_the_text_completes_a_word_and_the_rest_of_a_character_does_not():
    assert V.begins_word(V.tokenizer().eot)
    rest = V.encode("☎")[-1]
    assert not V.begins_word(rest, "zh")


def test_special_tokens_spelled_out_are_plain_text():
    assert V.text(V.encode("say <|endoftext|> now")) == " say <|endoftext|> now"
    assert V.encode("  ") == ()


def test_languages_are_checked_against_the_model():
    assert V.language("German") == "de"
    assert V.language(None) is None
    assert Vocabulary(only_language="en").language(None) == "en"
    assert Vocabulary(multilingual=False).language("english") == "en"
    with pytest.raises(InputError, match="unknown"):
        V.language("klingon")
    for vocabulary in (Vocabulary(multilingual=False), Vocabulary(only_language="en")):
        with pytest.raises(ConfigError, match="English only"):
            vocabulary.language("de")
    with pytest.raises(ConfigError, match="does not translate"):
        Vocabulary(multilingual=False).language(None, "translate")


def test_it_is_a_plain_value():
    assert pickle.loads(pickle.dumps(Vocabulary(num_languages=100))) == Vocabulary(  # noqa: S301
        num_languages=100
    )
    assert Vocabulary(num_languages=100).timestamp_begin == V.timestamp_begin + 1


def spell(*parts: float | str) -> tuple[int, ...]:
    """Seconds as timestamps, text as tokens."""
    tokens: list[int] = []
    for part in parts:
        if isinstance(part, str):
            tokens += V.encode(part)
        else:
            tokens.append(V.timestamp_begin + round(part * 50))
    return tuple(tokens)


HEARD = spell(0.0, "one", 2.0, 2.0, "two", 4.0, 4.5, "three", 6.0)


@pytest.mark.parametrize(
    "seconds, expected",
    [
        (0.0, HEARD),
        (2.0, spell(0.0, "two", 2.0, 2.5, "three", 4.0)),
        (2.4, spell(0.0, "two", 1.6, 2.1, "three", 3.6)),  # the segment may begin a little before
        (4.5, spell(0.0, "three", 1.5)),
        (5.5, ()),
        (-1.0, ()),
    ],
)
def test_a_draft_moves_with_its_audio(seconds, expected):
    draft = Draft(V)
    draft.keep(HEARD, 160_000)
    assert draft.at(160_000 + round(seconds * 16_000)) == expected


def test_a_draft_that_is_not_wanted_is_none():
    draft = Draft(V, used=False)
    draft.keep(HEARD, 0)
    assert draft.at(0) is None
    assert Draft(V).at(0) == ()
