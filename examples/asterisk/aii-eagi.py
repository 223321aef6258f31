#!/usr/bin/env python3
"""EAGI script: sends the caller's audio to aii and sets AII_TEXT to what was said.

    same => n,EAGI(aii-eagi.py,SECONDS[,HOST[,PORT]])

At 8 kHz, or as the channel's variable EAGI_AUDIO_FORMAT (slin16 ...) says. Goes into Asterisk's
agi-bin directory and needs Python alone. It ends after SECONDS of audio (10), when the caller hangs
up (the extension h still has AII_TEXT), or when aii ends the call. AII_STATUS says OK, EMPTY or
ERROR.
"""

import os
import re
import select
import signal
import socket
import struct
import sys
import time

AUDIO = 3  # the descriptor on which Asterisk gives the caller's audio
RATES = {
    "slin": 8000,
    "slin12": 12000,
    "slin16": 16000,
    "slin24": 24000,
    "slin32": 32000,
    "slin44": 44100,
    "slin48": 48000,
    "slin96": 96000,
    "slin192": 192000,
}
PATIENCE = 30.0  # seconds for aii's answer
SILENT = 5.0  # seconds without audio after which none is waited for

hung_up = False


def on_hangup(*_):
    """Asterisk sends SIGHUP when the caller hangs up; the audio's descriptor just falls silent."""
    global hung_up
    hung_up = True


def environment(stream):
    """What Asterisk says first: lines of "agi_name: value" up to an empty one."""
    values = {}
    for line in iter(stream.readline, ""):
        name, _, value = line.strip().partition(": ")
        if not name:
            break
        values[name] = value
    return values


def command(line):
    """Give Asterisk a command and read its answer."""
    print(line, flush=True)
    return sys.stdin.readline()


def set_variable(name, value):
    """Set a variable of the channel."""
    safe = " ".join(value.split()).replace("\\", "\\\\").replace('"', '\\"')
    command(f'SET VARIABLE {name} "{safe}"')


def get_variable(name):
    """The value of a variable of the channel, "" where it has none."""
    found = re.match(r"200 result=1 \((.*)\)", command(f"GET VARIABLE {name}"))
    return found[1] if found else ""


def opening(call, rate):
    """The call's id, then a WAV header without an end: it tells aii the rate."""
    wav = struct.pack(
        "<4sI4s4sIHHIIHH", b"RIFF", 2**32 - 1, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16
    )
    return call.encode("ascii", "replace") + b"\r" + wav + struct.pack("<4sI", b"data", 2**32 - 1)


def transcribe(address, call, rate, seconds):
    """Copy audio to aii until it is enough; what aii answers."""
    with socket.create_connection(address, timeout=5) as aii:
        aii.sendall(opening(call, rate))
        left, last = round(seconds * rate) * 2, time.monotonic()
        while left > 0:
            ready, _, _ = select.select([AUDIO, aii], [], [], 0.0 if hung_up else 0.1)
            quiet = time.monotonic() - last > SILENT
            if aii in ready or (not ready and (hung_up or quiet)):  # aii ends it, or no audio comes
                break
            if AUDIO in ready:
                audio = os.read(AUDIO, min(left, 4096))
                if not audio:
                    break
                aii.sendall(audio)
                left, last = left - len(audio), time.monotonic()
        aii.shutdown(socket.SHUT_WR)
        answer, until = b"", time.monotonic() + PATIENCE
        while True:
            aii.settimeout(max(until - time.monotonic(), 0.01))
            piece = aii.recv(65536)
            if not piece:
                return answer.decode("utf-8", "replace")
            answer += piece


def main():
    """Run the script; the exit status."""
    signal.signal(signal.SIGHUP, on_hangup)
    agi = environment(sys.stdin)
    given = dict(enumerate(sys.argv[1:]))
    address = given.get(1, "127.0.0.1"), int(given.get(2, 8300))
    rate = RATES.get(get_variable("EAGI_AUDIO_FORMAT"), 8000)  # Asterisk too falls back to slin
    try:
        text = transcribe(address, agi.get("agi_uniqueid", "eagi"), rate, float(given.get(0, 10)))
    except (OSError, ValueError) as error:
        command(f'VERBOSE "aii: {error}" 1')
        set_variable("AII_STATUS", "ERROR")
        return 1
    set_variable("AII_TEXT", text)
    set_variable("AII_STATUS", "OK" if text.strip() else "EMPTY")
    return 0


if __name__ == "__main__":
    sys.exit(main())
