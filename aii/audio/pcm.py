"""Bytes of telephony audio into float32 samples, and back.

SLIN is signed linear PCM: 16 bits, little-endian, mono; a sample is its integer divided by 32768.
G.711 (ITU-T G.711, 1988) packs a sample into 8 bits, mu-law in North America and Japan, A-law
elsewhere, at 8 kHz. Everything after this module is float32, -1 to 1, mono, 16 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aii.audio.fast_resampler import StreamResampler, make_resampler, resample
from aii.audio.resampler import Resampler
from aii.errors import AudioError
from aii.types import SAMPLE_RATE

__all__ = [
    "ENCODINGS",
    "SAMPLE_RATE",
    "PcmDecoder",
    "PcmFormat",
    "Resampler",
    "SlinDecoder",
    "alaw_to_float",
    "float_to_alaw",
    "float_to_slin",
    "float_to_ulaw",
    "resample",
    "slin_to_float",
    "ulaw_to_float",
]

ENCODINGS = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "ulaw": 1, "alaw": 1}
"""Bytes per sample of each encoding; all are little-endian."""


def slin_to_float(data: bytes) -> np.ndarray:
    """Samples (N,) float32 of 2 * N bytes of SLIN.

    Raises:
        AudioError: the number of bytes is odd.
    """
    if len(data) % 2:
        raise AudioError(
            f"SLIN has two bytes per sample, got {len(data)}; use SlinDecoder for a stream"
        )
    return _s16(data)


def float_to_slin(samples: np.ndarray) -> bytes:
    """SLIN bytes of samples, rounded to 16 bits and cut off at full scale (NaN as silence)."""
    scaled = np.nan_to_num(np.rint(np.asarray(samples, np.float64) * 32768.0))
    return np.clip(scaled, -32768, 32767).astype("<i2").tobytes()


def ulaw_to_float(data: bytes) -> np.ndarray:
    """Samples (N,) float32 of N bytes of G.711 mu-law."""
    return _ULAW[np.frombuffer(data, np.uint8)]


def alaw_to_float(data: bytes) -> np.ndarray:
    """Samples (N,) float32 of N bytes of G.711 A-law."""
    return _ALAW[np.frombuffer(data, np.uint8)]


def float_to_ulaw(samples: np.ndarray) -> bytes:
    """G.711 mu-law bytes of samples (N,): the nearest code, cut off at full scale."""
    return _encode(samples, *_ULAW_STEPS)


def float_to_alaw(samples: np.ndarray) -> bytes:
    """G.711 A-law bytes of samples (N,): the nearest code, cut off at full scale."""
    return _encode(samples, *_ALAW_STEPS)


def _ulaw_table() -> np.ndarray:
    """G.711 table 2: sent inverted; sign, 3 bits of segment, 4 bits within it, bias 33 (of 14)."""
    code = ~np.arange(256, dtype=np.uint8)
    segment, step = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    size = ((2 * step + 33) << segment) - 33
    return (np.where(code & 0x80, -size, size) / 8192.0).astype(np.float32)


def _alaw_table() -> np.ndarray:
    """G.711 table 1: every other bit is sent inverted; sign, 3 bits of segment, 4 bits within."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment, step = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    size = np.where(segment == 0, 2 * step + 1, (2 * step + 33) << np.maximum(segment - 1, 0))
    return (np.where(code & 0x80, size, -size) / 4096.0).astype(np.float32)


def _steps(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes (C,) in the order of their values, and the C - 1 values halfway between those."""
    values, place = np.unique(table[::-1], return_index=True)  # of mu-law's two zeros the positive
    return (255 - place).astype(np.uint8), ((values[1:] + values[:-1]) / 2).astype(np.float32)


def _encode(samples: np.ndarray, codes: np.ndarray, halfway: np.ndarray) -> bytes:
    finite = np.nan_to_num(np.asarray(samples, np.float32), nan=0.0)
    return codes[np.searchsorted(halfway, finite, side="right")].tobytes()


_ULAW = _ulaw_table()
_ALAW = _alaw_table()
_ULAW_STEPS = _steps(_ULAW)
_ALAW_STEPS = _steps(_ALAW)


def _u8(data: bytes) -> np.ndarray:
    return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / np.float32(128.0)


def _s16(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768.0)


def _s24(data: bytes) -> np.ndarray:
    # Each sample becomes the upper three bytes of a 32-bit one.
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return _s32(wide.tobytes())


def _s32(data: bytes) -> np.ndarray:
    return (np.frombuffer(data, "<i4") / 2147483648.0).astype(np.float32)


def _f32(data: bytes) -> np.ndarray:
    # What is no number is silence; a wild value must not reach the filters either.
    samples = np.nan_to_num(np.frombuffer(data, "<f4"), nan=0.0, posinf=1.0, neginf=-1.0)
    return np.clip(samples, -8.0, 8.0).astype(np.float32)


_DECODERS = {
    "u8": _u8,
    "s16": _s16,
    "s24": _s24,
    "s32": _s32,
    "f32": _f32,
    "ulaw": ulaw_to_float,
    "alaw": alaw_to_float,
}


@dataclass(frozen=True)
class PcmFormat:
    """How samples are laid out in bytes.

    Attributes:
        encoding: one of ``ENCODINGS``.
        rate: sample frames per second.
        channels: samples per frame, interleaved.

    Raises:
        AudioError: an unknown encoding, or a number that is not positive.
    """

    encoding: str
    rate: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise AudioError(
                f"encoding {self.encoding!r} is unknown; choose one of {', '.join(ENCODINGS)}"
            )
        if self.rate <= 0 or self.channels <= 0:
            raise AudioError(
                f"audio of {self.channels} channels at {self.rate} Hz; both must be above 0"
            )

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return ENCODINGS[self.encoding] * self.channels

    def decode(self, data: bytes) -> np.ndarray:
        """Samples (N,) float32 at ``rate`` of N whole frames, the channels averaged.

        Raises:
            AudioError: the last frame is incomplete.
        """
        if len(data) % self.frame_bytes:
            raise AudioError(
                f"{len(data)} bytes are not a whole number of {self.frame_bytes}-byte frames"
            )
        samples = _DECODERS[self.encoding](data)
        if self.channels == 1:
            return samples
        return samples.reshape(-1, self.channels).mean(axis=1, dtype=np.float64).astype(np.float32)


class PcmDecoder:
    """Turns a stream of bytes into samples at 16 kHz, whatever the pieces that it comes in.

    The samples of all pieces, joined, are the same bit for bit however the stream is cut: bytes of
    an incomplete frame wait for the next piece, and so does the state of the resampling filter.

    Args:
        format: how the bytes are laid out.
        to_rate: samples per second to give.

    Raises:
        AudioError: the rates are too far apart.
    """

    def __init__(self, format: PcmFormat, to_rate: int = SAMPLE_RATE) -> None:
        self.format = format
        self._rest = b""
        self._resampler: StreamResampler | None = None
        if format.rate != to_rate:
            self._resampler = make_resampler(format.rate, to_rate)

    def feed(self, data: bytes) -> np.ndarray:
        """Take the next bytes, any number; give the samples (N,) float32 that are now certain."""
        data = self._rest + data if self._rest else bytes(data)
        whole = len(data) - len(data) % self.format.frame_bytes
        self._rest = data[whole:]
        samples = self.format.decode(data[:whole] if self._rest else data)
        return self._resampler.feed(samples) if self._resampler else samples

    def flush(self) -> np.ndarray:
        """End the stream: give the last samples, drop an incomplete frame, begin anew."""
        self._rest = b""
        return self._resampler.flush() if self._resampler else np.zeros(0, np.float32)


class SlinDecoder(PcmDecoder):
    """A ``PcmDecoder`` of SLIN at ``rate`` samples per second."""

    def __init__(self, rate: int = SAMPLE_RATE) -> None:
        super().__init__(PcmFormat("s16", rate))
