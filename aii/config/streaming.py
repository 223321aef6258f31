"""The options of how calls are heard, a part of :class:`aii.config.ServerConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from aii.config.options import number, one_of, option, optional_whole, truth, whole

GUARDS = ("no-speech", "compression", "rate", "loop", "repeat")
"""What can be listed in ``--guards``."""


def _guards(text: str) -> tuple[str, ...]:
    """Names with commas between, all, or none."""
    if text in ("all", "none"):
        return GUARDS if text == "all" else ()
    return tuple(one_of(*GUARDS)(part.strip()) for part in text.split(","))


@dataclass(frozen=True)
class StreamingOptions:
    """When a call is decoded and which of its words are final."""

    policy: str = option(
        "window",
        "when words become final: window (with the window), local-agreement (when two updates in "
        "a row hear them), alignatt (when the model attends to what comes after them)",
        one_of("window", "local-agreement", "alignatt"),
    )
    agreement_step: float = option(
        1.0, "seconds of new audio between two updates of local-agreement",
        number(0.1, 10), metavar="SECONDS",
    )  # fmt: skip
    alignatt_step: float = option(
        0.5, "seconds of new audio between two updates of alignatt", number(0.1, 10),
        metavar="SECONDS",
    )  # fmt: skip
    alignatt_threshold: int = option(
        25, "frames of 20 ms at the end of the audio that alignatt does not trust", whole(0, 500),
        metavar="FRAMES",
    )  # fmt: skip
    alignatt_beams: int | None = option(
        None, "beams of alignatt; none is greedy", optional_whole(1, 16)
    )
    guards: tuple[str, ...] = option(
        GUARDS, "what keeps invented text out: all, none, or some of " + ", ".join(GUARDS), _guards,
        metavar="LIST",
    )  # fmt: skip
    drafts: bool = option(
        True, "decode with the text before as a draft, which is faster and, in float32, changes "
        "nothing: true or false", truth,
    )  # fmt: skip
