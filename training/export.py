"""Turn a run's state into a checkpoint to ship: OpenAI's format, float16, the whole vocabulary.

python -m training.export --run training/runs/first --out assets/embedded.pt --name embedded-1
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aii.model import ModelDimensions, Whisper
from training.dataset import IGNORED, Batches, Stage
from training.train import decoder_depth, deepen, dimensions
from training.vocabulary import FULL, Vocabulary

ATTENTION_BACK = 17
"""Frames: in 275 held-out utterances that were heard right no token attends more than 15 before the
one before it; in those that say something twice, 20 to 30."""

DOMAIN = "telephone: connected digits and what callers say to menus, English"


@torch.inference_mode()
def decoder_states(state: dict[str, Any], data: Path, batches: int = 40) -> Tensor:
    """(N, D) what the decoder's last layer norm puts out on training windows."""
    vocabulary = Vocabulary(tuple(state["used"]))
    sizes = dimensions(vocabulary.size, decoder_depth(state["average"]))
    model = Whisper(sizes).eval()
    model.load_state_dict(state["average"])
    source = iter(Batches(data, lambda number, rng: Stage(3.5, 16), seed=99))
    found = []
    for _ in range(batches):
        mel, tokens, targets, *_ = next(source)
        hidden = model.decoder.hidden(tokens, model.encoder(mel.float()))
        found.append(hidden[targets != IGNORED])
    return torch.cat(found)


def quieter(row: Tensor, states: Tensor, by: float = 15.0) -> Tensor:
    """``row`` (D,) changed so that its logit is lower by about ``by`` on all of ``states`` (N, D).

    Sampling at a high temperature would else find one of 49,871 unused tokens now and then.
    """
    weight = 1e-3 * len(states) * torch.eye(states.shape[1])
    shift = torch.linalg.solve(states.T @ states + weight, states.sum(0))
    return row - by * shift


def checkpoint(
    state: dict[str, Any], name: str, version: str, states: Tensor | None = None
) -> dict[str, Any]:
    """What ``torch.save`` writes: ``dims``, ``model_state_dict`` and our notes under ``aii``."""
    vocabulary = Vocabulary(tuple(state["used"]))
    weights = dict(state["average"])
    key = "decoder.token_embedding.weight"
    embedding = weights[key].clone()
    if states is not None:
        embedding[-1] = quieter(embedding[-1], states)
    weights[key] = vocabulary.expand(embedding)
    halves = {name: tensor.half().contiguous() for name, tensor in weights.items()}
    notes = {
        "name": name,
        "language": "en",
        "audio_context": "auto",
        "fallback": False,
        "attention_back": ATTENTION_BACK,
        "condition_on_previous_text": False,
        "domain": DOMAIN,
        "version": version,
        "training_steps": int(state["step"]),
        "training_clips": int(state["clips"]),
    }
    sizes = dimensions(FULL, decoder_depth(weights))
    return {"dims": asdict(sizes), "model_state_dict": halves, "aii": notes}


def blend(made: dict[str, Any], other: dict[str, Any], share: float) -> None:
    """Draw the weights of ``made`` towards those of the checkpoint it began with, in place.

    What one run learned from another's weights lies on a line with them that has no bad places
    (Wortsman and others, arXiv 2109.01903); ``share`` is the other one's, whose decoder may have
    fewer layers.
    """
    weights = {name: weight.float() for name, weight in other["model_state_dict"].items()}
    theirs = deepen(weights, decoder_depth(made["model_state_dict"]))
    for name, weight in made["model_state_dict"].items():
        mean = (1.0 - share) * weight.float() + share * theirs[name]
        made["model_state_dict"][name] = mean.half().contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the checkpoint to ship.")
    parser.add_argument("--run", type=Path, default=Path("training/runs/first"))
    parser.add_argument("--data", type=Path, default=Path("training/data"))
    parser.add_argument("--out", type=Path, default=Path("assets/embedded.pt"))
    parser.add_argument("--name", default="embedded")
    parser.add_argument("--blend", type=Path, help="checkpoint to draw the weights towards")
    parser.add_argument("--share", type=float, default=0.05, help="its share in the result")
    parser.add_argument("--model-version", default="1")
    args = parser.parse_args()
    state = torch.load(args.run / "state.pt", weights_only=True)
    states = decoder_states(state, args.data)
    made = checkpoint(state, args.name, args.model_version, states)
    key = "decoder.token_embedding.weight"
    before, after = state["average"][key][-1], made["model_state_dict"][key][5].float()
    lower = states @ before - states @ after
    print(f"unused tokens: logit lower by {lower.min():.1f} to {lower.max():.1f}")
    if args.blend:
        blend(made, torch.load(args.blend, weights_only=True), args.share)
    model = Whisper(ModelDimensions(**made["dims"]))
    model.load_state_dict(made["model_state_dict"])
    part = args.out.with_suffix(".part")
    torch.save(made, part)
    part.replace(args.out)
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: {size:.1f} MB, {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
