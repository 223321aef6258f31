"""Voice activity through the socket: one thread judges all calls, pauses end utterances."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import slin, speech, spoken
from server_rig import Rig, read_all

from aii.audio.vad import CONTEXT, VoiceAnswer, VoiceRequest
from aii.engine.voice import VoiceThread
from aii.errors import ConfigError
from aii.streaming.endpointing import EndpointSettings
from aii.streaming.events import Final, NoSpeech, Skipped, SpeechEnded, SpeechStarted
from aii.streaming.factory import Sessions
from aii.streaming.settings import CallSettings

S = 16_000


class Anything:
    """Whatever is not silent is speech; a very loud step breaks it."""

    name = "anything"
    rest = np.zeros(1, np.float32)

    def features(self, samples: np.ndarray) -> np.ndarray:
        loudest = np.abs(samples[:, CONTEXT:]).max(axis=1)[:, None]
        if (loudest > 0.5).any():
            raise RuntimeError("too loud")
        return loudest

    def recur(self, features: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (features[:, 0] > 0).astype(np.float32), states


def call_of(seed: int) -> np.ndarray:
    """2 s of words, 2 s of silence, 1 s of words, 7 s of silence."""
    first, second = speech(2.0, seed, longest=0.5), speech(1.0, seed + 1, longest=0.5)
    second = (second + first.max()).astype(np.int16)
    quiet = np.zeros(2 * S, np.int16)
    return np.concatenate([first, quiet, second, quiet, quiet, quiet, quiet[:S]])


@pytest.fixture
def rig():
    voice = VoiceThread(Anything())
    settings = {"endpointing": EndpointSettings(), "vad_gate": None}
    made = Rig(settings=settings, voice=voice, reply="jsonl")
    made.sessions = replace(made.sessions, voice=True)
    with made:
        yield made
    assert voice.close(20.0)


def events_of(rig: Rig, call_id: str, kind: type) -> list:
    return [e for e in list(rig.listener.events) if isinstance(e, kind) and e.call_id == call_id]


def test_each_call_is_cut_at_its_own_pauses(rig: Rig) -> None:
    calls = {f"call-{seed}": call_of(10 * seed) for seed in range(6)}
    clients = {name: rig.connect() for name in calls}
    for name, client in clients.items():
        client.sendall(name.encode() + b"\r")
    for begin in range(0, 12 * S, 800):  # all of them at once
        for name, client in clients.items():
            client.sendall(slin(calls[name][begin : begin + 800]))
    for client in clients.values():
        client.shutdown(socket.SHUT_WR)
    for client in clients.values():
        read_all(client)
        client.close()
    rig.wait_for_no_calls()
    for name, samples in calls.items():
        finals = events_of(rig, name, Final)
        assert "".join(final.text for final in finals) == spoken(samples[samples > 0])
        assert [final.reason for final in finals if final.text] == ["endpoint", "endpoint"]
        starts, ends = events_of(rig, name, SpeechStarted), events_of(rig, name, SpeechEnded)
        assert [start.start for start in starts] == pytest.approx([0.0, 3.9], abs=0.033)
        assert all(start.decided - start.start <= 0.3 for start in starts)
        pause = (np.flatnonzero(samples[: 3 * S])[-1] + 1) / S  # the last word may be cut off
        assert [end.end for end in ends] == pytest.approx([pause + 0.1, 5.1], abs=0.033)
        assert len(events_of(rig, name, NoSpeech)) == 1
        skipped = [s for s in events_of(rig, name, Skipped) if s.reason == "silence"]
        heard = sum(end.end - end.start for end in ends)
        assert sum(s.end - s.start for s in skipped) + heard == pytest.approx(12.0)


def test_what_the_detector_cannot_judge_is_transcribed(rig: Rig) -> None:
    loud = np.full(S, 20_000, np.int16)
    reply = rig.call(slin(loud)).splitlines()
    finals = [json.loads(line) for line in reply if json.loads(line)["type"] == "final"]
    assert "".join(final["text"] for final in finals) == " w20000"


def test_sessions_whose_requests_nobody_answers_are_refused() -> None:
    sessions = Sessions(CallSettings(endpointing=EndpointSettings()))
    with pytest.raises(ConfigError, match="--vad auto"):
        sessions.make("c")


class Never:
    """A detector that has been closed."""

    def submit(self, request: VoiceRequest, done) -> None:
        answer: VoiceAnswer | None = None
        done(answer)

    def close(self, timeout: float = 0.0) -> bool:
        return True


def test_a_detector_that_answers_nothing_loses_nothing() -> None:
    samples = call_of(3)
    settings = {"endpointing": EndpointSettings(), "vad_gate": None}
    rig = Rig(settings=settings, voice=Never())
    rig.sessions = replace(rig.sessions, voice=True)
    with rig:
        rig.call(slin(samples))
        rig.wait_for_no_calls()
        assert rig.listener.text().replace(" w0", "") == spoken(samples[samples > 0])
