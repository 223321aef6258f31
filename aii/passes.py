"""Which way the passes of a decoder take: the fastest that there is for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .fused import Fused, fuses
from .graphed import Graphed
from .layers import hooked
from .ragged import Ragged

if TYPE_CHECKING:
    from .model import Whisper


def ragged(model: Whisper, places: int = 1, dtype: torch.dtype | None = None) -> Ragged:
    """The decoder of a model with places for rows and audios.

    Args:
        places: rows to begin with.
        dtype: of the encoded audio; None for the weights'.
    """
    if fuses(model, dtype):
        return Fused(model, places, dtype)
    if model.device.type == "cuda" and not hooked(model.decoder.modules()):
        return Graphed(model, places, dtype)
    return Ragged(model, places, dtype)
