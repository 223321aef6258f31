"""From the server's options to how its calls are heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aii.config import ServerConfig
    from aii.model import Whisper
    from aii.streaming.settings import CallSettings
    from aii.streaming.vocabulary import Vocabulary


def call_settings(config: ServerConfig) -> CallSettings:
    """How a call is heard that does not say otherwise; the language is the model's business.

    Raises:
        ConfigError: options that contradict each other.
    """
    from aii.streaming.alignatt import AlignAttSettings
    from aii.streaming.endpointing import EndpointSettings
    from aii.streaming.guards import GuardSettings
    from aii.streaming.local_agreement import AgreementSettings
    from aii.streaming.settings import CallSettings
    from aii.streaming.window import WindowSettings

    stands, before = GuardSettings(), config.condition_on_previous_text
    endpointing = EndpointSettings(
        threshold=config.vad_threshold,
        release=config.vad_release,
        min_silence=config.min_silence,
        min_speech=config.min_speech,
        backdate=config.backdate,
        padding=config.speech_pad,
        keep=config.keep,
        no_speech=config.no_speech_timeout,
        longest=config.longest_utterance,
    )
    return CallSettings(
        policy=config.policy,
        task=config.task,
        prompt=config.prompt,
        words=config.words,
        condition=None if before == "model" else bool(before),
        objective=config.objective,
        drafts=config.drafts,
        window=WindowSettings(config.window, config.reset_seconds, config.reset == "carry"),
        agreement=AgreementSettings(step=config.agreement_step),
        alignatt=AlignAttSettings(
            step=config.alignatt_step,
            threshold=config.alignatt_threshold,
            beams=config.alignatt_beams,
        ),
        redact=config.redact_length if config.redact == "digits" else 0,
        guards=GuardSettings(
            no_speech=stands.no_speech if "no-speech" in config.guards else None,
            compression=stands.compression if "compression" in config.guards else None,
            rate=stands.rate if "rate" in config.guards else None,
            loop="loop" in config.guards,
            repeat="repeat" in config.guards,
        ),
        endpointing=None if config.vad == "none" else endpointing,
        vad_gate=config.vad_gate,
    )


def vocabulary_of(model: Whisper) -> Vocabulary:
    """The tokens that a model speaks, as policies need to know them."""
    from aii.fallback import default_condition
    from aii.streaming.vocabulary import Vocabulary

    return Vocabulary(
        multilingual=model.is_multilingual,
        num_languages=model.num_languages,
        only_language=model.metadata.get("language"),
        previous_text=default_condition(model),
    )
