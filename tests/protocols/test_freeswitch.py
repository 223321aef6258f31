from __future__ import annotations

import json

import numpy as np
import pytest

from aii.protocols import (
    Audio,
    CallId,
    Dtmf,
    Format,
    FreeswitchProtocol,
    Hangup,
    Metadata,
    Notice,
)
from aii.protocols.messages import MOST_HELD
from aii.streaming.events import CallStarted, Final, Partial
from aii.types import Segment

META = '{"uuid":"0f2b-1","from":"1001","to":"1002","rate":"16k"}'


def legs(frames) -> dict[str, bytes]:
    audio: dict[str, bytes] = {}
    for frame in frames:
        if isinstance(frame, Audio):
            audio[frame.leg] = audio.get(frame.leg, b"") + frame.payload
    return audio


@pytest.mark.parametrize("step", [0, 1, 641])
@pytest.mark.parametrize("mix", ["mono", "mixed"])
def test_one_channel(converse, others, speech, mix, step) -> None:
    machine = FreeswitchProtocol({"mix": mix})
    frames = converse(machine, META, speech[:5001], step=step)
    assert legs(frames) == {"": speech[:5001]}
    assert others(frames) == [
        Metadata({"caller": "1001", "callee": "1002"}),
        CallId("0f2b-1"),
        Format(16000),
        Hangup("eof"),
    ]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 641])
def test_two_channels_are_two_legs(converse, others, step) -> None:
    both = np.arange(-3000, 3000, dtype="<i2").reshape(-1, 2)
    machine = FreeswitchProtocol({"channels": "stereo", "rate": "8000"})
    frames = converse(machine, "0f2b-1", both.tobytes() + b"\x01\x02\x03", step=step)
    assert legs(frames) == {"caller": both[:, 0].tobytes(), "callee": both[:, 1].tobytes()}
    assert others(frames) == [CallId("0f2b-1"), Format(8000, "s16", 2), Hangup("eof")]
    # Neither leg is ever ahead of the other.
    ahead = {"caller": 0, "callee": 0}
    for frame in frames:
        if isinstance(frame, Audio):
            ahead[frame.leg] += len(frame.payload)
            if frame.leg == "callee":
                assert ahead["caller"] == ahead["callee"]


@pytest.mark.parametrize(
    "uri, meta, rate, channels",
    [
        ({}, None, 8000, 1),
        ({"sampling_rate": "16k"}, "{}", 16000, 1),
        ({"rate": "16000"}, '{"rate":8000}', 8000, 1),
        ({}, '{"sampleRate":16000,"channels":2}', 16000, 2),
        ({}, '{"mix_type":"Stereo"}', 8000, 2),
    ],
)
def test_where_rate_and_channels_may_be_said(uri, meta, rate, channels) -> None:
    machine = FreeswitchProtocol(uri)
    if meta is not None:
        assert machine.receive(meta) == []
    frames = machine.receive(bytes(8))
    assert frames[0] == Format(rate, "s16", channels)
    assert len(frames) == 1 + channels


def test_text_in_the_middle_of_a_call() -> None:
    machine = FreeswitchProtocol()
    machine.receive(b"ab")
    assert machine.receive('{"dtmf":"5#","note":"vip","rate":"16k"}') == [
        Dtmf("5"),
        Dtmf("#"),
        Metadata({"note": "vip"}),
    ]
    assert isinstance(machine.receive("bye now")[0], Notice)


def test_events_go_back_as_json() -> None:
    machine = FreeswitchProtocol()
    machine.receive(b"ab")
    final = Final("c", 2, segments=(Segment(0.5, 1.0, " yes"),), reason="endpoint", leg="caller")
    assert [json.loads(m) for m in machine.event(CallStarted("c", 1))] == [
        {"type": "started", "call_id": "c", "seq": 1, "caller": ""}
    ]
    (message,) = machine.event(final)
    assert json.loads(message) == final.to_dict()
    assert json.loads(message)["type"] != "streamAudio"  # which the module would play


def test_a_call_without_audio_has_its_metadata() -> None:
    machine = FreeswitchProtocol()
    machine.receive(META)
    assert machine.eof() == [
        Metadata({"caller": "1001", "callee": "1002"}),
        CallId("0f2b-1"),
        Format(16000),
        Hangup("eof"),
    ]
    assert FreeswitchProtocol().eof() == [Hangup("eof")]


def test_odd_metadata(converse, others) -> None:
    machine = FreeswitchProtocol({"rate": "fast", "channels": "7"})
    frames = converse(machine, "two words", "x" * 70_000, b"abcd")
    notices = [frame.text for frame in others(frames) if isinstance(frame, Notice)]
    assert len(notices) == 4
    assert "sample rate 'fast' makes no sense" in notices[2]
    assert "channels '7' are not understood" in notices[3]
    assert Format(8000) in frames


def test_partials_nobody_takes_are_bounded() -> None:
    machine = FreeswitchProtocol()
    for _ in range(2 * MOST_HELD):
        machine._event(Partial().to_dict())
    machine._event(Final(reason="hangup").to_dict())
    held = machine.send()
    assert len(held) == MOST_HELD + 1
    assert json.loads(held[-1])["type"] == "final"
