"""How much audio the encoder is given: the whole 30 s, or a window's real length and a margin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aii.errors import ConfigError
from aii.mel import FRAMES_PER_SECOND, HOP_LENGTH, N_FRAMES

if TYPE_CHECKING:
    from aii.model import Whisper

FRAMES_PER_POSITION = 2
"""Frames of 10 ms that the encoder makes one position (20 ms) of."""

_CONTEXT_MARGIN = 100  # frames of 10 ms behind the audio in a shortened context
_CONTEXT_STEP = 50
_SHORTEST_CONTEXT = 150


def window_frames(model: Whisper) -> int:
    """Frames of 10 ms that fit into the model's encoder: 3000 for every published model."""
    return min(N_FRAMES, FRAMES_PER_POSITION * model.dims.n_audio_ctx)


def default_audio_context(model: Whisper) -> str | float:
    """The context a model was trained for, as its checkpoint says; "full" for OpenAI's."""
    return parse_audio_context(model.metadata.get("audio_context", "full"))


def parse_audio_context(setting: object) -> str | float:
    """Check an audio context setting: "full", "auto", or seconds as a number or text.

    Raises:
        ConfigError: it is none of these.
    """
    if setting in ("full", "auto"):
        return str(setting)
    try:
        seconds = float(str(setting))
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"audio context must be full, auto or seconds above 0, not {setting!r}")
    return seconds


def audio_context_frames(model: Whisper, samples: int, setting: str | float) -> int:
    """Mel frames to pad a window to before it is encoded.

    Args:
        samples: real samples (16 kHz) in the window.
        setting: "full": the model's whole context (30 s), exact for every model. "auto": the real
            length and a margin of 1 s, at least 1.5 s. Seconds: that, or the real length where it
            is more. The last two are rounded up to 0.5 s and suit models trained so.

    Raises:
        ConfigError: ``setting`` is something else.
    """
    full = window_frames(model)
    setting = parse_audio_context(setting)
    if setting == "full":
        return full
    real = -(-samples // HOP_LENGTH)
    if isinstance(setting, str):
        wanted = max(real + _CONTEXT_MARGIN, _SHORTEST_CONTEXT)
    else:
        wanted = max(real, math.ceil(setting * FRAMES_PER_SECOND))
    return min(full, -(-wanted // _CONTEXT_STEP) * _CONTEXT_STEP)
