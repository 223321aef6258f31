"""What a caller can be asked, and how long to wait for the answer.

The times are those of an IVR; VoiceXML 2.0 (section 6.3, appendix D) has most of them under other
names, which are understood here too, with its units (``1500ms``):

============== ========================= ========================================================
``timeout``    ``timeout``               nobody has begun
``pause``      ``incompletetimeout``     silence after speech that is no whole answer yet
``more_pause`` (``incompletetimeout``)   silence after a whole answer that may go on
``key_pause``  ``interdigittimeout``     after a key, in which another one may come
``end_pause``  ``termtimeout``           after the last key that fits, for the end key
``end_key``    ``termchar``              ends what is keyed or said
============== ========================= ========================================================

After an answer behind which nothing can follow nobody is waited for: its end is the endpoint of
voice activity, which is VoiceXML's ``completetimeout``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aii.errors import ConfigError
from aii.grammar import Grammar

LONGEST_NAME = 100

SECONDS = {
    "timeout": 600.0,
    "pause": 60.0,
    "more_pause": 60.0,
    "key_pause": 60.0,
    "end_pause": 60.0,
}
"""The times of a question, and how long they may be."""

VOICEXML = {
    "incompletetimeout": ("pause", "more_pause"),
    "interdigittimeout": ("key_pause",),
    "termtimeout": ("end_pause",),
    "termchar": ("end_key",),
}
"""VoiceXML's names of what we name otherwise; our own names count before them."""

_TIME = re.compile(r"\s*\+?(\d+\.?\d*|\.\d+)\s*(ms|s)?\s*")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        grammar: what may be answered.
        name: of the question, for the answer.
        timeout: seconds for the caller to begin.
        pause: seconds of silence to wait for more where there is too little for an answer.
        key_pause: seconds after a key in which another one may come.
        end_key: the key that ends what is keyed or said, "" for none.
        confidence: speech that the model is less sure of than this (0 to 1) does not match. A
            grammar makes one of its words of anything: of speech that was none of a menu's words
            all was taken for one at 0 and 2 % at 0.08, which took nothing off what was right on
            clear lines (``benchmarks/README.md``).
        more_pause: as ``pause``, where there is enough for an answer, and more may follow.
        end_pause: seconds to wait for the end key after the last key that fits.
    """

    grammar: Grammar
    name: str = ""
    timeout: float = 10.0
    pause: float = 2.0
    key_pause: float = 3.0
    end_key: str = "#"
    confidence: float = 0.08
    more_pause: float = 1.5
    end_pause: float = 0.0

    @classmethod
    def parse(cls, value: Mapping[str, Any] | str) -> Question:
        """A question as it is asked for outside.

        Args:
            value: what :meth:`aii.grammar.Grammar.parse` takes; a mapping (or the JSON of one) may
                also have ``language`` and the attributes of this class by name, a text may have
                them before its colon (``digits,more_pause=1,timeout=8:4-8``). ``type`` is passed
                over.

        Raises:
            ConfigError: something in it is not understood.
        """
        if isinstance(value, str):
            value = _json(value) if value.lstrip().startswith("{") else _text(value)
        if not isinstance(value, Mapping):
            raise ConfigError("a question is an object with digits or words")
        value = _own_names(value)
        known = {"digits", "words", "language", "type", "name", "end_key", *SECONDS, "confidence"}
        if unknown := [str(name)[:40] for name in value if name not in known]:
            raise ConfigError(
                f"a question has no {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        language, name, end_key = (
            value.get("language"), value.get("name", ""), value.get("end_key", "#")
        )  # fmt: skip
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            raise ConfigError(f"name must be text of at most {LONGEST_NAME} characters")
        if end_key not in ("", "#", "*"):
            raise ConfigError("end_key must be #, * or empty")
        if language is not None and not isinstance(language, str):
            raise ConfigError("language must be the code of a language")
        grammar = Grammar.parse({k: value[k] for k in ("digits", "words") if k in value}, language)
        seconds = {
            item: _number(item, _seconds(value[item]), most)
            for item, most in SECONDS.items()
            if item in value
        }
        sure = _number("confidence", value.get("confidence", cls.confidence), 1.0)
        return cls(grammar, name, end_key=str(end_key), confidence=sure, **seconds)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("a question begins like a JSON object and is none") from None


def _text(text: str) -> dict[str, Any]:
    """``KIND[,OPTION=VALUE...]:WHAT`` as a mapping."""
    head, _, what = text.partition(":")
    kind, *options = head.split(",")
    pairs = [option.partition("=") for option in options]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise ConfigError(f"{wrong[0][:40]!r} is no option of a question; wanted is NAME=VALUE")
    return {**{name.strip(): value for name, _, value in pairs}, kind.strip(): what}


def _own_names(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` with our names for VoiceXML's."""
    others = {
        ours: value[theirs] for theirs, names in VOICEXML.items() if theirs in value
        for ours in names
    }  # fmt: skip
    return {**others, **{name: item for name, item in value.items() if name not in VOICEXML}}


def _seconds(value: object) -> object:
    """Seconds of ``2s`` and ``1500ms``; anything else as it is."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None or not found[2]:
        return value
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


def _number(name: str, value: object, most: float) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise ConfigError(f"{name} must be a number from 0 to {most:g}")
    return number
