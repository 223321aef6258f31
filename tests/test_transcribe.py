"""Windows, segments, fallback and whole recordings, apart from what parity shows."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import aii
from aii.decoding import DecodingOptions, DecodingResult
from aii.errors import AudioError, ConfigError, InputError
from aii.tokenizer import get_tokenizer
from aii.transcribe import (
    WindowOptions,
    audio_context_frames,
    decode_with_fallback,
    default_audio_context,
    new_segment,
    segments,
    transcribe,
    transcribe_window,
)

TOKENIZER = get_tokenizer(True, language="en", task="transcribe")
BEGIN = TOKENIZER.timestamp_begin
ONE, TWO = TOKENIZER.encode(" one")[0], TOKENIZER.encode(" two")[0]
FALLBACK = sys.modules["aii.fallback"]
MODULE = sys.modules["aii.transcribe"]


def _result(tokens: list[int] | None = None, **given: Any) -> DecodingResult:
    figures = dict(avg_logprob=-0.2, no_speech_prob=0.1, temperature=0.0, compression_ratio=1.0)
    return DecodingResult(
        audio_features=torch.zeros(1, 1), language="en", tokens=tokens or [], passes=3,
        **{**figures, **given},
    )  # fmt: skip


def _at(seconds: float) -> int:
    return BEGIN + round(seconds / 0.02)


# -- segments ---------------------------------------------------------------------------------


def test_segments_between_pairs_of_timestamps() -> None:
    tokens = [_at(0), ONE, _at(1), _at(1.5), TWO, _at(3), _at(3), ONE]
    found, advance = segments(_result(tokens), TOKENIZER, seek=500, segment_size=3000)
    assert [(s["start"], s["end"], s["text"]) for s in found] == [(5, 6, " one"), (6.5, 8, " two")]
    assert found[0]["tokens"] == tokens[:3]
    assert advance == 300  # " one" is not finished: it begins the next window


def test_single_timestamp_at_the_end_closes_the_window() -> None:
    tokens = [_at(0), ONE, _at(1), _at(1), TWO, _at(2)]
    found, advance = segments(_result(tokens), TOKENIZER, segment_size=2000)
    assert [s["text"] for s in found] == [" one", " two"]
    assert advance == 2000


@pytest.mark.parametrize(
    "tokens, end", [([_at(0), ONE, _at(2)], 2.0), ([_at(0), ONE], 7.0), ([ONE], 7.0), ([], 7.0)]
)
def test_one_segment_without_pairs(tokens: list[int], end: float) -> None:
    found, advance = segments(_result(tokens), TOKENIZER, segment_size=700)
    assert [(s["start"], s["end"]) for s in found] == [(0.0, end)]
    assert advance == 700


def test_new_segment_has_the_keys_of_whisper() -> None:
    tokens = [_at(0), ONE, _at(1)]
    segment = new_segment(_result(), TOKENIZER, seek=7, start=0.0, end=1.0, tokens=tokens)
    assert segment == {
        "seek": 7, "start": 0.0, "end": 1.0, "text": " one", "tokens": tokens, "temperature": 0.0,
        "avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.1,
    }  # fmt: skip


# -- fallback ---------------------------------------------------------------------------------


def _steps(result: DecodingResult):
    """A decode that wants nothing of the network."""
    yield from ()
    return [result]


def _decode(monkeypatch: pytest.MonkeyPatch, model, results: list[DecodingResult], **given: Any):
    """Run the fallback over prepared results; return what was chosen and the options tried."""
    tried: list[DecodingOptions] = []

    def prepared(_model, _features, options, *_):
        yield from ()
        tried.append(options)
        return [replace(results[len(tried) - 1], temperature=options.temperature)]

    monkeypatch.setattr(FALLBACK, "decoding_steps", prepared)
    options = DecodingOptions(beam_size=5, patience=1.0, best_of=3)
    return decode_with_fallback(model, torch.zeros(80, 3000), options, **given), tried


def test_fallback_goes_on_until_the_text_looks_right(monkeypatch, tiny_model) -> None:
    results = [_result(compression_ratio=3.0), _result(avg_logprob=-1.5), _result(), _result()]
    chosen, tried = _decode(monkeypatch, tiny_model, results)
    assert [o.temperature for o in tried] == [0.0, 0.2, 0.4]
    assert chosen.temperature == 0.4
    assert chosen.passes == 9
    assert (tried[0].beam_size, tried[0].patience, tried[0].best_of) == (5, 1.0, None)
    assert (tried[1].beam_size, tried[1].patience, tried[1].best_of) == (None, None, 3)


def test_fallback_stops_at_silence_and_ends_with_the_last(monkeypatch, tiny_model) -> None:
    silence = _result(avg_logprob=-1.5, no_speech_prob=0.9)
    assert len(_decode(monkeypatch, tiny_model, [silence])[1]) == 1
    bad = [_result(avg_logprob=-1.5)] * 3
    chosen, tried = _decode(monkeypatch, tiny_model, bad, temperatures=(0.0, 0.5, 1.0))
    assert len(tried) == 3
    assert chosen.temperature == 1.0
    anything = dict(logprob_threshold=None, compression_ratio_threshold=None)
    assert len(_decode(monkeypatch, tiny_model, bad, **anything)[1]) == 1


def test_no_temperature_is_an_error(tiny_model) -> None:
    with pytest.raises(InputError, match="temperature"):
        decode_with_fallback(tiny_model, torch.zeros(80, 3000), DecodingOptions(), temperatures=())


# -- audio context ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds, setting, frames",
    [
        (5, "full", 3000),
        (5, "auto", 600),
        (5.001, "auto", 650),
        (0.1, "auto", 150),
        (29.5, "auto", 3000),
        (5, 8, 800),
        (5, "8.2", 850),
        (12, 8, 1200),
        (30, 1, 3000),
        (1, 99, 3000),
    ],
)
def test_audio_context(tiny_model, seconds: float, setting: str | float, frames: int) -> None:
    assert audio_context_frames(tiny_model, round(seconds * 16000), setting) == frames


@pytest.mark.parametrize("setting", ["half", "", 0, -1, "nan", None])
def test_bad_audio_context(tiny_model, setting: Any) -> None:
    with pytest.raises(ConfigError, match="full, auto or seconds"):
        audio_context_frames(tiny_model, 16000, setting)


def test_context_that_a_checkpoint_names(monkeypatch, tiny_model) -> None:
    assert default_audio_context(tiny_model) == "full"
    monkeypatch.setattr(tiny_model, "metadata", {"audio_context": "auto"})
    assert default_audio_context(tiny_model) == "auto"


# -- one window -------------------------------------------------------------------------------

QUICK = WindowOptions(
    decoding=DecodingOptions(language="en", sample_len=8),
    temperatures=(0.0,),
    no_speech_threshold=None,
)


def _noise(seconds: float, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return (0.1 * chance.standard_normal(round(seconds * 16000))).astype(np.float32)


@pytest.mark.parametrize("context", ["full", "auto", 4.0])
def test_window_equals_a_file_of_the_same_samples(tiny_model, context) -> None:
    samples = _noise(3.004)
    options = replace(QUICK, word_timestamps=True, audio_context=context)
    window = transcribe_window(tiny_model, samples, options)
    whole = transcribe(
        tiny_model, samples, language="en", sample_len=8, temperature=0, fp16=False,
        no_speech_threshold=None, word_timestamps=True, audio_context=context,
    )  # fmt: skip
    first = [{k: v for k, v in s.items() if k != "id"} for s in whole["segments"] if s["seek"] == 0]
    for one, other in zip(window.segments, first, strict=True):
        if not other["text"]:  # transcribe empties what says nothing
            continue
        assert one.keys() == other.keys()
        assert (one["text"], one["tokens"]) == (other["text"], other["tokens"])
        assert (one["start"], one["end"]) == (other["start"], other["end"])
    assert window.advance > 0
    assert not window.silent


def test_silent_window_has_no_segments(tiny_model) -> None:
    options = replace(QUICK, no_speech_threshold=0.0, logprob_threshold=None)
    window = transcribe_window(tiny_model, _noise(2), options)
    assert window.silent
    assert window.segments == []
    assert window.advance == 200


def test_window_finds_its_language(tiny_model) -> None:
    options = replace(QUICK, decoding=DecodingOptions(sample_len=4), word_timestamps=True)
    window = transcribe_window(tiny_model, torch.from_numpy(_noise(1)), options)
    assert window.result.language in TOKENIZER.all_language_codes


@pytest.mark.parametrize("samples", [np.zeros((2, 100), np.float32), np.zeros(481000, np.float32)])
def test_window_that_is_none(tiny_model, samples: np.ndarray) -> None:
    with pytest.raises(AudioError, match="one row of at most 30 s"):
        transcribe_window(tiny_model, samples, QUICK)


def test_window_of_next_to_nothing(tiny_model) -> None:
    assert transcribe_window(tiny_model, np.zeros(3, np.float32), QUICK).advance >= 0


# -- recordings -------------------------------------------------------------------------------


def _transcribe(model, audio: Any, **given: Any) -> dict[str, Any]:
    quick = dict(temperature=0.0, sample_len=6, fp16=False, no_speech_threshold=None)
    return transcribe(model, audio, **{"language": "en", **quick, **given})


def test_every_kind_of_audio_gives_the_same(tiny_model, tmp_path) -> None:
    slin = (np.random.default_rng(1).integers(-9000, 9000, 32000)).astype("<i2")
    samples = slin.astype(np.float32) / 32768
    (tmp_path / "call.slin").write_bytes(slin.tobytes())
    expected = _transcribe(tiny_model, samples)
    for audio in (
        slin.tobytes(),
        torch.from_numpy(samples),
        tmp_path / "call.slin",
        str(tmp_path / "call.slin"),
    ):
        assert _transcribe(tiny_model, audio) == expected
    assert tiny_model.transcribe(samples, language="en", temperature=0.0, sample_len=6,
                                 fp16=False, no_speech_threshold=None) == expected  # fmt: skip


def test_nothing_is_transcribed_to_nothing(tiny_model) -> None:
    found = _transcribe(tiny_model, np.zeros(0, np.float32))
    assert found == {"text": "", "segments": [], "language": "en"}


def test_recording_that_never_moves_on_ends(monkeypatch, tiny_model) -> None:
    """Two timestamps of 0 s would begin the same window again for ever."""
    stuck = _result([_at(0), ONE, _at(0), _at(0), TWO])
    monkeypatch.setattr(FALLBACK, "decoding_steps", lambda *_: _steps(stuck))
    found = _transcribe(tiny_model, np.zeros(16000 * 65, np.float32))
    assert [s["seek"] for s in found["segments"]] == [0, 3000, 6000]


def test_seconds_of_context_shorten_the_windows(monkeypatch, tiny_model) -> None:
    monkeypatch.setattr(FALLBACK, "decoding_steps", lambda *_: _steps(_result([ONE])))
    found = _transcribe(tiny_model, np.zeros(16000 * 12, np.float32), audio_context=5)
    assert [s["seek"] for s in found["segments"]] == [0, 500, 1000]


def test_clips_beyond_the_end_are_left_out(monkeypatch, tiny_model) -> None:
    monkeypatch.setattr(FALLBACK, "decoding_steps", lambda *_: _steps(_result([ONE])))
    found = _transcribe(tiny_model, _noise(4), clip_timestamps=[1, 2, 3, 99, 200, 300])
    assert [(s["start"], s["end"]) for s in found["segments"]] == [(1, 2), (3, 4)]
    assert len(_transcribe(tiny_model, _noise(4), clip_timestamps="")["segments"]) == 1


@pytest.mark.parametrize("clips", ["a,b", "-1,3", [1, None], [float("nan")], "0;3"])
def test_bad_clips(tiny_model, clips: Any) -> None:
    with pytest.raises(InputError, match="clip_timestamps must be seconds"):
        _transcribe(tiny_model, _noise(1), clip_timestamps=clips)


def test_unknown_option(tiny_model) -> None:
    with pytest.raises(TypeError, match="beem_size"):
        _transcribe(tiny_model, _noise(1), beem_size=5)


def test_rows_of_audio(tiny_model) -> None:
    with pytest.raises(AudioError, match="one row"):
        _transcribe(tiny_model, np.zeros((2, 16000), np.float32))


def test_half_precision_on_a_cpu_is_warned_of(tiny_model) -> None:
    with pytest.warns(UserWarning, match="FP16 is not supported on CPU"):
        found = _transcribe(tiny_model, _noise(1), fp16=True)
    assert found == _transcribe(tiny_model, _noise(1))


def test_word_times_of_translations_are_warned_of(tiny_model) -> None:
    with pytest.warns(UserWarning, match="translation"):
        _transcribe(tiny_model, _noise(1), task="translate", word_timestamps=True)


def test_verbose(monkeypatch, tiny_model, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        FALLBACK, "decoding_steps", lambda *_: _steps(_result([_at(0), ONE, _at(2)]))
    )
    samples = _noise(3)
    _transcribe(tiny_model, samples, language=None)
    assert capsys.readouterr() == ("", "")
    _transcribe(tiny_model, samples, language=None, verbose=False)
    assert capsys.readouterr().out.startswith("Detected language: ")
    _transcribe(tiny_model, samples, language=None, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Detecting language using up to the first 30 seconds")
    assert lines[2] == "[00:00.000 --> 00:02.000]  one"


def test_progress_is_drawn_on_a_terminal(
    monkeypatch, tiny_model, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FALLBACK, "decoding_steps", lambda *_: _steps(_result([ONE])))
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    _transcribe(tiny_model, _noise(33), verbose=False)
    assert "transcribing  100% " in terminal.getvalue()
    assert "33.0/33.0 s" in terminal.getvalue()


def test_text_is_printed_on_any_terminal(monkeypatch, tiny_model) -> None:
    text = TOKENIZER.encode(" café")
    monkeypatch.setattr(FALLBACK, "decoding_steps", lambda *_: _steps(_result(text)))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    _transcribe(tiny_model, _noise(1), verbose=True)
    terminal.flush()
    assert terminal.buffer.getvalue() == b"[00:00.000 --> 00:01.000]  caf?\n"


def test_names_for_code_written_against_whisper() -> None:
    assert aii.transcribe is transcribe
    assert MODULE.load_model is aii.load_model


def test_seed_makes_drawing_repeatable(tiny_model) -> None:
    options = dict(temperature=1.0, condition_on_previous_text=False)
    samples = _noise(40)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = _transcribe(tiny_model, samples, seed=3, **options)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's numbers are touched
    torch.manual_seed(2)
    assert _transcribe(tiny_model, samples, seed=3, **options) == first
    assert _transcribe(tiny_model, samples, seed=4, **options) != first
    assert _transcribe(tiny_model, samples, **options) != first


def test_a_seed_holds_whatever_other_threads_draw(tiny_model) -> None:
    samples = _noise(3)
    options = {"temperature": 0.7, "language": "en", "sample_len": 20, "seed": 5}
    alone = _transcribe(tiny_model, samples, **options)
    with ThreadPoolExecutor(3) as pool:
        together = [pool.submit(_transcribe, tiny_model, samples, **options) for _ in range(6)]
    assert all(other.result() == alone for other in together)
