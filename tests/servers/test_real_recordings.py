"""Recordings of people, through the socket: the words that a file of them gives."""

from __future__ import annotations

import random
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
from server_rig import Rig, lines

from aii.audio.files import load_audio
from aii.audio.pcm import SlinDecoder, float_to_slin
from aii.engine.local import LocalEngine
from aii.transcribe import default_audio_context, transcribe

RATE = 8_000
SPEAKERS = ("jackson", "lucas", "nicolas", "theo", "yweweler")


def spoken(archive: tarfile.TarFile, speaker: str, digits: list[int]) -> bytes:
    """SLIN at 8 kHz of a speaker's digits, 300 ms apart."""
    pieces = [bytes(RATE)]
    for digit in digits:
        file = archive.extractfile(next(m for m in archive.getnames() if _is(m, digit, speaker)))
        assert file is not None
        with wave.open(file) as recording:
            assert recording.getparams()[:3] == (1, 2, RATE)
            pieces += [recording.readframes(recording.getnframes()), bytes(RATE * 6 // 10)]
    return b"".join(pieces)


def _is(name: str, digit: int, speaker: str) -> bool:
    return Path(name).name == f"{digit}_{speaker}_0.wav"


def offline(model, samples: np.ndarray) -> str:
    context = default_audio_context(model)
    return transcribe(model, samples, temperature=0.0, audio_context=context, fp16=False)["text"]


@pytest.fixture
def engine(embedded_model) -> LocalEngine:
    return LocalEngine(embedded_model, options={"temperatures": (0.0,)})


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_digits_of_people(shared_data, embedded_model, engine, speaker: str) -> None:
    chance = random.Random(speaker)
    with tarfile.open(shared_data / "fsdd_5speakers.tar.gz") as archive:
        data = spoken(archive, speaker, [chance.randrange(10) for _ in range(6)])
    decoder = SlinDecoder(RATE)
    samples = np.concatenate([decoder.feed(data), decoder.flush()])
    expected = offline(embedded_model, samples)
    assert expected.split()
    with Rig(engine=engine, rate=RATE) as rig:
        reply = rig.call(data)
        rig.listener.ended()
        assert rig.listener.text() == expected
        assert "".join(lines(reply)).split() == expected.split()


def test_other_speech_gives_what_a_file_gives(jfk, embedded_model, engine) -> None:
    """The embedded model does not know these words; a call must find the same ones as a file."""
    data = float_to_slin(load_audio(jfk))
    decoder = SlinDecoder(16_000)
    expected = offline(embedded_model, np.concatenate([decoder.feed(data), decoder.flush()]))
    with Rig(engine=engine) as rig:
        rig.call(data)
        rig.listener.ended()
        assert rig.listener.text() == expected
