"""What every connection of a server is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aii.audio.vad import Voice
from aii.engine.api import Engine
from aii.protocols import Framing
from aii.servers.budget import Budget
from aii.servers.call_ids import CallIds
from aii.servers.registry import CallRegistry
from aii.servers.running import RunningCalls
from aii.sinks.base import Sink
from aii.sinks.outlets import Outlets
from aii.streaming.session import Session


def _nothing(call_id: str) -> None:
    """What is done for a call where nothing is to be done."""


@dataclass(frozen=True)
class Services:
    """What every connection is given.

    Attributes:
        engine: where requests go.
        make_session: a session from the call's id, the caller's address and, where it has some,
            the call's own settings.
        make_framing: a fresh framing.
        ids: the ids that are taken.
        registry: what is known about calls before they come.
        running: the calls that can be asked something now.
        bind: a leg of the call with this id begins: it stays with the model that serves now.
        unbind: such a leg is over.
        no_room: why the engine has no room for one more call; "" where it has.
        defaults: the settings of the call with this id, where it has none of its own.
        voice: what judges whether somebody speaks; None where nobody asks.
        sinks: where events go besides the call's own socket.
        outlets: that of them which takes audio, and to which calls add sinks of their own.
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
    make_session: Callable[..., Session]
    make_framing: Callable[[], Framing]
    ids: CallIds = field(default_factory=CallIds)
    registry: CallRegistry = field(default_factory=CallRegistry)
    running: RunningCalls = field(default_factory=RunningCalls)
    bind: Callable[[str], object] = _nothing
    unbind: Callable[[str], object] = _nothing
    no_room: Callable[[], str] = str
    defaults: Callable[[str], Any] = _nothing
    voice: Voice | None = None
    sinks: Sequence[Sink] = ()
    outlets: Outlets | None = None
    reply: str = "auto"
    rate: int = 16_000
    max_backlog: float = 300.0
    budget: Budget = field(default_factory=Budget)
    enough: float = 35.0
    first_byte_timeout: float = 0.0
    idle_timeout: float = 0.0
    clock: Callable[[], float] = time.monotonic
