"""Encoder, decoder and logits equal openai-whisper's on the same weights."""

from __future__ import annotations

import torch


@torch.no_grad()
def test_encoder_and_logits(pair) -> None:
    theirs, ours = pair
    mel = torch.randn(2, ours.dims.n_mels, 3000)
    tokens = torch.randint(0, ours.dims.n_vocab, (2, 30))
    assert (theirs.encoder(mel) - ours.encoder(mel)).abs().max() <= 1e-4
    expected = theirs(mel, tokens)
    found = ours(mel, tokens)
    assert found.dtype == torch.float32
    assert (expected - found).abs().max() <= 1e-4
    features = ours.embed_audio(mel)
    assert (expected - ours.logits(tokens, features)).abs().max() <= 1e-4


@torch.no_grad()
def test_half_precision_like_theirs(pair) -> None:
    theirs, ours = pair
    mel = torch.randn(1, ours.dims.n_mels, 3000)
    tokens = torch.randint(0, ours.dims.n_vocab, (1, 10))
    expected = theirs(mel.half(), tokens)
    assert torch.allclose(expected, ours(mel.half(), tokens), atol=0.05)


def test_same_state_dict(pair) -> None:
    theirs, ours = pair
    expected = {name: tuple(t.shape) for name, t in theirs.state_dict().items()}
    assert {name: tuple(t.shape) for name, t in ours.state_dict().items()} == expected


def test_properties(pair) -> None:
    theirs, ours = pair
    assert ours.is_multilingual == theirs.is_multilingual
    assert ours.num_languages == theirs.num_languages
    assert ours.device == theirs.device
    assert vars(ours.dims) == vars(theirs.dims)
    heads = ours.alignment_heads.to_dense(), theirs.alignment_heads.to_dense()
    assert torch.equal(*heads)
