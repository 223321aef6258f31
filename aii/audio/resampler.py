"""Changing the sample rate of a stream, with the same result however the stream is cut.

A polyphase filter: a sinc windowed by Kaiser's window (J. F. Kaiser, "Nonrecursive digital filter
design using the I0-sinh window function", 1974), flat to 0.9 of the lower Nyquist frequency and 90
dB down from that frequency on. Its delay is taken out: output sample k is the signal at k / to_rate
seconds.

The sums are exact, so their order and with it the cutting cannot matter: samples are rounded to
2**-23 (16-bit audio is on that grid anyway) and coefficients to 2**-24, so that every partial sum
is a multiple of 2**-47 below 2**6 and float64 holds it without rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from aii.errors import AudioError

PASSBAND = 0.9
"""Share of the lower Nyquist frequency that passes unchanged."""
STOPBAND_DB = 90.0

_SAMPLE_STEPS = float(1 << 23)
_COEFFICIENT_STEPS = float(1 << 24)
_LARGEST_RATIO = 100
_PIECE = 1 << 16
_BLOCK_INPUTS = 64
_LARGEST_MATRIX = 1 << 20
_FINE_PHASES = 512


@dataclass(frozen=True, eq=False)
class _Bank:
    """The filters of one pair of rates.

    Attributes:
        up: output samples of a block.
        down: input samples from one block to the next.
        half: input samples that a filter reaches to either side of its output.
        matrix: (down + 2 * half - 1, up) the filters of a whole block as one product; or None
            where the rates have no small common measure.
        fine: in that case (513, 2 * half) filters for outputs at every 512th between two inputs;
            a line between the two nearest is 106 dB from the filter wanted.
    """

    up: int
    down: int
    half: int
    matrix: np.ndarray | None
    fine: np.ndarray | None


@lru_cache(maxsize=32)
def _bank(from_rate: int, to_rate: int) -> _Bank:
    """Design the filters for a pair of rates."""
    divisor = math.gcd(from_rate, to_rate)
    up, down = to_rate // divisor, from_rate // divisor
    # The lower of the two Nyquist frequencies, as a share of the input's.
    band = min(1.0, to_rate / from_rate)
    half = math.ceil((STOPBAND_DB - 7.95) / (2.285 * math.pi * (1.0 - PASSBAND) * band) / 2) + 1
    repeat = math.ceil(_BLOCK_INPUTS / down)
    if (down * repeat + 2 * half) * up * repeat > _LARGEST_MATRIX:
        fine = _filters(np.linspace(0.0, 1.0, _FINE_PHASES + 1), half, band)
        return _Bank(up, down, half, None, fine)
    up, down = up * repeat, down * repeat
    outputs = np.arange(up)
    first, place = np.divmod(outputs * down, up)
    matrix = np.zeros((down + 2 * half - 1, up))
    rows = first[:, None] + np.arange(2 * half)[None, :]
    matrix[rows, outputs[:, None]] = _on_grid(_filters(place / up, half, band))
    return _Bank(up, down, half, matrix, None)


def _filters(fractions: np.ndarray, half: int, band: float) -> np.ndarray:
    """Filters (P, 2 * half) for outputs (P,) that lie a fraction past an input sample."""
    beta = 0.1102 * (STOPBAND_DB - 8.7)
    cutoff = band * (1.0 + PASSBAND) / 2
    # Distance of each tap from its output, in input samples.
    taps = np.arange(1 - half, half + 1)[None, :] - fractions[:, None]
    inside = np.clip(1.0 - (taps / half) ** 2, 0.0, 1.0)
    filters = np.sinc(cutoff * taps) * np.i0(beta * np.sqrt(inside))
    return filters / filters.sum(axis=1, keepdims=True)


def _on_grid(coefficients: np.ndarray) -> np.ndarray:
    return np.round(coefficients * _COEFFICIENT_STEPS) / _COEFFICIENT_STEPS


def check_rates(from_rate: int, to_rate: int) -> None:
    """Refuse rates between which no resampler of ours converts.

    Raises:
        AudioError: a rate is not positive, or one is more than 100 times the other.
    """
    low, high = sorted((from_rate, to_rate))
    if low <= 0 or high > low * _LARGEST_RATIO:
        raise AudioError(
            f"cannot resample from {from_rate} to {to_rate} Hz; give rates above 0 of which "
            f"one is at most {_LARGEST_RATIO} times the other"
        )


def one_channel(samples: np.ndarray) -> None:
    """Refuse samples of more than one axis.

    Raises:
        AudioError: there is more than one.
    """
    if samples.ndim != 1:
        raise AudioError(f"samples have {samples.ndim} axes; mix them down to one channel (N,)")


class Resampler:
    """Converts a stream of mono samples from one rate to another, piece by piece.

    Args:
        from_rate: samples per second that come in.
        to_rate: samples per second that go out.

    Raises:
        AudioError: a rate is not positive, or one is more than 100 times the other.
    """

    def __init__(self, from_rate: int, to_rate: int = 16_000) -> None:
        check_rates(from_rate, to_rate)
        self.from_rate = from_rate
        self.to_rate = to_rate
        self._bank = None if from_rate == to_rate else _bank(from_rate, to_rate)
        self._restart()

    def _restart(self) -> None:
        self._received = 0
        self._sent = 0
        # Input from the first sample that the next output's block needs; silence before the start.
        self._held = np.zeros(self._bank.half - 1 if self._bank else 0)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Take the stream's next samples (N,); give what is now certain, (M,) float32.

        Float samples are -1 to 1; int16 samples are divided by 32768.
        """
        if samples.dtype == np.int16:
            exact = samples.astype(np.float64) / 32768.0
        else:
            exact = np.round(samples.astype(np.float64) * _SAMPLE_STEPS) / _SAMPLE_STEPS
        if self._bank is None:
            return exact.astype(np.float32)
        if len(exact) <= _PIECE:
            return self._advance(self._bank, exact, 0)
        starts = range(0, len(exact), _PIECE)
        return np.concatenate([self._advance(self._bank, exact[i : i + _PIECE], 0) for i in starts])

    def flush(self) -> np.ndarray:
        """End the stream: give the rest (M,) float32, and be ready for another stream.

        With it, N samples have become ``ceil(N * to_rate / from_rate)``.
        """
        if self._bank is None:
            return np.zeros(0, np.float32)
        tail = self._advance(self._bank, np.zeros(self._bank.half), self._bank.half)
        self._restart()
        return tail

    def _advance(self, bank: _Bank, fresh: np.ndarray, silence: int) -> np.ndarray:
        """Take ``fresh`` samples, the last ``silence`` of which lie past the stream's end."""
        self._received += len(fresh)
        end = max(0, -(-(self._received - bank.half) * bank.up // bank.down))
        block, skip = divmod(self._sent, bank.up)
        next_block = end // bank.up
        blocks = -(-(end - block * bank.up) // bank.up) if end > self._sent else 0
        width = bank.down + 2 * bank.half - 1
        missing = max(0, (blocks - 1) * bank.down + width - len(self._held) - len(fresh))
        held = np.concatenate((self._held, fresh, np.zeros(missing)))
        out = np.zeros(0, np.float32)
        if blocks:
            if bank.fine is not None:
                out = _gather(bank, bank.fine, held, skip, end - block * bank.up)
            else:
                assert bank.matrix is not None
                windows = np.lib.stride_tricks.sliding_window_view(held, width)[:: bank.down]
                out = (np.ascontiguousarray(windows[:blocks]) @ bank.matrix).reshape(-1)
                out = out[skip : end - block * bank.up].astype(np.float32)
        self._sent = max(self._sent, end)
        self._held = held[(next_block - block) * bank.down : len(held) - missing]
        return out


def _gather(bank: _Bank, fine: np.ndarray, held: np.ndarray, first: int, end: int) -> np.ndarray:
    """Outputs ``first`` to ``end`` of the block at the start of ``held``, each by its filter."""
    windows = np.lib.stride_tricks.sliding_window_view(held, 2 * bank.half)
    out = np.empty(end - first, np.float32)
    for start in range(0, len(out), 1024):
        outputs = np.arange(first + start, min(first + start + 1024, end))
        inputs, place = np.divmod(outputs * bank.down, bank.up)
        below, share = np.divmod(place * _FINE_PHASES, bank.up)
        weight = (share / bank.up)[:, None]
        filters = _on_grid(fine[below] * (1.0 - weight) + fine[below + 1] * weight)
        out[start : start + 1024] = np.einsum("ij,ij->i", windows[inputs], filters)
    return out


def resample(samples: np.ndarray, from_rate: int, to_rate: int = 16_000) -> np.ndarray:
    """All of a mono recording (N,) at another rate, (ceil(N * to_rate / from_rate),) float32.

    Raises:
        AudioError: the rates are out of range, or there is more than one axis.
    """
    one_channel(samples)
    resampler = Resampler(from_rate, to_rate)
    return np.concatenate((resampler.feed(samples), resampler.flush()))
