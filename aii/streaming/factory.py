"""Makes the session of each call: the server's settings or a call's own, and the model's tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from aii.errors import ConfigError
from aii.streaming.policy import CallContext
from aii.streaming.session import Session
from aii.streaming.settings import CallSettings, make_policy
from aii.streaming.vocabulary import Vocabulary
from aii.streaming.voice import VoiceTrack
from aii.types import SAMPLE_RATE


@dataclass(frozen=True)
class Sessions:
    """What all calls of a server have in common; may be used from any thread.

    Attributes:
        settings: how a call is heard that does not say otherwise.
        vocabulary: the tokens of the engine's model.
        ids: source of request ids, unique in the process.
        voice: whether the owner of the sessions has their voice requests answered.
    """

    settings: CallSettings = field(default_factory=CallSettings)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    voice: bool = False

    def make(
        self,
        call_id: str,
        caller: str = "",
        settings: CallSettings | None = None,
        *,
        start: float = 0.0,
    ) -> Session:
        """The session of a call, or of one leg of it.

        Args:
            call_id: the id of its events and requests.
            caller: where it comes from.
            settings: the call's own; None for the server's.
            start: seconds from the start of the call to the first sample.

        Raises:
            ConfigError: the model does not know the language or the task, or voice activity is
                wanted where nothing judges it.
        """
        wanted = settings or self.settings
        context = CallContext(
            call_id=call_id,
            ids=self.ids,
            language=self.vocabulary.language(wanted.language, wanted.task),
            task=wanted.task,
            options=wanted.options,
            objective=wanted.objective,
            prompt=wanted.prompt,
            words=wanted.words,
            condition=self.vocabulary.previous_text
            if wanted.condition is None
            else wanted.condition,
            guards=wanted.guards,
            drafts=wanted.drafts,
            vocabulary=self.vocabulary,
        )
        policy = make_policy(wanted, context)
        track = self._track(call_id, wanted, start)
        return Session(
            call_id,
            policy,
            caller=caller,
            leg=wanted.leg,
            start=start,
            voice=track,
            redact=wanted.redact,
            vocabulary=self.vocabulary,
        )

    def _track(self, call_id: str, settings: CallSettings, start: float) -> VoiceTrack | None:
        """What follows a call's voice activity, if that is wanted."""
        if settings.endpointing is None:
            return None
        if not self.voice:
            raise ConfigError("no voice detector runs here; start the server with --vad auto")
        position = round(start * SAMPLE_RATE)
        return VoiceTrack(call_id, settings.endpointing, gate=settings.vad_gate, start=position)
