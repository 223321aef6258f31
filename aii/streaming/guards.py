"""Guards against text that nobody spoke: silence put into words, loops, floods of tokens.

Each guard can be switched off, and each says what it removed in a line that ends up in the event.
They look at one answer of the engine at a time and are pure.

    no-speech    the model itself thinks that nobody speaks, and its text is not convincing
                 (Radford et al., arXiv 2212.04356, section 4.5)
    compression  text that zlib shrinks too well is decoded again at higher temperatures (the same
                 section); what still repeats itself at its end is cut there
    rate         no more tokens than anyone can speak in so many seconds
    loop         a word or a run of words over and over: cut after its first occurrence, and the
                 text so far is no longer given to the model, which would only copy it
    repeat       ``alignatt`` only, with models whose notes say how far back the attention goes in
                 good text: a token that looks further back says again what was said

Where voice activity is watched, silence does not get as far as here (see ``voice.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aii.types import Hypothesis, Segment, Word

MOST = 224
"""Tokens that Whisper decodes at most anyway."""

LIMIT = "rate: what came after as many tokens as the audio has room for"
"""Said where the cap of tokens ended a decode."""


@dataclass(frozen=True)
class GuardSettings:
    """Which guards stand, and where they strike; None switches one off.

    Attributes:
        no_speech: probability of no speech above which unconvincing text is dropped.
        logprob: mean log-probability below which text is unconvincing.
        compression: ratio of bytes to compressed bytes above which text repeats itself.
        rate: tokens per second of audio.
        least: tokens that are allowed however short the audio is.
        loop: whether repeated words are cut.
        same: times that one word makes a loop.
        times: times that a run of 2 to ``longest`` words makes one, ``words`` words in all.
        words: see ``times``.
        longest: words of the longest run looked for.
        repeat: whether attention that goes back ends the text.
    """

    no_speech: float | None = 0.6
    logprob: float | None = -1.0
    compression: float | None = 2.4
    rate: float | None = 22.5
    least: int = 50
    loop: bool = True
    same: int = 8
    times: int = 3
    words: int = 12
    longest: int = 8
    repeat: bool = True

    def options(self, seconds: float) -> Mapping[str, object]:
        """What the engine must know of them to decode ``seconds`` of audio."""
        options: dict[str, object] = {
            "no_speech_threshold": self.no_speech,
            "logprob_threshold": self.logprob,
            "compression_ratio_threshold": self.compression,
        }
        cap = self.cap(seconds)
        if cap < MOST:
            options["sample_len"] = cap
        return options

    def cap(self, seconds: float) -> int:
        """Tokens at most for ``seconds`` of audio."""
        if self.rate is None:
            return MOST
        return min(MOST, max(self.least, math.ceil(self.rate * seconds)))


@dataclass(frozen=True)
class Guarded:
    """What is left of an answer.

    Attributes:
        segments: without what was removed.
        removed: a line for each thing that was.
        looped: whether a loop was cut: the text before must not be the prompt of what follows.
        end: seconds from the start of the call at which the cut was made, None without one.
    """

    segments: tuple[Segment, ...]
    removed: tuple[str, ...] = ()
    looped: bool = False
    end: float | None = None


def guard(hypothesis: Hypothesis, settings: GuardSettings, *, text: str = "") -> Guarded:
    """Look at an answer.

    Args:
        hypothesis: the engine's answer.
        settings: what stands.
        text: what all its tokens say, to name what the engine itself has dropped.
    """
    removed = list(hypothesis.removed)
    segments = tuple(segment for segment in hypothesis.segments if segment.text)
    if not segments:
        if text.strip():
            removed.append(_line("no-speech", text))
        return Guarded((), tuple(removed))
    if _unspoken(hypothesis, settings):
        removed.append(_line("no-speech", hypothesis.text))
        return Guarded((), tuple(removed))
    if settings.rate is not None and hypothesis.stopped == "limit":
        removed.append(LIMIT)
    looped, end = False, None
    if settings.loop and (cut := _first_loop(segments, settings)) is not None:
        segments, rest, end = cut
        removed.append(_line("loop", rest))
        looped = True
    elif (
        settings.compression is not None
        and hypothesis.compression_ratio > settings.compression
        and (keep := periodic_tail(hypothesis.text)) is not None
    ):
        segments, rest, end = _cut_at(segments, keep)
        removed.append(_line("compression", rest))
        looped = True
    return Guarded(segments, tuple(removed), looped, end)


def _unspoken(hypothesis: Hypothesis, settings: GuardSettings) -> bool:
    return (
        settings.no_speech is not None
        and settings.logprob is not None
        and hypothesis.no_speech_prob > settings.no_speech
        and hypothesis.avg_logprob < settings.logprob
    )


def _line(name: str, text: str) -> str:
    """A report on one line, however long and strange the text is."""
    text = " ".join(text.split())
    return f"{name}: {text[:200]}{'...' if len(text) > 200 else ''}"


# -- loops ------------------------------------------------------------------------------------


def find_loop(words: Sequence[str], settings: GuardSettings) -> int | None:
    """How many words to keep of a text that turns into a loop; None where it does not.

    Args:
        words: compared without regard to case and punctuation.

    Returns:
        The words up to and with the loop's first occurrence.
    """
    plain = [bare(word) for word in words]
    least: int | None = None
    for size in range(1, settings.longest + 1):
        wanted = settings.same if size == 1 else max(settings.times, -(-settings.words // size))
        found = _loop_of(plain, size, wanted)
        if found is not None and (least is None or found < least):
            least = found
    return least


def _loop_of(words: Sequence[str], size: int, times: int) -> int | None:
    """End of the first of ``times`` or more equal runs of ``size`` words in a row, or None."""
    equal = 0  # words in a row that are what stands ``size`` words before them
    for i in range(size, len(words)):
        equal = equal + 1 if words[i] == words[i - size] else 0
        if equal == size * (times - 1):
            return i - equal + 1
    return None


def bare(word: str) -> str:
    """A word as it is compared: small letters and digits, or itself where it has none."""
    kept = "".join(c for c in word.casefold() if c.isalnum())
    return kept or word.strip()


def periodic_tail(text: str) -> int | None:
    """How many characters to keep of a text that ends in repetitions without words.

    It is for languages without spaces and for noises ("hahahaha"): the end of the text is cut after
    the first occurrence of what stands there at least three times and fills half of it.
    """
    length = len(text)
    for period in range(1, length // 3 + 1):
        begin = length
        while begin > period and text[begin - 1] == text[begin - 1 - period]:
            begin -= 1
        begin -= period  # where the first occurrence begins, as far as it is whole
        if begin >= 0 and length - begin >= 3 * period and 2 * (length - begin) >= length:
            return begin + period
    return None


def _first_loop(
    segments: tuple[Segment, ...], settings: GuardSettings
) -> tuple[tuple[Segment, ...], str, float] | None:
    """The segments without a loop, what was cut, and where; None without a loop."""
    text = "".join(segment.text for segment in segments)
    ends = word_ends(text)
    keep = find_loop([text[a:b] for a, b in zip([0, *ends], ends, strict=False)], settings)
    return None if keep is None else _cut_at(segments, ends[keep - 1])


def word_ends(text: str) -> list[int]:
    """Positions in ``text`` after each word; spaces belong to the word behind them."""
    ends = [
        i
        for i in range(1, len(text))
        if text[i].isspace() and not text[i - 1].isspace() and text[:i].strip()
    ]
    return [*ends, len(text)] if text.strip() else []


def _cut_at(segments: tuple[Segment, ...], keep: int) -> tuple[tuple[Segment, ...], str, float]:
    """The first ``keep`` characters of the segments' text, the rest, and the time of the cut.

    A segment that is cut loses its tokens, which are for prompts: there is none after a loop.
    """
    text = "".join(segment.text for segment in segments)
    kept: list[Segment] = []
    left = keep
    end = segments[0].start
    for segment in segments:
        if left <= 0:
            break
        if len(segment.text) <= left:
            kept.append(segment)
            end = segment.end
        else:
            piece = _shortened(segment, left)
            kept.append(piece)
            end = piece.end
        left -= len(segment.text)
    return tuple(kept), text[keep:], end


def _shortened(segment: Segment, keep: int) -> Segment:
    """The first ``keep`` characters of a segment; its end by its words, else in proportion."""
    words: list[Word] = []
    used = 0
    for word in segment.words:
        used += len(word.text)
        if used > keep:
            break
        words.append(word)
    share = keep / max(len(segment.text), 1)
    end = words[-1].end if words else segment.start + share * (segment.end - segment.start)
    return replace(segment, text=segment.text[:keep], tokens=(), words=tuple(words), end=end)
