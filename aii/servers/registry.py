"""What is known about calls before they come: who calls whom, in which language, with which words.

A dialplan says it ahead (``POST /calls/{id}``); the call that then comes under that id, by
AudioSocket's UUID, a call-id preamble or a URI parameter, is looked up here. What the wire itself
says is taken too; where both say something, the registry counts. Entries live for a while, so that
both legs of a call, and a caller that connects again, find them.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aii.errors import ConfigError, ServiceError
from aii.protocols.metadata import LONGEST_VALUE, MOST_VALUES, metadata
from aii.protocols.utterance import PIECES
from aii.question import Question
from aii.streaming.events import Event, Final
from aii.streaming.settings import CallSettings

log = logging.getLogger(__name__)

LIFETIME = 600.0
"""Seconds for which an entry lives unless it says otherwise (``expires``)."""

LONGEST_LIFETIME = 86_400.0

MOST_ENTRIES = 10_000

MOST_SINKS = 16
"""Sinks of one call."""

LONGEST_SINK = 2_048
"""Characters of one sink's specification."""

ENDS = ("final", "speech_ended", "answer", "no_speech")
"""Events after which a call can be made to end (``end_on``)."""

WIRE = ("rate", "codec", "channels")
"""What is said about the audio and not about the call."""


@dataclass(frozen=True)
class CallPlan:
    """What is known about a call when it begins.

    Attributes:
        call_id: under which it is to run; None: one is made up.
        caller: who calls, "" where nobody said.
        callee: who is called, likewise.
        wishes: text by the names of ``CallSettings``: language, prompt, policy, leg ...
        sinks: where its events go besides the server's own sinks, as ``--sink`` takes them.
        collect: a question to ask from the start, or None.
        end_on: events after which we end the call, so that a waiting dialplan goes on.
        details: whatever else was said, for those who read the events.
    """

    call_id: str | None = None
    caller: str = ""
    callee: str = ""
    wishes: Mapping[str, str] = field(default_factory=dict)
    sinks: tuple[str, ...] = ()
    collect: Question | None = None
    end_on: frozenset[str] = frozenset()
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def leg(self) -> str:
        """Whose audio it is, "" for a call that is heard as one."""
        return self.wishes.get("leg", "")

    def settings(self, base: CallSettings) -> CallSettings:
        """``base`` with the call's own wishes; what makes no sense is said in the log."""
        settings = base
        for name in [name for name in base.names() if name in self.wishes]:
            try:
                settings = settings.changed({name: self.wishes[name]})
            except ConfigError as error:
                log.warning("%s: %s; left as it is", self.call_id or "a call", error)
        return settings

    def ends_on(self, event: Event) -> bool:
        """Whether the call is to end after ``event``.

        An empty final ends nothing, nor does one after which the same sentence may go on.
        """
        if event.type not in self.end_on:
            return False
        if not isinstance(event, Final):
            return True
        return event.reason not in PIECES and event.text.strip() != ""


def parse_plan(call_id: str | None, values: Mapping[str, object]) -> CallPlan:
    """A plan from JSON or a form.

    Args:
        call_id: under which the call will come; ``values`` may name another one to run under.
        values: text, numbers or lists of them by name, in any of the usual spellings.

    Raises:
        ConfigError: a value has no meaning.
    """
    special = {name: values.get(name) for name in ("sinks", "collect", "end_on")}
    plain = {k: v for k, v in values.items() if k not in special and k != "expires"}
    if len(plain) > MOST_VALUES:
        raise ConfigError(f"a call has at most {MOST_VALUES} values, not {len(plain)}")
    for name, value in plain.items():
        if isinstance(value, dict) or (isinstance(value, list) and not all(map(_simple, value))):
            raise ConfigError(f"{name[:64]!a} must be text, a number or a list of these")
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            raise ConfigError(f"{name[:64]!a} has more than {LONGEST_VALUE} characters")
    said = dict(metadata(plain).values)
    return CallPlan(
        call_id=said.pop("call_id", None) or call_id,
        caller=said.pop("caller", ""),
        callee=said.pop("callee", ""),
        wishes=said,
        sinks=_sinks(special["sinks"]),
        collect=_question(special["collect"]),
        end_on=_ends(special["end_on"]),
        details={},
    )


def _question(value: object) -> Question | None:
    if value is None:
        return None
    if not isinstance(value, str | Mapping):
        raise ConfigError("collect is a question: an object or a text with digits or words")
    return Question.parse(value)


def _simple(value: object) -> bool:
    return isinstance(value, str | int | float)


def _list(value: object) -> list[str]:
    """What one or several values of a form or JSON are."""
    if value is None or value == "":
        return []
    items = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str) for item in items):
        raise ConfigError("sinks and end_on are texts or lists of texts")
    return [str(item) for item in items]


def _sinks(value: object) -> tuple[str, ...]:
    sinks = tuple(_list(value))
    if len(sinks) > MOST_SINKS or any(len(sink) > LONGEST_SINK for sink in sinks):
        raise ConfigError(
            f"a call has at most {MOST_SINKS} sinks of {LONGEST_SINK} characters each"
        )
    return sinks


def _ends(value: object) -> frozenset[str]:
    names = [part.strip() for item in _list(value) for part in item.split(",")]
    for name in names:
        if name not in ENDS:
            raise ConfigError(f"end_on is {name[:40]!a}; choose from {', '.join(ENDS)}")
    return frozenset(names)


def _lifetime(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, str | int | float) else LIFETIME
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST_LIFETIME:
        raise ConfigError(
            f"expires is {value!a:.40}; wanted are seconds up to {LONGEST_LIFETIME:g}"
        )
    return seconds


@dataclass(frozen=True)
class _Entry:
    plan: CallPlan
    until: float


class CallRegistry:
    """Plans by call id; for any number of threads.

    Args:
        most: entries at once.
        settings: names of what ``CallSettings`` takes; other values become ``details``.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        most: int = MOST_ENTRIES,
        settings: tuple[str, ...] = CallSettings.names(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._settings = frozenset(settings)
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Entries, those included that have expired and were not yet forgotten."""
        with self._lock:
            return len(self._entries)

    def put(self, call_id: str, values: Mapping[str, object]) -> CallPlan:
        """Remember what is said about a call that will come; replaces what was said before.

        Args:
            call_id: its UUID, preamble or ``call_id`` parameter, 1 to 128 printable characters.
            values: see ``parse_plan``; ``expires`` are seconds for which the entry lives.

        Raises:
            ConfigError: the id or a value has no meaning.
            ServiceError: there are too many entries.
        """
        key = _key(call_id)
        until = self._clock() + _lifetime(values.get("expires"))
        plan = self._sorted(parse_plan(call_id, values))
        CallSettings().changed(dict(plan.wishes))  # whoever registers can still mend it
        with self._lock:
            if key not in self._entries and len(self._entries) >= self._most:
                self._forget()
                if len(self._entries) >= self._most:
                    raise ServiceError(
                        f"{self._most} calls are registered already; let them come, or let them "
                        "expire sooner"
                    )
            self._entries[key] = _Entry(plan, until)
        return plan

    def remove(self, call_id: str) -> bool:
        """Forget a call; whether it was known."""
        with self._lock:
            entry = self._entries.pop(_key(call_id), None)
        return entry is not None and entry.until > self._clock()

    def get(self, call_id: str) -> CallPlan | None:
        """What was registered under an id and has not expired."""
        with self._lock:
            entry = self._entries.get(_key(call_id))
            if entry is None:
                return None
            if entry.until <= self._clock():
                del self._entries[_key(call_id)]
                return None
        return entry.plan

    def resolve(self, wanted: str | None, wire: Mapping[str, str] | None = None) -> CallPlan:
        """The plan of a call that begins. Raises nothing.

        Args:
            wanted: the id that came with it, or None.
            wire: what its connection said about it (``aii.protocols.Metadata``).
        """
        about = {k: v for k, v in (wire or {}).items() if k not in (*WIRE, "sinks", "collect")}
        ends = about.pop("end_on", None)
        try:
            heard = parse_plan(wanted, {**about, "end_on": ends})
        except ConfigError as error:
            log.warning("%s: %s", wanted or "a call", error)
            heard = parse_plan(wanted, about)
        heard = self._sorted(heard)
        try:
            known = None if wanted is None else self.get(wanted)
        except ConfigError:  # an id under which nothing can be registered
            known = None
        if known is None:
            return heard
        return CallPlan(
            call_id=known.call_id or heard.call_id,
            caller=known.caller or heard.caller,
            callee=known.callee or heard.callee,
            wishes={**heard.wishes, **known.wishes},
            sinks=known.sinks,
            collect=known.collect,
            end_on=known.end_on or heard.end_on,
            details={**heard.details, **known.details},
        )

    def _sorted(self, plan: CallPlan) -> CallPlan:
        """``plan`` with what is no setting among its details."""
        wishes = {k: v for k, v in plan.wishes.items() if k in self._settings}
        details = {k: v for k, v in plan.wishes.items() if k not in self._settings}
        return CallPlan(**{**vars(plan), "wishes": wishes, "details": details})

    def _forget(self) -> None:
        now = self._clock()
        self._entries = {key: entry for key, entry in self._entries.items() if entry.until > now}


def _key(call_id: str) -> str:
    """UUIDs are one, however they are written."""
    if not 0 < len(call_id) <= 128 or not all(0x21 <= ord(c) <= 0x7E for c in call_id):
        raise ConfigError(
            f"a call id is 1 to 128 printable ASCII characters without spaces, not {call_id[:40]!a}"
        )
    if len(call_id) in (32, 36):
        try:
            return str(uuid.UUID(call_id))
        except ValueError:
            pass
    return call_id
