"""Silero's network for voice activity, in numpy, with the weights of the ``silero-vad`` package.

torch opens the package's TorchScript file once, for its weights; the arithmetic is ours. It costs
about half as much for a single call, something less for many that are stepped together, needs no
torch where calls are served, and has no use for ``import silero_vad``, which sets the number of
torch's threads to 1 for the whole process. The package itself is therefore never imported.

The network (Silero VAD 6, 16 kHz): 576 samples, reflected by 64 at the end -> 4 frames of a
256-point Fourier transform with a Hann window, hop 128 -> magnitudes (129) -> four convolutions of
width 3 with rectification (128, 64 with stride 2, 64 with stride 2, 128) -> one LSTM cell of 128 ->
rectification, one weight per cell, logistic function.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from aii.audio.vad import CONTEXT, STEP
from aii.errors import CheckpointError, MissingExtraError

PACKAGE = "silero_vad"
FILE = Path("data", "silero_vad.jit")
BINS, WIDTH, HOP, FRAMES, CELLS = 129, 256, 128, 4, 128

SETTLED = 100
"""Steps of digital silence (3.2 s) after which a call's memory is taken to be at rest."""

SHAPES = {
    "stft.forward_basis_buffer": (2 * BINS, 1, WIDTH),
    "encoder.0.reparam_conv.weight": (128, BINS, 3),
    "encoder.0.reparam_conv.bias": (128,),
    "encoder.1.reparam_conv.weight": (64, 128, 3),
    "encoder.1.reparam_conv.bias": (64,),
    "encoder.2.reparam_conv.weight": (64, 64, 3),
    "encoder.2.reparam_conv.bias": (64,),
    "encoder.3.reparam_conv.weight": (CELLS, 64, 3),
    "encoder.3.reparam_conv.bias": (CELLS,),
    "decoder.rnn.weight_ih": (4 * CELLS, CELLS),
    "decoder.rnn.weight_hh": (4 * CELLS, CELLS),
    "decoder.rnn.bias_ih": (4 * CELLS,),
    "decoder.rnn.bias_hh": (4 * CELLS,),
    "decoder.decoder.2.weight": (1, CELLS, 1),
    "decoder.decoder.2.bias": (1,),
}
"""Names and shapes of the 16 kHz network's arrays in the package's file."""


class SileroDetector:
    """See the module, and :class:`aii.audio.vad.Detector` for the interface.

    Args:
        weights: the arrays named in ``SHAPES``, float32.
    """

    name = "silero"

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        def kernel(layer: int, taps: slice = slice(None)) -> np.ndarray:
            """A convolution as a matrix: (taps * channels in, channels out)."""
            weight = weights[f"encoder.{layer}.reparam_conv.weight"][:, :, taps]
            return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, len(weight)))

        self._window = _window(weights["stft.forward_basis_buffer"][:, 0])
        # Of one frame only the middle tap sees anything, of two frames the last two taps: what the
        # others would see is the padding.
        taps = (slice(None), slice(None), slice(1, 3), slice(1, 2))
        self._kernels = [kernel(layer, tap) for layer, tap in enumerate(taps)]
        self._biases = [weights[f"encoder.{layer}.reparam_conv.bias"] for layer in range(4)]
        self._inward = np.ascontiguousarray(weights["decoder.rnn.weight_ih"].T)
        self._again = np.ascontiguousarray(weights["decoder.rnn.weight_hh"].T)
        self._gates = weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
        self._last = weights["decoder.decoder.2.weight"][0, :, 0]
        self._offset = weights["decoder.decoder.2.bias"][0]
        self._rest = self._settle()

    @property
    def rest(self) -> np.ndarray:
        """What the network remembers after ``SETTLED`` steps of digital silence.

        The published code starts calls from zeros, a memory that no audio leads to: of 360 digits
        said into silences that were not computed, 67 were missed from zeros and none from here.
        """
        return self._rest

    @classmethod
    def load(cls) -> SileroDetector:
        """The network of the installed package. Sets numpy's OpenBLAS to one thread (`calm_numpy`).

        Raises:
            MissingExtraError: the package is not installed.
            CheckpointError: its file is missing, or holds another network.
        """
        spec = find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise MissingExtraError(PACKAGE, "vad")
        calm_numpy()
        return cls(read_weights(Path(spec.submodule_search_locations[0]) / FILE))

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(N, CONTEXT + STEP) samples to the (N, 4 * CELLS) inputs of the LSTM's gates."""
        n = len(samples)
        padded = np.empty((n, CONTEXT + STEP + CONTEXT), np.float32)
        padded[:, : CONTEXT + STEP] = samples
        padded[:, CONTEXT + STEP :] = samples[:, -2 : -CONTEXT - 2 : -1]
        frames = np.lib.stride_tricks.sliding_window_view(padded, WIDTH, axis=1)[:, ::HOP]
        x = np.zeros((n, FRAMES + 2, BINS), np.float32)  # a frame of padding on either side
        np.abs(np.fft.rfft(frames * self._window), out=x[:, 1 : FRAMES + 1])
        x = self._convolve(0, x, 1)
        wide = np.zeros((n, FRAMES + 1, x.shape[-1]), np.float32)  # stride 2 never sees the right
        wide[:, 1:] = x
        x = self._convolve(1, wide, 2)
        x = self._convolve(2, x, 2)
        x = self._convolve(3, x, 1)
        return x[:, 0] @ self._inward + self._gates

    def recur(self, features: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One step of the LSTM cell; states are (N, 2 * CELLS): output, then cell."""
        gates = features + states[:, :CELLS] @ self._again
        new, kept, out = (_logistic(gates[:, i * CELLS : (i + 1) * CELLS]) for i in (0, 1, 3))
        after = np.empty_like(states)
        cell, hidden = after[:, CELLS:], after[:, :CELLS]
        np.multiply(kept, states[:, CELLS:], out=cell)
        cell += new * np.tanh(gates[:, 2 * CELLS : 3 * CELLS])
        np.multiply(out, np.tanh(cell), out=hidden)
        return _logistic(np.maximum(hidden, 0) @ self._last + self._offset), after

    def _settle(self) -> np.ndarray:
        silence = self.features(np.zeros((1, CONTEXT + STEP), np.float32))
        state = np.zeros((1, 2 * CELLS), np.float32)
        for _ in range(SETTLED):
            _, state = self.recur(silence, state)
        return state[0]

    def _convolve(self, layer: int, x: np.ndarray, stride: int) -> np.ndarray:
        """(N, T, C) already padded to (N, T', C'), rectified: one matrix product."""
        kernel = self._kernels[layer]
        n, _, channels = x.shape
        windows = np.lib.stride_tricks.sliding_window_view(x.reshape(n, -1), len(kernel), axis=1)
        windows = windows[:, :: stride * channels]
        y = windows.reshape(-1, len(kernel)) @ kernel
        y += self._biases[layer]
        return np.maximum(y, 0, out=y).reshape(n, windows.shape[1], -1)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays named in ``SHAPES`` from the package's TorchScript file.

    Raises:
        CheckpointError: the file is missing or damaged, or its network is another one.
    """
    import torch

    try:
        with warnings.catch_warnings():
            # torch would rather have torch.export, which cannot open this file.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location="cpu")._model
        arrays = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    except (RuntimeError, ValueError, OSError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); "
            "run: pip install --force-reinstall 'aii[vad]'"
        ) from None
    for name, shape in SHAPES.items():
        if name not in arrays or tuple(arrays[name].shape) != shape:
            raise CheckpointError(
                f"{path} holds another network than Silero VAD 6 ({name}); "
                "run: pip install 'silero-vad==6.2.3'"
            )
    return {name: arrays[name].detach().to(torch.float32).numpy().copy() for name in SHAPES}


def _window(basis: np.ndarray) -> np.ndarray:
    """(WIDTH,) the window of a Fourier transform that is given as (2 * BINS, WIDTH) products:
    those with cosines, then those with sines. A fast transform costs less than half of it.

    Raises:
        CheckpointError: it is no such transform.
    """
    angles = 2 * np.pi / WIDTH * np.outer(np.arange(BINS), np.arange(WIDTH))
    wanted = np.concatenate([np.cos(angles), -np.sin(angles)]) * basis[0]
    if not np.allclose(basis, wanted, atol=1e-5):
        raise CheckpointError(
            "the silero-vad package holds another network than Silero VAD 6 (its spectrum); "
            "run: pip install 'silero-vad==6.2.3'"
        )
    return basis[0].copy()


def calm_numpy() -> None:
    """One thread for numpy's matrix products, in the whole process; torch is not concerned.

    The products here are small, and OpenBLAS's threads wait by spinning: beside a decode that uses
    all cores, two of them were measured to take 350 us per step where one takes 26.

    Raises:
        MissingExtraError: threadpoolctl, which the extra ``vad`` installs, is not there.
    """
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        raise MissingExtraError("threadpoolctl", "vad") from None
    for library in ThreadpoolController().select(internal_api="openblas").lib_controllers:
        library.set_num_threads(1)


def _logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) by way of tanh, which neither overflows nor warns."""
    return 0.5 * np.tanh(0.5 * x) + np.float32(0.5)
