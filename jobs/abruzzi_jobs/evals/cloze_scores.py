"""Cloze items: which option does the model find likeliest, per byte of the option?

Dividing by the option's bytes keeps long options from losing by length alone. Chance is one over the options.

Legend: R rows (an option each), L positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from abruzzi_jobs.data.cloze import ClozeItem
from abruzzi_jobs.data.tokenizer import end_of_text_id
from abruzzi_jobs.models import IGNORE, Decoder

ITEMS_A_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ClozeResult:
    item: ClozeItem
    scores: tuple[float, ...]
    """Log-probability a byte, in nats: the answer first, then the distractors."""

    @property
    def correct(self) -> bool:
        """A tie is not correct: a model that finds all options alike knows nothing."""
        return self.scores[0] > max(self.scores[1:])


def score_items(
    model: Decoder,
    tokenizer: Tokenizer,
    items: Sequence[ClozeItem],
    *,
    window: int,
    tell: Callable[[int, int], None] | None = None,
) -> list[ClozeResult]:
    """Prompts keep their last tokens where prompt and option do not fit into the window."""
    results: list[ClozeResult] = []
    for start in range(0, len(items), ITEMS_A_BATCH):
        batch = items[start : start + ITEMS_A_BATCH]
        rows: list[tuple[list[int], int, int]] = []
        for item in batch:
            for option in (item.answer, *item.distractors):
                rows.append((*_row(tokenizer, item.prompt, option, window), len(option.encode())))
        scores = _scores(model, rows)
        at = 0
        for item in batch:
            options = 1 + len(item.distractors)
            results.append(ClozeResult(item=item, scores=tuple(scores[at : at + options].tolist())))
            at += options
        if tell is not None:
            tell(len(results), len(items))
    return results


def _row(tokenizer: Tokenizer, prompt: str, option: str, window: int) -> tuple[list[int], int]:
    """(tokens, index of the option's first). Options begin with a space, where byte-level BPE never merges over."""
    before = [end_of_text_id(tokenizer), *tokenizer.encode(prompt, add_special_tokens=False).ids]
    after = tokenizer.encode(option, add_special_tokens=False).ids[:window]
    before = before[-max(1, window + 1 - len(after)) :]
    return [*before, *after], len(before)


def _scores(model: Decoder, rows: list[tuple[list[int], int, int]]) -> NDArray[np.float64]:
    longest = max(len(tokens) for tokens, _, _ in rows) - 1
    tokens_RL = torch.zeros(len(rows), longest, dtype=torch.int64)
    targets_RL = torch.full((len(rows), longest), IGNORE, dtype=torch.int64)
    for number, (tokens, first, _) in enumerate(rows):
        line = torch.tensor(tokens, dtype=torch.int64)
        tokens_RL[number, : len(tokens) - 1] = line[:-1]
        targets_RL[number, first - 1 : len(tokens) - 1] = line[first:]
    losses = model.token_losses(tokens_RL, targets_RL).double().sum(1).numpy()
    return -losses / np.array([size for _, _, size in rows])
