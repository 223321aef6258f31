"""How one call is to be heard: a frozen value that starts as the server's and may be a call's own.

A call's own settings come in two ways: from code, with ``dataclasses.replace``, or as text by name
(a URL's query, a registry entry), with :meth:`CallSettings.changed`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aii.errors import ConfigError, InputError
from aii.languages import language_code
from aii.streaming.alignatt import AlignAttPolicy, AlignAttSettings
from aii.streaming.endpointing import EndpointSettings
from aii.streaming.guards import GuardSettings
from aii.streaming.local_agreement import AgreementSettings, LocalAgreementPolicy
from aii.streaming.policy import CallContext, Policy
from aii.streaming.window import WindowPolicy, WindowSettings

POLICIES = ("window", "local-agreement", "alignatt")
"""What :func:`make_policy` understands."""

LONGEST_PROMPT = 2000
"""Characters of a call's own prompt."""

LONGEST_LEG = 64
"""Characters of the name of a leg."""


@dataclass(frozen=True)
class CallSettings:
    """How a call is heard.

    Attributes:
        policy: one of ``POLICIES``.
        language: code of the language spoken, or None to detect it once and keep it.
        task: "transcribe", or "translate" into English.
        prompt: names and spellings for the model to expect, or "".
        leg: the channel of the call that this is, or "".
        words: which results of ``window`` carry word times: "none", "final" or "all".
        condition: give the model the text so far as prompt; None does what suits the model.
        objective: seconds within which an answer is wanted.
        drafts: decode with the answer before as a draft; the result is the same.
        options: further decoding options of every request, by name.
        window: the ``window`` policy's own.
        agreement: the ``local-agreement`` policy's own.
        alignatt: the ``alignatt`` policy's own.
        guards: what is looked for in answers.
        endpointing: when somebody speaks and has finished; None hears everything as speech.
        vad_gate: level in dB of full scale below which silence is taken for granted, None never.
        redact: digits in a row from which on they are masked in every event; 0 masks none.

    Raises:
        ConfigError: a value that means nothing.
    """

    policy: str = "window"
    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    leg: str = ""
    words: str = "final"
    condition: bool | None = None
    objective: float = 1.0
    drafts: bool = True
    options: Mapping[str, object] = field(default_factory=dict)
    window: WindowSettings = field(default_factory=WindowSettings)
    agreement: AgreementSettings = field(default_factory=AgreementSettings)
    alignatt: AlignAttSettings = field(default_factory=AlignAttSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    endpointing: EndpointSettings | None = None
    vad_gate: float | None = -60.0
    redact: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _one_of(name, getattr(self, name), choices)
        if len(self.prompt) > LONGEST_PROMPT:
            raise ConfigError(
                f"the prompt has {len(self.prompt)} characters; at most {LONGEST_PROMPT} are taken"
            )
        if len(self.leg) > LONGEST_LEG or not self.leg.isprintable():
            raise ConfigError(
                f"the name of a leg has at most {LONGEST_LEG} printable characters, "
                f"not {self.leg[:80]!r}"
            )

    @property
    def step(self) -> float:
        """Seconds of new audio between two looks at it."""
        if self.policy == "window":
            return self.window.window
        return (self.alignatt if self.policy == "alignatt" else self.agreement).step

    def changed(self, wanted: Mapping[str, object]) -> CallSettings:
        """These settings with those that are given as text by name (``names``).

        Raises:
            ConfigError: an unknown name, or a value that it cannot have.
        """
        settings = self
        for name, value in wanted.items():
            change = _CHANGES.get(name)
            if change is None:
                close = difflib.get_close_matches(name, _CHANGES, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_CHANGES)}"
                raise ConfigError(f"no setting of a call is called {name[:80]!r}; {hint}")
            settings = change(settings, name, str(value).strip())
        return settings

    @staticmethod
    def names() -> tuple[str, ...]:
        """The names that :meth:`changed` knows."""
        return tuple(_CHANGES)


def make_policy(settings: CallSettings, context: CallContext) -> Policy:
    """The policy that ``settings`` name, for the call of ``context``."""
    if settings.policy == "local-agreement":
        return LocalAgreementPolicy(context, settings.agreement)
    if settings.policy == "alignatt":
        return AlignAttPolicy(context, settings.alignatt)
    return WindowPolicy(context, settings.window)


# -- from text --------------------------------------------------------------------------------

_Change = Callable[[CallSettings, str, str], CallSettings]

_CHOICES: dict[str, tuple[str, ...]] = {
    "policy": POLICIES,
    "task": ("transcribe", "translate"),
    "words": ("none", "final", "all"),
}


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ConfigError(f"{name} is {value[:80]!r}; wanted is one of {', '.join(choices)}")
    return value


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1e6:
        raise ConfigError(f"{name} is {text[:80]!r}; wanted is a number above 0")
    return value


def _least_0(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 1e6:
        raise ConfigError(f"{name} is {text[:80]!r}; wanted is a number of at least 0")
    return value


def _truth(name: str, text: str) -> bool:
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in found:
        raise ConfigError(f"{name} is {text[:80]!r}; wanted is true or false")
    return found[text.lower()]


def _language(name: str, text: str) -> str | None:
    if text.lower() in ("", "auto"):
        return None
    try:
        return language_code(text)
    except InputError as error:
        raise ConfigError(str(error)[:200]) from None


def _text(name: str, text: str) -> str:
    return text


def _plain(parse: Callable[[str, str], Any]) -> _Change:
    """Sets the field of the same name."""
    return lambda settings, name, text: replace(settings, **{name: parse(name, text)})


def _within(part: str, attribute: str, parse: Callable[[str, str], Any]) -> _Change:
    """Sets a field of the settings of a policy or of the guards."""

    def change(settings: CallSettings, name: str, text: str) -> CallSettings:
        inner = replace(getattr(settings, part), **{attribute: parse(name, text)})
        return replace(settings, **{part: inner})

    return change


def _vad(settings: CallSettings, name: str, text: str) -> CallSettings:
    """Voice activity on, with what is set of it already, or off."""
    wanted = (settings.endpointing or EndpointSettings()) if _truth(name, text) else None
    return replace(settings, endpointing=wanted)


def _endpoint(attribute: str, parse: Callable[[str, str], float] = _least_0) -> _Change:
    """Sets a field of the endpointing, which switches voice activity on."""

    def change(settings: CallSettings, name: str, text: str) -> CallSettings:
        now = settings.endpointing or EndpointSettings()
        return replace(settings, endpointing=replace(now, **{attribute: parse(name, text)}))

    return change


def _redact(settings: CallSettings, name: str, text: str) -> CallSettings:
    """A call may have more masked than the server asks for, never less."""
    try:
        least = int(text)
    except ValueError:
        least = 0
    if not 1 <= least <= 100:
        raise ConfigError(f"{name} is {text[:80]!r}; wanted is a whole number from 1 to 100")
    return replace(settings, redact=min(least, settings.redact or least))


def _reset(name: str, text: str) -> bool:
    return _one_of(name, text, ("carry", "hard")) == "carry"


_CHANGES: dict[str, _Change] = {
    "policy": _plain(_text),
    "language": _plain(_language),
    "task": _plain(_text),
    "prompt": _plain(_text),
    "leg": _plain(_text),
    "words": _plain(_text),
    "condition": _plain(_truth),
    "objective": _plain(_number),
    "window": _within("window", "window", _number),
    "reset_seconds": _within("window", "reset", _number),
    "reset": _within("window", "carry", _reset),
    "agreement_step": _within("agreement", "step", _number),
    "alignatt_step": _within("alignatt", "step", _number),
    "loop_guard": _within("guards", "loop", _truth),
    "redact": _redact,
    "vad": _vad,
    "vad_threshold": _endpoint("threshold", _number),
    "vad_release": _endpoint("release", _number),
    "min_silence": _endpoint("min_silence"),
    "min_speech": _endpoint("min_speech"),
    "backdate": _endpoint("backdate"),
    "speech_pad": _endpoint("padding"),
    "keep": _endpoint("keep"),
    "no_speech_timeout": _endpoint("no_speech"),
    "longest_utterance": _endpoint("longest"),
}
