"""Keys and values of past tokens, handed to the attention blocks instead of hooked into them.

A :class:`KVCache` belongs to one decode. It allocates its memory once, writes new keys and values
in place, and lets every row have its own length, so rows of different calls can share a batch and
two decodes on one model never meet. The projections of the audio (cross-attention) are computed
once and kept beside them.

One decoder pass goes: ``step = cache.begin(n)`` (where the new tokens stand and what they may
see), each block calls ``cache.layers[i].extend(...)``, then ``cache.advance(n)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """Where the ``n`` new tokens of one decoder pass stand.

    Attributes:
        start: position of the first new token if it is the same in all rows, else None.
        positions: (n,) or (rows, n) positions of the new tokens.
        end: keys to look at, the longest row's length after the pass.
        mask: None (every new token sees all keys up to ``end``) or a boolean tensor that broadcasts
            to (rows, heads, n, end), True where a token may look.
        causal: the pass starts at position 0, so the plain causal mask is meant.
    """

    start: int | None
    positions: Tensor
    end: int
    mask: Tensor | None = None
    causal: bool = False


class LayerCache:
    """One decoder layer's keys and values.

    Attributes:
        keys, values: (rows, heads, capacity, width) of the text so far.
        audio: None, or (keys, values) of the encoded audio, each (audios, heads, frames, width).
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values
        self.audio: tuple[Tensor, Tensor] | None = None

    def extend(self, step: Step, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (rows, heads, n, width); return all up to the step's end."""
        if step.start is not None:
            self.keys[:, :, step.start : step.end] = keys
            self.values[:, :, step.start : step.end] = values
        else:
            rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
            dtype = self.keys.dtype
            self.keys[rows, :, step.positions] = keys.transpose(1, 2).to(dtype)
            self.values[rows, :, step.positions] = values.transpose(1, 2).to(dtype)
        return self.keys[:, :, : step.end], self.values[:, :, : step.end]


class KVCache:
    """The cache of one decode: ``rows`` token sequences of up to ``capacity`` tokens each.

    Args:
        n_layer: decoder layers.
        n_head: attention heads per layer.
        n_state: width of the decoder; must be a multiple of ``n_head``.
        rows: sequences decoded together.
        capacity: most tokens per row (448 for Whisper).
        device, dtype: of the stored tensors.
    """

    def __init__(
        self,
        n_layer: int,
        n_head: int,
        n_state: int,
        *,
        rows: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (n_layer, 2, rows, n_head, capacity, n_state // n_head)
        store = torch.zeros(shape, device=device, dtype=dtype)
        self.layers = [LayerCache(keys, values) for keys, values in store]
        self.lengths = [0] * rows
        self.capacity = capacity
        self.device = torch.device(device)
        self.dtype = dtype

    def begin(self, n: int) -> Step:
        """Plan a pass of ``n`` new tokens in every row.

        Raises:
            ValueError: a row would grow past the capacity.
        """
        shortest, longest = min(self.lengths), max(self.lengths)
        end = longest + n
        if end > self.capacity:
            raise ValueError(f"{end} tokens do not fit a cache of {self.capacity}")
        keys = torch.arange(end, device=self.device)
        if shortest == longest:
            positions = keys[longest:]
            if n == 1:
                return Step(longest, positions, end)
            mask = None if longest == 0 else keys <= positions[:, None]
            return Step(longest, positions, end, mask, causal=longest == 0)
        starts = torch.tensor(self.lengths, device=self.device)[:, None]
        positions = starts + torch.arange(n, device=self.device)  # (rows, n)
        mask = keys <= positions[:, None, :, None]  # (rows, 1, n, end)
        return Step(None, positions, end, mask)

    def advance(self, n: int) -> None:
        """Count the ``n`` tokens of the pass that was just made."""
        self.lengths = [length + n for length in self.lengths]

    def truncate(self, lengths: int | Sequence[int]) -> None:
        """Forget everything past ``lengths`` (one for all rows, or one per row).

        Raises:
            ValueError: a length is negative or more than the row holds.
        """
        wanted = [lengths] * len(self.lengths) if isinstance(lengths, int) else list(lengths)
        if len(wanted) != len(self.lengths):
            raise ValueError(f"{len(wanted)} lengths for {len(self.lengths)} rows")
        if any(not 0 <= new <= old for new, old in zip(wanted, self.lengths, strict=True)):
            raise ValueError(f"cannot truncate rows of {self.lengths} to {wanted}")
        self.lengths = wanted

    def reorder(self, sources: Sequence[int]) -> None:
        """Make row ``i`` continue what row ``sources[i]`` holds (beam search).

        Audio is not touched: a row may only take over from a row of the same audio.
        """
        if list(sources) == list(range(len(self.lengths))):
            return
        index = torch.tensor(list(sources), device=self.device)
        end = max(self.lengths)
        for layer in self.layers:
            layer.keys[:, :, :end] = layer.keys[index, :, :end]
            layer.values[:, :, :end] = layer.values[index, :, :end]
        self.lengths = [self.lengths[source] for source in sources]

    def repeat(self, times: int) -> None:
        """Put ``times`` copies of each row side by side (beams, samples). Audio stays shared."""
        if times == 1:
            return
        for layer in self.layers:
            layer.keys = layer.keys.repeat_interleave(times, dim=0)
            layer.values = layer.values.repeat_interleave(times, dim=0)
        self.lengths = [length for length in self.lengths for _ in range(times)]

    @property
    def has_audio(self) -> bool:
        """Whether the audio's keys and values are stored already."""
        return all(layer.audio is not None for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the cache holds."""
        held = [tensor for layer in self.layers for tensor in (layer.keys, layer.values)]
        held += [tensor for layer in self.layers for tensor in layer.audio or ()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)
