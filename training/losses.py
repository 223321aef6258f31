"""What the training makes smaller besides the encoder's CTC loss.

That is errors of the next token, and attention that is not on the word that comes next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aii.attention import AttentionRecorder

AROUND = 15
"""Frames of 20 ms."""

TIME_WEIGHTS = (0.06, 0.24, 0.4, 0.24, 0.06)
"""What a timestamp's target is spread over: the token itself and two steps of 20 ms each way."""


def cross_entropy(logits: Tensor, targets: Tensor, times: Sequence[int]) -> Tensor:
    """Mean over all targets, a timestamp's being spread over its neighbours (``TIME_WEIGHTS``).

    ``logits`` (N, vocabulary), ``targets`` (N,), ``times`` the first and the last timestamp.
    """
    logprobs = logits.float().log_softmax(-1)
    loss = -logprobs.gather(1, targets[:, None])[:, 0]
    first, last = times
    near = (targets >= first + 2) & (targets <= last - 2)
    steps = torch.arange(-2, 3)
    around = logprobs[near].gather(1, targets[near][:, None] + steps)
    loss[near] = -(around * torch.tensor(TIME_WEIGHTS)).sum(1)
    return loss.mean()


class Gaze(AttentionRecorder):
    """How far the decoder's alignment heads look from the word that comes next.

    Guided attention (Tachibana, Uenoyama and Aihara, arXiv 1710.08969) with the words' places in
    place of a diagonal. The first layer that tells the time by Whisper's custom, the upper half of
    the decoder, is to look at all of the word alike: the weights then change over where one word
    ends and the next begins. The layers above may look ``AROUND`` frames about it.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self._first = layers // 2
        self._scores: list[Tensor] = []

    def wants(self, layer: int) -> bool:
        """Whether the layer tells the time."""
        return layer >= self._first

    def record(self, layer: int, scores: Tensor) -> None:
        """Take in scores (B, H, T, S), gradients and all."""
        self._scores.append(scores)

    def loss(self, places: Tensor) -> Tensor:
        """Mean over heads and words whose ``places`` (B, T, 2) are known; 0 where none is."""
        known = places[..., 1] > places[..., 0]
        total = self._scores[0].new_zeros((), dtype=torch.float32)
        if not bool(known.any()):
            return total
        heard = self._scores[0].shape[-1]
        first, last = places[known].unbind(-1)
        first, last = first.clamp(max=heard - 2), last.clamp(max=heard)  # the audio may be cut
        frames = torch.arange(heard)
        for number, scores in enumerate(self._scores):
            weights = scores.transpose(1, 2)[known].float().log_softmax(-1)  # (N, H, S)
            around = AROUND if number else 0
            inside = (frames >= first[:, None] - around) & (frames < last[:, None] + around)
            inside = inside[:, None]
            if number:
                total = total - weights.masked_fill(~inside, -math.inf).logsumexp(-1).mean()
            else:
                size = inside.sum(-1)
                total = total - ((weights * inside).sum(-1) / size + size.log()).mean()
        return total
