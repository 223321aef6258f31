"""Standard error through a queue: nobody waits for its reader."""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings

import pytest

from aii.servers.logs import Once, QueuedStream, fill_standard_streams, logging_to


class Stuck(io.StringIO):
    """A stream whose writes block until ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.busy = threading.Event()

    def write(self, text: str) -> int:
        self.busy.set()
        assert self.gate.wait(100)
        return super().write(text)


def test_a_reader_who_stopped_costs_lines_and_nobody_waits():
    stream = Stuck()
    queue = QueuedStream(stream, most=1000)
    queue.write("first\n")
    assert stream.busy.wait(60)
    for _ in range(500):
        queue.write("0123456789\n")
    assert queue.dropped == 500 - 1000 // 11
    assert not queue.finish(0.05)
    stream.gate.set()
    assert queue.finish(10)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "first"
    assert lines.count("0123456789") == 1000 // 11
    assert lines[-1] == f"aii: {queue.dropped} lines were dropped here: nobody read them"


def test_a_stream_that_breaks_harms_nobody():
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    queue = QueuedStream(Broken())
    queue.write("x")
    queue._thread.join(60)
    assert queue.write("y") == 1
    assert not queue._held
    assert queue.finish(1)


def test_logs_warnings_and_prints_go_through_the_queue():
    stream = io.StringIO()
    root, stderr = logging.getLogger(), sys.stderr
    before = (root.level, list(root.handlers))
    with logging_to(stream, "info") as queue:
        logging.getLogger("aii.x").info("a line")
        logging.getLogger("aii.x").debug("too fine")
        warnings.simplefilter("default")
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
        print("printed", file=sys.stderr)
        assert not sys.stderr.isatty()
    assert queue.finish(10)
    assert (root.level, root.handlers, sys.stderr) == (*before, stderr)
    first, second, third = stream.getvalue().splitlines()
    assert first.endswith(" INFO a line")
    assert second.endswith(" WARNING two lines")
    assert third == "printed"


def test_the_first_of_each_kind_is_logged_and_the_rest_counted(caplog):
    once = Once(logging.getLogger("x"))
    assert once.more() == ""
    for number in range(1000):
        once.log("second ids", logging.WARNING, "id %d", number)
    once.log("formats", logging.WARNING, "format")
    assert [record.message for record in caplog.records] == ["id 0", "format"]
    assert once.more() == "; 999 more second ids"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_missing_stream_is_the_null_device(monkeypatch, name):
    monkeypatch.setattr(sys, name, None)
    fill_standard_streams()
    with getattr(sys, name) as stream:
        print("nowhere", file=stream)
