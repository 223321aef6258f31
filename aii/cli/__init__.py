"""The ``aii`` command: one parser, one place where errors become lines and exit codes.

Each command is a module with ``add_parser(subparsers)`` and ``run(args) -> int``. Heavy imports
happen inside ``run``, so that ``aii --help`` answers at once.

Exit codes: 0 done, 1 we or something we depend on failed, 2 what was asked for is wrong,
130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module, metadata

from aii.cli.parser import OneLineParser
from aii.errors import AiiError, InputError

COMMANDS = ("transcribe", "serve", "stream", "models", "attention", "mic", "listen", "health")

_EPILOG = """\
Without --model, the small model that comes with aii is used: it knows digits and telephone
phrases, no more. For anything else: aii models download small
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each command adds its own part."""
    parser = OneLineParser(
        prog="aii",
        description="Telephone calls to text: Whisper behind a raw TCP port, and on files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aii {version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"aii.cli.{name}").add_parser(subparsers)
    return parser


def version() -> str:
    """The installed version, or "0 (not installed)" when run from a bare checkout."""
    try:
        return metadata.version("aii")
    except metadata.PackageNotFoundError:
        return "0 (not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (``sys.argv[1:]`` when None) and return the exit code."""
    args = build_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a word or file name must not end the command
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line_warning
            code = int(import_module(f"aii.cli.{args.command}").run(args))
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(error, 2)
    except AiiError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("aii: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, as in `aii ... | head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _fail(error: Exception, code: int) -> int:
    line = " ".join(str(error).split())
    print(f"aii: error: {line}", file=sys.stderr)
    return code


def _one_line_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    print(f"aii: warning: {' '.join(str(message).split())}", file=sys.stderr)
