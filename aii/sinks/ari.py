"""Asterisk's REST interface (ARI): variables on the call's channel.

``POST /ari/channels/{channelId}/variable`` for each final and answer (:mod:`aii.sinks.pbx` has the
names). The channel must be in a Stasis application, else Asterisk says 409 and nothing is set; the
call names it by its unique id (``channel`` in its metadata: ``${UNIQUEID}``); a name will not do.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
from urllib.parse import quote

from aii.sinks.pbx import Channel, Channels
from aii.sinks.post import Http
from aii.sinks.queued import QueuedSink
from aii.streaming.events import Answer, CallEnded, CallStarted, Event, Final

log = logging.getLogger(__name__)

GONE = ("400", "404", "409", "422")
"""Answers that concern this channel only: it has hung up, or is in no Stasis application."""


class AriSink(QueuedSink):
    """See the module.

    Args:
        address: of Asterisk's HTTP server, http:// or https://, with its prefix if it has one.
        user, secret: of ``ari.conf``.
        variable: what the names of variables begin with.
        timeout: seconds for each step of a request.
        tls: for https.
        first, most, size: see :class:`QueuedSink`.
    """

    def __init__(
        self,
        address: str,
        user: str,
        secret: str,
        *,
        variable: str = "AII",
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
        first: float = 0.5,
        most: float = 30.0,
        size: int = 1000,
    ) -> None:
        super().__init__(name=f"ARI at {address}", size=size, first=first, most=most)
        self._http = Http(address, timeout=timeout, tls=tls)
        self._base = "/" + "/".join(address.rstrip("/").split("/")[3:])
        self._base = self._base.rstrip("/").removesuffix("/ari")
        login = base64.b64encode(f"{user}:{secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        self._channels = Channels(variable)
        self._followed: tuple[Event, Channel] | None = None
        self._refused = 0
        self.start()

    def _wanted(self, event: Event) -> bool:
        return isinstance(event, CallStarted | Final | Answer | CallEnded)

    def _deliver(self, event: Event) -> None:
        if self._followed is None or self._followed[0] is not event:  # not another attempt
            self._followed = (event, self._channels.follow(event))
        channel = self._followed[1]
        if not channel.name:
            return
        path = f"{self._base}/ari/channels/{quote(channel.name, safe='')}/variable"
        for name, value in self._channels.variables(event, channel):
            body = json.dumps({"variable": name, "value": value}).encode()
            outcome = self._http.post(body, self._headers, path)
            if outcome.taken:
                continue
            if outcome.why.startswith(GONE):
                self._refused += 1
                if self._refused == 1:
                    log.warning("%s sets nothing on %s: %s", self._name, channel.name, outcome.why)
                return
            raise OSError(outcome.why)

    def _hang_up(self) -> None:
        self._http.close()
