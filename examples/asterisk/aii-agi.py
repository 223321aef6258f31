#!/usr/bin/env python3
"""AGI script: sends a recording to aii and sets AII_TEXT to what was said.

    same => n,Record(/tmp/${UNIQUEID}.wav,2,30,k)
    same => n,AGI(aii-agi.py,/tmp/${UNIQUEID}.wav[,HOST[,PORT]])

Goes into Asterisk's agi-bin directory and needs Python alone. WAV files say themselves how they
are; .sln16 is what aii takes as it is. AII_STATUS is OK, EMPTY or ERROR.
"""

import signal
import socket
import sys


def command(line):
    """Give Asterisk a command and read its answer."""
    print(line, flush=True)
    return sys.stdin.readline()


def set_variable(name, value):
    """Set a variable of the channel."""
    safe = " ".join(value.split()).replace("\\", "\\\\").replace('"', '\\"')
    command(f'SET VARIABLE {name} "{safe}"')


def transcribe(address, call, path):
    """What aii hears in the file at ``path``."""
    with open(path, "rb") as recording, socket.create_connection(address, timeout=5) as aii:
        aii.settimeout(120)
        aii.sendall(call.encode("ascii", "replace") + b"\r")
        aii.sendfile(recording)
        aii.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: aii.recv(65536), b"")).decode("utf-8", "replace")


def main():
    """Run the script; the exit status."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the caller has hung up: h still wants AII_TEXT
    agi = {}
    for line in iter(sys.stdin.readline, ""):
        name, _, value = line.strip().partition(": ")
        if not name:
            break
        agi[name] = value
    given = dict(enumerate(sys.argv[1:]))
    address = given.get(1, "127.0.0.1"), int(given.get(2, 8300))
    try:
        text = transcribe(address, agi.get("agi_uniqueid", "agi"), given[0])
    except (OSError, KeyError, ValueError) as error:
        command(f'VERBOSE "aii: {error}" 1')
        set_variable("AII_STATUS", "ERROR")
        return 1
    set_variable("AII_TEXT", text)
    set_variable("AII_STATUS", "OK" if text.strip() else "EMPTY")
    return 0


if __name__ == "__main__":
    sys.exit(main())
