"""The listening socket under TLS: counts connections before they have introduced themselves.

asyncio gives a connection a minute until TLS has begun, and hands it only then to the protocols
that count (:mod:`aii.servers.web.wire`). Until then one that says nothing would hold a socket of
the process that calls need, so here it is counted from its first moment; what is too many is closed
at once.
"""

from __future__ import annotations

import socket
from typing import Any

from aii.servers.web.rates import network_of
from aii.servers.web.wire import Limits

ROUND = 100
"""Connections that are closed before others of the loop have their turn."""


class Door(socket.socket):
    """Takes the place of a listening socket. For one thread.

    Args:
        listener: which is ours from here on.
        limits: how many connections there may be.
    """

    def __init__(self, listener: socket.socket, limits: Limits) -> None:
        super().__init__(fileno=listener.detach())
        self._limits = limits

    def accept(self) -> tuple[socket.socket, Any]:
        """A connection for which there is room.

        Raises:
            BlockingIOError: there is none now.
        """
        for _ in range(ROUND):
            plain, address = super().accept()
            name = network_of(address[0])
            if self._limits.enter(name) is None:
                return _Guest(plain, self._limits, name), address
            plain.close()
        raise BlockingIOError("there may be more; the loop asks again")


class _Guest(socket.socket):
    """A connection that is counted until it is closed."""

    def __init__(self, plain: socket.socket, limits: Limits, name: str) -> None:
        super().__init__(fileno=plain.detach())
        self._limits: Limits | None = limits
        self._name = name

    def close(self) -> None:
        """Close it; it counts no more."""
        super().close()
        limits, self._limits = self._limits, None
        if limits is not None:
            limits.leave(self._name)
