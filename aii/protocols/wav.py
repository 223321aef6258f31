"""A WAV file piped into the audio port."""

from __future__ import annotations

from aii.audio.files import WavFormat, parse_wav_header
from aii.audio.pcm import PcmFormat, float_to_slin
from aii.errors import AudioError
from aii.protocols.base import Framing
from aii.protocols.frames import Audio, Format, Frame, Hangup

RIFF, WAVE = b"RIFF", b"WAVE"
SIGNATURE = 12
"""Bytes that show a WAV file: RIFF, four bytes of size, WAVE."""


class WavFraming(Framing):
    """Reads the header, says the rate, and turns the samples into SLIN.

    16-bit mono passes through as it is; other layouts (``aii.audio.files.parse_wav_header``) are
    rounded to 16 bits, channels averaged. What follows the samples is not audio. A header that
    cannot be used is said in a notice and ends the call: its bytes are not speech. Holds at most
    the header (1 MiB) or one sample of every channel.
    """

    _name = "wav"

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()
        self._parse_at = SIGNATURE  # bytes held before the header is tried again
        self._pcm: PcmFormat | None = None
        self._left: int | None = None  # bytes of samples to come; None: to the end

    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        self._held += data
        if self._pcm is None:
            return self._header() if len(self._held) >= self._parse_at else []
        return self._samples()

    def _drain(self) -> list[Frame]:
        frames = self._header() if self._pcm is None and self._held else []
        if self._pcm is None and not frames:
            return self._notice("the call ended within its WAV header")
        return frames

    def _header(self) -> list[Frame]:
        try:
            found: WavFormat | None = parse_wav_header(bytes(self._held))
        except AudioError as error:
            self._held.clear()
            return [*self._notice(str(error)), Hangup("refused")]
        if found is None:
            self._parse_at = len(self._held) + 1 + len(self._held) // 16
            return []
        self._pcm, self._left = found.pcm, found.data_size
        del self._held[: found.data_offset]
        return [Format(found.rate, found.encoding, found.channels), *self._samples()]

    def _samples(self) -> list[Frame]:
        assert self._pcm is not None
        if self._left is not None:
            del self._held[self._left :]
        whole = len(self._held)
        plain = self._pcm.encoding == "s16" and self._pcm.channels == 1
        if not plain:
            whole -= whole % self._pcm.frame_bytes
        taken = bytes(self._held[:whole])
        del self._held[:whole]
        if self._left is not None:
            self._left -= whole
        if not taken:
            return []
        return [Audio(taken if plain else float_to_slin(self._pcm.decode(taken)))]
