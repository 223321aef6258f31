"""Asterisk's side of AGI and EAGI: runs a script, answers its commands, gives it the audio."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
WAIT = 100.0
UNIQUEID = "1753812345.17"
AGI = f"agi_request: aii\nagi_channel: PJSIP/alice-1\nagi_uniqueid: {UNIQUEID}\n\n"

AS_DESCRIPTOR_3 = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Where Asterisk has a channel's audio for a script."""


class Asterisk:
    """Runs an AGI script: gives it the environment, answers its commands, notes variables.

    Keywords are variables of the channel. A script learns them by asking: they are no variables of
    its environment.
    """

    def __init__(
        self, script: str, *arguments: str, audio: int | None = None, **channel: str
    ) -> None:
        self.channel = channel
        self.variables: dict[str, str] = {}  # those that the script has set
        self.commands: list[str] = []
        self.started = threading.Event()  # it has given its first command
        self.ended = threading.Event()
        command = [sys.executable, str(EXAMPLES / "asterisk" / script), *arguments]
        if audio is not None:
            command = [sys.executable, "-c", AS_DESCRIPTOR_3, str(audio), *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=() if audio is None else (audio,),
        )

    def run(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(AGI)
        self.process.stdin.flush()
        for line in self.process.stdout:
            self.commands.append(line.rstrip("\n"))
            self.started.set()
            self.process.stdin.write(self._answer(line) + "\n")
            self.process.stdin.flush()
        status = self.process.wait(WAIT)
        self.ended.set()
        errors = self.process.stderr.read()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
        assert errors == ""
        return status

    def _answer(self, line: str) -> str:
        if found := re.fullmatch(r'SET VARIABLE (\w+) "(.*)"\n', line):
            self.variables[found[1]] = re.sub(r"\\(.)", r"\1", found[2])
        elif found := re.fullmatch(r"GET VARIABLE (\w+)\n", line):
            value = self.channel.get(found[1], "")
            return f"200 result=1 ({value})" if value else "200 result=0"
        else:
            assert line.startswith("VERBOSE "), line
        return "200 result=1"


def eagi(
    address: tuple[str, int], rate: int, seconds: str, *, feed: bytes, hang_up: bool, **channel: str
) -> Asterisk:
    """An EAGI call: descriptor 3 is a pipe, into which the channel's audio goes.

    When the caller hangs up the script is sent SIGHUP; the pipe stays open, and commands are still
    answered, until the script has ended.
    """
    near, far = os.pipe()
    host, port = address
    asterisk = Asterisk("aii-eagi.py", seconds, host, str(port), audio=near, **channel)
    os.close(near)

    def channel() -> None:
        try:
            for place in range(0, len(feed), 4096):
                os.write(far, feed[place : place + 4096])
            if hang_up:
                assert asterisk.started.wait(WAIT)
                asterisk.process.send_signal(signal.SIGHUP)
                asterisk.ended.wait(WAIT)
            while asterisk.process.poll() is None:
                os.write(far, bytes(rate // 50 * 2))
                time.sleep(0.002)
        except BrokenPipeError:
            pass
        finally:
            os.close(far)

    thread = threading.Thread(target=channel)
    thread.start()
    status = asterisk.run()
    thread.join(WAIT)
    assert status == (0 if asterisk.variables["AII_STATUS"] != "ERROR" else 1)
    return asterisk
