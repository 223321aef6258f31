"""From how sinks are written down to sinks."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from aii.errors import ConfigError
from aii.sinks.ami import AmiSink
from aii.sinks.ari import AriSink
from aii.sinks.base import Sink
from aii.sinks.console import ConsoleSink
from aii.sinks.jsonl import JsonlSink
from aii.sinks.outlets import Outlets
from aii.sinks.post import client_tls, key_of
from aii.sinks.spec import SinkSpec
from aii.sinks.spool import LIMIT, Spool, left_behind
from aii.sinks.wav import WavSink
from aii.sinks.webhook import WebhookSink


def default_spool(environ: Mapping[str, str]) -> Path:
    """Where deliveries wait if nothing else is said (XDG Base Directory specification)."""
    state = environ.get("XDG_STATE_HOME") or os.path.join(
        environ.get("HOME") or os.path.expanduser("~"), ".local", "state"
    )
    return Path(state) / "aii" / "spool"


def parse_sinks(texts: Sequence[str], jsonl: str | None, *, redact: bool) -> list[SinkSpec]:
    """The sinks that were asked for; the console where nothing was.

    Args:
        texts: what ``--sink`` was given.
        jsonl: what ``--jsonl`` was given: one more ``jsonl:`` sink.
        redact: whether digits are masked.

    Raises:
        ConfigError: one of them cannot be, or they do not go together.
    """
    specs = [SinkSpec.parse(text) for text in texts] or [SinkSpec.parse("console")]
    if jsonl is not None:
        specs.append(SinkSpec.parse(f"jsonl:{jsonl}"))
    if redact and any(spec.kind == "wav" for spec in specs):
        raise ConfigError(
            "a recording cannot be redacted: what the recogniser misses would stay in it; leave "
            "out --redact or the wav sink"
        )
    places = [spec.target for spec in specs if spec.kind == "jsonl"]
    if len(set(places)) < len(places):
        raise ConfigError("two jsonl sinks write to the same place; leave one out")
    return [spec for spec in specs if spec.kind != "none"]


class Maker:
    """Makes sinks.

    Args:
        console: where people's lines go when stdout is for JSON lines.
        spool: folder for deliveries that wait.
        environ: has the secrets.
    """

    def __init__(self, console: TextIO, spool: Path, environ: Mapping[str, str]) -> None:
        self._console = console
        self._spool = spool
        self._environ = environ
        for stream in (sys.stdout, console):
            if isinstance(stream, io.TextIOWrapper):  # a word must not end a sink
                stream.reconfigure(encoding="utf-8", errors="replace")

    def make(self, spec: SinkSpec, *, stdout_taken: bool = False) -> Sink:
        """The sink that ``spec`` describes.

        Raises:
            ConfigError: something that it needs cannot be had.
        """
        try:
            if spec.kind == "console":
                other = spec.target == "stderr" or (stdout_taken and not spec.target)
                return ConsoleSink(self._console if other else sys.stdout)
            if spec.kind == "jsonl":
                return _jsonl(spec)
            if spec.kind == "wav":
                return WavSink(spec.target)
            if spec.kind == "webhook":
                return self._webhook(spec)
            return self._pbx(spec)
        except OSError as error:
            raise ConfigError(
                f"cannot write events to {spec.target}: {error.strerror or error}; choose another "
                "--sink"
            ) from None

    def _webhook(self, spec: SinkSpec) -> WebhookSink:
        options: dict[str, Any] = dict(spec.options)
        secret, ca = spec.secret(self._environ), options.pop("ca", None)
        key = key_of(secret) if secret else b""
        tls = client_tls(ca) if spec.target.startswith("https:") else None
        options.pop("secret", None)
        limit = options.pop("queue", LIMIT)
        spool = Spool(self._spool, _described(spec), limit=limit)
        return WebhookSink(spec.target, spool, key=key, tls=tls, **options)

    def _pbx(self, spec: SinkSpec) -> Sink:
        user, secret = spec.login(self._environ)
        options: dict[str, Any] = {
            name: value for name, value in spec.options.items() if name not in ("user", "secret")
        }
        if spec.kind == "ami":
            tls = client_tls() if options.pop("tls", False) else None
            return AmiSink(spec.address, user, secret, tls=tls, **options)
        ca = options.pop("ca", None)
        tls = client_tls(ca) if spec.target.startswith("https:") else None
        return AriSink(spec.target, user, secret, tls=tls, **options)

    def left_behind(self) -> list[SinkSpec]:
        """The webhooks for which an earlier run has left something, and which nobody serves."""
        return [SinkSpec.parse(text) for text in left_behind(self._spool)]


def _jsonl(spec: SinkSpec) -> JsonlSink:
    options: dict[str, Any] = dict(spec.options)
    if spec.target == "-":
        return JsonlSink.to_stream(sys.stdout, "stdout", **options)
    if spec.is_folder:
        daily = options.pop("rotate", None) == "day"
        return JsonlSink.to_folder(spec.target, daily=daily, **options)
    return JsonlSink.to_file(spec.target, **options)


def _described(spec: SinkSpec) -> str:
    """A webhook so that it can be made again from this text alone: the name of its spool."""
    shown = [
        f"{name}={'yes' if value is True else 'no' if value is False else value}"
        for name, value in sorted(spec.options.items())
    ]
    return ",".join([spec.kind, *shown]) + ":" + spec.target


def build_outlets(
    specs: Sequence[SinkSpec], rules: Sequence[SinkSpec], maker: Maker, more: Sequence[Sink] = ()
) -> Outlets:
    """All sinks of a server; those that were made are closed again if one cannot be.

    Args:
        specs: what sees all calls.
        rules: what calls may bring.
        maker: makes them.
        more: further sinks, already made.

    Raises:
        ConfigError: one cannot be had.
    """
    made: list[Sink] = []
    stdout_taken = any(spec.kind == "jsonl" and spec.target == "-" for spec in specs)
    try:
        for spec in specs:
            made.append(maker.make(spec, stdout_taken=stdout_taken))
    except BaseException:
        for sink in made:
            sink.close()
        raise
    outlets = Outlets([*made, *more], make=maker.make, rules=rules)
    if any(spec.kind == "webhook" for spec in (*specs, *rules)):
        outlets.adopt(maker.left_behind())
    return outlets
