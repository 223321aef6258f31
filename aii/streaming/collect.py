"""Asking a caller something: "digits, at most four", or "one of these words".

While a question is open, what the caller says is recognised within its grammar, and keys count as
well as speech. The first of these gives the answer:

* as many digits as may come, or a key that means a word; the end key (``#``) ends what was keyed
  or said, ``*`` clears what was keyed; ``key_pause`` seconds after the last key what was keyed
  counts as it is;
* the end of an utterance (an endpoint) behind which nothing more fits the grammar. One that is no
  whole answer waits ``pause`` seconds for more, one that may go on (four digits of "four to eight",
  "new york" beside "new york city") ``more_pause``; a flush says that nothing more comes;
* ``timeout`` seconds in which nobody speaks or keys; the end of the call; the next question.

A noise after what was said is no speech and does not begin the waiting anew.

Times are the call's own, in seconds of its audio; where none comes, the clock counts instead
(``aii.streaming.arrivals``), and who stops sending while speaking is done after ``pause``. Without
voice activity nobody knows when the caller is done: then the answer comes when a look at the audio
finds a whole one, or one that may go on with ``more_pause`` seconds of silence behind it, or at
``timeout``.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aii.constraint import GrammarConstraint
from aii.question import Question
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
from aii.types import DecodeRequest, Hypothesis

ENDPOINTS = ("endpoint", "flush", "hangup")
"""Reasons of finals after which the caller is done speaking, for now."""

BEAMS = 5
"""Answers are short, so looking at several costs little."""


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
        self._odds = _Odds()
        self._latest: Hypothesis | None = None  # of which the next finals are
        self._said_at: float | None = None  # end of an utterance after which more may come
        self._utterances = 0  # begun, and their last final is still to come
        self._last_look = ""  # everything up to now is being decoded, then it is over: status
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
        before = [event.text for event in self._heard if event.end <= start + 1e-6]
        rest = self.question.grammar.rest(" ".join(before))
        return replace(self._constraint, grammar=rest)

    def weigh(self, hypothesis: Hypothesis) -> None:
        """The events that come next are made of this answer of the engine's."""
        self._latest = hypothesis

    def see(self, event: Event) -> Answer | None:
        """The answer, if this event completes it."""
        if self.done:
            return None
        if isinstance(event, Dtmf):
            return self._key(event)
        if isinstance(event, SpeechStarted):
            self._utterances += 1
        elif isinstance(event, Final) and event.end > self._start + 1e-6:
            return self._final(event)
        elif isinstance(event, CallEnded):
            return self._closed("ended", event.end)
        return None

    def wants_flush(self, event: Event) -> bool:
        """Whether what was said is wanted as a final now.

        The end key was pressed; or this partial looks like the whole answer, or like one that may
        go on and was followed by silence, and nobody else will say so.
        """
        if isinstance(event, Dtmf):
            return self._last_look == "nomatch" and not self.done
        if self.done or self._voiced or not isinstance(event, Partial) or self._last_look:
            return False
        if event.start < self._start - 1e-6:
            return False
        standing = self.question.grammar.standing(event.text)
        if standing != "open" or not event.words:
            return standing == "whole"
        return event.end - event.words[-1].end >= self.question.more_pause

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
            full = len(self._keys) >= question.grammar.most
            late = time - self._keyed[1] >= (question.end_pause if full else question.key_pause)
            return (self._from_keys() if late else None), False
        if self._last_look:
            return (None if busy else self._closed(self._last_look, position)), False
        self._cut_off = self._cut_off and idle >= GRACE
        if self._utterances and not self._cut_off:
            self._cut_off = idle >= max(question.pause, GRACE)
            return None, self._cut_off
        if self._cut_off and busy:
            return None, False
        if self._said_at is not None:
            late = time - self._said_at >= self._patience
            return (self._closed("short", position) if late else None), False
        if time - self._start < question.timeout:
            return None, False
        if self._voiced:
            return self._closed("timeout", position), False
        self._last_look = "timeout"
        return None, True

    @property
    def _patience(self) -> float:
        """Seconds of silence that what was said may be followed by."""
        open_end = self.question.grammar.standing(self._text) == "open"
        return self.question.more_pause if open_end else self.question.pause

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
                return self._ended_by_key() if key == self.question.end_key else None
            self._keys, self._keyed = key, (event.start, event.start)
            return self._answer("match", value, "keys", key, event.start, event.start, 1.0)
        if key == self.question.end_key:
            return self._ended_by_key()
        if key == "*":
            self._keys, self._keyed = "", None
        elif key.isdigit() and len(self._keys) < grammar.most:
            self._keys += key
            self._keyed, self._lag = (first, event.start), None
            if len(self._keys) >= grammar.most and not self.question.end_pause:
                return self._from_keys()
        return None

    def _ended_by_key(self) -> Answer | None:
        """The end key: what was keyed is the answer, else what was said and is being said."""
        if self._keys:
            return self._from_keys()
        if self._heard or self._utterances:
            self._last_look = "nomatch"
        return None

    def _from_keys(self) -> Answer:
        assert self._keyed is not None
        status = "match" if len(self._keys) >= self.question.grammar.least else "short"
        return self._answer(status, self._keys, "keys", self._keys, *self._keyed, 1.0)

    # -- speech ---------------------------------------------------------------------------------

    def _final(self, event: Final) -> Answer | None:
        if event.reason in ("endpoint", "error"):
            self._utterances = max(self._utterances - 1, 0)
        news = bool(event.text.strip())
        if news:
            self._heard.append(event)
            self._odds.add(self._latest)
        if self._keyed is not None:  # keys go before what is said meanwhile
            return None
        standing, endpoint = self.question.grammar.standing(self._text), event.reason in ENDPOINTS
        enough = standing == "whole" and not self.question.grammar.phrases
        if enough or (endpoint and standing == "whole"):
            return self._closed("match", event.end)
        if endpoint and standing == "open" and (event.reason != "endpoint" or self._last_look):
            return self._closed("match", event.end)
        if endpoint and standing == "none" and self._text:
            return self._closed("nomatch", event.end)
        if endpoint and news:
            self._said_at, self._lag = event.end, None
        if self._last_look and endpoint:
            return self._closed(self._last_look, event.end)
        return None

    @property
    def _text(self) -> str:
        return " ".join(event.text.strip() for event in self._heard)

    def _spoken(self, status: str, value: str | None) -> Answer:
        first, last = self._heard[0], self._heard[-1]
        sure = self._odds.mean
        if status == "match" and sure is not None and sure < self.question.confidence:
            status, value = "nomatch", None
        return self._answer(
            status, value, "speech", self._text, first.start, last.end, sure, first.language
        )

    def _closed(self, status: str, end: float) -> Answer:
        """The answer when nothing more is waited for."""
        if self._keyed is not None:
            return self._from_keys()
        if not self._text:
            return self._answer(status, None, "", "", self._start, end, None)
        value = self.question.grammar.read(self._text)
        if value is None:
            return self._spoken("nomatch", None)
        short = self.question.grammar.standing(self._text) == "part"
        return self._spoken("short" if short else "match", value)

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


class _Odds:
    """How likely the model thinks what was heard is, each token and the end of it.

    The grammar has forced the answer, its log-probability is that of the open vocabulary all the
    same (``aii.logit_filters.Constrain``): what the model would never have said by itself was
    hardly said. The end counts as well, for a word is often only the beginning of something else.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._tokens = 0

    def add(self, hypothesis: Hypothesis | None) -> None:
        if hypothesis is not None:
            tokens = len(hypothesis.tokens) + 1
            self._sum += hypothesis.avg_logprob * tokens
            self._tokens += tokens

    @property
    def mean(self) -> float | None:
        """The geometric mean, 0 to 1; None where nothing is known."""
        return math.exp(min(self._sum / self._tokens, 0.0)) if self._tokens else None
