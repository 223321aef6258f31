"""What ``decode`` refuses, and that a batch gives each audio what it gives alone."""

from __future__ import annotations

import pytest
import torch

from aii.audio.pcm import slin_to_float
from aii.decoding import (
    DecodingOptions,
    compression_ratio,
    decode,
    decode_features,
    detect_language,
    encode,
)
from aii.mel import log_mel_spectrogram
from aii.resources import asset


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(task="sing"), "task must be"),
        (dict(beam_size=2, best_of=2, temperature=1.0), "exclude each other"),
        (dict(best_of=2), "temperature above 0"),
        (dict(patience=1.0), "give beam_size too"),
        (dict(length_penalty=1.5, beam_size=2), "length_penalty must be from 0 to 1"),
        (dict(suppress_tokens="1,two"), "suppress_tokens must be token numbers"),
        (dict(suppress_tokens=[99999]), "not in the model's vocabulary"),
        (dict(prompt=[99999]), "token 99999 is not in the model's vocabulary"),
        (dict(prefix=[100] * 450), "shorten the prefix"),
        (dict(language="klingon"), "klingon"),
    ],
)
def test_bad_options(tiny_model, options, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        decode(tiny_model, torch.zeros(80, 3000), fp16=False, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{}, {"beam_size": 3, "patience": 0.4}, {"beam_size": 2}])
def test_a_batch_gives_each_what_it_gets_alone(embedded_model, options) -> None:
    samples = slin_to_float(asset("sample_call.slin").read_bytes())
    mel = torch.stack(
        [log_mel_spectrogram(samples[i : i + 48_000]) for i in range(0, 256_000, 64_000)]
    )
    options = DecodingOptions(sample_len=30, fp16=False, **options)
    together = decode(embedded_model, mel, options)
    alone = [decode(embedded_model, one, options) for one in mel]
    assert len({tuple(result.tokens) for result in alone}) > 1
    for one, other in zip(together, alone, strict=True):
        assert one.tokens == other.tokens
        assert one.language == other.language
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=1e-5)


def test_features_of_a_shortened_context(embedded_model) -> None:
    mel = torch.randn(1, 80, 300)
    options = DecodingOptions(sample_len=12, fp16=False, language="en")
    features = encode(embedded_model, mel)
    assert features.shape[1] == 150
    (result,) = decode_features(embedded_model, features, options)
    assert result.tokens == decode(embedded_model, mel, options)[0].tokens
    assert 1 <= result.passes <= 12


def test_prefix_leaves_room(tiny_model) -> None:
    """The end of a long prefix is kept, as much as half the context leaves beside the text."""
    mel = torch.randn(80, 400)
    options = dict(sample_len=200, fp16=False, language="en", without_timestamps=True)
    short = decode(tiny_model, mel, prefix=list(range(500, 524)), **options)
    long = decode(tiny_model, mel, prefix=list(range(400, 524)), **options)
    assert short.tokens == long.tokens


def test_language_of_named_and_unnamed(embedded_model) -> None:
    mel = torch.randn(80, 300)
    found = decode(embedded_model, mel, fp16=False, sample_len=2)
    token, probs = detect_language(embedded_model, mel)
    assert found.language == max(probs, key=probs.get)
    assert sum(probs.values()) == pytest.approx(1.0, abs=1e-4)
    assert token.ndim == 0
    assert decode(embedded_model, mel, fp16=False, language="de", task="lang_id").language == "de"


def test_compression_ratio() -> None:
    assert compression_ratio("four " * 50) > 10
    assert compression_ratio("press five for billing") < 1
