"""``aii listen``: both sides of a conversation on this machine, each as a leg of one call.

The microphone is what you say, the system's sound is what the others say. Each has a connection and
a client id of its own, ``NAME:mic`` and ``NAME:system``; the dashboard shows them side by side.
"""

from __future__ import annotations

import argparse
import socket
import sys
from typing import TYPE_CHECKING, Any

from aii.cli.mic import Printer, add_common, converse, server_of
from aii.errors import ConfigError

if TYPE_CHECKING:
    from aii.capture import Source

LEGS = ("mic", "system")


def add_parser(subparsers: Any) -> None:
    """Add ``listen`` to the commands of ``aii``."""
    parser = subparsers.add_parser(
        "listen",
        help="microphone and system sound at once, in two colours",
        description="Send the microphone and what the machine plays to a server's "
        "/ws/transcription, as two clients, and print both in their colours. Ctrl-C ends it; the "
        "last words still come.",
    )
    parser.add_argument(
        "--microphone", metavar="NAME", help="part of the name (default: the system's)"
    )
    parser.add_argument(
        "--speaker",
        metavar="NAME",
        help="whose sound is recorded, part of the name (default: the system's)",
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        action="append",
        help="a recording in place of a device: give it twice, first for the microphone",
    )
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Record until Ctrl-C or the end of both files; 0 when all words have come."""
    from aii import capture

    if args.list:
        print("\n".join(capture.soundcards()))
        return 0
    if args.file is not None and len(args.file) != len(LEGS):
        raise ConfigError(
            f"--file was given {len(args.file)} times; give it twice, first in place of the "
            "microphone, then of the system's sound"
        )
    server = server_of(args)
    name = args.client_id or socket.gethostname()
    legs = {f"{name}:{leg}": leg for leg in LEGS}
    with capture.Sources(*_sources(args)) as sources:
        clients = list(zip(legs, sources, strict=True))
        return converse(server, clients, Printer(sys.stdout, legs))


def _sources(args: argparse.Namespace) -> list[Source]:
    from aii import capture

    if args.file is not None:
        return [capture.FileSource(path, realtime=not args.fast) for path in args.file]
    microphone = capture.SoundcardSource("microphone", args.microphone)
    try:
        return [microphone, capture.SoundcardSource("speaker", args.speaker)]
    except BaseException:
        microphone.stop()
        raise
