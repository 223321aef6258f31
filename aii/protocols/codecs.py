"""Codecs by the names that telephone systems give them, and their payloads as SLIN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aii.audio.pcm import alaw_to_float, float_to_slin, ulaw_to_float

_EVERY = bytes(range(256))
_AS_SLIN = {
    "ulaw": np.frombuffer(float_to_slin(ulaw_to_float(_EVERY)), "<i2"),
    "alaw": np.frombuffer(float_to_slin(alaw_to_float(_EVERY)), "<i2"),
}
"""SLIN samples of the 256 codes of each law; both laws' values are whole numbers of 16 bits."""


@dataclass(frozen=True)
class Codec:
    """How audio is written on a wire.

    Attributes:
        encoding: ``s16``, ``ulaw`` or ``alaw`` (``aii.audio.pcm.ENCODINGS``).
        rate: samples per second.
    """

    encoding: str
    rate: int

    def to_slin(self, payload: bytes) -> bytes:
        """The payload as SLIN at the same rate; SLIN itself is passed on, an odd byte too."""
        table = _AS_SLIN.get(self.encoding)
        return payload if table is None else table[np.frombuffer(payload, np.uint8)].tobytes()

    def silence(self, milliseconds: int) -> bytes:
        """So much silence on the wire, in whole samples."""
        samples = self.rate * milliseconds // 1000
        return {"s16": b"\0\0", "ulaw": b"\xff", "alaw": b"\xd5"}[self.encoding] * samples


SLIN_RATES = {
    "slin": 8_000,
    "slin12": 12_000,
    "slin16": 16_000,
    "slin24": 24_000,
    "slin32": 32_000,
    "slin44": 44_100,
    "slin48": 48_000,
    "slin96": 96_000,
    "slin192": 192_000,
}
"""Asterisk's names of SLIN and their samples per second."""

CODECS = {
    **{name: Codec("s16", rate) for name, rate in SLIN_RATES.items()},
    "ulaw": Codec("ulaw", 8_000),
    "alaw": Codec("alaw", 8_000),
}
"""Asterisk's names of the codecs that are understood."""
