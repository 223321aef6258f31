"""Make the training and evaluation recordings: synthetic voices, and people saying digits.

    python -m training.synthesise --fsdd fsdd_5speakers.tar.gz --out training/data

Needs the programs espeak-ng and flite; festival's voices are used where they are installed,
and a neural one (``neural.py``). Writes
``audio.i16`` (16 kHz, 16 bits, all recordings behind one another, silence at both ends cut off) and
``index.json``, one entry per recording: offset, samples, text, group (what it is for), voice, and
the sample behind each word (``ends``) where the synthesiser tells it.
The same seed and programs make the same files. 20 to 30 minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from benchmarks.espeak import Espeak
from training import neural
from training.grammar import (
    DIGITS,
    LETTERS,
    MONTHS,
    ORDINALS,
    SPELLING,
    TEENS,
    TENS,
    Grammar,
)
from training.recordings import (
    RATE,
    Job,
    Recorded,
    Store,
    digit_string,
    normal,
    read_wav,
    resample,
    spoken,
)

HELD_OUT_SPEAKER = "jackson"
HELD_OUT_VARIANTS = ("m7", "f4")
HELD_OUT_FLITE = "rms"
UNSEEN_RECORDINGS = 5
"""Recordings numbered 0 to 4 of each digit and speaker are kept for evaluation."""

ACCENTS = (
    "en-us en-us en-us en-us-nyc en-gb en-gb en-gb-x-rp en-gb-scotland en-gb-x-gbclan "
    "en-gb-x-gbcwmd en-029"
).split()
VARIANTS = (
    "Alex Alicia Andrea Andy Annie AnxiousAndy Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee "
    "Marco Mario Michael Mike Nguyen RicishayMax RicishayMax2 RicishayMax3 Storm Tweaky adam "
    "anika antonio aunty belinda benjamin boris caleb croak david ed edward edward2 f1 f2 f3 f5 "
    "grandma grandpa gustave iven iven2 iven3 iven4 john kaukovalta klatt klatt2 klatt3 klatt4 "
    "klatt5 klatt6 linda m1 m2 m3 m4 m5 m6 m8 marcelo max michel miguel norbert pablo paul "
    "pedro quincy rob robert sandro shelby steph steph2 steph3 travis victor whisper zac "
).split()
WEEKDAYS = "sunday monday tuesday wednesday thursday friday saturday".split()
FLITE_VOICES = ("slt", "awb", "kal", "kal16")
FESTIVAL_VOICES = {"ked": "voice_ked_diphone", "slt_hts": "voice_cmu_us_slt_arctic_hts"}


def make(job: Job) -> Recorded | None:
    """Run the synthesiser of ``job``; None if it gives nothing usable."""
    ends: Sequence[float]
    if job.engine == "espeak":
        samples, rate, ends = by_espeak(job)
    else:
        samples, rate, ends = by_flite(job)
    if len(samples) < 1000:
        return None
    made = normal(resample(samples, rate), ends)
    return made if 0.08 * RATE < len(made.pcm) < 20 * RATE else None


@cache
def espeak_library() -> Espeak:
    """The library of espeak-ng, which says where its words are."""
    return Espeak()


def by_espeak(job: Job) -> tuple[np.ndarray, int, list[float]]:
    """Samples, their rate, and the end of each word in seconds (none where words are joined)."""
    library = espeak_library()
    speed, pitch = int(job.options[1]), int(job.options[3])
    samples, words = library.say(spoken(job.text), job.voice, speed=speed, pitch=pitch, pause=True)
    ends = [word.end for word in words]
    return samples, library.rate, [] if any(math.isnan(end) for end in ends) else ends


def flite(job: Job, path: str) -> list[tuple[str, float]]:
    """Let flite write ``path``; the phones that it spoke, each with its end in seconds."""
    command = ["flite", "-voice", job.voice, *job.options, "-psdur", "-t", spoken(job.text)]
    # Output is collected: waiting without it polls every 50 ms.
    run = [*command, "-o", path]
    told = subprocess.run(run, capture_output=True, timeout=30, check=False, text=True).stdout
    phones = [phone.rpartition(":") for phone in told.split()]
    return [(name, float(end)) for name, _, end in phones]


@cache
def phones_of(word: str) -> int:
    """How many phones flite speaks a word with, by its fastest voice."""
    spoken_phones = flite(Job(word, "word", "flite", "kal"), "none")
    return sum(name != "pau" for name, _ in spoken_phones)


def by_flite(job: Job) -> tuple[np.ndarray, int, list[float]]:
    """As :func:`by_espeak`; words are told apart by their numbers of phones."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        phones = [end for name, end in flite(job, file.name) if name != "pau"]
        data = Path(file.name).read_bytes()
    if len(data) < 2000:
        return np.zeros(0, np.float32), RATE, []
    last = list(accumulate(phones_of(word.strip(",")) for word in job.text.split()))
    ends = [phones[number - 1] for number in last] if last[-1] == len(phones) else []
    return *read_wav(data), ends


def espeak_voice(rng: random.Random, variants: list[str]) -> tuple[str, tuple[str, ...]]:
    """A voice of espeak-ng with its options: accent, speaker, speed, pitch, range of pitch."""
    accent = rng.choice(ACCENTS)
    voice = accent if rng.random() < 0.06 else f"{accent}+{rng.choice(variants)}"
    speed, pitch = rng.randint(115, 215), rng.randint(15, 85)
    return voice, ("-s", str(speed), "-p", str(pitch))


def flite_options(rng: random.Random) -> tuple[str, ...]:
    """Speed and pitch of flite."""
    stretch = f"duration_stretch={rng.uniform(0.75, 1.3):.2f}"
    return ("--setf", stretch, "--setf", f"int_f0_target_mean={rng.randint(80, 220)}")


def training_jobs(rng: random.Random, grammar: Grammar, scale: float) -> Iterator[Job]:
    """All recordings to train on, in a random order of voices."""

    def count(n: int) -> int:
        return max(1, int(n * scale))

    for _ in range(count(10000)):
        yield Job(grammar.sentence(rng), "phrase", "espeak", *espeak_voice(rng, VARIANTS))
    for _ in range(count(9000)):
        yield Job(grammar.jumble(rng), "jumble", "espeak", *espeak_voice(rng, VARIANTS))
    for _ in range(count(6000)):
        yield Job(digit_string(rng), "string", "espeak", *espeak_voice(rng, VARIANTS))
    for _ in range(count(800)):
        voice = espeak_voice(rng, VARIANTS)
        for word in [*DIGITS, "oh"]:
            yield Job(word, "word", "espeak", *voice)
    words = [word.upper() if len(word) == 1 else word for word in grammar.words()]
    for _ in range(count(10)):
        for word in words:
            yield Job(word, "word", "espeak", *espeak_voice(rng, VARIANTS))
    yield from flite_jobs(rng, grammar, scale)


def flite_jobs(rng: random.Random, grammar: Grammar, scale: float) -> Iterator[Job]:
    """Those of the training recordings that flite's voices speak."""

    def count(n: int) -> int:
        return max(1, int(n * scale))

    for voice_name in FLITE_VOICES:
        for _ in range(count(1900)):
            yield Job(grammar.sentence(rng), "phrase", "flite", voice_name, flite_options(rng))
        for _ in range(count(1300)):
            yield Job(grammar.jumble(rng), "jumble", "flite", voice_name, flite_options(rng))
        for _ in range(count(500)):
            yield Job(digit_string(rng), "string", "flite", voice_name, flite_options(rng))
        for _ in range(count(25)):
            options = flite_options(rng)
            for word in [*DIGITS, "oh"]:
                yield Job(word, "word", "flite", voice_name, options)


def evaluation_jobs(rng: random.Random, grammar: Grammar) -> Iterator[Job]:
    """Recordings of held-out voices (known templates) and held-out templates (known voices)."""
    for i in range(240):
        text = digit_string(rng) if i % 3 == 0 else grammar.sentence(rng)
        if i % 2:
            yield Job(text, "eval-voice", "flite", HELD_OUT_FLITE, flite_options(rng))
        else:
            yield Job(text, "eval-voice", "espeak", *espeak_voice(rng, list(HELD_OUT_VARIANTS)))
    for i in range(240):
        text = grammar.sentence(rng, held_out=True)
        if i % 4 == 0:
            voice = rng.choice(FLITE_VOICES)
            yield Job(text, "eval-template", "flite", voice, flite_options(rng))
        else:
            yield Job(text, "eval-template", "espeak", *espeak_voice(rng, VARIANTS))


def festival(rng: random.Random, grammar: Grammar, scale: float) -> Iterator[tuple[Job, Recorded]]:
    """Recordings by festival's voices, one run of the program for each voice."""
    if shutil.which("festival") is None:
        return
    for name, command in FESTIVAL_VOICES.items():
        jobs = [Job(grammar.sentence(rng), "phrase", "festival", name) for _ in range(600)]
        jobs += [Job(grammar.jumble(rng), "jumble", "festival", name) for _ in range(400)]
        jobs += [Job(digit_string(rng), "string", "festival", name) for _ in range(300)]
        jobs += [Job(word, "word", "festival", name) for word in [*DIGITS, "oh"] * 3]
        rng.shuffle(jobs)
        jobs = jobs[: max(5, int(len(jobs) * scale))]
        with tempfile.TemporaryDirectory() as folder:
            script = [f"({command})"]
            for i, job in enumerate(jobs):
                stretch = f"(Parameter.set 'Duration_Stretch {rng.uniform(0.8, 1.25):.2f})"
                text = spoken(job.text).replace('"', "")
                save = f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{folder}/{i}.wav")'
                script += [stretch, save]
            Path(folder, "all.scm").write_text("\n".join(script), encoding="utf-8")
            subprocess.run(["festival", "-b", f"{folder}/all.scm"], check=False, timeout=900)
            for i, job in enumerate(jobs):
                path = Path(folder, f"{i}.wav")
                if path.exists():
                    samples, rate = read_wav(path.read_bytes())
                    yield job, normal(resample(samples, rate))


def people(archive: Path) -> Iterator[tuple[Job, Recorded]]:
    """FSDD's recordings: groups "person" (training), "eval-seen" and "eval-unheard"."""
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda item: item.name):
            parts = Path(member.name).stem.split("_")
            file = tar.extractfile(member)
            if file is None or len(parts) != 3:
                continue
            digit, speaker, number = parts
            group = "eval-seen" if int(number) < UNSEEN_RECORDINGS else "person"
            if speaker == HELD_OUT_SPEAKER:
                group = "eval-unheard"
            samples, rate = read_wav(file.read())
            job = Job(DIGITS[int(digit)], group, "fsdd", speaker)
            yield job, normal(resample(samples, rate))


def prompts(folder: Path) -> Iterator[tuple[Job, Recorded]]:
    """Asterisk's recorded words in English (Allison Smith): group "person", one of each word.

    ``folder`` holds ``digits/7.g722``, ``letters/b.g722`` and so on; ffmpeg reads them.
    """
    files = {f"digits/{i}": word for i, word in enumerate([*DIGITS, *TEENS])}
    files |= {f"digits/{10 * i}": word for i, word in enumerate(TENS, 2)}
    files |= {f"digits/h-{i}": word for i, word in enumerate(ORDINALS, 1)}
    files |= {f"digits/day-{i}": word for i, word in enumerate(WEEKDAYS)}
    files |= {f"digits/mon-{i}": word for i, word in enumerate(MONTHS)}
    files |= {f"digits/{word}": word for word in "oh hundred thousand dollars pound star".split()}
    files |= {f"digits/{word}": word for word in "today tomorrow yesterday at".split()}
    files |= {"digits/h-30": "thirtieth", "digits/oclock": "o'clock"}
    files |= {f"letters/{letter.lower()}": letter.lower() for letter in LETTERS}
    files |= {f"phonetic/{word[0]}_p": word for word in SPELLING}
    files |= {word: word for word in "goodbye hello number extension".split()}
    for name, word in sorted(files.items()):
        path = folder / f"{name}.g722"
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "wav", "-ar", str(RATE), "-"]
        data = subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
        yield Job(word, "person", "asterisk", "allison"), normal(read_wav(data)[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--fsdd", type=Path, required=True, help="fsdd_5speakers.tar.gz")
    parser.add_argument("--prompts", type=Path, help="folder with Asterisk's English prompts")
    parser.add_argument("--out", type=Path, default=Path("training/data"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training recordings")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    rng, grammar, store = random.Random(args.seed), Grammar(), Store(args.out)
    for job, made in people(args.fsdd):
        store.add(job, made)
    for job, made in prompts(args.prompts) if args.prompts else ():
        store.add(job, made)
    jobs = [*evaluation_jobs(rng, grammar), *training_jobs(rng, grammar, args.scale)]
    with ProcessPoolExecutor(args.jobs) as pool:
        results = pool.map(make, jobs, chunksize=64)
        for i, (job, result) in enumerate(zip(jobs, results, strict=True)):
            if result is not None:
                store.add(job, result)
            if i % 1000 == 0:
                print(f"\r{i} of {len(jobs)} recordings", end="", flush=True)
    for job, made in festival(rng, grammar, args.scale):
        store.add(job, made)
    for job, made in neural.piper_voice(rng, grammar, args.scale, args.jobs):
        store.add(job, made)
    store.close()
    print(f"\r{len(store.entries)} recordings, {store.offset / RATE / 3600:.2f} hours")


if __name__ == "__main__":
    main()
