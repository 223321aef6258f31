"""Random weights at the sizes of published models, for speed comparisons.

Speed does not depend on what the weights know, but it does on how many tokens are decoded. The rows
of the token table from end-of-text on are zero, so their logits are exactly 0 and the greatest of
50,000 random ones is always above: no engine ever ends, turns to timestamps or falls back, and all
decode as many tokens as they are told.
"""

from __future__ import annotations

from pathlib import Path

import torch

from aii.model import ModelDimensions, Whisper

EOT = 50257

SIZES = {
    # name: width, heads, encoder layers, decoder layers, mel channels, vocabulary
    "micro": (64, 1, 1, 1, 80, 51865),  # to try the benchmarks themselves
    "tiny": (384, 6, 4, 4, 80, 51865),
    "base": (512, 8, 6, 6, 80, 51865),
    "small": (768, 12, 12, 12, 80, 51865),
    "turbo": (1280, 20, 32, 4, 128, 51866),
    "large-v3": (1280, 20, 32, 32, 128, 51866),
}


def dimensions(size: str) -> ModelDimensions:
    """The dimensions of a size of ``SIZES``."""
    width, heads, audio_layers, text_layers, n_mels, n_vocab = SIZES[size]
    return ModelDimensions(
        n_mels=n_mels,
        n_audio_ctx=1500,
        n_audio_state=width,
        n_audio_head=heads,
        n_audio_layer=audio_layers,
        n_vocab=n_vocab,
        n_text_ctx=448,
        n_text_state=width,
        n_text_head=heads,
        n_text_layer=text_layers,
    )


@torch.no_grad()
def random_checkpoint(size: str, path: Path, *, seed: int = 0) -> Path:
    """Write a checkpoint in OpenAI's format, float16 as theirs, with random weights."""
    dims = dimensions(size)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in Whisper(dims).state_dict().items():
        value = tensor.clone()
        if tensor.ndim > 1 and name != "encoder.positional_embedding":
            fan_in = tensor[0].numel()
            value = torch.randn(tensor.shape, generator=generator) * fan_in**-0.5
        elif not name.endswith("ln.weight") and tensor.ndim == 1:
            value = torch.randn(tensor.shape, generator=generator) * 0.02
        state[name] = value
    state["decoder.token_embedding.weight"][EOT:] = 0
    halves = {name: value.half() for name, value in state.items()}
    torch.save({"dims": dict(vars(dims)), "model_state_dict": halves}, path)
    return path
