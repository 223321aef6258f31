"""The options of the web listener, a part of :class:`aii.config.ServerConfig`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from aii.config.options import DAY, number, one_of, option, optional_whole, truth, whole
from aii.errors import ConfigError

WEB_PORT = 8000
"""Where the web listener is when nothing else is said."""

MEGABYTE = 1 << 20

_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[^/\s:\[\]*@?#]+)(:\d{1,5})?")


def _switch(text: str) -> bool | None:
    """true, false, or auto (None)."""
    if text.lower() == "auto":
        return None
    try:
        return truth(text)
    except ValueError:
        raise ValueError("wanted is true, false or auto") from None


def _port(text: str) -> int | str:
    """A port, "none", or "auto"."""
    if text in ("none", "auto"):
        return text
    try:
        return whole(0, 65535)(text)
    except ValueError:
        raise ValueError("wanted is a whole number from 0 to 65535, auto or none") from None


def _origins(text: str) -> tuple[str, ...]:
    """Origins as browsers write them, or * for any."""
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if text == "none":
        return ()
    for origin in found:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError("wanted are origins such as https://example.org, commas between, or *")
    return found


def _hosts(text: str) -> tuple[str, ...]:
    """Names of this server, without ports."""
    if text == "none":
        return ()
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for name in found:
        if not _HOST.fullmatch(name):
            raise ValueError("wanted are names such as pbx.example.org, commas between")
    return found


def _networks(text: str) -> tuple[str, ...]:
    """Addresses or networks of proxies."""
    if text == "none":
        return ()
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for item in found:
        try:
            ipaddress.ip_network(item)
        except ValueError:
            raise ValueError("wanted are addresses or networks, commas between") from None
    return found


def _token(text: str) -> str:
    """A secret that fits into a header and an address."""
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{8,256}", text):
        raise ValueError("wanted are 8 to 256 letters, digits and . _ ~ + / = -")
    return text


@dataclass(frozen=True)
class WebOptions:
    """What can be set about the web listener, and about TLS on both."""

    web: bool | None = option(
        None, "whether there is a web listener: true, false, or auto: in `aii serve` when the "
        "extra aii[web] is installed", _switch, switch=True,
    )  # fmt: skip
    web_port: int | str = option(
        "auto", "port of the web listener; auto is 8000, 0 picks a free one, none means no web "
        "listener", _port,
    )  # fmt: skip
    web_host: str | None = option(
        None, "address of the web listener; none is that of --host",
        lambda text: None if text == "none" else text, metavar="ADDRESS",
    )  # fmt: skip
    token: str | None = option(
        None, "secret that web clients must present; better set by the environment, where "
        "other users do not see it; none lets everybody in who can reach the port",
        lambda text: None if text == "none" else _token(text), secret=True,
    )  # fmt: skip
    tls_cert: str | None = option(
        None, "PEM file with the certificate chain: encrypts what --tls names", metavar="PATH"
    )
    tls_key: str | None = option(
        None, "PEM file with the certificate's key, if it is not in the same file", metavar="PATH"
    )
    tls: str = option(
        "both", "which listeners the certificate is for: both, web or tcp",
        one_of("both", "web", "tcp"),
    )  # fmt: skip
    origins: tuple[str, ...] = option(
        (), "origins whose web pages may use this server besides its own, commas between",
        _origins, metavar="LIST",
    )  # fmt: skip
    hosts: tuple[str, ...] = option(
        (), "the only names by which a server without a token may be called, commas between; none: "
        "any name, but on this machine's own addresses", _hosts, metavar="LIST",
    )  # fmt: skip
    trusted_proxies: tuple[str, ...] = option(
        (), "addresses of proxies whose X-Forwarded-For is believed, commas between", _networks,
        metavar="LIST",
    )  # fmt: skip
    max_sessions: int = option(
        200, "calls by WebSocket at once; further ones are refused", whole(1, 100_000)
    )
    max_watchers: int = option(
        100, "clients that follow the events of all calls at once (the dashboard is one); further "
        "ones are refused", whole(1, 100_000),
    )  # fmt: skip
    max_recordings: int = option(
        32, "recordings that are sent to the REST interface at once, until they are answered; "
        "further ones are refused", whole(1, 100_000),
    )  # fmt: skip
    max_per_address: int = option(
        100, "connections to the web listener at once from one address", whole(1, 100_000)
    )
    rate_limit: int | None = option(
        1200, "requests and connections per minute from one address; none is no limit",
        optional_whole(1, 1_000_000),
    )  # fmt: skip
    session_seconds: float = option(
        14_400.0, "longest WebSocket session; 0 is no limit", number(0, 365 * DAY),
        metavar="SECONDS",
    )  # fmt: skip
    max_message: float = option(
        8.0, "megabytes of the largest WebSocket message (8 are 130 s of float32)",
        number(0.001, 1024), metavar="MB",
    )  # fmt: skip
    max_upload: float = option(
        200.0, "megabytes of the largest recording that may be uploaded", number(0.001, 16_384),
        metavar="MB",
    )  # fmt: skip
    max_recording: float = option(
        7200.0, "longest recording that may be uploaded", number(1, 30 * DAY), metavar="SECONDS"
    )
    slow_reader: float = option(
        20.0, "seconds that a web client may leave what we send unread", number(0.1, 3600),
        metavar="SECONDS",
    )  # fmt: skip
    ping: float = option(
        20.0, "seconds between pings of WebSockets, and for their answers; 0 is no pings",
        number(0, 3600), metavar="SECONDS",
    )  # fmt: skip

    def check_web(self) -> None:
        """Find options that contradict each other.

        Raises:
            ConfigError: they do.
        """
        if self.web and self.web_port == "none":
            raise ConfigError("--web true and --web-port none contradict each other; drop one")

    def wants_web(self, by_default: bool) -> bool | None:
        """Whether there is to be a web listener: True, False, or None: if it is installed."""
        if self.web is not None:
            return self.web
        if self.web_port == "none":
            return False
        if self.web_port != "auto":
            return True
        return None if by_default else False

    @property
    def max_message_bytes(self) -> int:
        """``max_message`` in bytes."""
        return round(self.max_message * MEGABYTE)

    @property
    def max_upload_bytes(self) -> int:
        """``max_upload`` in bytes."""
        return round(self.max_upload * MEGABYTE)

    @property
    def port_of_web(self) -> int:
        """The web listener's port."""
        return self.web_port if isinstance(self.web_port, int) else WEB_PORT
