"""``aii mic``: what a microphone hears, as text while it is said."""

from __future__ import annotations

import argparse
import os
import queue
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO
from unicodedata import east_asian_width

from aii.errors import AiiError

if TYPE_CHECKING:
    from aii.capture import Source
    from aii.live import LiveCall, Said, Server, Transcript

MOST_UNREAD = 10_000
"""Transcripts that may wait for a terminal that takes nothing."""


def add_parser(subparsers: Any) -> None:
    """Add ``mic`` to the commands of ``aii``."""
    parser = subparsers.add_parser(
        "mic",
        help="speak into a microphone, read along",
        description="Send a microphone to a server's /ws/transcription and print what is said, "
        "while it is said. Ctrl-C ends the recording; the last words still come.",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="number or part of the name (default: the system's)"
    )
    parser.add_argument(
        "--file", metavar="FILE", help="a recording in place of the microphone, at its own speed"
    )
    add_common(parser)


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options that ``mic`` and ``listen`` share."""
    parser.add_argument(
        "--server",
        metavar="URL",
        default="http://127.0.0.1:8000",
        help="the server's web address (default: %(default)s)",
    )
    parser.add_argument("--token", help="the server's token (default: the environment's AII_TOKEN)")
    parser.add_argument(
        "--ca", metavar="FILE", help="certificates for an https server that has its own"
    )
    parser.add_argument(
        "--client-id", metavar="ID", help="name of the call (default: this machine's name)"
    )
    parser.add_argument(
        "--fast", action="store_true", help="with --file: as fast as the server takes it"
    )
    parser.add_argument("--list", action="store_true", help="list the devices and stop")
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds to connect, and to wait for the last words (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Record until Ctrl-C or the end of the file; 0 when all words have come."""
    from aii import capture

    if args.list:
        print("\n".join(capture.microphones()))
        return 0
    server = server_of(args)
    source: Source
    if args.file is not None:
        source = capture.FileSource(args.file, realtime=not args.fast)
    else:
        source = capture.Microphone(args.device)
    with capture.Sources(source):
        client_id = args.client_id or socket.gethostname()
        return converse(server, [(client_id, source)], Printer(sys.stdout))


def server_of(args: argparse.Namespace) -> Server:
    """Where the options say the server is."""
    from aii.live import Server

    token = args.token or os.environ.get("AII_TOKEN")
    return Server(args.server, token=token, ca=args.ca, timeout=args.timeout)


class Printer:
    """Transcripts, a few words each, as running text.

    A new line begins where somebody else speaks, after a pause, and where a line is full. With
    ``names``, each client's lines begin with its name and are in its own colour.

    Args:
        out: where to write.
        names: what each client id is called, in the order of their colours.
        colour: whether to colour; None: where ``out`` is a terminal and NO_COLOR is not set.
    """

    COLOURS = ("36", "35", "33", "32")  # cyan, magenta, yellow, green
    PAUSE = 1.5
    WIDTH = 80

    def __init__(
        self, out: TextIO, names: dict[str, str] | None = None, *, colour: bool | None = None
    ) -> None:
        self._out = out
        self._names = names or {}
        self._width = max(map(len, self._names.values()), default=0)
        self._colour = out.isatty() and not os.environ.get("NO_COLOR") if colour is None else colour
        self._last: Transcript | None = None
        self._filled = 0  # characters in the line that is open

    def show(self, said: Transcript) -> None:
        """Print one transcript."""
        text = " ".join(said.text.split())
        if not text:
            return
        gap = self._gap(said, text)
        if gap is None:
            self.close()
            name = self._names.get(said.client_id)
            head = "" if name is None else f"{name:{self._width}}  "
            self._filled, gap = len(head), head
        self._filled += len(gap) + len(text)
        self._last = replace(said, text=text)
        self._write(self._coloured(said.client_id, gap + text))

    def close(self) -> None:
        """End the line that is open."""
        if self._last is not None:
            self._write("\n")
        self._last = None

    def _gap(self, said: Transcript, text: str) -> str | None:
        """What stands between the last words and these: a space or nothing; None: a new line."""
        last = self._last
        if last is None or last.client_id != said.client_id:
            return None
        if said.timestamp - last.timestamp > self.PAUSE:
            return None
        if self._filled + 1 + len(text) > self.WIDTH:
            return None
        wide = (east_asian_width(character) in "WF" for character in (last.text[-1], text[0]))
        return "" if all(wide) else " "

    def _coloured(self, client_id: str, text: str) -> str:
        if not self._colour or client_id not in self._names:
            return text
        colour = self.COLOURS[list(self._names).index(client_id) % len(self.COLOURS)]
        return f"\x1b[{colour}m{text}\x1b[0m"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def converse(server: Server, clients: Sequence[tuple[str, Source]], printer: Printer) -> int:
    """Send each client's source, print what comes back until all have ended; the exit code.

    The first Ctrl-C ends the audio, the second one the waiting for the last words.

    Raises:
        AiiError: the first thing that went wrong with one of them, once all have ended.
    """
    from aii.live import LiveCall

    said: queue.Queue[Said] = queue.Queue(MOST_UNREAD)
    calls: list[LiveCall] = []
    try:
        for client_id, source in clients:
            calls.append(LiveCall(server, client_id, source, said))
        for call in calls:
            call.start()
        names = " and ".join(source.name for _, source in clients)
        print(f"aii: listening to {names}; Ctrl-C ends it", file=sys.stderr)
        errors = _print_all(calls, said, printer)
    finally:
        printer.close()
        for call in calls:
            call.close()
    if errors:
        raise errors[0]
    return 0


def _print_all(
    calls: Sequence[LiveCall], said: queue.Queue[Said], printer: Printer
) -> list[AiiError]:
    from aii.live import Transcript

    errors: list[AiiError] = []
    open_calls = len(calls)
    interrupted = False
    while open_calls:
        try:
            item = said.get()
            if isinstance(item, Transcript):
                printer.show(item)
                continue
            open_calls -= 1
            if item.error is not None:
                errors.append(item.error)
                for call in calls:  # half a conversation is no use
                    call.stop()
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            printer.close()
            print("aii: waiting for the last words", file=sys.stderr)
            for call in calls:
                call.stop()
    return errors
