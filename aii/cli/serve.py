"""``aii serve`` and ``python aii_server.py``: the parts of the raw TCP server, put together."""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from aii.cli.parser import OneLineParser
from aii.config import ServerConfig
from aii.errors import AiiError, ConfigError, InputError
from aii.servers.lifecycle import Signals, StoppedEarly, signals
from aii.servers.logs import fill_standard_streams, logging_to

if TYPE_CHECKING:
    from aii.engine.local import LocalEngine
    from aii.model import Whisper
    from aii.servers.tcp import TcpServer
    from aii.sinks.base import Sink
    from aii.streaming.window import WindowSettings

log = logging.getLogger("aii.server")

OTHER_VARIABLES = ("AII_TEST_DATA",)
"""``AII_*`` variables that are no options of the server: where the tests find recordings."""

LOG_DEADLINE = 2.0
"""Seconds for the last log lines when the server stops."""

ABOUT = (
    "Listen for telephone calls as raw SLIN over TCP and write down what is said, while it is said."
)


def add_parser(subparsers: Any) -> None:
    """Add ``serve`` to the command line."""
    parser = subparsers.add_parser("serve", help="the TCP server", description=ABOUT)
    ServerConfig.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; the exit code."""
    fill_standard_streams()
    return serve(ServerConfig.load(vars(args), os.environ, other_variables=OTHER_VARIABLES))


def main(argv: Sequence[str] | None = None) -> int:
    """``python aii_server.py``; errors are one line."""
    parser = OneLineParser(prog="aii_server.py", description=ABOUT)
    ServerConfig.add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except AiiError as error:
        print(f"aii_server.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        return 130


def serve(config: ServerConfig) -> int:
    """Put the parts together, serve until a signal, and take them apart in order."""
    console = sys.stderr
    try:
        with signals() as handling, logging_to(console, config.log_level) as queue:
            try:
                at_rest = _serve(config, handling, console)
            finally:
                written = queue.finish(LOG_DEADLINE)
    except StoppedEarly:
        return 0
    if not (at_rest and written):
        # A decode is running, or an output takes nothing: neither thread may be torn down by the
        # interpreter, which would crash or wait.
        os._exit(0)
    return 0


def _serve(config: ServerConfig, handling: Signals, console: TextIO) -> bool:
    """``serve`` once logging and signals are in place; whether all threads have come to rest."""
    settings = _windows(config)
    _open_files(config.max_calls)
    sinks = _sinks(config, console)
    at_rest = True
    try:
        log.debug("loading model %s", config.model)
        language, model = _model(config)
        engine = _engine(config, model)
        try:
            server = _server(config, engine, sinks, settings, language)
            handling.hand_over(server.stop)
            _announce(config, model, server)
            server.serve()
            log.info("stopping: no further calls are taken")
            server.finish(config.shutdown_deadline)
            _sum_up(server, engine)
        finally:
            at_rest = engine.close(0.5)
    except StoppedEarly:
        log.info("stopped before it listened")
    finally:
        stuck = [sink for sink in sinks if not sink.close(5.0)]
    return at_rest and not stuck


def _open_files(max_calls: int) -> None:
    from aii.servers.lifecycle import FILES_PER_CALL, raise_file_limit

    limit = raise_file_limit()
    possible = (limit - 100) // FILES_PER_CALL
    if possible < max_calls:
        log.warning(
            "%d open files are allowed, enough for %d calls; raise it with ulimit -n",
            limit,
            possible,
        )


def _sinks(config: ServerConfig, console: TextIO) -> list[Sink]:
    """People's lines on stdout, or on ``console`` where stdout is for JSON lines."""
    from aii.sinks.console import ConsoleSink
    from aii.sinks.jsonl import JsonlSink

    for stream in (sys.stdout, console):
        if isinstance(stream, io.TextIOWrapper):  # whatever the locale: a word must not end a sink
            stream.reconfigure(encoding="utf-8", errors="replace")
    if config.jsonl is None:
        return [ConsoleSink(sys.stdout)]
    if config.jsonl == "-":
        return [ConsoleSink(console), JsonlSink(sys.stdout, name="stdout")]
    try:
        events = JsonlSink.to_file(config.jsonl)
    except OSError as error:
        raise ConfigError(
            f"cannot write events to {config.jsonl}: {error.strerror}; choose another --jsonl"
        ) from None
    return [ConsoleSink(sys.stdout), events]


def _model(config: ServerConfig) -> tuple[str | None, Whisper]:
    """The language to decode in and the model."""
    from aii.checkpoints import load_model
    from aii.languages import language_code

    language = None if config.language is None else language_code(config.language)
    model = load_model(config.model, device=config.device)
    if not model.is_multilingual:
        if language not in (None, "en") or config.task == "translate":
            raise ConfigError(
                f"model {config.model} knows English only; leave --language and --task as they are"
            )
        return "en", model
    only = model.metadata.get("language")
    if only is not None and language not in (None, only):
        raise ConfigError(
            f"model {config.model} knows {only} only; leave --language as it is or choose another "
            "model"
        )
    return only or language, model


def _engine(config: ServerConfig, model: Whisper) -> LocalEngine:
    from aii.engine.local import LocalEngine

    options: dict[str, object] = {
        "temperatures": config.temperature,
        "beam_size": config.beam_size,
    }
    if config.audio_context != "model":
        options["audio_context"] = config.audio_context
    return LocalEngine(model, queue_size=config.queue_size, threads=config.threads, options=options)


def _windows(config: ServerConfig) -> WindowSettings:
    """How calls are cut, checked before anything is loaded."""
    from aii.streaming.window import WindowSettings

    return WindowSettings(
        window=config.window,
        reset=config.reset_seconds,
        carry=config.reset == "carry",
        condition=config.condition_on_previous_text,
        prompt=config.prompt,
        words=config.words,
    )


def _server(
    config: ServerConfig,
    engine: LocalEngine,
    sinks: Sequence[Sink],
    settings: WindowSettings,
    language: str | None,
) -> TcpServer:
    from aii.protocols import make_framing
    from aii.servers.budget import Budget
    from aii.servers.services import Services
    from aii.servers.tcp import CallIds, TcpServer
    from aii.streaming.policy import CallContext
    from aii.streaming.session import Session
    from aii.streaming.window import WindowPolicy

    requests = itertools.count(1)

    def make_session(call_id: str, caller: str) -> Session:
        context = CallContext(
            call_id, requests, language=language, task=config.task, objective=config.objective
        )
        return Session(call_id, WindowPolicy(context, settings), caller=caller)

    ids = CallIds()
    services = Services(
        engine=engine,
        make_session=make_session,
        make_framing=functools.partial(make_framing, config.framing),
        claim=ids.claim,
        release=ids.release,
        sinks=sinks,
        reply=config.reply,
        rate=config.rate,
        max_backlog=config.max_backlog,
        budget=Budget(config.max_backlog_total),
        enough=config.reset_seconds + config.window,
        first_byte_timeout=config.first_byte_timeout,
        idle_timeout=config.idle_timeout,
    )
    return TcpServer(config.host, config.port, services, max_calls=config.max_calls)


def _announce(config: ServerConfig, model: Whisper, server: TcpServer) -> None:
    """Say on stderr what is served where; scripts read the port from the last line."""
    from aii.servers.address import is_local, shown

    _say(f"model {config.model} on {model.device}")
    if config.model == "embedded":
        _say(
            "the embedded model knows digits and telephone phrases in English, no more; for "
            "anything else: aii models download small, then --model small"
        )
    if not is_local(server.address[0]):
        log.warning(
            "%s can be reached from other machines, and there is no access control on this port",
            shown(server.address),
        )
    _say(f"listening on {shown(server.address)}")


def _say(line: str) -> None:
    sys.stderr.write(f"aii: {line}\n")  # in one piece: other threads write there too


def _sum_up(server: TcpServer, engine: LocalEngine) -> None:
    """The server's whole work in one line of the log."""
    done = engine.stats()
    log.info(
        "served %d calls, refused %d; decoded %d windows (%.1f s of audio) in %.1f s and %d "
        "passes; %d windows failed, %d were withdrawn, %d were put off, %d wait",
        server.counts["accepted"],
        server.counts["refused"],
        done["done"],
        done["audio_seconds"],
        done["decode_seconds"],
        done["passes"],
        done["failed"],
        done["cancelled"],
        done["refused"],
        done["waiting"],
    )
