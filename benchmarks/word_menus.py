"""How well a caller who may say one of some words is understood, and one who says none of them.

    python -m benchmarks.word_menus [--model embedded] [--takes 3] [--quick]

Menus of 3, 6 and 12 words or phrases of the embedded model's domain are spoken by synthetic voices
that no training data has (espeak-ng's variants m7 and f4 in eight accents, flite's rms), at random
speeds and pitches, and go through the telephone's band, some with mu-law or pink noise. Each clip
is an utterance as voice activity finds it, and is answered in three ways:

* ``open``: as the server decodes a final; the answer is the menu's word that stands in the text, if
  one does;
* ``question``: the answer event of "one of these words" (``aii.streaming.collect``);
* ``question, all taken``: likewise, whatever the model thinks of it (``confidence`` 0).

``right`` are answers that are the word that was said, ``wrong`` those that are another one; the
rest is not understood. What is none of the words (other sentences and words of the domain by the
same voices; noise, telephone tones, music, silence, as if voice activity had taken them for speech)
must not be answered; ``false answers`` counts where it was.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aii.checkpoints import load_model
from aii.engine.hearing import hear
from aii.grammar import Grammar
from aii.question import Question
from aii.streaming.collect import Collector
from aii.streaming.events import Final
from aii.streaming.guards import guard
from aii.streaming.settings import CallSettings
from aii.streaming.vocabulary import Vocabulary
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis
from benchmarks.common import note, result
from benchmarks.digit_grammar import CONDITIONS, line
from training import synthesise
from training.grammar import Grammar as Domain
from training.recordings import Job
from training.sounds import KINDS, no_speech

NAME = "word_menus"

MENUS = {
    "departments": ("sales", "support", "billing"),
    "yes or no": ("yes", "no", "operator"),
    "six departments": (
        "technical support", "billing", "reservations", "human resources", "returns", "an operator",
    ),
    "weekdays": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday"),
    "months": (
        "january", "february", "march", "april", "may", "june", "july", "august", "september",
        "october", "november", "december",
    ),
    "requests": (
        "check my balance", "pay my bill", "cancel my order", "change my appointment",
        "where is my delivery", "i lost my card", "i forgot my password", "opening hours",
        "customer service", "main menu", "say that again", "goodbye",
    ),
}  # fmt: skip
"""Two menus of each size, single words and phrases."""

TAKEN = "question, all taken"
WAYS = ("open", "question", TAKEN)

NOTHING = 2.5
"""Seconds of what is no speech."""


@dataclass(frozen=True)
class Clip:
    """Samples (N,) float32 at 16 kHz, the menu that is open, and what of it was said, or None."""

    samples: np.ndarray
    menu: str
    said: str | None


Pairs = list[tuple[Clip, str | None]]
"""Clips and what they were taken to answer."""


def voices(rng: random.Random) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Synthesisers with voice and options, those that are held out, in turns."""
    while True:
        for variant in synthesise.HELD_OUT_VARIANTS:
            yield ("espeak", *synthesise.espeak_voice(rng, [variant]))
        yield "flite", synthesise.HELD_OUT_FLITE, synthesise.flite_options(rng)


def spoken(texts: Sequence[tuple[str, str, str | None]], rng: random.Random) -> list[Clip]:
    """Clips of (text, menu, what it says of it), each by the next voice."""
    made = []
    for (text, menu, said), voice in zip(texts, voices(rng), strict=False):
        recorded = synthesise.make(Job(text, "menu", *voice))
        if recorded is None:
            note(f"{voice[1]} says nothing for {text!r}")
            continue
        before, after = (int(rng.uniform(0.15, 0.4) * SAMPLE_RATE) for _ in "ab")
        samples = np.pad(recorded.pcm.astype(np.float32) / 32768 * 0.4, (before, after))
        made.append(Clip(samples, menu, said))
    return made


def asked_for(menus: Mapping[str, Sequence[str]], takes: int, seed: int) -> list[Clip]:
    """Each word of each menu, ``takes`` times."""
    texts = [(word, menu, word) for menu, words in menus.items() for word in words]
    return spoken([text for text in texts for _ in range(takes)], random.Random(seed))


def others(menus: Mapping[str, Sequence[str]], count: int, seed: int) -> list[Clip]:
    """For each menu ``count`` sentences and words of the domain without any of its words."""
    rng, domain = random.Random(seed), Domain()
    texts = []
    for menu, words in menus.items():
        inside = [f" {word.removeprefix('an ')} " for word in words]
        found = 0
        while found < count:
            text = domain.sentence(rng) if found % 2 else rng.choice(domain.words())
            if len(text) < 2 or any(word in f" {text.lower()} " for word in inside):
                continue
            texts.append((text, menu, None))
            found += 1
    return spoken(texts, rng)


def noises(menus: Mapping[str, Sequence[str]], takes: int, seed: int) -> list[Clip]:
    """For each menu and each kind of what is no speech ``takes`` clips of ``NOTHING`` seconds."""
    rng = np.random.default_rng(seed)
    return [
        Clip(no_speech(rng, round(NOTHING * SAMPLE_RATE), kind), menu, None)
        for menu in menus for kind in KINDS for _ in range(takes)
    ]  # fmt: skip


def hypothesis(model: Any, samples: np.ndarray, question: Question | None) -> Hypothesis:
    """What the server's engine hears in an utterance, while a question is open or none."""
    defaults = {"audio_context": model.metadata.get("audio_context", "full")}
    request = DecodeRequest(1, NAME, samples, language="en", options={"keep_tail": True})
    if question is not None:
        request = collector(model, question).constrain(request)
    return Hypothesis(**hear(model, request, defaults))


def collector(model: Any, question: Question) -> Collector:
    """A call's question, just asked."""
    vocabulary = Vocabulary(model.is_multilingual, model.num_languages)
    return Collector(question, 0.0, vocabulary, voiced=True)


def answer(model: Any, heard: Hypothesis, question: Question) -> str | None:
    """The question's answer where this is the utterance, None where it is no answer."""
    asked = collector(model, question)
    asked.weigh(heard)
    segments = guard(heard, CallSettings().guards).segments
    given = asked.see(Final(end=1.0, segments=segments, reason="endpoint"))
    return given.value if given is not None and given.status == "match" else None


def measure(model: Any, clips: Sequence[Clip], condition: str) -> dict[str, Pairs]:
    """For each way the clips with their answers; ``condition`` may be that of no line."""
    rng = np.random.default_rng(11)
    pairs: dict[str, Pairs] = {way: [] for way in WAYS}
    for clip in clips:
        samples = line(clip.samples, condition, rng) if condition in CONDITIONS else clip.samples
        question = Question(Grammar.words(MENUS[clip.menu]))
        freely = guard(hypothesis(model, samples, None), CallSettings().guards).segments
        text = "".join(segment.text for segment in freely)
        heard = hypothesis(model, samples, question)
        answers = {
            "open": question.grammar.read(text),
            "question": answer(model, heard, question),
            TAKEN: answer(model, heard, replace(question, confidence=0.0)),
        }
        for way, value in answers.items():
            pairs[way].append((clip, value))
        if answers["question"] != clip.said:
            note(f"{clip.menu}, {condition}: {clip.said}: {answers}; {text!r}, {heard.avg_logprob}")
    return pairs


def share(answered: Pairs, kind: str) -> float:
    """Percent of the answers that are ``right``, ``wrong``, or given at all (``false``)."""
    counted = {
        "right": lambda clip, value: value == clip.said,
        "wrong": lambda clip, value: value not in (clip.said, None),
        "false": lambda clip, value: value is not None,
    }[kind]
    return 100 * sum(counted(*pair) for pair in answered) / max(len(answered), 1)


def report(asked: Mapping[str, Pairs], of_none: Mapping[str, Pairs], condition: str) -> None:
    """One line per size of menu, way and figure."""
    for size in sorted({len(MENUS[clip.menu]) for clip, _ in asked["open"]}):
        rates: dict[str, float] = {}
        for way in WAYS:
            case = f"{size} words, {condition}, {way}"
            own = [pair for pair in asked[way] if len(MENUS[pair[0].menu]) == size]
            rates[way] = share(own, "right")
            compared: dict[str, Any] = {}
            if way != "open" and rates["open"] > 0:
                compared = {"rival": "open", "ratio": rates[way] / rates["open"]}
            result(NAME, case, "right", rates[way], "%", clips=len(own), **compared)
            result(NAME, case, "wrong", share(own, "wrong"), "%", clips=len(own))
            other = [pair for pair in of_none[way] if len(MENUS[pair[0].menu]) == size]
            result(NAME, case, "false answers", share(other, "false"), "%", clips=len(other))


def main(argv: list[str] | None = None) -> int:
    """Print one line per size of menu, condition, way and figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--takes", type=int, default=3, help="of each word")
    parser.add_argument("--quick", action="store_true", help="one of each, one condition")
    args = parser.parse_args(argv)
    if missing := [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]:
        raise SystemExit(f"{missing[0]} is not installed; run: apt install espeak-ng flite")
    model = load_model(args.model, device="cpu")
    takes = 1 if args.quick else args.takes
    menus = dict(list(MENUS.items())[:1]) if args.quick else MENUS
    words, speech = asked_for(menus, takes, 1), others(menus, 8, 2)
    for condition in ["5 dB"] if args.quick else CONDITIONS:
        report(measure(model, words, condition), measure(model, speech, condition), condition)
    silent = noises(menus, 1, 3)
    for way, pairs in measure(model, silent, "no speech").items():
        rate = share(pairs, "false")
        result(NAME, f"no speech, {way}", "false answers", rate, "%", clips=len(silent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
