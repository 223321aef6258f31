"""How much one address may ask for: a bucket of tokens each, and a bounded number of buckets."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

KNOWN = 10_000
"""Addresses that are remembered; beyond that the one that has been quiet longest is forgotten."""


def network_of(address: str) -> str:
    """Whom an address counts for: itself, or its /64 in IPv6, which one customer has whole."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


class Rates:
    """Requests per minute and address. For one thread.

    Args:
        per_minute: how many; None for any number.
        clock: seconds, monotonic.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def allow(self, address: str) -> float:
        """Count a request; 0 if it may be answered, else seconds until one may."""
        if self._most is None:
            return 0.0
        key, now = network_of(address), self._clock()
        tokens, when = self._buckets.pop(key, (float(self._most), now))
        tokens = min(tokens + (now - when) * self._most / 60, float(self._most))
        wait = 0.0 if tokens >= 1 else (1 - tokens) * 60 / self._most
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens), now
        if len(self._buckets) > KNOWN:
            self._buckets.popitem(last=False)
        return wait
