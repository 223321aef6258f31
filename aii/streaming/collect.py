"""Asking a caller something: "digits, at most four", or "one of these words".

While a question is open, what the caller says is recognised within its grammar, and keys count as
well as speech. The first of these gives the answer:

* enough digits, or a key that means a word; the end key (``#``) ends what was keyed, ``*`` clears
  it; ``key_pause`` seconds after the last key what was keyed counts as it is;
* the end of an utterance (an endpoint, a flush) that fits the grammar; one with too few digits
  waits ``pause`` seconds for more;
* ``timeout`` seconds in which nobody speaks or keys; the end of the call; the next question.

Times are the call's own, in seconds of its audio; where none comes, the clock counts instead
(``aii.streaming.arrivals``), and who stops sending while speaking is done after ``pause``. Without
voice activity nobody knows when the caller is done: then the answer comes when a look at the audio
fits the grammar, or at ``timeout``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aii.constraint import GrammarConstraint
from aii.errors import ConfigError
from aii.grammar import Grammar
from aii.streaming.arrivals import GRACE, Arrivals
from aii.streaming.events import (
    Answer,
    CallEnded,
    Dtmf,
    Event,
    Final,
    Partial,
    SpeechStarted,
)
from aii.streaming.vocabulary import Vocabulary
from aii.types import DecodeRequest, Word

ENDPOINTS = ("endpoint", "flush", "hangup")
"""Reasons of finals after which the caller is done speaking, for now."""

LONGEST_NAME = 100

BEAMS = 5
"""Answers are short, so looking at several costs little."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        grammar: what may be answered.
        name: of the question, for the answer.
        timeout: seconds for the caller to begin.
        pause: seconds to wait for more digits where there are too few.
        key_pause: seconds after a key in which another one may come.
        end_key: the key that ends what is keyed, "" for none.
        confidence: speech that the model is less sure of than this (0 to 1) does not match.
    """

    grammar: Grammar
    name: str = ""
    timeout: float = 10.0
    pause: float = 2.0
    key_pause: float = 3.0
    end_key: str = "#"
    confidence: float = 0.0

    @classmethod
    def parse(cls, value: Mapping[str, Any] | str) -> Question:
        """A question as it is asked for outside.

        Args:
            value: what :meth:`aii.grammar.Grammar.parse` takes; a mapping (or the JSON of one) may
                also have ``language`` and the attributes of this class by name. ``type`` is passed
                over.

        Raises:
            ConfigError: something in it is not understood.
        """
        if isinstance(value, str) and not value.lstrip().startswith("{"):
            return cls(Grammar.parse(value))
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ConfigError("a question begins like a JSON object and is none") from None
        if not isinstance(value, Mapping):
            raise ConfigError("a question is an object with digits or words")
        known = {"digits", "words", "language", "type", "name", "end_key", *_SECONDS, "confidence"}
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
            item: _number(item, value[item], most)
            for item, most in _SECONDS.items()
            if item in value
        }
        sure = _number("confidence", value.get("confidence", 0.0), 1.0)
        return cls(grammar, name, end_key=str(end_key), confidence=sure, **seconds)


_SECONDS = {"timeout": 600.0, "pause": 60.0, "key_pause": 60.0}


def _number(name: str, value: object, most: float) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise ConfigError(f"{name} must be a number from 0 to {most:g}")
    return number


class Collector:
    """One open question of one call: sees the call's events, gives its answer once.

    Args:
        question: what is asked.
        start: when, in seconds of the call.
        vocabulary: of the engine's model.
        voiced: whether voice activity is watched, so that events tell when somebody speaks.
    """

    def __init__(
        self, question: Question, start: float, vocabulary: Vocabulary, *, voiced: bool
    ) -> None:
        self.question = question
        self.done = False
        self._start = start
        self._voiced = voiced
        self._constraint = GrammarConstraint(
            question.grammar, vocabulary.multilingual, vocabulary.num_languages
        )  # of the whole answer
        self._keys = ""
        self._keyed: tuple[float, float] | None = None  # first and last key
        self._heard: list[Final] = []
        self._said_at: float | None = None  # end of an utterance that is too short so far
        self._utterances = 0  # begun, and their last final is still to come
        self._last_look = False  # everything up to now is being decoded, then it is over
        self._cut_off = False  # the audio stopped within an utterance, which was flushed
        self._arrivals = Arrivals()
        self._lag: float | None = 0.0  # of the audio when what is waited for began; None: is now

    def constrain(self, request: DecodeRequest) -> DecodeRequest:
        """A request for audio of the answer, kept to the grammar; others as they are."""
        if self.done or request.start < self._start - 1e-6:
            return request
        options = {
            **request.options,
            "constraint": self._rest(request.start),
            "initial_prompt": "",
            "temperatures": (0.0,),
            "beam_size": BEAMS,
            "length_penalty": 0.0,  # the likeliest answer, however long
            "without_timestamps": True,  # in noise, they end an answer before it began
            "word_timestamps": True,
            # Within a grammar nearly every text is likely, so it says nothing against silence.
            "logprob_threshold": None,
        }
        if self._voiced:  # somebody else has said that somebody speaks
            options["no_speech_threshold"] = None
        return replace(request, prompt=(), options=options)

    def _rest(self, start: float) -> GrammarConstraint:
        """What is still to be said from ``start`` (seconds) on: digits that came before count."""
        grammar = self.question.grammar
        before = [event.text for event in self._heard if event.end <= start + 1e-6]
        said = len(grammar.read(" ".join(before)) or "") if not grammar.phrases else 0
        if not said:
            return self._constraint
        rest = replace(
            grammar, least=max(grammar.least - said, 1), most=max(grammar.most - said, 1)
        )
        return replace(self._constraint, grammar=rest)

    def see(self, event: Event) -> Answer | None:
        """The answer, if this event completes it."""
        if self.done:
            return None
        if isinstance(event, Dtmf):
            return self._key(event)
        if isinstance(event, SpeechStarted):
            self._utterances, self._said_at = self._utterances + 1, None
        elif isinstance(event, Final) and event.end > self._start + 1e-6:
            return self._final(event)
        elif isinstance(event, CallEnded):
            return self._closed("ended", event.end)
        return None

    def wants_flush(self, event: Event) -> bool:
        """Whether this partial looks like the whole answer, and nobody else will say so."""
        if self.done or self._voiced or not isinstance(event, Partial) or self._last_look:
            return False
        if event.start < self._start - 1e-6:
            return False
        value, grammar = self.question.grammar.read(event.text), self.question.grammar
        return value is not None and (bool(grammar.phrases) or len(value) >= grammar.most)

    def note(self, position: float, now: float, *, reading: bool = True) -> None:
        """See :meth:`aii.streaming.arrivals.Arrivals.note`."""
        self._arrivals.note(position, now, reading=reading)
        if self._lag is None:
            self._lag = self._arrivals.lag

    @property
    def wake_at(self) -> float | None:
        """When to ask what is ``due`` even if no audio comes."""
        return None if self.done else self._arrivals.wake_at

    def due(self, position: float, *, busy: bool = False) -> tuple[Answer | None, bool]:
        """What has become due when the call's audio has come to ``position`` (seconds).

        Args:
            busy: something that was asked for as final is still to come.

        Returns:
            The answer, if it is due; and whether everything so far is wanted as finals.
        """
        question = self.question
        if self.done:
            return None, False
        idle = self._arrivals.idle(position)
        time = position  # of the call, had it gone on sending
        if self._lag is not None:
            time += max(self._arrivals.lost(position) - self._lag, 0.0)
        if self._keyed is not None:
            late = time - self._keyed[1] >= question.key_pause
            return (self._from_keys() if late else None), False
        if self._last_look:
            return (None if busy else self._closed("timeout", position)), False
        self._cut_off = self._cut_off and idle >= GRACE
        if self._utterances and not self._cut_off:
            self._cut_off = idle >= max(question.pause, GRACE)
            return None, self._cut_off
        if self._cut_off and busy:
            return None, False
        if self._said_at is not None:
            late = time - self._said_at >= question.pause
            return (self._closed("short", position) if late else None), False
        if time - self._start < question.timeout:
            return None, False
        if self._voiced:
            return self._closed("timeout", position), False
        self._last_look = True
        return None, True

    def replaced(self, position: float) -> Answer | None:
        """The next question comes at ``position``; the answer to this one, if there was none."""
        return None if self.done else self._closed("replaced", position)

    # -- keys -----------------------------------------------------------------------------------

    def _key(self, event: Dtmf) -> Answer | None:
        grammar, key = self.question.grammar, event.digit
        first = event.start if self._keyed is None else self._keyed[0]
        if grammar.phrases:
            value = grammar.pressed(key)
            if value is None:
                return None
            self._keys, self._keyed = key, (event.start, event.start)
            return self._answer("match", value, "keys", key, event.start, event.start, 1.0)
        if key == self.question.end_key:
            return self._from_keys() if self._keys else None
        if key == "*":
            self._keys, self._keyed = "", None
        elif key.isdigit():
            self._keys += key
            self._keyed, self._lag = (first, event.start), None
            if len(self._keys) >= grammar.most:
                return self._from_keys()
        return None

    def _from_keys(self) -> Answer:
        assert self._keyed is not None
        status = "match" if len(self._keys) >= self.question.grammar.least else "short"
        return self._answer(status, self._keys, "keys", self._keys, *self._keyed, 1.0)

    # -- speech ---------------------------------------------------------------------------------

    def _final(self, event: Final) -> Answer | None:
        grammar = self.question.grammar
        if event.reason in ("endpoint", "error"):
            self._utterances = max(self._utterances - 1, 0)
        if event.text.strip():
            self._heard.append(event)
        if self._keyed is not None:  # keys go before what is said meanwhile
            return None
        value = grammar.read(self._text)
        enough = value is not None and not grammar.phrases and len(value) >= grammar.most
        if enough or (event.reason in ENDPOINTS and self._text):
            if value is None:
                return self._spoken("nomatch", None)
            if grammar.phrases or len(value) >= grammar.least:
                return self._spoken("match", value)
            self._said_at, self._lag = event.end, None
        if self._last_look and event.reason in ENDPOINTS:
            return self._closed("timeout", event.end)
        return None

    @property
    def _text(self) -> str:
        return " ".join(event.text.strip() for event in self._heard)

    def _spoken(self, status: str, value: str | None) -> Answer:
        first, last = self._heard[0], self._heard[-1]
        sure = confidence([word for event in self._heard for word in event.words])
        if status == "match" and sure is not None and sure < self.question.confidence:
            status, value = "nomatch", None
        return self._answer(
            status, value, "speech", self._text, first.start, last.end, sure, first.language
        )

    def _closed(self, status: str, end: float) -> Answer:
        """The answer when nothing more is waited for."""
        if self._keyed is not None:
            return self._from_keys()
        value = self.question.grammar.read(self._text)
        if value is None:
            if self._text:
                return self._spoken("nomatch", None)
            return self._answer(status, None, "", "", self._start, end, None)
        full = self.question.grammar.phrases or len(value) >= self.question.grammar.least
        return self._spoken("match" if full else "short", value)

    def _answer(
        self,
        status: str,
        value: str | None,
        source: str,
        text: str,
        start: float,
        end: float,
        sure: float | None,
        language: str | None = None,
    ) -> Answer:
        self.done = True
        return Answer(
            question=self.question.name,
            status=status,
            value=value,
            source=source,
            text=text,
            start=start,
            end=end,
            confidence=sure,
            language=language,
        )


def confidence(words: list[Word]) -> float | None:
    """Geometric mean of the words' probabilities; None where they have none."""
    odds = [word.probability for word in words]
    if not odds or any(p is None for p in odds):
        return None
    logs = [math.log(max(p or 0.0, 1e-9)) for p in odds]
    return math.exp(sum(logs) / len(logs))
