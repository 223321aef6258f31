"""A data folder of a few artificial recordings, in the form that synthesise.py writes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # training/ is not installed with the package
    sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.grammar import DIGITS
    from training.recordings import Job, Recorded, Store

    rng = np.random.default_rng(0)
    store = Store(tmp_path_factory.mktemp("data"))

    def tone(seconds: float) -> Recorded:
        noise = rng.standard_normal(int(seconds * 16_000)) * 3000
        return Recorded(noise.astype(np.int16))

    for group in ("person", "word", "eval-seen", "eval-unheard"):
        for speaker in ("ann", "bob"):
            for word in DIGITS:
                store.add(Job(word, group, "test", speaker), tone(0.3))
    for i in range(12):
        store.add(Job("my code is A B", "phrase", "test", "ann"), tone(0.8 + 0.1 * i))
        store.add(Job("code four B help", "jumble", "test", "ann"), tone(0.7 + 0.1 * i))
        store.add(Job("one two, three", "string", "test", "bob"), tone(0.7 + 0.1 * i))
    store.add(Job("yes please", "eval-voice", "test", "eve"), tone(0.5))
    store.add(Job("no thanks", "eval-template", "test", "eve"), tone(0.5))
    store.close()
    return store.folder
