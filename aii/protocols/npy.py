"""What Python clients send to ``/ws/transcription``: one ``.npy`` file per message.

``np.save`` of float32 samples, 16 kHz, mono; transcripts go back as
``{"type": "transcript", "client_id", "text", "timestamp"}``, one for each piece of text that has
become final. Nothing in a file is executed, and nothing is allocated on the word of its header.

The format is that of NumPy's own documentation (NEP 1).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aii.protocols.floats import DAMAGED, UNSUPPORTED, Refused, SampleProtocol, slin_of
from aii.protocols.frames import Audio, Frame

MAGIC = b"\x93NUMPY"

_LENGTHS = {1: 2, 2: 4, 3: 4}  # version -> bytes of the header's length
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][a-zA-Z]\d{1,6})', 'fortran_order': (?:False|True), "
    rb"'shape': \(((?:\d{1,18},? ?){0,8})\),? ?\}\s*"
)
_KINDS = ("f4", "f8", "f2", "i2")


def read_npy(data: bytes) -> np.ndarray:
    """The row of samples (N,) float32 in a ``.npy`` file.

    float32 is what is wanted; float64, float16 and int16 (as full scale) are taken too, and one row
    or one column of two dimensions. The header is held to what ``np.save`` writes, and not handed
    to Python's own parser: what it may hold is known.

    Raises:
        Refused: it is no such file, is cut off or goes on too long, or holds something else.
    """
    if not data.startswith(MAGIC) or len(data) < 12:
        raise Refused(UNSUPPORTED, "this is no .npy file; send what np.save writes")
    width = _LENGTHS.get(data[6])
    if width is None:
        raise Refused(UNSUPPORTED, f"version {data[6]} of .npy is not known; save it as 1.0")
    begin = 8 + width
    end = begin + int.from_bytes(data[8:begin], "little")
    header = _HEADER.fullmatch(data, begin, min(end, len(data)))
    if header is None or end > len(data):
        raise Refused(DAMAGED, "the header of this .npy file is none of a row of samples")
    shape = tuple(int(size) for size in re.findall(rb"\d+", header[2]))
    return _samples(memoryview(data)[end:], shape, header[1].decode())


def _samples(body: memoryview, shape: tuple[int, ...], kind: str) -> np.ndarray:
    if kind[1:] not in _KINDS:
        raise Refused(UNSUPPORTED, f"samples are of kind {kind}; wanted is <f4, float32")
    if not 1 <= len(shape) <= 2 or sum(size != 1 for size in shape) > 1:
        raise Refused(
            UNSUPPORTED, f"an array of shape {str(shape)[:40]}; wanted is one row of samples"
        )
    wanted = max(shape) * int(kind[2:]) if all(shape) else 0
    if wanted != len(body):
        raise Refused(DAMAGED, f"the header announces {wanted} bytes, {len(body)} came")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused later
        samples = np.frombuffer(body, kind).astype(np.float32)
    return samples / np.float32(32768) if kind[1] == "i" else samples


class NpyProtocol(SampleProtocol):
    """One connection to ``/ws/transcription``.

    Args:
        client_id: goes into each transcript.
        parameters: the URI's.
        now: unix time in seconds.
    """

    name = "npy"

    def __init__(
        self,
        client_id: str,
        parameters: Mapping[str, str] | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(parameters)
        self._client_id = client_id
        self._now = now

    def _binary(self, message: bytes) -> list[Frame]:
        return [*self._begin(), Audio(slin_of(read_npy(message)))]

    def _event(self, event: Mapping[str, Any]) -> None:
        if event["type"] != "final" or not event["text"].strip():
            return
        answer = {
            "type": "transcript",
            "client_id": self._client_id,
            "text": event["text"].strip(),
            "timestamp": round(self._now(), 3),
        }
        self._say(json.dumps(answer, ensure_ascii=False))
