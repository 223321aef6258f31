"""benchmarks.load: what is due is sent, in order, whatever the server takes."""

from __future__ import annotations

import socket
import threading
import time

from benchmarks.calls_per_machine import Ear, marks
from benchmarks.load import STAMP, Call, Load


class Catcher:
    """Accepts calls and reads them, each on a thread, once ``gate`` is open."""

    def __init__(self, reply=b""):
        self.gate = threading.Event()
        self.gate.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.calls = []
        self._reply = reply
        self._threads = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._read, args=(sock,))
            thread.start()
            self._threads.append(thread)

    def _read(self, sock):
        data = b""
        with sock:
            self.gate.wait(100)
            while piece := sock.recv(65536):
                data += piece
            sock.sendall(self._reply)
        self.calls.append(data)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._accepting.join(60)
        for thread in self._threads:
            thread.join(60)


def test_calls_send_what_is_due():
    catcher = Catcher(reply=b"hello\n")
    heard = []
    audio = bytes(range(256)) * 5
    with Load(
        catcher.address, frame=160, period=0.01, on_reply=lambda c, now: heard.append(c.number)
    ) as load:
        for number in range(3):
            load.add(b"call-%d\n" % number, audio)
        load.calls[2].delay = 0.05
        load.run(0.1)
        load.finish(10)
        assert [call.sent for call in load.calls] == [10, 10, 5]
        assert all(bytes(call.received) == b"hello\n" for call in load.calls)
    catcher.close()
    assert sorted(heard) == [0, 1, 2]
    frames = (audio * 2)[: 10 * 160]
    wanted = {b"call-0\n" + frames, b"call-1\n" + frames, b"call-2\n" + frames[: 5 * 160]}
    assert set(catcher.calls) == wanted


def test_a_call_may_come_with_audio_from_before():
    catcher = Catcher()
    audio = bytes(range(1, 101)) * 32
    with Load(catcher.address, frame=160, period=0.01) as load:
        call = load.add(b"x", audio)
        call.ahead = 12
        load.run(0.03)
        load.finish(10)
        assert call.sent == 15
    catcher.close()
    assert catcher.calls == [b"x" + audio[: 15 * 160]]


def test_nothing_is_left_out_when_the_server_does_not_read():
    """Megabytes more than fit into the kernel's buffers."""
    catcher = Catcher()
    catcher.gate.clear()
    frame = 100_000
    audio = b"".join(bytes([n]) * frame for n in range(100))
    with Load(catcher.address, frame=frame, period=0.002) as load:
        call = load.add(b"", audio)
        load.run(0.2)
        assert load.stalls
        catcher.gate.set()
        load.finish(60)
        assert call.sent == 100
        assert not call.error
    catcher.close()
    assert catcher.calls == [audio]


def test_stamps_say_when_a_frame_was_sent():
    catcher = Catcher()
    with Load(catcher.address, frame=160, period=0.01) as load:
        load.add(b"", bytes(1600), stamped=True)
        before = time.monotonic_ns() // 1000
        load.run(0.1)
        after = time.monotonic_ns() // 1000
        load.finish(10)
    catcher.close()
    stamps = [STAMP.unpack_from(catcher.calls[0], 160 * n)[0] for n in range(10)]
    assert before <= min(stamps)
    assert max(stamps) <= after
    assert stamps == sorted(stamps)


def test_a_mark_is_answered_by_the_first_result_that_reaches_it():
    near, far = socket.socketpair()
    with near, far:
        call = Call(7, near, memoryview(b""), began=100.0)
        ear = Ear()
        lines = b'{"type": "started"}\n{"type": "partial", "end": 5.0}\n{"type": "fin'
        call.received += lines
        ear(call, 105.3)
        call.received += b'al", "end": 15.0}\n'
        ear(call, 116.0)
        found = marks(call, 104.0, 118.0)
        assert [(mark, round(sent, 2)) for mark, sent in found] == [
            (5.0, 104.98),
            (10.0, 109.98),
            (15.0, 114.98),
        ]
        call.ahead = 500  # it came with its first 10 s
        assert [mark for mark, _ in marks(call, 100.0, 110.0)] == [15.0, 20.0]
        delays = [ear.delay(call, mark, sent) for mark, sent in found]
        assert [round(delay, 2) for delay in delays] == [0.32, 6.02, 1.02]
        assert ear.delay(call, 20.0, 119.98) is None
