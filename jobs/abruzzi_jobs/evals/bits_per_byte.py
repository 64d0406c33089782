"""Held-out bits per byte: exact bytes, every token with context, intervals by resampling documents.

A document is <|endoftext|> and its tokens, read through a window that slides so that every token but the first ones has at
least `overlap` tokens before it. The loss of a document is the sum over its own tokens (<|endoftext|> is only context) and is
divided by its UTF-8 bytes, so that tokenizers and byte models compare.

Legend: B windows of a batch, L positions of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from abruzzi_jobs.models import IGNORE, Decoder


@dataclass(frozen=True, kw_only=True)
class Window:
    """Inputs [start, stop) of a document; its targets from `first` on are counted."""

    document: int
    start: int
    stop: int
    first: int


def document_bits(
    model: Decoder,
    documents: Sequence[NDArray[np.int64]],
    *,
    window: int,
    overlap: int,
    batch_tokens: int = 8192,
    tell: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Bits of each document (tokens with <|endoftext|> first). `tell` hears (windows done, windows in all)."""
    windows = plan_windows([len(d) for d in documents], window=window, overlap=overlap)
    # Windows of like length together: little padding.
    windows.sort(key=lambda w: (w.start - w.stop, w.document, w.start))
    bits = np.zeros(len(documents), dtype=np.float64)
    done = 0
    while done < len(windows):
        longest = windows[done].stop - windows[done].start
        batch = windows[done : done + max(1, batch_tokens // longest)]
        tokens_BL = torch.zeros(len(batch), longest, dtype=torch.int64)
        targets_BL = torch.full((len(batch), longest), IGNORE, dtype=torch.int64)
        for row, w in enumerate(batch):
            document = documents[w.document]
            tokens_BL[row, : w.stop - w.start] = torch.from_numpy(document[w.start : w.stop])
            targets_BL[row, w.first - w.start : w.stop - w.start] = torch.from_numpy(document[w.first + 1 : w.stop + 1])
        losses_BL = model.token_losses(tokens_BL, targets_BL)
        for w, loss in zip(batch, losses_BL.double().sum(1).tolist(), strict=True):
            bits[w.document] += loss / math.log(2)
        done += len(batch)
        if tell is not None:
            tell(done, len(windows))
    return bits


def plan_windows(lengths: Sequence[int], *, window: int, overlap: int) -> list[Window]:
    """Every target of every document is counted in exactly one window."""
    if not 0 <= overlap < window:
        raise ValueError(f"overlap {overlap} must be at least 0 and less than the window {window}")
    windows = []
    for document, length in enumerate(lengths):
        inputs = length - 1
        first = 0
        while first < inputs:
            start = max(0, first - overlap)
            stop = min(inputs, start + window)
            windows.append(Window(document=document, start=start, stop=stop, first=first))
            first = stop
    return windows
