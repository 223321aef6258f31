"""WhisperLiveKit's two policies over recordings, on a clock that is only a number.

Runs under the Python of an environment that has ``whisperlivekit`` (PyPI), not under ours, and
imports nothing of aii. The package carries WhisperStreaming's LocalAgreement and SimulStreaming's
AlignAtt; both are driven as their own servers drive them: a chunk of audio, one update, and at the
end what is left. Reads a specification from standard input::

    {"weights": "model.pt", "policy": "local-agreement", "step": 1.0, "computing": false,
     "threads": 1, "frame_threshold": 25, "calls": [{"name": "digits 1", "samples": "1.npy"}]}

and writes one JSON object per call: its name, every change of the text as [time, final, partial],
updates, forward passes of the decoder, and seconds of computing.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from whisperlivekit.config import WhisperLiveKitConfig  # noqa: E402
from whisperlivekit.local_agreement.backends import WhisperASR  # noqa: E402
from whisperlivekit.local_agreement.online_asr import OnlineASRProcessor  # noqa: E402
from whisperlivekit.simul_whisper.backend import (  # noqa: E402
    SimulStreamingASR,
    SimulStreamingOnlineProcessor,
)

RATE = 16_000


class Agreement:
    """LocalAgreement-2 with its defaults: segments trimmed at 15 s; greedy, temperature 0."""

    def __init__(self, spec):
        self.asr = WhisperASR(lan="en", model_dir=spec["weights"])
        self.asr.transcribe_kargs["temperature"] = 0.0
        self.asr.tokenizer = None
        self.asr.confidence_validation = False
        self.asr.buffer_trimming = "segment"
        self.asr.buffer_trimming_sec = 15.0
        self.decoder = self.asr.model.decoder

    def begin(self):
        self.online = OnlineASRProcessor(self.asr)

    def update(self, samples, end, last):
        self.online.insert_audio_chunk(samples, end)
        words = list(self.online.process_iter()[0])
        if last:
            words += self.online.finish()[0]
        return words, "" if last else self.online.get_buffer().text or ""


class Attention:
    """AlignAtt with the defaults of WhisperLiveKit's server; one beam."""

    def __init__(self, spec):
        fields = dict(vars(WhisperLiveKitConfig()))
        fields |= {
            "model_path": spec["weights"],
            "lan": "en",
            "backend": "whisper",
            "warmup_file": "",
            "min_chunk_size": spec["step"],
            "frame_threshold": spec["frame_threshold"],
        }
        self.asr = SimulStreamingASR(**fields)
        self.decoder = self.asr.shared_model.decoder

    def begin(self):
        self.online = SimulStreamingOnlineProcessor(self.asr)

    def update(self, samples, end, last):
        self.online.insert_audio_chunk(samples, end)
        words = list(self.online.process_iter(is_last=last)[0])
        return words, ""


def play(policy, samples, spec, passes):
    """One call. An update takes what has come since the one before, at least a step."""
    policy.begin()
    step, total = round(spec["step"] * RATE), len(samples)
    shown, final, done, now, spent, updates = [], "", 0, 0.0, 0.0, 0
    before = passes[0]
    while done < total:
        # With computing, more than a step may have come while the update before was computed.
        come = min(total, int(now * RATE)) if spec["computing"] else 0
        end = min(total, max(done + step, come))
        now = max(now, end / RATE)
        begun = time.perf_counter()
        words, partial = policy.update(samples[done:end], end / RATE, end == total)
        cost = time.perf_counter() - begun
        done, spent, updates = end, spent + cost, updates + 1
        if spec["computing"]:
            now += cost
        final = " ".join([final, *(word.text for word in words)])
        shown.append([now, final, partial])
    return {
        "shown": shown,
        "updates": updates,
        "passes": passes[0] - before,
        "decode": spent,
    }


def main():
    """Answer the specification on standard input."""
    logging.disable(logging.CRITICAL)
    spec = json.load(sys.stdin)
    torch.set_num_threads(spec["threads"])
    out, sys.stdout = sys.stdout, sys.stderr  # the package prints
    with torch.inference_mode():
        policy = {"local-agreement": Agreement, "alignatt": Attention}[spec["policy"]](spec)
        passes = [0]

        def count(*_):
            passes[0] += 1

        policy.decoder.register_forward_pre_hook(count)
        for call in spec["calls"]:
            told = play(policy, np.load(call["samples"]), spec, passes)
            print(json.dumps({"name": call["name"], **told}), file=out, flush=True)


if __name__ == "__main__":
    main()
