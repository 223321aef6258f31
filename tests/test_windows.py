"""What is made of one window's tokens: the unfinished tail, and words with times in it."""

from __future__ import annotations

import sys

import pytest
import torch

from aii.batch import run_alone
from aii.decoding import DecodingOptions, DecodingResult
from aii.fallback import WindowOptions
from aii.tokenizer import get_tokenizer
from aii.windows import window_steps

TOKENIZER = get_tokenizer(True, language="en", task="transcribe")
BEGIN = TOKENIZER.timestamp_begin
ONE, TWO = TOKENIZER.encode(" one")[0], TOKENIZER.encode(" two")[0]


def window(monkeypatch, model, tokens, *, words: bool, keep_tail: bool = True):
    """4 s of noise in which the decoder found ``tokens``."""

    def decoded(_model, features, *_):
        yield from ()
        return [
            DecodingResult(
                features[0], "en", tokens=tokens, avg_logprob=-0.1, no_speech_prob=0.0,
                temperature=0.0, compression_ratio=1.0,
            )
        ]  # fmt: skip

    monkeypatch.setattr(sys.modules["aii.fallback"], "decoding_steps", decoded)
    options = WindowOptions(DecodingOptions(language="en", fp16=False), word_timestamps=words)
    mel = torch.randn(80, 400)
    return run_alone(model, window_steps(model, mel, options, seek=1000, keep_tail=keep_tail))


UNFINISHED = [BEGIN, ONE, BEGIN + 50, BEGIN + 60, TWO]


def test_the_tail_is_given_only_where_it_is_asked_for(monkeypatch, tiny_model) -> None:
    found = window(monkeypatch, tiny_model, UNFINISHED, words=False, keep_tail=False)
    assert found.tail is None
    assert [s["text"] for s in found.segments] == [" one"]
    found = window(monkeypatch, tiny_model, UNFINISHED, words=False)
    assert [s["text"] for s in found.segments] == [" one"]
    assert found.advance == 100
    tail = found.tail
    assert (tail["text"], tail["start"], tail["end"]) == (" two", pytest.approx(11.2), 14.0)
    assert tail["tokens"] == [BEGIN + 60, TWO]
    assert set(tail) == set(found.segments[0])


def test_the_tails_words_have_times(monkeypatch, tiny_model) -> None:
    found = window(monkeypatch, tiny_model, UNFINISHED, words=True)
    (first,), (second,) = found.segments[0]["words"], found.tail["words"]
    assert (first["word"], second["word"]) == (" one", " two")
    assert 10.0 <= first["start"] <= first["end"] <= second["end"] <= 14.0


@pytest.mark.parametrize("tokens", [[BEGIN, ONE, BEGIN + 50], [BEGIN, ONE], [], UNFINISHED[:4]])
def test_no_tail_where_nothing_follows(monkeypatch, tiny_model, tokens) -> None:
    assert window(monkeypatch, tiny_model, tokens, words=False).tail is None
