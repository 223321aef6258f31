"""aii.tokenizer and aii.languages on their own."""

from __future__ import annotations

import dataclasses

import pytest

from aii.errors import InputError
from aii.languages import LANGUAGES, language_code
from aii.tokenizer import get_encoding, get_tokenizer


@pytest.mark.parametrize(
    "given, code",
    [
        ("en", "en"),
        ("Castilian", "es"),
        ("MANDARIN", "zh"),
        ("haitian creole", "ht"),
        ("YUE", "yue"),
    ],
)
def test_names_and_aliases(given, code):
    assert language_code(given) == code


@pytest.mark.parametrize("name", ["klingon", "", "en-GB"])
def test_unknown_language_is_named(name):
    with pytest.raises(InputError, match="is unknown") as caught:
        get_tokenizer(True, language=name)
    assert isinstance(caught.value, ValueError)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_language_is_refused_for_english_only_too():
    with pytest.raises(InputError):
        get_tokenizer(False, language="klingon")


def test_cantonese_needs_the_hundredth_language():
    assert get_tokenizer(True, num_languages=100, language="cantonese").language == "yue"
    with pytest.raises(InputError, match="yue"):
        get_tokenizer(True, num_languages=99, language="cantonese")


def test_unknown_task_vocabulary_and_number_of_languages():
    with pytest.raises(InputError, match="transcribe or translate"):
        get_tokenizer(True, task="summarise")
    with pytest.raises(InputError, match="gpt3"):
        get_encoding("gpt3")
    for count in (0, 101):
        with pytest.raises(InputError, match="99 or 100"):
            get_tokenizer(True, num_languages=count)


def test_same_meaning_same_object():
    tokenizer = get_tokenizer(True)
    assert get_tokenizer(True, language="English", task="transcribe") is tokenizer
    assert get_tokenizer(True, language="de") is not tokenizer
    assert get_tokenizer(False, language="de") is get_tokenizer(False)
    assert len({tokenizer, get_tokenizer(True, language="en")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        tokenizer.language = "de"


def test_english_only_knows_no_language():
    tokenizer = get_tokenizer(False)
    assert tokenizer.sot_sequence == (tokenizer.sot,)
    with pytest.raises(InputError, match="no language"):
        _ = tokenizer.language_token


def test_special_tokens_in_text_are_refused_unless_allowed():
    tokenizer = get_tokenizer(True)
    with pytest.raises(InputError, match="disallowed_special") as caught:
        tokenizer.encode("over <|endoftext|> and out")
    assert "\n" not in str(caught.value)
    allowed = tokenizer.encode("<|endoftext|>", allowed_special={"<|endoftext|>"})
    assert allowed == [tokenizer.eot]
    assert len(tokenizer.encode("<|endoftext|>", disallowed_special=())) > 1


def test_time_tokens():
    tokenizer = get_tokenizer(True)
    start = tokenizer.timestamp_begin
    tokens = [start, *tokenizer.encode(" yes"), start + 54, start + 1500]
    assert tokenizer.decode(tokens) == " yes"
    assert tokenizer.decode_with_timestamps(tokens) == "<|0.00|> yes<|1.08|><|30.00|>"
    assert tokenizer.encoding.n_vocab == start + 1501 == 51865


def test_language_tokens():
    tokenizer = get_tokenizer(True, num_languages=100)
    assert tokenizer.all_language_codes == tuple(LANGUAGES)
    assert tokenizer.to_language_token("en") == tokenizer.sot + 1
    assert tokenizer.decode([tokenizer.to_language_token("yue")]) == "<|yue|>"
    with pytest.raises(InputError, match="transcribe"):
        tokenizer.to_language_token("transcribe")


def test_splitting_without_spaces():
    words, tokens = get_tokenizer(True, language="ja").split_to_word_tokens(
        get_tokenizer(True).encode("日本語です")
    )
    assert "".join(words) == "日本語です"
    assert len(words) == len(tokens) > 1
    assert all(tokens)


def test_splitting_keeps_words_and_punctuation_apart():
    tokenizer = get_tokenizer(True)
    words, tokens = tokenizer.split_to_word_tokens(tokenizer.encode(" Hello there, sir!"))
    assert words == [" Hello", " there", ",", " sir", "!"]
    assert [tokenizer.decode(part) for part in tokens] == words


def test_nothing_to_split():
    assert get_tokenizer(True).split_to_word_tokens([]) == ([], [])
