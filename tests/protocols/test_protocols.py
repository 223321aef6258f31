"""What holds for every framing alike."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.errors import ConfigError
from aii.protocols import FRAMINGS, Audio, Flush, Hangup, Notice, make_framing
from aii.protocols.base import MOST_NOTICES
from aii.protocols.detect import SlinOrCr641
from aii.protocols.http_refusal import HttpRefusal
from aii.protocols.wav import WavFraming
from aii.protocols.wrap import wav_header

MACHINES = {
    **{name: lambda name=name: make_framing(name) for name in FRAMINGS},
    "slin or cr641": SlinOrCr641,
    "http": HttpRefusal,
    "wav": WavFraming,
}
STARTS = [b"", b"abc\r", b"abc\r\n", b"\x01\x00\x10" + bytes(16) + b"\x10", b"RIFF1234WAVE"]
STARTS += [wav_header(8000), b"GET ", b"\r", (bytes(640) + b"\r") * 5]


def held_bytes(thing: object, depth: int = 4) -> int:
    """Bytes that a machine keeps, those of the machines within it too."""
    if isinstance(thing, (bytes, bytearray)):
        return len(thing)
    if depth == 0 or not hasattr(thing, "__dict__"):
        return 0
    return sum(held_bytes(value, depth - 1) for value in vars(thing).values())


@pytest.mark.parametrize("name", FRAMINGS)
def test_each_framing_has_a_name_and_a_fresh_machine(name: str) -> None:
    machine = make_framing(name, web_port=8000)
    assert machine.name == name
    assert machine is not make_framing(name)
    assert machine.send() == b""
    assert machine.eof() == [Hangup("eof")]


def test_an_unknown_framing() -> None:
    with pytest.raises(ConfigError, match="unknown framing 'x'; choose one of auto, raw"):
        make_framing("x")


@pytest.mark.parametrize("start", range(len(STARTS)))
@pytest.mark.parametrize("name", MACHINES)
def test_a_megabyte_of_noise(name: str, start: int) -> None:
    rng = np.random.default_rng(start)
    noise = STARTS[start] + rng.bytes(1_000_000)
    machine = MACHINES[name]()
    frames = []
    place = 0
    while place < len(noise):
        size = int(rng.integers(1, 20_000))
        idle = float(rng.choice([0.0, 0.05, 0.15, 3.0]))
        frames += machine.receive(noise[place : place + size], idle)
        frames += machine.tick(float(rng.choice([0.0, 0.15])))
        place += size
        assert held_bytes(machine) <= (1 << 20)
        assert len(machine.send()) < 1000
    frames += machine.eof()
    assert sum(isinstance(frame, Notice) for frame in frames) <= 2 * MOST_NOTICES
    assert [n for n, f in enumerate(frames) if isinstance(f, Hangup)] == [len(frames) - 1]
    assert machine.receive(noise[:1000]) == machine.tick(1.0) == machine.eof() == []


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(MACHINES)),
    st.sampled_from(STARTS),
    st.lists(
        st.tuples(
            st.one_of(st.binary(max_size=50), st.just(b"\r"), st.just(bytes(700))),
            st.sampled_from([0.0, 0.01, 0.1, 0.25, 5.0]),
        ),
        max_size=20,
    ),
)
def test_any_reads_with_any_pauses(name, start, reads) -> None:
    machine = MACHINES[name]()
    frames = machine.receive(start)
    for data, idle in reads:
        wait = machine.tick_after
        assert wait is None or wait > 0
        frames += machine.tick(idle)
        frames += machine.receive(data, idle)
    frames += machine.eof()
    assert isinstance(frames[-1], Hangup)
    assert all(frame.payload for frame in frames if isinstance(frame, Audio))
    if name == "raw":
        sent = len(start) + sum(len(data) for data, _ in reads)
        got = sum(len(frame.payload) for frame in frames if isinstance(frame, Audio))
        assert got + frames.count(Flush()) == sent


def test_no_torch_is_needed() -> None:
    code = "import sys, aii.protocols; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
