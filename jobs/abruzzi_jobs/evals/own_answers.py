"""Cloze items answered by the model itself: greedy text after the prompt, right where it begins with the answer and then ends it.

Harder than choosing among options, and what SimpleQA asks for: chance is about nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer

from abruzzi_jobs.data.cloze import ClozeItem
from abruzzi_jobs.data.tokenizer import end_of_text_id
from abruzzi_jobs.models import Decoder, generate

ITEMS_A_BATCH = 128
_SPARE_TOKENS = 2
"""Beyond the longest answer's own: room for the full stop that shows that nothing follows."""


def answer_items(
    model: Decoder,
    tokenizer: Tokenizer,
    items: Sequence[ClozeItem],
    *,
    window: int,
    tell: Callable[[int, int], None] | None = None,
) -> list[str]:
    """What the model says to each item. Prompts keep their last tokens where they do not fit into the window."""
    eot = end_of_text_id(tokenizer)
    room = _SPARE_TOKENS + max((len(_encode(tokenizer, item.answer)) for item in items), default=0)
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for number, item in enumerate(items):
        prompt = [eot, *_encode(tokenizer, item.prompt)][-max(1, window - room) :]
        by_length[len(prompt)].append((number, prompt))
    said = [""] * len(items)
    done = 0
    for _, rows in sorted(by_length.items()):
        for start in range(0, len(rows), ITEMS_A_BATCH):
            batch = rows[start : start + ITEMS_A_BATCH]
            prompts_BL = torch.tensor([prompt for _, prompt in batch], dtype=torch.int64)
            tokens_BN = generate(model, prompts_BL, max_new_tokens=room, temperature=0, end_token=eot)
            for (number, _), tokens in zip(batch, tokens_BN.tolist(), strict=True):
                known = [t for t in tokens if t < tokenizer.get_vocab_size()]
                said[number] = tokenizer.decode(known, skip_special_tokens=True)
            done += len(batch)
            if tell is not None:
                tell(done, len(items))
    return said


def is_right(said: str, answer: str) -> bool:
    """Whether the text begins with the answer and goes on with another sentence or nothing; case and accents do not count."""
    found, wanted = _normal(said), _normal(answer)
    return re.match(rf"{re.escape(wanted)}(?:[.;:!?\n]|$)", found) is not None


def _normal(text: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.strip().casefold()


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids
