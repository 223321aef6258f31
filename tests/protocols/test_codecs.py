from __future__ import annotations

import pytest

from aii.audio.pcm import alaw_to_float, float_to_slin, slin_to_float, ulaw_to_float
from aii.protocols.codecs import CODECS, Codec

EVERY = bytes(range(256))


def test_g711_by_table_is_g711_by_arithmetic() -> None:
    assert CODECS["ulaw"].to_slin(EVERY) == float_to_slin(ulaw_to_float(EVERY))
    assert CODECS["alaw"].to_slin(EVERY) == float_to_slin(alaw_to_float(EVERY))
    # The 16 bits are exact: nothing was rounded.
    assert slin_to_float(CODECS["ulaw"].to_slin(EVERY)).tolist() == ulaw_to_float(EVERY).tolist()
    assert slin_to_float(CODECS["alaw"].to_slin(EVERY)).tolist() == alaw_to_float(EVERY).tolist()


def test_slin_is_passed_on() -> None:
    assert CODECS["slin16"] == Codec("s16", 16_000)
    assert CODECS["slin16"].to_slin(b"odd") == b"odd"
    assert CODECS["ulaw"].to_slin(b"") == b""


@pytest.mark.parametrize("name", CODECS)
def test_silence(name: str) -> None:
    codec = CODECS[name]
    slin = codec.to_slin(codec.silence(20))
    assert len(slin) == codec.rate // 50 * 2
    assert max(abs(slin_to_float(slin))) <= 8 / 32768  # A-law has no zero
