"""``aii stream``: plays a recording or standard input into a server and prints what it answers."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from aii.protocols import WRAPPINGS

RAW_SUFFIXES = (".slin", ".sln", ".raw", ".pcm")
"""Files that are sent byte for byte, as they do not say their rate; others are decoded first."""


def add_parser(subparsers: Any) -> None:
    """Add ``stream`` to the commands of ``aii``."""
    parser = subparsers.add_parser(
        "stream",
        help="play audio into a server and print what comes back",
        description="Play a recording, or raw audio from standard input, into a server at the "
        "speed of a call, and print what the server answers.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="any recording that ffmpeg reads; WAV and raw 16-bit PCM (.slin, .raw, ...) without "
        "it; - for raw 16-bit PCM from standard input",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the server (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8300, help="its port (default: %(default)s)")
    parser.add_argument("--call-id", metavar="ID", help="name of the call, sent ahead of the audio")
    parser.add_argument(
        "--framing",
        choices=WRAPPINGS,
        help="how the audio is sent (default: callid with --call-id, else raw)",
    )
    parser.add_argument(
        "--fast", action="store_true", help="send as fast as the server takes it, not in real time"
    )
    parser.add_argument(
        "--frame-bytes",
        type=int,
        default=640,
        metavar="N",
        help="bytes of audio per write (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=int,
        default=16000,
        metavar="HZ",
        help="samples per second sent; of raw audio, the rate that it has (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds to wait for the end of the answer (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Make the call; 0 when the server has answered to the end."""
    from aii.client import stream_call

    lines = stream_call(
        (args.host, args.port),
        _source(args.file, args.rate),
        call_id=args.call_id,
        framing=args.framing,
        frame_bytes=args.frame_bytes,
        rate=args.rate,
        realtime=not args.fast,
        timeout=args.timeout,
    )
    with closing(lines):  # type: ignore[type-var]
        for line in lines:
            print(line, flush=True)
    return 0


def _source(name: str, rate: int) -> Any:
    """The audio as SLIN at ``rate``: bytes, or standard input to be read as it comes."""
    from aii.audio.files import load_audio
    from aii.audio.pcm import float_to_slin
    from aii.errors import AudioError

    if name == "-":
        # Not through the buffer: a thread that waits in it would block Python's own exit.
        return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    path = Path(name)
    if path.suffix.lower() not in RAW_SUFFIXES:
        return float_to_slin(load_audio(name, sr=rate))
    try:
        return path.read_bytes()
    except OSError as error:
        raise AudioError(f"cannot read {name}: {error.strerror}; check the path") from None


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give 1 to 65535")
    return int(text)
