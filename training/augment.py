"""Changes of speaker, room, line and codec, made to whole batches, and the log-mel of the result.

Nearly everything works on a batch (B, N) of 16 kHz samples with one length per row; behind its
length a row is digital silence, as in the product, which pads windows with zeros. What changes the
speaker is done where it is cheap: the vocal tract by mel filters with a warped frequency axis, the
speed without the pitch by another hop of the spectrogram, pitch and speed together by resampling
(see ``dataset.py``).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from aii.mel import N_FFT, SAMPLE_RATE

HOPS = (135, 144, 150, 160, 160, 160, 160, 168, 175, 180)
"""Samples between spectrogram columns; 160 is the true speed. All are quick to transform."""
WARPS = np.linspace(0.84, 1.24, 41)


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    log_part = 15.0 + np.log(np.maximum(hz, 1.0) / 1000.0) * (27.0 / np.log(6.4))
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(
        mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0)
    )


def warp_frequencies(hz: np.ndarray, alpha: float) -> np.ndarray:
    """Scale frequencies below 3 kHz by ``alpha``, join up at 4 kHz, keep those above.

    Vocal-tract length perturbation (Jaitly and Hinton, 2013), but with the edge of the telephone
    band left where it is.
    """
    knee = 3000.0 / max(alpha, 1.0)
    return np.interp(hz, [0.0, knee, 4000.0, 8000.0], [0.0, knee * alpha, 4000.0, 8000.0])


@cache
def warped_filters(n_mels: int = 80) -> Tensor:
    """(len(WARPS), n_mels, 201) mel filters, Whisper's own where the warp is 1."""
    edges = _mel_to_hz(np.linspace(0.0, float(_hz_to_mel(np.array(8000.0))), n_mels + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    banks = []
    for alpha in WARPS:
        hz = warp_frequencies(bins, alpha)[None]
        low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        rise, fall = (hz - low) / (centre - low), (high - hz) / (high - centre)
        triangles = np.maximum(0.0, np.minimum(rise, fall)) * 2.0 / (high - low)
        banks.append(triangles.astype(np.float32))
    return torch.from_numpy(np.stack(banks))


def log_mel(samples: Tensor, hop: int = 160, warps: Tensor | None = None) -> Tensor:
    """(B, N) to (B, 80, N // hop), each row scaled alone; ``warps`` (B,) index ``WARPS``."""
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(samples, N_FFT, hop, window=window, return_complex=True)[..., :-1]
    power = spectrum.real.square() + spectrum.imag.square()
    filters = warped_filters()
    plain = int(np.abs(WARPS - 1.0).argmin())
    chosen = filters[plain] if warps is None else filters[warps]
    levels = (chosen @ power).clamp(min=1e-10).log10()
    loudest = levels.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(levels, loudest - 8.0) + 4.0) / 4.0


def line_response(rng: np.random.Generator, size: int, telephone: bool) -> np.ndarray:
    """Gain over ``size`` // 2 + 1 frequencies: tilt, bumps and, on a telephone, its band."""
    octaves = np.linspace(0.0, 8000.0, 257)
    tilt = rng.uniform(-4.0, 4.0) * np.log2(np.maximum(octaves, 100.0) / 1000.0)
    for _ in range(rng.integers(0, 4)):
        centre, width = rng.uniform(150.0, 4000.0), rng.uniform(100.0, 900.0)
        tilt += rng.uniform(-9.0, 6.0) * np.exp(-(((octaves - centre) / width) ** 2))
    low = rng.uniform(150.0, 350.0) if telephone else rng.uniform(20.0, 150.0)
    tilt -= 18.0 * np.maximum(0.0, np.log2(low / np.maximum(octaves, 15.0)))
    if telephone or rng.random() < 0.3:
        high = rng.uniform(3200.0, 3800.0)
        tilt -= np.where(octaves > high, (octaves - high) * 0.12, 0.0)
    gain = 10.0 ** (np.clip(tilt, -90.0, 20.0) / 20.0)
    return np.interp(np.linspace(0.0, 8000.0, size // 2 + 1), octaves, gain).astype(np.float32)


def room_response(rng: np.random.Generator, size: int) -> np.ndarray:
    """Spectrum (size // 2 + 1) of a direct sound and a tail of decaying noise."""
    length = int(SAMPLE_RATE * rng.uniform(0.05, 0.35))
    decay = np.exp(-6.9 * np.arange(length) / length)
    tail = rng.standard_normal(length) * decay
    tail *= rng.uniform(0.15, 0.8) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return np.fft.rfft(tail, size).astype(np.complex64)


def mu_law(samples: Tensor, levels: float = 127.0, mu: float = 255.0) -> Tensor:
    """To G.711's logarithmic steps and back, -1 to 1."""
    squeezed = torch.log1p(mu * samples.abs().clamp(max=1.0)) / float(np.log1p(mu))
    steps = (squeezed * levels).round() / levels
    return samples.sign() * (torch.expm1(steps * float(np.log1p(mu))) / mu)


def a_law(samples: Tensor, a: float = 87.6) -> Tensor:
    """As :func:`mu_law`, with the A-law curve."""
    size, scale = samples.abs().clamp(max=1.0), 1.0 + float(np.log(a))
    squeezed = torch.where(size < 1 / a, a * size, 1.0 + (a * size).clamp(min=1e-9).log()) / scale
    steps = (squeezed * 127.0).round() / 127.0
    opened = torch.where(steps < 1 / scale, steps * scale / a, (steps * scale - 1.0).exp() / a)
    return samples.sign() * opened


def modulated_noise(samples: Tensor, snr_db: float) -> Tensor:
    """Noise that follows the signal: a model of low-rate codecs such as GSM (ITU-T P.810)."""
    return samples * (1.0 + 10.0 ** (-snr_db / 20.0) * torch.randn_like(samples))


def through_telephone(samples: Tensor, codec: str = "mu-law") -> Tensor:
    """(B, N), already limited to the band, at 8 kHz through a codec and back to 16 kHz."""
    narrow = samples[:, ::2]
    if codec == "a-law":
        narrow = a_law(narrow)
    elif codec == "gsm":
        narrow = mu_law(modulated_noise(narrow, 18.0), levels=63.0)
    else:
        narrow = mu_law(narrow)
    size = narrow.shape[1] * 2
    spectrum = torch.fft.rfft(narrow)
    wide = torch.zeros(len(narrow), size // 2 + 1, dtype=spectrum.dtype)
    wide[:, : spectrum.shape[1] - 1] = spectrum[:, :-1] * 2.0
    return torch.fft.irfft(wide, size)[:, : samples.shape[1]]


def telephone_band(samples: Tensor, low: float = 300.0, high: float = 3400.0) -> Tensor:
    """(B, N) limited to the telephone band with soft edges; used by the evaluation."""
    hz = torch.linspace(0.0, SAMPLE_RATE / 2, samples.shape[1] // 2 + 1)
    gain = torch.sigmoid((hz - low) / 30.0) * torch.sigmoid((high - hz) / 60.0)
    return torch.fft.irfft(torch.fft.rfft(samples) * gain, samples.shape[1])


def mask_bands(rng: np.random.Generator, mel: Tensor, lengths: np.ndarray) -> None:
    """SpecAugment (Park et al., 2019) in place on (B, 80, T): bands and short times blanked."""
    for row, length in enumerate(lengths):
        if rng.random() < 0.6:
            continue
        floor = mel[row].min() if rng.random() < 0.5 else mel[row].mean()
        for _ in range(rng.integers(0, 3)):
            width = int(rng.integers(2, 14))
            start = int(rng.integers(0, 80 - width))
            mel[row, start : start + width] = floor
        for _ in range(rng.integers(0, 1 + max(1, int(length) // 120))):
            width = int(rng.integers(2, 10))
            start = int(rng.integers(0, max(1, int(length) - width)))
            mel[row, :, start : start + width] = floor


class Augmenter:
    """Applies random changes to batches.

    Args:
        noise: long recordings of noise, (K, M) float32 of about unit power.
    """

    def __init__(self, noise: np.ndarray) -> None:
        self.noise = noise

    def _filtered(
        self, rng: np.random.Generator, samples: Tensor, phone: np.ndarray, share: float
    ) -> None:
        rows = np.flatnonzero(phone | (rng.random(len(samples)) < share))
        if not len(rows):
            return
        size = samples.shape[1]
        gains = np.stack([line_response(rng, size, bool(phone[row])) for row in rows])
        response = torch.from_numpy(gains).to(torch.complex64)
        for i in range(len(rows)):
            if rng.random() < 0.3:
                response[i] *= torch.from_numpy(room_response(rng, size))
        samples[rows] = torch.fft.irfft(torch.fft.rfft(samples[rows]) * response, size)

    def _noisy(
        self, rng: np.random.Generator, samples: np.ndarray, lengths: np.ndarray, easy: bool
    ) -> None:
        for row, length in enumerate(lengths):
            speech = samples[row, :length]
            level = float(np.sqrt((speech**2).mean())) or 0.05
            if rng.random() < 0.75 and length > 0:
                track = self.noise[rng.integers(len(self.noise))]
                start = int(rng.integers(0, len(track) - length))
                hard = not easy and rng.random() < 0.6
                snr = rng.uniform(5.0, 30.0) if hard else rng.uniform(25.0, 50.0)
                speech += track[start : start + length] * (level * 10.0 ** (-snr / 20.0))
            peak = float(np.abs(speech).max()) if length else 0.0
            speech *= 10.0 ** (rng.uniform(-36.0, 0.0) / 20.0) / max(peak, 1e-3)
            if easy:
                continue
            if rng.random() < 0.06:
                np.clip(speech * rng.uniform(1.5, 5.0), -0.9, 0.9, out=speech)
            if rng.random() < 0.08:
                for _ in range(max(1, int(length / 320 * rng.uniform(0.005, 0.05)))):
                    start = int(rng.integers(0, max(1, length - 320)))
                    speech[start : start + 320] = 0.0

    def __call__(
        self,
        rng: np.random.Generator,
        samples: np.ndarray,
        lengths: np.ndarray,
        hop: int,
        *,
        easy: bool = False,
    ) -> Tensor:
        """(B, N) samples with (B,) lengths to (B, 80, N // hop) log-mel; ``samples`` is used up."""
        phone = rng.random(len(samples)) < (0.1 if easy else 0.5)
        batch = torch.from_numpy(samples)
        self._filtered(rng, batch, phone, 0.0 if easy else 0.6)
        self._noisy(rng, samples, lengths, easy)
        for codec, share in (("mu-law", 0.5), ("a-law", 0.25), ("gsm", 0.25)):
            rows = np.flatnonzero(phone & (rng.random(len(samples)) < share))
            if len(rows):
                batch[rows] = through_telephone(batch[rows], codec)
                phone[rows] = False
        batch = (batch * 32767.0).round() / 32768.0
        batch *= torch.arange(batch.shape[1])[None] < torch.from_numpy(lengths)[:, None]
        middle = int(np.abs(WARPS - 1.0).argmin())
        warps = rng.integers(0, len(WARPS), len(samples))
        warps[rng.random(len(samples)) < (1.0 if easy else 0.3)] = middle
        mel = log_mel(batch, hop, torch.from_numpy(warps))
        if not easy:
            mask_bands(rng, mel, lengths // hop)
        return mel
