"""What tests of compiled loops and of passes of the decoder share."""

from __future__ import annotations

from typing import Any

import pytest

from aii import compiled
from aii.model import ModelDimensions, Whisper

loops: Any = compiled.kernels()
needs_loops = pytest.mark.skipif(loops is None, reason="numba is not installed: aii[fast]")


def network(width: int, heads: int, layers: int = 2) -> Whisper:
    """A network of random weights large enough for its layers to matter; gradients switched off."""
    size = width * heads
    model = Whisper(ModelDimensions(80, 1500, size, heads, 1, 51865, 448, size, heads, layers))
    for name, weight in model.named_parameters():
        if not name.endswith("ln.weight"):
            weight.normal_(std=0.3 if weight.ndim == 1 else 0.15)
    return model.eval()
