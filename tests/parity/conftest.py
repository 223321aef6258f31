"""Pairs of networks, openai-whisper's and ours, that share their weights."""

from __future__ import annotations

import pytest
import torch
import whisper

from aii.model import ModelDimensions, Whisper
from aii.resources import asset

SHAPES = {
    "multilingual": dict(
        n_mels=80, n_vocab=51865, n_audio_state=64, n_audio_head=2, n_audio_layer=2, n_text_layer=2
    ),
    "english": dict(
        n_mels=80, n_vocab=51864, n_audio_state=64, n_audio_head=4, n_audio_layer=1, n_text_layer=3
    ),
    "large-v3": dict(
        n_mels=128, n_vocab=51866, n_audio_state=128, n_audio_head=2, n_audio_layer=3,
        n_text_layer=3,
    ),
    "turbo": dict(
        n_mels=128, n_vocab=51866, n_audio_state=64, n_audio_head=1, n_audio_layer=6, n_text_layer=1
    ),
    "wide": dict(
        n_mels=80, n_vocab=51865, n_audio_state=192, n_audio_head=3, n_audio_layer=1,
        n_text_layer=4,
    ),
}  # fmt: skip


def random_pair(name: str, seed: int = 0):
    """(openai's, ours) of random weights; spread enough that no two tokens tie."""
    shape = SHAPES[name]
    dims = dict(
        n_audio_ctx=1500,
        n_text_ctx=448,
        n_text_state=shape["n_audio_state"],
        n_text_head=shape["n_audio_head"],
        **shape,
    )
    torch.manual_seed(seed)
    theirs = whisper.model.Whisper(whisper.model.ModelDimensions(**dims)).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.08 if weight.ndim > 1 else 0.1)
    ours = Whisper(ModelDimensions(**dims)).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def embedded_pair():
    """(openai's, ours) with the embedded model's weights, each read by its own loader."""
    from aii.checkpoints import load_model

    return whisper.load_model(str(asset("embedded.pt")), device="cpu"), load_model("embedded")


@pytest.fixture(scope="session", params=[*SHAPES, "embedded"])
def pair(request):
    """Each pair in turn: (openai's model, ours)."""
    return embedded_pair() if request.param == "embedded" else random_pair(request.param)
