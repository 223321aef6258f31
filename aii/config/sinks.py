"""The options about where events go, a part of :class:`aii.config.ServerConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from aii.config.options import one_of, option, whole

REDACT_LENGTH = 5


@dataclass(frozen=True)
class SinkOptions:
    """Sinks, and what is masked before they see it."""

    sink: tuple[str, ...] = option(
        (), "where events go, as KIND[,OPTION=VALUE][:TARGET]; may be given several times; kinds: "
        "console, jsonl, webhook, ami, ari, wav, none; without any: console",
        repeated=True, metavar="SINK",
    )  # fmt: skip
    jsonl: str | None = option(
        None, "file for events as JSON lines, - is stdout; the same as one more --sink jsonl:PATH",
        metavar="PATH",
    )  # fmt: skip
    allow_sink: tuple[str, ...] = option(
        (), "sinks that single calls may bring, as KIND[,OPTION=VALUE][:FOLDER or ADDRESS]; may be "
        "given several times; without any: none", repeated=True, metavar="SINK",
    )  # fmt: skip
    spool: str | None = option(
        None, "folder in which webhook deliveries wait; none is aii/spool in the user's state "
        "folder", lambda text: None if text == "none" else text, metavar="FOLDER",
    )  # fmt: skip
    redact: str = option(
        "none", "what is masked in every output: none, or digits (strings of them)",
        one_of("none", "digits"),
    )  # fmt: skip
    redact_length: int = option(
        REDACT_LENGTH, "digits in a row from which on they are masked", whole(1, 100)
    )
