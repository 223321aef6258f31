"""What every connection of a server is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aii.engine.api import Engine
from aii.protocols import Framing
from aii.servers.budget import Budget
from aii.sinks.base import Sink
from aii.streaming.session import Session


@dataclass(frozen=True)
class Services:
    """What every connection is given.

    Attributes:
        engine: where requests go.
        make_session: a session from the call's id and the caller's address.
        make_framing: a fresh framing.
        claim: the id under which a call may run (the wanted one, or a variant while that is taken).
        release: the call under this id is over.
        sinks: where events go besides the call's own socket.
        reply: what goes back on the socket.
        rate: samples per second of raw input.
        max_backlog: seconds of undecoded audio at which reading pauses.
        budget: the same for all calls together.
        enough: seconds of audio that one window may need; so many a call may hold whatever the
            budget says.
        first_byte_timeout: seconds after which a connection that sent nothing ends; 0 is never.
        idle_timeout: seconds without a byte after which we end a call; 0 is never.
        clock: seconds, monotonic.
    """

    engine: Engine
    make_session: Callable[[str, str], Session]
    make_framing: Callable[[], Framing]
    claim: Callable[[str | None], str]
    release: Callable[[str], None]
    sinks: Sequence[Sink] = ()
    reply: str = "auto"
    rate: int = 16_000
    max_backlog: float = 300.0
    budget: Budget = field(default_factory=Budget)
    enough: float = 35.0
    first_byte_timeout: float = 0.0
    idle_timeout: float = 0.0
    clock: Callable[[], float] = time.monotonic
