"""The random states of a rank (torch, Python, numpy) as one line of text, and of all ranks together.

Nothing in pre-training draws random numbers after initialisation; whatever will, resumes exactly.
"""

from __future__ import annotations

import base64
import json
import random

import numpy as np
import torch

from abruzzi_jobs.distributed import Ranks

_ROOM_BYTES = 20_480
"""Of one rank's text in the exchange: torch 5 KB, Python and numpy 2.5 KB each, in base 64."""


def seed(value: int) -> None:
    """Of everything that draws in this process."""
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)


def capture() -> str:
    """This process's states."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return json.dumps(
        {
            "torch": _text(torch.get_rng_state().numpy().tobytes()),
            "cuda": _text(torch.cuda.get_rng_state().numpy().tobytes()) if torch.cuda.is_available() else None,
            "numpy": [
                kind,
                _text(np.asarray(keys, dtype="<u4").tobytes()),
                int(position),
                int(has_gauss),
                float(cached),
            ],
            "python": [version, _text(np.asarray(internal, dtype="<u4").tobytes()), gauss],
        }
    )


def restore(text: str) -> None:
    state = json.loads(text)
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state["torch"])), dtype=torch.uint8))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state["cuda"])), dtype=torch.uint8))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.frombuffer(base64.b64decode(keys), "<u4"), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    words = np.frombuffer(base64.b64decode(internal), "<u4")
    random.setstate((version, tuple(int(word) for word in words), gauss))


def capture_all(ranks: Ranks) -> list[str]:
    """Every rank's, in order; all ranks must call it."""
    return ranks.texts(capture(), room=_ROOM_BYTES)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
