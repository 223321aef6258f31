"""Log-mel of windows that overlap, as a call's do, without transforming any audio twice.

What a frame's levels are depends on its 25 ms of audio alone; only at a window's edges (mirrored at
the beginning, silence behind the end) and in the last step, the cut at 8 below the loudest, does
the window matter. So the levels of whole frames are kept for each call, and each window takes from
them what it has in common with the one before.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aii.mel import HOP_LENGTH, N_FFT, SAMPLE_RATE, mel_levels, normalized

KEPT_SECONDS = 60.0
"""How long a call's levels are kept that no window asks for."""

_HALF = N_FFT // 2
_EDGE = -(-_HALF // HOP_LENGTH)  # frames at a window's beginning that see what is mirrored there
_BEHIND = 2 * N_FFT  # samples of silence behind a window
_WEIGHTS = np.random.default_rng(0).integers(1, 4096, HOP_LENGTH).astype(np.float32)


@dataclass
class _Kept:
    """The whole frames of a call's last window.

    Attributes:
        first: position of its first sample in the call.
        levels: (n_mels, frames).
        used: clock reading of that window.
        marks: (frames of 10 ms, 2) sums of the samples, weighed at random, and of their squares,
            to know them by.
    """

    first: int
    levels: Tensor
    used: float
    marks: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.levels.numel() * self.levels.element_size() + self.marks.nbytes


class MelMemory:
    """The levels of many calls' last windows, within ``limit`` bytes; the longest unused go first.

    A call has a window at least every half minute while somebody speaks. So what is unused for
    ``KEPT_SECONDS`` goes with the next window of any call: most likely its own call is over.

    Attributes:
        frames: of all windows so far; ``reused`` of them were known.

    Args:
        n_mels: mel bands.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        n_mels: int,
        *,
        limit: int = 256 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._n_mels = n_mels
        self._limit = limit
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._nbytes = 0
        self.frames = 0
        self.reused = 0

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._nbytes

    def window(self, call_id: str, samples: np.ndarray, start: float) -> Tensor:
        """(n_mels, N // 160, at least 1) log-mel of a window, as ``aii.windows.window_mel`` has it.

        Args:
            samples: (N,) float32 at 16 kHz.
            start: seconds from the beginning of the call to the first of them.
        """
        first = round(start * SAMPLE_RATE)
        marks = _marks(samples)
        before = self._kept.pop(call_id, None)
        self._nbytes -= 0 if before is None else before.nbytes
        levels = self._levels(before, first, samples, marks)
        whole = max((len(samples) - _HALF) // HOP_LENGTH + 1, 0)
        self._keep(call_id, _Kept(first, levels[:, :whole].clone(), self._clock(), marks))
        size = max(1, len(samples) // HOP_LENGTH)
        return normalized(levels, levels.max())[:, :size]

    def _levels(
        self, kept: _Kept | None, first: int, samples: np.ndarray, marks: np.ndarray
    ) -> Tensor:
        """(n_mels, frames) of a window and the silence behind it."""
        frames = (len(samples) + _BEHIND) // HOP_LENGTH
        self.frames += frames
        shared = None if kept is None else _shared(kept, first, marks)
        if kept is None or shared is None:
            audio = F.pad(_tensor(samples), (0, _BEHIND))
            return mel_levels(audio, self._n_mels)[:, :-1]
        begin, end, offset = shared
        self.reused += end - begin
        pieces = [kept.levels[:, begin + offset : end + offset]]
        if begin:  # centred on the first samples, where the window before began elsewhere
            head = _tensor(samples[: HOP_LENGTH * begin + _HALF])
            pieces.insert(0, mel_levels(head, self._n_mels)[:, :begin])
        tail = _tensor(samples[HOP_LENGTH * end - _HALF :])
        tail = F.pad(tail, (0, _BEHIND + N_FFT))
        pieces.append(mel_levels(tail, self._n_mels, mirrored=False)[:, : frames - end])
        return torch.cat(pieces, dim=1)

    def _keep(self, call_id: str, kept: _Kept) -> None:
        self._kept[call_id] = kept
        self._nbytes += kept.nbytes
        while self._nbytes > self._limit or self._oldest < kept.used - KEPT_SECONDS:
            self._nbytes -= self._kept.popitem(last=False)[1].nbytes

    @property
    def _oldest(self) -> float:
        return next(iter(self._kept.values())).used if self._kept else math.inf


def _shared(kept: _Kept, first: int, marks: np.ndarray) -> tuple[int, int, int] | None:
    """Which frames of a window are known: from, to, and how much later they stood before."""
    offset, odd = divmod(first - kept.first, HOP_LENGTH)
    if odd or offset < 0:
        return None
    same = min(len(kept.marks) - offset, len(marks))
    begin = 0 if offset == 0 else _EDGE
    # A frame is centred on the boundary of two pieces of 10 ms and reaches into the next ones.
    end = min(same - _EDGE + 1, kept.levels.shape[1] - offset)
    if (
        end - begin < 1
        or end < _EDGE
        or not np.array_equal(kept.marks[offset : offset + same], marks[:same])
    ):
        return None
    return begin, end, offset


def _marks(samples: np.ndarray) -> np.ndarray:
    """Sums by which pieces of 10 ms are known again, (N // 160, 2)."""
    whole = len(samples) // HOP_LENGTH
    pieces = samples[: whole * HOP_LENGTH].reshape(whole, HOP_LENGTH)
    sums = np.einsum("ij,j->i", pieces, _WEIGHTS, dtype=np.float64)
    return np.stack([sums, np.einsum("ij,ij->i", pieces, pieces, dtype=np.float64)], axis=1)


def _tensor(samples: np.ndarray) -> Tensor:
    return torch.from_numpy(np.require(samples, np.float32, ["C", "W"]))
