"""AudioSocket over real sockets, with a peer that follows Asterisk's rules."""

from __future__ import annotations

import threading
import time
import uuid

import pytest
import server_rig
from asterisk_peer import Peer, run
from server_rig import WAIT, Rig, wait_until
from tone_speech import ToneEngine, encoded, say, starts

from aii.protocols import AudioSocketOptions, make_framing
from aii.servers.registry import CallRegistry
from aii.streaming.events import CallStarted, Dtmf, Final
from aii.streaming.settings import CallSettings

SPOKEN = "help one two"
KINDS = {0x10: 8_000, 0x12: 16_000, 0x16: 48_000}


def rig(**options) -> Rig:
    server = Rig(engine=ToneEngine(), **options)
    object.__setattr__(server.sessions, "settings", CallSettings(words="all"))
    return server


def spoken(rate: int, words: str = SPOKEN) -> bytes:
    return encoded(say(words), "s16", rate)


@pytest.mark.parametrize("framing", ["auto", "audiosocket"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_caller_speaks_presses_a_key_and_hangs_up(framing, kind) -> None:
    with rig(framing=framing) as server:
        peer = Peer(server.server.address, spoken(KINDS[kind]), kind=kind)
        run([peer], lambda: peer.sent > len(spoken(KINDS[kind])), tick=0.002)
        peer.key("5")
        run([peer], lambda: peer.sent > len(spoken(KINDS[kind])) + 5 * peer.frame, tick=0.002)
        peer.hang_up()
        (ended,) = server.listener.ended()
        assert ended.call_id == str(peer.call)
        assert ended.reason in ("eof", "connection reset")
        assert server.listener.text().split() == SPOKEN.split()
        words = [w for e in server.listener.events if isinstance(e, Final) for w in e.words]
        assert [w.start for w in words] == pytest.approx(starts(3), abs=0.021)
        assert [e.digit for e in server.listener.events if isinstance(e, Dtmf)] == ["5"]
        assert peer.heard == b""


def test_a_hundred_calls_see_a_clean_end_when_the_server_stops() -> None:
    """All of them go on talking until they are told; none is reset, none loses a word."""
    with rig() as server:
        audio = spoken(8_000)
        peers = [Peer(server.server.address, audio) for _ in range(100)]
        run(peers, lambda: min(peer.sent for peer in peers) > len(audio), tick=0.02)
        assert [peer.end for peer in peers if peer.end] == []
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        run(peers, lambda: False)
        stopping.join(WAIT)
        assert {peer.end for peer in peers} == {"hangup"}
        ended = server.listener.ended(100)
        assert {event.call_id for event in ended} == {str(peer.call) for peer in peers}
        for peer in peers:
            assert server.listener.text(str(peer.call)).split() == SPOKEN.split()


def test_a_hundred_calls_end_when_they_were_heard_so_that_the_dialplan_goes_on() -> None:
    registry = CallRegistry()
    calls = [uuid.uuid4() for _ in range(100)]
    for call in calls:
        wishes = {"window": "1", "reset_seconds": "1", "end_on": "final", "from": "100"}
        registry.put(str(call), wishes)
    with rig(registry=registry, defaults=lambda call_id: CallSettings(words="all")) as server:
        peers = [Peer(server.server.address, spoken(8_000), call=call) for call in calls]
        run(peers, lambda: False)  # they never stop talking by themselves
        assert {peer.end for peer in peers} == {"hangup"}
        ended = server.listener.ended(100)
        assert {event.reason for event in ended} == {"done"}
        started = [e for e in server.listener.events if isinstance(e, CallStarted)]
        assert {event.caller for event in started} == {"100"}
        for peer in peers:
            heard = server.listener.text(str(peer.call)).split()
            assert heard[:2] == SPOKEN.split()[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_silence_keeps_a_quiet_channel_from_giving_up(kind, monkeypatch) -> None:
    """The channel has no frames for longer than Asterisk waits."""
    options = AudioSocketOptions(keepalive=0.25)
    monkeypatch.setattr(
        server_rig, "make_framing", lambda name: make_framing(name, audiosocket=options)
    )
    with rig() as server:
        peer = Peer(server.server.address, spoken(KINDS[kind]), kind=kind, mute_after=10)
        begin = time.monotonic()
        run([peer], lambda: time.monotonic() - begin > 2.6 and len(peer.heard) >= 5 * peer.frame)
        assert peer.end == ""
        assert len(peer.heard) >= 5 * peer.frame
        assert set(peer.heard) == {0}
        peer.hang_up()
        server.listener.ended()


def test_a_quiet_channel_gives_up_without_it() -> None:
    with rig() as server:
        peer = Peer(server.server.address, spoken(8_000), mute_after=10)
        run([peer], lambda: False)
        assert peer.end == "2 s of nothing"
        server.listener.ended()


def test_a_call_beside_hostile_ones_is_not_touched() -> None:
    import random

    with rig() as server:
        chance = random.Random(1)
        peer = Peer(server.server.address, spoken(16_000), kind=0x12)
        wait_until(lambda: server.server.open_calls == 1)
        for number in range(60):
            with server.connect() as hostile:
                head = b"" if number % 2 else b"\x01\0\x10" + bytes(16)
                try:
                    hostile.sendall(head + chance.randbytes(chance.randint(1, 20_000)))
                except OSError:
                    pass
            run([peer], lambda target=number: peer.sent >= target * peer.frame, tick=0.001)
        run([peer], lambda: peer.sent > len(spoken(16_000)), tick=0.001)
        assert peer.end == ""
        peer.hang_up()
        server.listener.wait_for_end(str(peer.call))
        assert server.listener.text(str(peer.call)).split() == SPOKEN.split()
