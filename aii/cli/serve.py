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
from typing import TYPE_CHECKING, Any

from aii.config import ServerConfig
from aii.errors import AiiError, ConfigError, InputError

if TYPE_CHECKING:
    from aii.engine.local import LocalEngine
    from aii.model import Whisper
    from aii.servers.tcp import TcpServer
    from aii.sinks.base import Sink

log = logging.getLogger("aii.server")

OTHER_VARIABLES = ("AII_TEST_DATA",)
"""``AII_*`` variables that are no options of the server: where the tests find recordings."""

ABOUT = (
    "Listen for telephone calls as raw SLIN over TCP and write down what is said, while it is said."
)


def add_parser(subparsers: Any) -> None:
    """Add ``serve`` to the command line."""
    parser = subparsers.add_parser("serve", help="the TCP server", description=ABOUT)
    ServerConfig.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; the exit code."""
    return serve(ServerConfig.load(vars(args), os.environ, other_variables=OTHER_VARIABLES))


def main(argv: Sequence[str] | None = None) -> int:
    """``python aii_server.py``; errors are one line."""
    parser = argparse.ArgumentParser(prog="aii_server.py", description=ABOUT)
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
    from aii.servers.lifecycle import signals

    _start_logging(config.log_level)
    _open_files(config.max_calls)
    sinks = _sinks(config)
    try:
        language, model = _model(config)
        engine = _engine(config, model)
        try:
            server = _server(config, engine, sinks, language)
            with signals(server.stop):
                _announce(config, model, server)
                server.serve()
                log.info("stopping: no further calls are taken")
                server.finish(config.shutdown_deadline)
        finally:
            settled = engine.close(0.5)
    finally:
        stuck = [sink for sink in sinks if not sink.close(5.0)]
    if stuck or not settled:
        # A decode is running, or an output takes nothing: neither thread may be torn down by the
        # interpreter, which would crash.
        sys.stderr.flush()
        os._exit(0)
    return 0


def _start_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )


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


def _sinks(config: ServerConfig) -> list[Sink]:
    """The console, and JSON lines where they are wanted."""
    from aii.sinks.console import ConsoleSink
    from aii.sinks.jsonl import JsonlSink

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the locale: a word must not end a sink
            stream.reconfigure(encoding="utf-8", errors="replace")
    if config.jsonl is None:
        return [ConsoleSink(sys.stdout)]
    if config.jsonl == "-":
        return [ConsoleSink(sys.stderr), JsonlSink(sys.stdout, name="stdout")]
    try:
        file = open(config.jsonl, "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(
            f"cannot write events to {config.jsonl}: {error.strerror}; choose another --jsonl"
        ) from None
    return [ConsoleSink(sys.stdout), JsonlSink(file, name=config.jsonl, owned=True)]


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
        language = "en"
    elif language is None:
        language = model.metadata.get("language")
    return language, model


def _engine(config: ServerConfig, model: Whisper) -> LocalEngine:
    from aii.engine.local import LocalEngine

    options: dict[str, object] = {
        "temperatures": config.temperature,
        "beam_size": config.beam_size,
    }
    if config.audio_context != "model":
        options["audio_context"] = config.audio_context
    return LocalEngine(model, queue_size=config.queue_size, threads=config.threads, options=options)


def _server(
    config: ServerConfig, engine: LocalEngine, sinks: Sequence[Sink], language: str | None
) -> TcpServer:
    from aii.protocols import make_framing
    from aii.servers.services import Services
    from aii.servers.tcp import CallIds, TcpServer
    from aii.streaming.policy import CallContext
    from aii.streaming.session import Session
    from aii.streaming.window import WindowPolicy, WindowSettings

    settings = WindowSettings(
        window=config.window,
        reset=config.reset_seconds,
        carry=config.reset == "carry",
        condition=config.condition_on_previous_text,
        prompt=config.prompt,
        words=config.words,
    )
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
        idle_timeout=config.idle_timeout,
    )
    return TcpServer(config.host, config.port, services, max_calls=config.max_calls)


def _announce(config: ServerConfig, model: Whisper, server: TcpServer) -> None:
    """Say on stderr what is served where; scripts read the port from the last line."""
    print(f"aii: model {config.model} on {model.device}", file=sys.stderr)
    if config.model == "embedded":
        print(
            "aii: the embedded model knows digits and telephone phrases in English, no more; for "
            "anything else: aii models download small, then --model small",
            file=sys.stderr,
        )
    host, port = server.address
    print(f"aii: listening on {host}:{port}", file=sys.stderr, flush=True)
