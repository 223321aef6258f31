"""``aii serve`` and ``python aii_server.py``: the listeners, over one set of parts."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from aii.cli.parser import OneLineParser
from aii.config import ServerConfig
from aii.errors import AiiError, InputError, ServiceError
from aii.servers.lifecycle import Signals, StoppedEarly, signals
from aii.servers.logs import fill_standard_streams, logging_to

if TYPE_CHECKING:
    from aii.cli.parts import Parts
    from aii.servers.listeners import Listeners

log = logging.getLogger("aii.server")

LOG_DEADLINE = 2.0
"""Seconds for the last log lines when the server stops."""

ABOUT = (
    "Listen for telephone calls, as raw SLIN over TCP and on the web, and write down what is said, "
    "while it is said."
)


def add_parser(subparsers: Any) -> None:
    """Add ``serve`` to the command line."""
    parser = subparsers.add_parser("serve", help="the servers: TCP and web", description=ABOUT)
    ServerConfig.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; the exit code."""
    fill_standard_streams()
    return serve(_config(args), web_by_default=True)


def _config(args: argparse.Namespace) -> ServerConfig:
    from aii.cli.parts import OTHER_VARIABLES

    return ServerConfig.load(vars(args), os.environ, other_variables=OTHER_VARIABLES)


def main(argv: Sequence[str] | None = None) -> int:
    """``python aii_server.py``; errors are one line."""
    parser = OneLineParser(prog="aii_server.py", description=ABOUT)
    ServerConfig.add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        fill_standard_streams()
        return serve(_config(args))
    except AiiError as error:
        print(f"aii_server.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        return 130


def serve(config: ServerConfig, *, web_by_default: bool = False) -> int:
    """Put the parts together, serve until a signal, and take them apart in order."""
    console = sys.stderr
    try:
        with signals() as handling, logging_to(console, config.log_level) as queue:
            try:
                at_rest = _serve(config, handling, console, web_by_default)
            finally:
                written = queue.finish(LOG_DEADLINE)
    except StoppedEarly:
        return 0
    if not (at_rest and written):
        # A decode is running, or an output takes nothing: neither thread may be torn down by the
        # interpreter, which would crash or wait.
        os._exit(0)
    return 0


def _serve(config: ServerConfig, handling: Signals, console: TextIO, web: bool) -> bool:
    """``serve`` once logging and signals are in place; whether all threads have come to rest."""
    from aii.cli import version
    from aii.cli.parts import build
    from aii.servers.listeners import Listeners, make_web, tls_context

    _open_files(config)
    tls_context(config)  # a bad certificate is told before a large model is loaded
    page = make_web(config, by_default=web)
    at_rest = True
    try:
        parts = build(config, console, *(() if page is None else page.sinks))
        try:
            listeners = Listeners(
                config,
                parts.services,
                parts.models,
                audiosocket=parts.audiosocket,
                web=page,
                version=version(),
            )
            handling.hand_over(listeners.stop)
            _announce(config, parts, listeners)
            if page is None and web and config.wants_web(True) is None:
                log.info("no dashboard, for the extra web is not installed: pip install 'aii[web]'")
            listeners.serve()
            log.info("stopping: no further calls are taken")
            listeners.finish(config.shutdown_deadline)
            _sum_up(parts, listeners)
            if listeners.failure:
                raise ServiceError(listeners.failure)
        finally:
            at_rest = parts.close()
    except StoppedEarly:
        log.info("stopped before it listened")
    return at_rest


def _open_files(config: ServerConfig) -> None:
    from aii.servers.lifecycle import FILES_PER_CALL, raise_file_limit

    limit = raise_file_limit()
    possible = (limit - 100) // FILES_PER_CALL
    if possible < config.max_calls:
        log.warning(
            "%d open files are allowed, enough for %d calls; raise it with ulimit -n",
            limit,
            possible,
        )


def _announce(config: ServerConfig, parts: Parts, listeners: Listeners) -> None:
    """Say on stderr what is served where; scripts read the port from the last line."""
    _say(f"model {config.model} on {parts.models.current.about['device']}")
    if config.model == "embedded":
        _say(
            "the embedded model knows digits and telephone phrases in English, no more; for "
            "anything else: aii models download small, then --model small"
        )
    for line in listeners.warnings(config):
        log.warning("%s", line)
    for line in listeners.lines():
        _say(line)


def _say(line: str) -> None:
    sys.stderr.write(f"aii: {line}\n")  # in one piece: other threads write there too


def _sum_up(parts: Parts, listeners: Listeners) -> None:
    """The server's whole work in one line of the log."""
    done, counts = parts.models.stats(), listeners.counts()
    log.info(
        "served %d calls, refused %d; decoded %d windows (%.1f s of audio) in %.1f s and %d "
        "passes; %d windows failed, %d were withdrawn, %d were put off, %d wait",
        counts["accepted"],
        counts["refused"],
        done["done"],
        done["audio_seconds"],
        done["decode_seconds"],
        done["passes"],
        done["failed"],
        done["cancelled"],
        done["refused"],
        done["waiting"],
    )
