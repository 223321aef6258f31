from __future__ import annotations

import uuid

import pytest

from aii.errors import ConfigError
from aii.protocols import WRAPPINGS, wrap
from aii.protocols.wrap import cut

CALL = str(uuid.uuid5(uuid.NAMESPACE_DNS, "call"))


@pytest.mark.parametrize("framing", WRAPPINGS)
def test_seconds_add_up_to_the_audio(framing: str) -> None:
    call_id = {"callid": "abc", "audiosocket": CALL}.get(framing)
    packets = list(wrap([bytes(1000), bytes(601)], framing, call_id=call_id, rate=8000))
    assert sum(packet.seconds for packet in packets) == pytest.approx(1601 / 16000)
    assert [p.seconds for p in packets if p.seconds][:2] == [0.04, 0.04]


def test_the_bytes_of_each_framing() -> None:
    def data(framing: str, **options) -> list[bytes]:
        return [packet.data for packet in wrap([b"abcde"], framing, frame_bytes=4, **options)]

    assert data("raw") == [b"abcd", b"e"]
    assert data("callid", call_id="x-1") == [b"x-1\r", b"abcd", b"e"]
    assert data("cr641") == [b"abcd\r", b"e\r"]
    assert data("cr641", call_id="x-1") == [b"x-1\r", b"abcd\r", b"e\r"]
    hello = b"\x01\x00\x10" + uuid.UUID(CALL).bytes
    assert data("audiosocket", call_id=CALL, rate=8000) == [
        hello,
        b"\x10\x00\x04abcd",
        b"\x10\x00\x01e",
    ]
    assert data("audiosocket")[0][:3] == hello[:3]
    assert data("wav")[0][:4] == b"RIFF"
    assert len(data("wav")[0]) == 44


def test_audio_is_read_only_as_it_is_needed() -> None:
    asked = []

    def source():
        for number in range(3):
            asked.append(number)
            yield bytes(640)

    packets = wrap(source(), "raw")
    assert asked == []
    next(packets)
    assert asked == [0]


def test_cut_regroups() -> None:
    assert list(cut([b"a", b"", b"bcdefg", b"h"], 3)) == [b"abc", b"def", b"gh"]
    assert list(cut([], 3)) == []


@pytest.mark.parametrize(
    "framing, options, said",
    [
        ("morse", {}, "unknown framing 'morse'; choose one of raw"),
        ("callid", {}, "needs a call id"),
        ("callid", {"call_id": "ab"}, "3 to 128"),
        ("callid", {"call_id": "a b c"}, "without spaces"),
        ("cr641", {"call_id": "x\ry"}, "'x\\ry'"),
        ("raw", {"call_id": "abc"}, "carries no call id"),
        ("wav", {"call_id": "abc"}, "carries no call id"),
        ("audiosocket", {"call_id": "abc"}, "is a UUID"),
        ("audiosocket", {"rate": 11025}, "no audio of 11025 Hz"),
        ("raw", {"frame_bytes": 0}, "1 to 65534"),
        ("raw", {"frame_bytes": 65535}, "1 to 65534"),
        ("raw", {"rate": 0}, "above 0"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(framing, options, said) -> None:
    with pytest.raises(ConfigError, match="^[^\n]+$") as caught:
        wrap([b""], framing, **options)
    assert said in str(caught.value)
