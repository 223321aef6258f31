"""From the processor's memory to where the network is."""

from __future__ import annotations

import torch
from torch import Tensor


def put(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """``tensor`` on ``device``, in ``dtype`` (None: its own).

    To a GPU it goes from pinned memory, so that nobody waits for the copy: what is computed from it
    is queued behind it.
    """
    dtype = dtype or tensor.dtype
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device, dtype)
    return tensor.pin_memory().to(device, non_blocking=True).to(dtype)
