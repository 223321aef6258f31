"""The network by itself: both forms of attention, shapes, what it refuses."""

from __future__ import annotations

import base64
import gzip

import numpy as np
import pytest
import torch

from aii.attention import AttentionRecorder, attend, attend_by_heads
from aii.model import ModelDimensions, Whisper, sinusoids


def dims(**changes) -> ModelDimensions:
    sizes = dict(
        n_mels=80, n_audio_ctx=100, n_audio_state=16, n_audio_head=2, n_audio_layer=1,
        n_vocab=51865, n_text_ctx=32, n_text_state=16, n_text_head=2, n_text_layer=2,
    )  # fmt: skip
    return ModelDimensions(**{**sizes, **changes})


@pytest.mark.parametrize("case", ["free", "causal", "mask"])
def test_explicit_attention_equals_fused(case: str) -> None:
    q, k, v = (torch.randn(2, 3, 7, 4) for _ in range(3))
    mask = torch.rand(2, 1, 7, 7) > 0.3
    mask[..., 0] = True
    options = {"free": {}, "causal": {"causal": True}, "mask": {"mask": mask}}[case]
    fused, nothing = attend(q, k, v, explicit=False, **options)
    written, scores = attend(q, k, v, explicit=True, **options)
    assert nothing is None
    assert torch.allclose(fused, written, atol=1e-6)
    assert torch.allclose(scores, q @ k.transpose(-1, -2) / 2, atol=1e-6)


@pytest.mark.parametrize(("rows", "heads", "frames"), [(1, 3, 70), (2, 5, 300), (1, 2, 1500)])
def test_attention_head_by_head_equals_explicit(rows, heads, frames) -> None:
    made = torch.Generator().manual_seed(frames)
    q, k, v = (torch.randn(rows, heads, frames, 16, generator=made) for _ in range(3))
    expected, _ = attend(q, k, v, explicit=True)
    torch.testing.assert_close(attend_by_heads(q, k, v), expected, atol=1e-5, rtol=1e-4)
    halves = [part.transpose(1, 2).contiguous().transpose(1, 2).bfloat16() for part in (q, k, v)]
    found, _ = attend(*halves)
    assert float((found - expected).norm() / expected.norm()) < 0.01
    halves[0].requires_grad_()
    attend(*halves)[0].sum().backward()  # training goes another way
    assert halves[0].grad is not None


@torch.no_grad()
def test_recorder_sees_and_changes_nothing(tiny_model) -> None:
    features = tiny_model.encoder(torch.randn(2, 80, 400))
    tokens = torch.randint(0, 51865, (4, 9))
    recorder = AttentionRecorder()
    logits = tiny_model.decoder(tokens, features, recorder=recorder)
    assert torch.allclose(logits, tiny_model.decoder(tokens, features), atol=1e-5)
    assert [tuple(scores.shape) for scores in recorder.cross] == [(4, 2, 9, 200)] * 2
    chosen = recorder.heads(tiny_model.alignment_heads)
    assert torch.equal(chosen, recorder.cross[1])

    # Pass by pass gives the same, and a bounded recorder the end of it.
    whole, last = AttentionRecorder(), AttentionRecorder(keep=3)
    for keeper in (whole, last):
        cache = tiny_model.decoder.new_cache(4)
        for i in range(9):
            tiny_model.decoder(tokens[:, [i]], features, cache, keeper)
    assert torch.allclose(whole.cross[0], recorder.cross[0], atol=1e-5)
    assert torch.allclose(last.cross[1], recorder.cross[1][:, :, -3:], atol=1e-5)


@torch.no_grad()
def test_shortened_audio_context(tiny_model) -> None:
    assert tiny_model.encoder(torch.randn(1, 80, 500)).shape == (1, 250, 32)
    assert tiny_model.encoder(torch.randn(1, 80, 501)).shape == (1, 251, 32)


@pytest.mark.parametrize("shape", [(1, 80, 3001), (1, 128, 3000), (80, 3000), (1, 80, 0)])
def test_encoder_refuses_other_shapes(tiny_model, shape) -> None:
    with pytest.raises(ValueError, match="the encoder takes mel of shape"):
        tiny_model.encoder(torch.zeros(shape))


def test_decoder_needs_audio(tiny_model) -> None:
    with pytest.raises(ValueError, match="neither encoded audio nor a cache"):
        tiny_model.decoder(torch.zeros(1, 1, dtype=torch.long), None)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "80", True])
def test_dimensions_are_checked(bad) -> None:
    with pytest.raises(ValueError, match="n_mels must be a positive integer"):
        dims(n_mels=bad)


def test_sinusoids() -> None:
    table = sinusoids(10, 8)
    assert table.shape == (10, 8)
    assert torch.allclose(table[:, 0], torch.arange(10).sin(), atol=1e-5)
    assert torch.allclose(table[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    with pytest.raises(ValueError, match="even number"):
        sinusoids(10, 7)


def test_alignment_heads() -> None:
    model = Whisper(dims())
    assert model.alignment_heads.to_dense().tolist() == [[False, False], [True, True]]
    flags = np.array([True, False, False, True])
    dump = base64.b85encode(gzip.compress(flags.tobytes()))
    model.set_alignment_heads(dump)
    assert model.alignment_heads.to_dense().tolist() == [[True, False], [False, True]]
    with pytest.raises(ValueError, match="alignment heads for 4 heads"):
        Whisper(dims(n_text_layer=3)).set_alignment_heads(dump)


@torch.no_grad()
def test_forward_and_new_weights_are_usable() -> None:
    model = Whisper(dims(n_vocab=51864)).eval()
    assert not model.is_multilingual
    assert model.num_languages == 99
    logits = model(torch.randn(1, 80, 200), torch.zeros(1, 3, dtype=torch.long))
    assert logits.shape == (1, 3, 51864)
    assert logits.isfinite().all()
    assert model.device.type == "cpu"
    assert model.metadata == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@torch.no_grad()
def test_cuda_equals_cpu(tiny_model) -> None:
    mel, tokens = torch.randn(1, 80, 3000), torch.randint(0, 51865, (1, 9))
    expected = tiny_model(mel, tokens)
    found = tiny_model.to("cuda")(mel.cuda(), tokens.cuda()).cpu()
    tiny_model.to("cpu")
    assert torch.allclose(found, expected, atol=1e-3)
