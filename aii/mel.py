"""Log-mel spectrograms: what Whisper's encoder hears.

Samples (float32 at 16 kHz, -1 to 1) become one column of ``n_mels`` numbers for every 10 ms: the
energy of a 25 ms Hann window in mel bands (Slaney's formula; the table in ``mel_filters.npz`` is
computed by ``scripts/make_mel_filters.py``), on a base-10 logarithmic scale, cut off 8 (80 dB)
below the loudest value and scaled to about -1 to 1. Source: Radford et al., "Robust Speech
Recognition via Large-Scale Weak Supervision", section 2.2.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from aii.errors import AudioError, InputError
from aii.resources import asset

SAMPLE_RATE = 16_000
N_FFT = 400
HOP_LENGTH = 160
CHUNK_LENGTH = 30
N_SAMPLES = CHUNK_LENGTH * SAMPLE_RATE
"""Samples in the 30 s that the encoder takes at once."""
N_FRAMES = N_SAMPLES // HOP_LENGTH
"""Spectrogram columns in 30 s."""
N_SAMPLES_PER_TOKEN = HOP_LENGTH * 2
"""Samples per encoder position: its second convolution has stride 2."""
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
TOKENS_PER_SECOND = SAMPLE_RATE // N_SAMPLES_PER_TOKEN

_MEL_BANDS = (80, 128)
_QUIETEST = 1e-10
_RANGE = 8.0

ArrayT = TypeVar("ArrayT", np.ndarray, torch.Tensor)
AudioInput = str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray | torch.Tensor


def pad_or_trim(array: ArrayT, length: int = N_SAMPLES, *, axis: int = -1) -> ArrayT:
    """Make ``array`` exactly ``length`` long on one axis: cut its end off or append zeros.

    Args:
        array: samples (..., N) or a spectrogram (..., T), numpy or torch; never changed in place,
            and of the right length already, given back itself; else the result is a copy.
        length: the wanted size of ``axis``.
        axis: which axis, counted from the end if negative.
    """
    size = array.shape[axis]
    axis %= array.ndim
    if isinstance(array, torch.Tensor):
        if size == length:
            return array
        if size > length:
            return array.narrow(axis, 0, length).clone()
        after = array.ndim - 1 - axis
        return F.pad(array, (0, 0) * after + (0, length - size))
    if size == length:
        return array
    if size > length:
        return array[(slice(None),) * axis + (slice(length),)].copy()
    widths = [(0, length - size if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, widths)


@cache
def mel_filters(device: torch.device | str, n_mels: int) -> torch.Tensor:
    """The matrix (n_mels, 201) float32 that sums a power spectrum into mel bands, on ``device``.

    Raises:
        InputError: ``n_mels`` is neither 80 nor 128.
    """
    if n_mels not in _MEL_BANDS:
        raise InputError(f"{n_mels} mel bands are not supported; Whisper models have 80 or 128")
    with np.load(asset("mel_filters.npz"), allow_pickle=False) as tables:
        return torch.from_numpy(tables[f"mel_{n_mels}"]).to(device)


@cache
def _window(device: torch.device) -> torch.Tensor:
    return torch.hann_window(N_FFT).to(device)


def log_mel_spectrogram(
    audio: AudioInput,
    n_mels: int = 80,
    padding: int = 0,
    device: str | torch.device | None = None,
    *,
    rows_alone: bool = False,
) -> torch.Tensor:
    """Log-mel spectrogram (n_mels, N // 160) or (B, n_mels, N // 160) float32 of N samples.

    Args:
        audio: a path (decoded by ``aii.audio.files.load_audio``), SLIN bytes (16 kHz, 16 bits,
            little-endian), or float samples (N,) or (B, N) at 16 kHz, numpy or
            torch.
        n_mels: 80, or 128 for large-v3 and turbo.
        padding: zero samples to append first; transcribing appends 30 s.
        device: where to compute; by default where ``audio`` is.
        rows_alone: for a batch (B, N), cut each row off 8 below its own loudest value, so that
            it comes out as it does alone. By default the loudest of the whole batch counts, as
            in OpenAI's implementation.

    Raises:
        AudioError: the audio cannot be read, holds integers, or is 200 samples or shorter with
            its padding (a window needs more to be mirrored at the edges).
        InputError: ``n_mels`` is neither 80 nor 128.
    """
    samples = _samples(audio)
    if device is not None:
        samples = samples.to(device)
    if padding > 0:
        samples = F.pad(samples, (0, padding))
    if samples.shape[-1] <= N_FFT // 2:
        raise AudioError(
            f"audio of {samples.shape[-1]} samples is too short for a spectrogram; "
            f"give more than {N_FFT // 2} (12.5 ms) or pad it"
        )
    levels = mel_levels(samples, n_mels)[..., :-1]
    loudest = levels.amax(dim=(-2, -1), keepdim=True) if rows_alone else levels.max()
    return normalized(levels, loudest)


def mel_levels(samples: torch.Tensor, n_mels: int, *, mirrored: bool = True) -> torch.Tensor:
    """Logarithm (base 10) of the energy in each mel band, (..., n_mels, frames) of (..., N).

    Args:
        mirrored: frames are centred on every 160th sample, what is missing at the edges being
            mirrored, so there are N // 160 + 1; else they begin there, and none lacks a sample.
    """
    window = _window(samples.device)
    spectrum = torch.stft(
        samples, N_FFT, HOP_LENGTH, window=window, center=mirrored, return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()  # a magnitude takes five times as long
    return (mel_filters(samples.device, n_mels) @ power).clamp(min=_QUIETEST).log10()


def normalized(levels: torch.Tensor, loudest: torch.Tensor) -> torch.Tensor:
    """Levels cut off 8 below the loudest, and scaled to about -1 to 1."""
    return (torch.maximum(levels, loudest - _RANGE) + 4.0) / 4.0


def _samples(audio: AudioInput) -> torch.Tensor:
    """Whatever ``log_mel_spectrogram`` takes, as a float32 tensor (N,) or (B, N)."""
    if isinstance(audio, (str, os.PathLike)):
        from aii.audio.files import load_audio

        audio = load_audio(audio)
    elif isinstance(audio, (bytes, bytearray, memoryview)):
        from aii.audio.pcm import slin_to_float

        audio = slin_to_float(bytes(audio))
    if isinstance(audio, np.ndarray):
        if audio.dtype.kind != "f":
            raise AudioError(
                f"samples are {audio.dtype}, not float; divide 16-bit samples by 32768 first"
            )
        audio = torch.from_numpy(np.require(audio, np.float32, ["C", "W"]))
    elif not isinstance(audio, torch.Tensor):
        raise AudioError(
            f"audio is a {type(audio).__name__}; give a path, SLIN bytes, a numpy array or a tensor"
        )
    elif not audio.is_floating_point():
        raise AudioError(
            f"samples are {audio.dtype}, not float; divide 16-bit samples by 32768 first"
        )
    if audio.ndim not in (1, 2):
        raise AudioError(f"samples have {audio.ndim} axes; give (N,), or (B, N) for a batch")
    return audio.float()
