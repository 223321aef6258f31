"""The options of voice activity, a part of :class:`aii.config.ServerConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from aii.config.options import DAY, number, one_of, option


def _gate(text: str) -> float | None:
    return None if text == "none" else number(-100, 0)(text)


@dataclass(frozen=True)
class VoiceOptions:
    """When somebody speaks and when they have finished."""

    vad: str = option(
        "none",
        "what judges when somebody speaks, so that silence is skipped and a pause makes the text "
        "final: silero (needs the extra vad), energy (loudness alone), auto (silero if it is "
        "there), none",
        one_of("none", "auto", "silero", "energy"),
    )
    vad_threshold: float = option(
        0.5, "probability from which on somebody speaks", number(0.01, 0.99)
    )
    vad_release: float = option(0.35, "probability below which nobody does", number(0.001, 0.99))
    vad_gate: float | None = option(
        -60.0, "level in dB of full scale below which silence is taken for granted; none asks the "
        "detector about everything", _gate, metavar="DB",
    )  # fmt: skip
    min_silence: float = option(
        0.5, "seconds of silence that end an utterance", number(0, 60), metavar="SECONDS"
    )
    min_speech: float = option(
        0.0, "seconds that speech must last to begin an utterance", number(0, 60),
        metavar="SECONDS",
    )  # fmt: skip
    backdate: float = option(
        0.1, "seconds by which an utterance begins before its first sound", number(0, 60),
        metavar="SECONDS",
    )  # fmt: skip
    speech_pad: float = option(
        0.1, "seconds by which an utterance reaches into the silence after it", number(0, 60),
        metavar="SECONDS",
    )  # fmt: skip
    keep: float = option(
        1.0, "seconds of audio kept while nobody speaks", number(0, 60), metavar="SECONDS"
    )
    no_speech_timeout: float = option(
        5.0, "seconds of silence after which an event says that nobody speaks; 0 never",
        number(0, DAY), metavar="SECONDS",
    )  # fmt: skip
    longest_utterance: float = option(
        30.0, "seconds after which an utterance is ended although it goes on; 0 never",
        number(0, DAY), metavar="SECONDS",
    )  # fmt: skip
