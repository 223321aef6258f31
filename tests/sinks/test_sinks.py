from __future__ import annotations

import errno
import io
import json
import logging
import threading

import pytest

from aii.sinks.base import OTHERS
from aii.sinks.console import ConsoleSink, console_line
from aii.sinks.jsonl import JsonlSink
from aii.sinks.socket import Outbox
from aii.streaming.events import (
    CallEnded,
    CallStarted,
    Dtmf,
    Event,
    Final,
    Partial,
    Skipped,
    Work,
)
from aii.types import Segment

SEGMENTS = (Segment(0.0, 2.4, " four seven\n one"), Segment(2.4, 4.0, " five"))
PARTIAL = Partial("c1", 2, 0.0, 5.0, SEGMENTS, "en", Work(0.21, 0.0, 5.0, 9))
FINAL = Final("c1", 3, 0.0, 30.0, SEGMENTS, "en", Work(0.83, 0.0, 30.0, 9), reason="reset")


class Slow(io.StringIO):
    """A stream whose writes block until ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.busy = threading.Event()

    def write(self, text: str) -> int:
        self.busy.set()
        assert self.gate.wait(100)
        return super().write(text)


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError("gone")


def test_the_line_of_a_window():
    assert console_line(PARTIAL) == (
        "c1 partial 0.21 s decode, 5.00 s buffered, 160000 bytes: "
        "[0.00 -> 2.40] four seven? one  [2.40 -> 4.00] five"
    )
    assert console_line(FINAL).startswith("c1 final 0.83 s decode, 30.00 s buffered, 960000 bytes")
    assert console_line(Final("c1", 1)).endswith(": (nothing)")
    assert console_line(Final("c1", 1, error="bad")).endswith(": error: bad")


@pytest.mark.parametrize(
    "event, line",
    [
        (CallStarted("c", 1, "1.2.3.4:5"), "c started from 1.2.3.4:5"),
        (CallStarted("c", 1), "c started"),
        (CallEnded("c", 9, "eof", 12.5), "c ended after 12.50 s: eof"),
        (Dtmf("c", 2, "#", 1.5), "c dtmf # at 1.50 s"),
        (
            Skipped("c", 2, 0, 10, "behind", 2),
            "c skipped 2 partial window(s) from 0.00 to 10.00 s: behind",
        ),
        (
            Skipped("c", 2, 0, 10, "shutdown", 1, True),
            "c skipped audio from 0.00 to 10.00 s: shutdown",
        ),
        (
            Skipped("c", 2, 0, 10, "silence", 0),
            "c skipped nothing to hear from 0.00 to 10.00 s: silence",
        ),
        (Event("c", 1), None),
    ],
)
def test_the_lines_of_other_events(event: Event, line: str | None):
    assert console_line(event) == line


def test_lines_come_out_in_order_and_close_waits_for_them():
    stream = io.StringIO()
    sink = ConsoleSink(stream)
    for event in (CallStarted("c", 1), PARTIAL, FINAL):
        sink.emit(event)
    assert sink.close(10)
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["started", "partial", "final"]
    sink.emit(FINAL)  # too late, and harmless
    assert stream.getvalue().splitlines() == lines


def test_json_lines_hold_the_events_and_an_owned_file_is_closed(tmp_path):
    path = tmp_path / "events.jsonl"
    file = path.open("w", encoding="utf-8")
    sink = JsonlSink(file, name="events", owned=True)
    sink.emit(Final("c", 1, segments=(Segment(0, 1, " grüße"),)))
    assert sink.close(10)
    assert file.closed
    text = path.read_text(encoding="utf-8")
    assert "grüße" in text
    assert json.loads(text)["text"] == " grüße"


def test_a_blocked_output_delays_nobody_and_costs_partials_only(caplog):
    stream = Slow()
    sink = JsonlSink(stream, name="pipe", size=10)
    sink.emit(FINAL)
    assert stream.busy.wait(60)
    for _ in range(50):
        sink.emit(PARTIAL)
        sink.emit(FINAL)
    assert sink.dropped == 45
    stream.gate.set()
    assert sink.close(10)
    types = [json.loads(line)["type"] for line in stream.getvalue().splitlines()]
    assert types.count("final") == 51
    assert types.count("partial") == 5
    assert [r.message for r in caplog.records].count(
        "pipe is too slow: partial results are dropped there"
    ) == 1


def test_close_does_not_wait_for_an_output_that_is_stuck(caplog):
    stream = Slow()
    sink = ConsoleSink(stream)
    sink.emit(FINAL)
    assert stream.busy.wait(60)
    assert not sink.close(0.05)
    assert "takes no more" in caplog.text
    stream.gate.set()
    assert sink.close(10)


def test_a_broken_output_is_logged_once_and_forgotten(caplog):
    caplog.set_level(logging.ERROR)
    sink = ConsoleSink(Broken())
    sink.emit(FINAL)
    sink._thread.join(60)
    sink.emit(FINAL)
    assert sink.close(1)
    assert len(caplog.records) == 1


def test_whatever_an_output_raises_breaks_the_sink_once(caplog):
    class Odd(io.StringIO):
        def write(self, text: str) -> int:
            raise TypeError("no such thing")

    sink = ConsoleSink(Odd())
    sink.emit(FINAL)
    sink._thread.join(60)
    for _ in range(3):
        sink.emit(FINAL)
    assert not sink._held
    assert sink.close(1)
    assert [record.message for record in caplog.records] == [
        "the console cannot be written any more: no such thing",
        "the console: 4 lines are lost",
    ]


def test_a_stuck_output_holds_a_bounded_number_of_all_but_finals_and_ends(caplog):
    stream = Slow()
    sink = JsonlSink(stream, name="pipe", size=10)
    sink.emit(FINAL)
    assert stream.busy.wait(60)
    for _ in range(100):
        sink.emit(Dtmf("c", 1, "5", 1.0))
        sink.emit(CallStarted("c", 1))
    assert len(sink._held) == 10 * OTHERS
    for _ in range(100):
        sink.emit(FINAL)
        sink.emit(CallEnded("c", 1))
    assert len(sink._held) == 10 * OTHERS + 200
    stream.gate.set()
    assert sink.close(10)
    assert caplog.text.count("all but finals and ends of calls is dropped there") == 1
    assert f"pipe was too slow: {200 - 10 * OTHERS} lines were dropped" in caplog.text


class Disk:
    """An output that is full until it has room; takes seven bytes at a time."""

    def __init__(self) -> None:
        self.data = b""
        self.room = threading.Event()
        self.refused = threading.Semaphore(0)

    def write(self, data: bytes) -> int:
        if len(self.data) >= 14 and not self.room.is_set():
            self.refused.release()
            raise OSError(errno.ENOSPC, "No space left on device")
        self.data += data[:7]
        return len(data[:7])

    def close(self) -> None:
        pass


def test_a_full_disk_costs_no_final_and_no_half_line(caplog):
    disk = Disk()
    sink = JsonlSink(disk, name="events", size=2, retry=0.01)
    sink.emit(FINAL)
    for _ in range(5):
        assert disk.refused.acquire(timeout=60)
    for _ in range(20):
        sink.emit(PARTIAL)
        sink.emit(FINAL)
    disk.room.set()
    assert sink.close(10)
    types = [json.loads(line)["type"] for line in disk.data.decode().splitlines()]
    assert types.count("final") == 21
    assert types.count("partial") == 1
    messages = [record.message for record in caplog.records]
    assert messages[0] == (
        "events cannot be written: No space left on device; it is tried again and again, finals "
        "are kept"
    )
    assert messages.count("events is written again") == 1
    assert len(messages) == 4  # and that partials are dropped, when it begins and at the end


def test_lines_that_a_full_disk_has_cost_are_counted_at_the_end(caplog):
    disk = Disk()
    sink = JsonlSink(disk, name="events", retry=0.01)
    sink.emit(FINAL)
    assert disk.refused.acquire(timeout=60)
    for _ in range(4):
        sink.emit(FINAL)
    assert sink.close(10)
    assert caplog.records[-1].message == "events: 5 lines are lost"


def test_a_file_is_appended_to_and_its_trouble_is_told(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("before\n")
    sink = JsonlSink.to_file(str(path))
    sink.emit(FINAL)
    assert sink.close(10)
    assert path.read_text().startswith('before\n{"type": "final"')
    with pytest.raises(OSError, match="No such file"):
        JsonlSink.to_file(str(tmp_path / "no" / "x"))


def written(outbox: Outbox) -> str:
    data = b""
    while piece := outbox.peek(7):
        data += piece
        outbox.wrote(len(piece))
    return data.decode()


def test_replies_none_and_text():
    for reply, expected in (("none", ""), ("text", "four seven one\nfive\n")):
        outbox = Outbox(reply)
        for event in (CallStarted("c1", 1), PARTIAL, FINAL, Final("c1", 4)):
            outbox.emit(event)
        assert written(outbox) == expected


def test_replies_as_json_lines_hold_everything():
    outbox = Outbox("jsonl")
    for event in (CallStarted("c1", 1), PARTIAL, FINAL):
        outbox.emit(event)
    types = [json.loads(line)["type"] for line in written(outbox).splitlines()]
    assert types == ["started", "partial", "final"]


def test_auto_says_nothing_until_the_client_has_half_closed():
    outbox = Outbox("auto")
    outbox.emit(FINAL)
    assert len(outbox) == 0
    assert outbox.peek() == b""
    outbox.half_closed()
    outbox.emit(FINAL)
    assert written(outbox) == "four seven one\nfive\n" * 2


def test_beyond_the_bound_whole_replies_are_dropped_and_counted():
    outbox = Outbox("text", bound=50)
    for _ in range(5):
        outbox.emit(FINAL)
    assert (len(outbox), outbox.dropped) == (40, 3)
    outbox.wrote(20)
    outbox.emit(FINAL)
    assert written(outbox) == "four seven one\nfive\n" * 2


def test_lines_that_are_no_events():
    for reply, line in (("text", "aii: full\n"), ("auto", ""), ("none", "")):
        outbox = Outbox(reply)
        outbox.say("full")
        outbox.half_closed()
        assert written(outbox) == line
    outbox = Outbox("jsonl")
    outbox.say("full")
    assert json.loads(written(outbox)) == {"type": "error", "error": "full"}


def test_a_muted_outbox_is_empty_and_stays_so():
    outbox = Outbox("text")
    outbox.emit(FINAL)
    outbox.mute()
    outbox.emit(FINAL)
    assert len(outbox) == 0
