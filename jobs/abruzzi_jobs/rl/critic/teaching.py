"""Lessons as rows of an optimizer step: right verdicts on verified pairs, in both orders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from abruzzi.contracts.critic import CriticForm
from abruzzi.contracts.rubric import RubricSet
from abruzzi_jobs.rl.critic.form import lessons
from abruzzi_jobs.rl.critic.verified import VerifiedPair
from abruzzi_jobs.sft.examples import split_of
from abruzzi_jobs.sft.feed import PackedRows
from abruzzi_jobs.sft.template import ChatTemplate
from abruzzi_jobs.train.feed import Rows

_ROW_TOKENS = 256
"""Of a packed row, at least: short lessons share one."""


def rows_of(
    pairs: Sequence[VerifiedPair], template: ChatTemplate, rubrics: RubricSet, form: CriticForm, *, positions: int
) -> Rows | None:
    """None where there is none that fits into the model's positions."""
    encoded = [
        template.encode(conversation)
        for pair in pairs
        for conversation in lessons(pair.question, pair.right, pair.wrong, rubrics.rubrics, form)
    ]
    encoded = [one for one in encoded if len(one.tokens) <= positions]
    if not encoded:
        return None
    width = max(_ROW_TOKENS, *(len(one.tokens) for one in encoded))
    vocabulary = template.tokenizer.get_vocab_size()
    rows = PackedRows(
        split_of(encoded),
        sequence_length=width - 1,
        pad=template.end_of_text,
        token_bytes=np.zeros(vocabulary, np.int32),
    )
    numbers = range(len(rows))
    return rows.take(np.arange(len(rows), dtype=np.int64), global_targets=rows.targets(numbers))
