"""Audio into samples and spectrograms.

``pcm`` (SLIN, G.711, resampling), ``files`` (recordings), ``buffer`` (a rolling window). The names
of OpenAI's ``whisper.audio`` are here too, loaded when they are first used, so that importing
``aii.audio.pcm`` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aii.audio.files import load_audio
    from aii.mel import (
        CHUNK_LENGTH,
        FRAMES_PER_SECOND,
        HOP_LENGTH,
        N_FFT,
        N_FRAMES,
        N_SAMPLES,
        N_SAMPLES_PER_TOKEN,
        SAMPLE_RATE,
        TOKENS_PER_SECOND,
        log_mel_spectrogram,
        mel_filters,
        pad_or_trim,
    )
    from aii.utils import exact_div

__all__ = [
    "CHUNK_LENGTH",
    "FRAMES_PER_SECOND",
    "HOP_LENGTH",
    "N_FFT",
    "N_FRAMES",
    "N_SAMPLES",
    "N_SAMPLES_PER_TOKEN",
    "SAMPLE_RATE",
    "TOKENS_PER_SECOND",
    "exact_div",
    "load_audio",
    "log_mel_spectrogram",
    "mel_filters",
    "pad_or_trim",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"load_audio": "aii.audio.files", "exact_div": "aii.utils"}
    return getattr(import_module(homes.get(name, "aii.mel")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
