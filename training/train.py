"""Train the embedded model from nothing.

    python -m training.train --data training/data --run training/runs/first --steps 9000

Stop it at any time (Ctrl-C or SIGTERM); the same command goes on from the last state. The run
folder receives ``state.pt`` (everything to go on with), ``log.jsonl`` (loss, learning rate, speed,
word error rates of small sets) and ``pid``. ``training/export.py`` makes the file to ship.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

import aii.model
from aii.model import ModelDimensions, Whisper
from training.dataset import IGNORED, Batch, Batches, Stage
from training.losses import Gaze, cross_entropy
from training.scoring import QuickCheck
from training.vocabulary import FULL, Vocabulary

WIDTH, HEADS, ENCODER_LAYERS, DECODER_LAYERS = 192, 3, 5, 3
CTC_SHARE = 0.6
GAZE_SHARE = 0.1
START = Stage(1.6, 32, easy=True)
MIDDLE = ((0.20, Stage(1.6, 32)), (0.40, Stage(3.2, 22)), (0.40, Stage(5.0, 15)))
LATE = (
    (0.20, Stage(1.6, 32)),
    (0.40, Stage(3.5, 22)),
    (0.22, Stage(6.0, 13)),
    (0.08, Stage(12.0, 6)),
    (0.03, Stage(24.0, 3)),
    (0.07, Stage(28.0, 2, full=True)),
)
LAST = (
    (0.14, Stage(1.6, 32)),
    (0.28, Stage(3.5, 22)),
    (0.24, Stage(8.0, 9)),
    (0.18, Stage(14.0, 5)),
    (0.08, Stage(27.0, 3)),
    (0.08, Stage(28.0, 2, full=True)),
)
LONG = (
    (0.10, Stage(1.6, 32)),
    (0.26, Stage(4.0, 18, far=0.1)),
    (0.24, Stage(8.0, 10, far=0.1)),
    (0.18, Stage(14.0, 6, far=0.1)),
    (0.16, Stage(28.0, 3)),
    (0.06, Stage(12.0, 4, full=True)),
)
"""For weights that align already: windows of every length, at every place of the 30 s."""
FIRST_TIME = 50_364
SPELLER_ALONE = 150


def fast_attend(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, explicit: bool = False, **_: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention written out: on a CPU its backward pass is 5 times as fast as the fused one's."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    return scores.softmax(-1) @ v, scores if explicit else None


class Plan:
    """Which windows a batch is made of.

    Short and hardly changed ones until the model aligns, then all lengths, and ever fewer batches
    that are hardly changed.
    """

    def __init__(self, steps: int, long: bool = False) -> None:
        self.steps, self.long = steps, long

    def __call__(self, number: int, rng: np.random.Generator) -> Stage:
        progress = number / self.steps
        if self.long:
            return self._one_of(LONG, rng)
        if progress < 0.11:
            return START
        choices = MIDDLE if progress < 0.6 else LATE if progress < 0.83 else LAST
        easy = rng.random() < 0.5 * (1.0 - (progress - 0.11) / 0.24)
        return replace(self._one_of(choices, rng), easy=easy)

    @staticmethod
    def _one_of(choices: tuple[tuple[float, Stage], ...], rng: np.random.Generator) -> Stage:
        shares = np.array([share for share, _ in choices])
        return choices[int(rng.choice(len(choices), p=shares / shares.sum()))][1]


def learning_rate(step: int, steps: int, peak: float, warmup: int = 300) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def dimensions(n_vocab: int, decoder_layers: int | None = None) -> ModelDimensions:
    """Sizes of the embedded model with a vocabulary of ``n_vocab``."""
    deep = decoder_layers or DECODER_LAYERS
    return ModelDimensions(80, 1500, WIDTH, HEADS, ENCODER_LAYERS, n_vocab, 448, WIDTH, HEADS, deep)


def decoder_depth(weights: dict[str, Tensor]) -> int:
    """How many layers the decoder has that these weights belong to."""
    return len({name.split(".")[2] for name in weights if name.startswith("decoder.blocks.")})


def deepen(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The same network with a decoder of ``layers`` layers.

    Each new layer is a copy of the last one whose three outputs are zero: it adds nothing at first,
    and looks at the audio where the layer below does (Chen, Goodfellow and Shlens, arXiv
    1511.05641).
    """
    grown = dict(weights)
    for new in range(decoder_depth(weights), layers):
        last, added = f"decoder.blocks.{new - 1}.", f"decoder.blocks.{new}."
        for name in [name for name in grown if name.startswith(last)]:
            part = name.removeprefix(last)
            silent = part.startswith(("attn.out.", "cross_attn.out.", "mlp.2."))
            grown[added + part] = torch.zeros_like(grown[name]) if silent else grown[name].clone()
    return grown


class ThreadChoice:
    """As many threads as there are free cores, where a niced run shares the machine.

    A step waits for its slowest thread, so a thread on a busy core costs more than it gives. Linux
    counts niced work apart from others' (``/proc/stat``); elsewhere the number stays as it is.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.before = self._ticks()
        torch.set_num_threads(most)

    @staticmethod
    def _ticks() -> tuple[int, int]:
        """Ticks spent on others' work, and ticks in all."""
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:
            return 0, 0
        user, _, system, *_ = numbers = [int(x) for x in fields]
        return user + system, sum(numbers)

    def update(self) -> None:
        """Look at the time since the last call."""
        others, total = self._ticks()
        passed = total - self.before[1]
        if passed <= 0 or os.nice(0) <= 0:
            return
        busy = (others - self.before[0]) / passed * (os.cpu_count() or 1)
        free = (os.cpu_count() or 1) - busy
        torch.set_num_threads(max(1, min(self.most, round(free + 0.1))))
        self.before = (others, total)


class Trainer:
    """The model, its moving average, the optimiser and where the run stands."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        self.vocabulary = Vocabulary.of_grammar()
        self.bias = self.vocabulary.logit_bias()
        self.times = [self.vocabulary.compact(FIRST_TIME + i) for i in (0, 1500)]
        sizes = dimensions(self.vocabulary.size, args.decoder_layers)
        self.model = Whisper(sizes)
        with torch.no_grad():  # else the audio starts out far below the position embedding
            self.model.encoder.conv2.weight.mul_(5.0)
        # Only while training: the encoder alone has to spell out the words as well.
        self.speller = nn.Linear(WIDTH, self.vocabulary.texts + 1)
        with torch.no_grad():  # most frames spell nothing: else its loss drowns the other at first
            self.speller.bias[self.vocabulary.texts] = 6.0
        self.average = Whisper(sizes).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.learned = [*self.model.parameters(), *self.speller.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.learned, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02, fused=True
        )
        self.step = self.clips = 0
        self.seconds = 0.0
        state = args.run / "state.pt"
        if state.exists():
            self.load(torch.load(state, weights_only=True))
        elif args.start:
            self.start_from(torch.load(args.start, weights_only=True)["model_state_dict"])

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.model.load_state_dict(state["model"])
        self.speller.load_state_dict(state["speller"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.clips, self.seconds = state["step"], state["clips"], state["seconds"]

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of a checkpoint in OpenAI's format, rows of used tokens only.

        Its decoder may have fewer layers (``deepen``).
        """
        key = "decoder.token_embedding.weight"
        used = torch.tensor(self.vocabulary.used)
        unused = next(i for i in range(FULL) if i not in set(self.vocabulary.used))
        rows = torch.cat([used, torch.tensor([unused])])
        floats = {name: tensor.float() for name, tensor in weights.items()}
        floats[key] = floats[key][rows]
        floats = deepen(floats, self.model.dims.n_text_layer)
        self.model.load_state_dict(floats)
        self.average.load_state_dict(floats)

    def save(self) -> None:
        """Write ``state.pt`` so that a crash leaves either the old or the new one."""
        state = {
            "model": self.model.state_dict(),
            "speller": self.speller.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "used": list(self.vocabulary.used),
            "step": self.step,
            "clips": self.clips,
            "seconds": self.seconds,
        }
        part = self.args.run / "state.part"
        torch.save(state, part)
        part.replace(self.args.run / "state.pt")

    def encode(self, mel: Tensor, offset: int) -> Tensor:
        """The encoder's output for audio that begins ``offset`` frames (20 ms) into the 30 s."""
        encoder = self.model.encoder
        positions = encoder.positional_embedding
        encoder.positional_embedding = positions[offset:]
        try:
            return encoder(mel)
        finally:
            encoder.positional_embedding = positions

    def losses(
        self, mel: Tensor, tokens: Tensor, targets: Tensor, places: Tensor, offset: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy over the full vocabulary (see ``vocabulary.py``), CTC of the encoder, and
        how far the attention is from the words (``Gaze``).

        The second teaches alignment many times as fast: joint CTC-attention training (Kim, Hori
        and Watanabe, arXiv 1609.06773).
        """
        heard = self.encode(mel, offset)
        gaze = Gaze(self.model.dims.n_text_layer)
        hidden = self.model.decoder.hidden(tokens, heard, recorder=gaze)
        wanted = targets != IGNORED
        logits = self.model.decoder.project(hidden[wanted]) + self.bias
        entropy = cross_entropy(logits, targets[wanted], self.times)
        blank = self.vocabulary.texts
        is_text = wanted & (targets < blank)
        if self.args.start and self.step < SPELLER_ALONE:  # the speller is new, the rest is not
            heard = heard.detach()
        spelled = self.speller(heard.float()).log_softmax(-1).transpose(0, 1)
        lengths = torch.full((len(mel),), heard.shape[1])
        ctc = F.ctc_loss(
            spelled,
            targets[is_text],
            lengths,
            is_text.sum(1),
            blank=blank,
            reduction="sum",
            zero_infinity=True,
        )
        return entropy, ctc / is_text.sum().clamp(min=1), gaze.loss(places)

    def update(self, batch: Batch) -> tuple[float, float, float]:
        """One step; gives the three losses."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.args.steps, self.args.lr)
        entropy, ctc, gaze = self.losses(*batch)
        (entropy + CTC_SHARE * ctc + GAZE_SHARE * gaze).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.learned, 1.0))
        if math.isfinite(norm):
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.clips += len(batch[0])
        share = max(1.0 / (self.step + 1), 0.002)
        with torch.no_grad():
            own: list[Tensor] = list(self.average.parameters())
            new: list[Tensor] = list(self.model.parameters())
            torch._foreach_lerp_(own, new, share)
        return float(entropy.detach()), float(ctc.detach()), float(gaze.detach())


def run(trainer: Trainer, args: argparse.Namespace) -> None:
    """Train to the last step or until a signal asks to stop."""
    stopped: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        stopped.append(number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log = (args.run / "log.jsonl").open("a", encoding="utf-8")
    check = QuickCheck(args.data, trainer.vocabulary)
    batches = Batches(args.data, Plan(args.steps, args.long), args.seed, trainer.step)
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=6)
    losses: list[tuple[float, float, float]] = []
    threads = ThreadChoice(args.threads)
    before, began, first_clips = trainer.seconds, time.monotonic(), trainer.clips
    for batch in loader:
        losses.append(trainer.update(batch))
        if trainer.step % 5 == 0:
            threads.update()
        trainer.seconds = before + time.monotonic() - began
        speed = (trainer.clips - first_clips) / (trainer.seconds - before)
        if trainer.step % 20 == 0:
            mean, ctc, gaze = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            entry = {"step": trainer.step, "loss": round(mean, 4), "ctc": round(ctc, 3)}
            entry["gaze"] = round(gaze, 3)
            entry |= {"clips_per_s": round(speed, 1), "seconds": round(trainer.seconds)}
            entry["threads"] = torch.get_num_threads()
            log.write(json.dumps(entry) + "\n")
            log.flush()
            losses = []
            filled = "#" * (trainer.step * 30 // args.steps)
            bar = f"[{filled:<30}] {trainer.step}/{args.steps} loss {mean:.3f} {speed:.0f} clips/s"
            print(f"\r{bar}", end="", flush=True, file=sys.stderr)
        finished = trainer.step >= args.steps or bool(stopped)
        if trainer.step % args.check == 0 or finished:
            rates = check(trainer.average)
            log.write(json.dumps({"step": trainer.step, "wer": rates}) + "\n")
            log.flush()
        if trainer.step % args.save == 0 or finished:
            trainer.save()
        if finished:
            break
    log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model from nothing.")
    parser.add_argument("--data", type=Path, default=Path("training/data"))
    parser.add_argument("--run", type=Path, default=Path("training/runs/first"))
    parser.add_argument("--start", type=Path, help="checkpoint whose weights to begin with")
    parser.add_argument("--long", action="store_true", help="windows of all lengths from the start")
    parser.add_argument("--decoder-layers", type=int, default=DECODER_LAYERS)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=int, default=250, help="steps between saved states")
    parser.add_argument("--check", type=int, default=500, help="steps between quick checks")
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "pid").write_text(str(os.getpid()))
    aii.model.attend = fast_attend
    trainer = Trainer(args)
    run(trainer, args)


if __name__ == "__main__":
    main()
