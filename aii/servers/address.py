"""Addresses: which one to listen on, and how they are written."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Any

from aii.errors import ConfigError

BACKLOG = 4096
"""Connections that the kernel may hold for us (its own limit may be lower)."""


def shown(address: tuple[Any, ...]) -> str:
    """``127.0.0.1:8300`` or ``[::1]:8300``."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def is_local(host: str) -> bool:
    """Whether an address (as a listening socket reports it) is out of other machines' reach."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def listen(host: str, port: int, *, options: str = "--host or --port") -> socket.socket:
    """A listening socket at an address or at a name, of IPv4 or IPv6.

    Of several addresses of a name, IPv4 goes first (``localhost`` is 127.0.0.1, where there is
    such), then the first that can be had. ``options`` are those that an error names.

    Raises:
        ConfigError: the name has no address, or we cannot listen there.
    """
    flags = socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        raise _cannot(host, port, error, options) from None
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    problem: Exception = OSError(errno.EADDRNOTAVAIL, "")
    for family, _, _, _, address in found:
        try:
            return socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as error:
            problem = error
    raise _cannot(host, port, problem, options)


def _cannot(host: str, port: int, error: Exception, options: str) -> ConfigError:
    why = str(getattr(error, "strerror", None) or error)
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        why = os.strerror(error.errno)  # the message of create_server repeats the address
    where = shown((host, port))
    return ConfigError(f"cannot listen on {where}: {why}; choose another with {options}")
