"""Tokens and figures of ``decode`` equal openai-whisper's on the same weights and seed."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import whisper

from aii.decoding import DecodingOptions, DecodingTask, decode, detect_language

CASES = {
    "greedy": dict(),
    "text only": dict(without_timestamps=True),
    "free": dict(suppress_tokens="", suppress_blank=False, max_initial_timestamp=None),
    "listed": dict(suppress_tokens="-1,300,400", max_initial_timestamp=0.5),
    "list": dict(suppress_tokens=[290, 291, 292, -1]),
    "beams": dict(beam_size=5, patience=2.0),
    "few beams": dict(beam_size=5, patience=0.5, length_penalty=0.6),
    "one beam": dict(beam_size=1),
    "draws": dict(temperature=0.7),
    "best of": dict(temperature=1.0, best_of=3, length_penalty=0.0),
    "prompt": dict(prompt="hello there, my friend"),
    "prefix": dict(prefix="I am"),
    "both": dict(prompt="four five six", prefix=[1000, 1001, 1002], beam_size=3),
    "long prompt": dict(prompt=list(range(1000, 1400))),
    "translate": dict(task="translate"),
}


def _known_language(model) -> dict[str, str]:
    return {} if model.is_multilingual else {"language": "en"}


def _same(expected, found) -> None:
    assert found.tokens == expected.tokens
    assert found.text == expected.text
    assert found.language == expected.language
    assert found.temperature == expected.temperature
    assert math.isclose(found.avg_logprob, expected.avg_logprob, abs_tol=1e-4)
    assert math.isclose(found.no_speech_prob, expected.no_speech_prob, abs_tol=1e-5)
    assert found.compression_ratio == expected.compression_ratio
    assert torch.allclose(found.audio_features, expected.audio_features, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_same_tokens(pair, case: str) -> None:
    theirs, ours = pair
    options = {"sample_len": 40, "fp16": False, **_known_language(ours), **CASES[case]}
    grouped = "beam_size" in options or "best_of" in options  # theirs takes one audio then
    mel = torch.randn(1 if grouped else 2, ours.dims.n_mels, 3000)
    torch.manual_seed(5)
    expected = whisper.decode(theirs, mel, whisper.DecodingOptions(**options))
    torch.manual_seed(5)
    found = decode(ours, mel, DecodingOptions(**options))
    assert len(expected) == len(found) == len(mel)
    for one, other in zip(expected, found, strict=True):
        _same(one, other)
        assert len(other.tokens) > 0


@pytest.mark.parametrize("pair", ["multilingual", "english"], indirect=True)
def test_same_first_tokens(pair) -> None:
    """How prompt and prefix are cut to the room that there is."""
    theirs, ours = pair
    lengths = (None, 1, 60, 223, 224, 225, 300, 448)
    prefixes = (None, "so", list(range(1000, 1100)), [7], "nine " * 60)
    prompts = (None, "", " before ", [5], list(range(2000, 2400)))
    for sample_len, prefix, prompt in product(lengths, prefixes, prompts):
        options = dict(sample_len=sample_len, prefix=prefix, prompt=prompt, language="en")
        expected = whisper.decoding.DecodingTask(theirs, whisper.DecodingOptions(**options))
        found = DecodingTask(ours, DecodingOptions(**options))
        for name in ("initial_tokens", "sot_index", "sample_begin", "sample_len"):
            assert getattr(found, name) == getattr(expected, name), options


def test_full_length_window(pair) -> None:
    """As many tokens as fit: half the context to decode, behind a prompt of the other half."""
    theirs, ours = pair
    options = dict(prompt=list(range(2000, 2300)), fp16=False, **_known_language(ours))
    mel = torch.randn(ours.dims.n_mels, 3000)
    expected = theirs.decode(mel, whisper.DecodingOptions(**options))
    _same(expected, ours.decode(mel, DecodingOptions(**options)))


def test_features_instead_of_mel(pair) -> None:
    theirs, ours = pair
    options = dict(sample_len=10, fp16=False, **_known_language(ours))
    with torch.no_grad():
        features = ours.encoder(torch.randn(1, ours.dims.n_mels, 3000))
    expected = theirs.decode(features, whisper.DecodingOptions(**options))
    _same(expected[0], ours.decode(features, DecodingOptions(**options))[0])


def test_language_probabilities(pair) -> None:
    theirs, ours = pair
    mel = torch.randn(2, ours.dims.n_mels, 3000)
    if not ours.is_multilingual:
        with pytest.raises(ValueError, match="language"):
            detect_language(ours, mel)
        return
    expected_tokens, expected = theirs.detect_language(mel)
    tokens, found = ours.detect_language(mel)
    assert tokens.tolist() == expected_tokens.tolist()
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        assert all(abs(one[code] - other[code]) <= 1e-4 for code in one)
    token, probs = detect_language(ours, mel[0])
    assert token.item() == expected_tokens[0].item()
    assert probs.keys() == expected[0].keys()
    only = decode(ours, mel, task="lang_id", fp16=False)
    assert [r.language for r in only] == [max(p, key=p.get) for p in expected]
    assert all(r.language_probs is not None for r in only)
