"""``aii serve`` as a process, and in this one."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from aii.cli import serve as command

ROOT = Path(__file__).resolve().parent.parent
WAIT = 100
ANNOUNCE = command._announce
EXIT = os._exit


class Server:
    """A server process on a free port."""

    def __init__(self, *flags: str, script: tuple[str, ...] = ("aii_server.py",)) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *script, "--port", "0", "--threads", "1", "--web", "false", *flags],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []
        assert self.process.stderr is not None
        self._killer = threading.Timer(2 * WAIT, self.process.kill)
        self._killer.start()
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"web on http://(127\.0\.0\.1):(\d+)/$", line):
                self.web = (found[1], int(found[2]))
            if found := re.search(r"listening on (127\.0\.0\.1):(\d+)$", line):
                self.address = (found[1], int(found[2]))
                return
        raise AssertionError("".join(self.said))

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; exit code, stdout and the rest of stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=WAIT)
        self._killer.cancel()
        return self.process.returncode, out, err


def send(address: tuple[str, int], data: bytes) -> str:
    with socket.create_connection(address, timeout=WAIT) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        reply = b""
        while piece := client.recv(65536):
            reply += piece
    return reply.decode()


def in_process(monkeypatch, *flags: str):
    """Run ``serve`` here, stopped as soon as it listens; the listeners that ran."""
    ran = []

    def announce(config, parts, listeners):
        ANNOUNCE(config, parts, listeners)
        ran.append(listeners)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(command, "_announce", announce)
    # With a thread that is late the command ends the process, which here is that of the tests.
    if os._exit is EXIT:
        monkeypatch.setattr(os, "_exit", lambda code: None)
    assert command.main(["--port", "0", *flags]) == 0
    return ran[0]


def free_port() -> int:
    """A port that nobody listens on, for a server that is about to start.

    It is none of those that the kernel gives away: until the server listens, another test could get
    one of them, and be taken for the server.
    """
    while True:
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", random.randrange(10_000, 30_000)))
            return sock.getsockname()[1]
