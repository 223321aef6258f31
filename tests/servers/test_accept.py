"""Accepting calls when the machine is at its limits, and writing to callers who are gone."""

from __future__ import annotations

import errno
import socket

from fake_engine import FakeEngine, slin, speech, spoken
from server_rig import Rig, lines, read_all, reset, wait_until

from aii.servers import tcp


class Failing:
    """A listener whose ``accept`` fails some times before it works."""

    def __init__(self, listener: socket.socket, *errors: OSError) -> None:
        self._listener = listener
        self._errors = list(errors)

    def accept(self):
        if self._errors:
            raise self._errors.pop(0)
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        self._listener.close()


def test_failures_to_accept_are_logged_and_the_call_is_served_after_all(caplog):
    samples = speech(2)
    rig = Rig()
    rig.server._listener = Failing(
        rig.server._listener,
        OSError(errno.EMFILE, "too many open files"),
        ConnectionAbortedError(),
        OSError(errno.EPERM, "not permitted"),
    )
    with rig:
        assert "".join(lines(rig.call(slin(samples)))) == spoken(samples)
    messages = [record.message for record in caplog.records]
    assert messages == [
        "cannot accept a call: too many open files",
        "cannot accept a call: not permitted",
    ]


def test_a_call_that_gets_no_descriptors_is_closed(monkeypatch, caplog):
    def no_files(*args):
        raise OSError(errno.EMFILE, "too many open files")

    with Rig() as rig:
        with monkeypatch.context() as patch:
            patch.setattr(tcp, "Connection", no_files)
            with rig.connect() as client:
                assert read_all(client) == ""
        assert "cannot serve the call: too many open files" in caplog.text
        assert rig.call(slin(speech(1)))


def test_replies_to_a_caller_who_is_gone_go_nowhere():
    engine = FakeEngine()
    engine.gate.clear()
    samples = speech(70)
    with Rig(engine=engine, reply="jsonl", framing="raw") as rig:
        client = rig.connect()
        client.sendall(slin(samples))
        wait_until(lambda: bool(engine.requests))
        reset(client)
        engine.gate.set()
        rig.listener.ended()
        rig.wait_for_no_calls()
    assert rig.listener.text().startswith(" w1")


def test_a_client_that_keeps_sending_after_its_end_is_drained(monkeypatch):
    monkeypatch.setattr("aii.servers.line.DRAIN", 0.1)
    with Rig(framing="audiosocket") as rig, rig.connect() as client:
        client.sendall(b"\x01\0\x10" + bytes(16) + b"\0\0\0" + b"x" * 10_000)
        assert read_all(client) == ""
        assert rig.listener.ended()[0].reason == "hangup"
        rig.wait_for_no_calls()
