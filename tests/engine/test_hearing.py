"""What one request is answered, alone: language, segments, tails, words, drafts, attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aii.engine import hearing
from aii.engine.hearing import hear
from aii.errors import InputError
from aii.types import DecodeRequest

SHORT = {"sample_len": 4, "temperatures": (0.0,), "audio_context": "auto"}


def request(number: int = 1, call_id: str = "c", seconds: float = 0.5, **fields) -> DecodeRequest:
    samples = np.random.default_rng(number).normal(0, 0.1, round(16000 * seconds))
    options = {**SHORT, **fields.pop("options", {})}
    return DecodeRequest(
        number, call_id, samples.astype(np.float32), language="en", options=options, **fields
    )


def test_the_language_is_detected_where_none_is_given(tiny_model):
    from aii.languages import LANGUAGES

    heard = hear(tiny_model, replace(request(), language=None), {})
    assert heard["language"] in LANGUAGES


class Scripted:
    """Stands in for ``window_steps``: a window with these tokens."""

    def __init__(self, monkeypatch, model, tokens: list[int], cuts: list[int], advance: int):
        from aii.decoding import DecodingResult
        from aii.tokenizer import get_tokenizer
        from aii.transcribe import Window, new_segment

        tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
        begin = tokenizer.timestamp_begin
        result = DecodingResult(None, "en", tokens=tokens, avg_logprob=0, no_speech_prob=0,
                                temperature=0.0, compression_ratio=1)  # fmt: skip
        pieces = [tokens[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
        found = [
            new_segment(result, tokenizer, seek=0, start=(p[0] - begin) * 0.02,
                        end=(p[-1] - begin) * 0.02, tokens=p)
            for p in pieces
        ]  # fmt: skip
        self.window, self.tokenizer = Window(result, found, advance), tokenizer
        self.prompts: list[list[int]] = []
        monkeypatch.setattr(hearing, "window_steps", self)

    def __call__(self, model, mel, options, *, prompt, draft, keep_tail):
        from aii.windows import tail_segment

        yield from ()
        self.prompts.append(list(prompt))
        window, tail = self.window, None
        if keep_tail:
            size = mel.shape[-1]
            tail = tail_segment(window.result, window.segments, self.tokenizer, seek=0, size=size)
        return replace(window, tail=tail)


def tokens_of(*parts: object) -> list[int]:
    from aii.tokenizer import get_tokenizer

    tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
    out: list[int] = []
    for part in parts:
        out += (
            tokenizer.encode(part)
            if isinstance(part, str)
            else [tokenizer.timestamp_begin + round(part * 50)]
        )
    return out


def test_the_unfinished_tail_is_given_where_it_is_asked_for(tiny_model, monkeypatch):
    whole = tokens_of(0.0, " four", 1.2)
    tokens = [*whole, *tokens_of(1.2, " five")]
    Scripted(monkeypatch, tiny_model, tokens, [len(whole)], 120)
    ask = request(seconds=5, start=100.0)
    heard = hear(tiny_model, ask, {})
    assert [s.text for s in heard["segments"]] == [" four"]
    assert heard["advance"] == pytest.approx(1.2)
    heard = hear(tiny_model, replace(ask, options={**SHORT, "keep_tail": True}), {})
    first, tail = heard["segments"]
    assert (first.start, first.end) == (100.0, pytest.approx(101.2))
    assert (tail.text, tail.start, tail.end) == (" five", pytest.approx(101.2), 105.0)


@pytest.mark.parametrize("word_times", [False, True])
def test_no_time_is_outside_the_audio_of_the_request(tiny_model, monkeypatch, word_times):
    """A padded window lets the model place speech behind the audio, or end it there."""
    first, second = tokens_of(0.0, " four", 4.0), tokens_of(6.0, " five", 9.0)
    tokens = [*first, *second, *tokens_of(8.0, " six")]
    script = Scripted(monkeypatch, tiny_model, tokens, [3, 6], 300)
    if word_times:
        for item, times in zip(script.window.segments, ((-0.5, 4.2), (6.0, 9.5)), strict=True):
            word = {"word": item["text"], "start": times[0], "end": times[1], "probability": 1.0}
            item["words"] = [word]
    heard = hear(tiny_model, request(seconds=3, start=10.0, options={"keep_tail": True}), {})
    assert [(s.text, s.start, s.end) for s in heard["segments"]] == [
        (" four", 10.0, 13.0),
        (" five", 13.0, 13.0),
        (" six", 13.0, 13.0),
    ]
    found = [(word.start, word.end) for s in heard["segments"] for word in s.words]
    assert found == ([(10.0, 13.0), (13.0, 13.0)] if word_times else [])


@pytest.mark.parametrize("words", ["none", "final", "all"])
def test_a_call_cut_within_a_word_has_no_times_behind_its_end(embedded_model, words):
    from fake_engine import make_session

    from aii.audio.pcm import slin_to_float
    from aii.resources import asset
    from aii.streaming.events import Heard

    samples = slin_to_float(asset("sample_call.slin").read_bytes())
    for count in (16000 * 2 + 700, 16000 * 6 + 5000):
        session = make_session(words=words)
        session.feed(samples[: 16000 * 5] if count > 16000 * 5 else samples[:count])
        events = []
        if count > 16000 * 5:
            events += session.accept(_heard(embedded_model, session))
            session.feed(samples[16000 * 5 : count])
        session.finish("eof")
        while not session.done:
            events += session.accept(_heard(embedded_model, session))
        spoken = [event for event in events if isinstance(event, Heard)]
        assert any(event.text for event in spoken)
        for event in spoken:
            assert event.end <= count / 16000
            for item in (*event.segments, *event.words):
                assert event.start <= item.start <= item.end <= event.end


def _heard(model, session):
    from aii.types import Hypothesis

    ask = session.next_request(0.0)
    return Hypothesis(**hear(model, ask, {"audio_context": "auto", "temperatures": (0.0,)}))


def test_segments_that_say_nothing_are_emptied(tiny_model, monkeypatch):
    instant, blank = tokens_of(1.0, " hm", 1.0), tokens_of(1.0, " ", 2.0)
    Scripted(monkeypatch, tiny_model, instant + blank, [3, 3 + len(blank)], 200)
    heard = hear(tiny_model, request(seconds=3), {})
    assert [(s.text, s.tokens) for s in heard["segments"]] == [("", ()), ("", ())]


@pytest.mark.parametrize("text", [" two two", " one eight one"])
def test_words_without_times_may_begin_and_end_alike(tiny_model, monkeypatch, text):
    """Only a timestamp that comes twice says that nothing lies between."""
    said = tokens_of(text)
    assert said[0] == said[-1]
    Scripted(monkeypatch, tiny_model, said, [len(said)], 100)
    options = {"without_timestamps": True}
    [segment] = hear(tiny_model, request(seconds=1, options=options), {})["segments"]
    assert segment.text == text


def test_an_initial_prompt_stands_before_the_committed_tokens(tiny_model, monkeypatch):
    script = Scripted(monkeypatch, tiny_model, tokens_of(0.0, " a", 1.0), [3], 100)
    hear(tiny_model, request(prompt=(7, 8), options={"initial_prompt": " Smith "}), {})
    assert script.prompts == [[*tokens_of(" Smith"), 7, 8]]


def test_words_come_with_times_from_the_start_of_the_call(embedded_model):
    from aii.audio.pcm import slin_to_float
    from aii.resources import asset

    samples = slin_to_float(asset("sample_call.slin").read_bytes())[: 16000 * 4]
    ask = DecodeRequest(1, "c", samples, start=60.0, options={"word_timestamps": True})
    heard = hear(embedded_model, ask, {"audio_context": "auto", "temperatures": (0.0,)})
    words = [word for segment in heard["segments"] for word in segment.words]
    assert "".join(w.text for w in words) == "".join(s.text for s in heard["segments"])
    assert words
    assert all(60.0 <= w.start <= w.end <= 64.0 for w in words)


def test_a_request_that_stops_by_attention(embedded_model):
    """Tokens with frames and log-probabilities; no segments and no timestamps."""
    from aii.audio.pcm import slin_to_float
    from aii.resources import asset
    from aii.types import AttentionStop

    samples = slin_to_float(asset("sample_call.slin").read_bytes())[: 16000 * 6]
    stop = AttentionStop(threshold=4, rewind=None)
    ask = DecodeRequest(1, "c", samples, start=60.0, language="en", stop=stop)
    heard = hear(embedded_model, ask, {"audio_context": "auto"})
    tokens = heard["tokens"]
    assert tokens
    assert heard["segments"] == ()
    assert all(0 <= token.frame < 300 - 4 for token in tokens)
    assert all(token.logprob <= 0 for token in tokens)
    assert all(token.id < 50257 for token in tokens)
    assert heard["stopped"] in ("end", "attention")
    assert heard["passes"] == len(tokens) + 1
    again = replace(ask, prefix=tuple(token.id for token in tokens[:2]))
    heard = hear(embedded_model, again, {"audio_context": "auto"})
    told = [(token.id, token.frame) for token in heard["tokens"]]
    assert told == [(token.id, token.frame) for token in tokens[2:]]


def test_the_last_answer_is_the_next_ones_draft(embedded_model):
    from aii.audio.pcm import slin_to_float
    from aii.resources import asset

    samples = slin_to_float(asset("sample_call.slin").read_bytes())
    options = {"audio_context": "auto", "temperatures": (0.0,)}
    draft: tuple[int, ...] = ()
    passes = plain_passes = 0
    for seconds in (5, 6, 7, 8):
        ask = DecodeRequest(1, "c", samples[: 16000 * seconds], language="en")
        plain = hear(embedded_model, ask, options)
        drafted = hear(embedded_model, replace(ask, draft=draft), options)
        assert drafted["tokens"] == plain["tokens"]
        assert drafted["segments"] == plain["segments"]
        passes, plain_passes = passes + drafted["passes"], plain_passes + plain["passes"]
        draft = tuple(token.id for token in plain["tokens"])
    assert passes < plain_passes


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tiny_model, value):
    ask = request()
    ask.samples[100] = value
    with pytest.raises(InputError, match="not all finite numbers"):
        hear(tiny_model, ask, {})


def test_a_constraint_travels_with_the_request(tiny_model):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Only:
        phrases: tuple[tuple[int, ...], ...]

        def allowed(self, text):
            n = len(text)
            return {(*p, 50257)[n] for p in self.phrases if p[:n] == tuple(text)}

    digits = Only((tuple(tokens_of(" four")), tuple(tokens_of(" five five"))))
    options = {"constraint": digits, "temperatures": (0.0,), "sample_len": 12}
    for ask in (request(options=options), request(options={**options, "beam_size": 3})):
        heard = hear(tiny_model, ask, {"without_timestamps": True})
        assert tuple(token.id for token in heard["tokens"]) in digits.phrases
