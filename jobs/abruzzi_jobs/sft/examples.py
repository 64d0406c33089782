"""Conversations become examples: tokens with a loss mask, or a reason why not. Each is written down as a row of `examples`, with its provenance.

Nothing here depends on a clock or on the order in which ranks run: the same inputs give the same examples in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import SftStage
from abruzzi_jobs.data.corpus import Progress, silent
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.documents import choice, fingerprint, split_score
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.sft.conversation import Conversation, compact
from abruzzi_jobs.sft.declarations import Style
from abruzzi_jobs.sft.rows import ConversationRow, row_facts
from abruzzi_jobs.sft.template import ChatTemplate, Encoded

NOUN = "examples"
_BATCH = 256
_SCALE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Split:
    """Examples one after the other. `starts` has one entry more than there are examples."""

    tokens: NDArray[np.int32]
    is_learned: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> list[int]:
        return np.diff(self.starts).tolist()


@dataclass(frozen=True, kw_only=True)
class Examples:
    train: Split
    heldout: Split
    fates: dict[str, int]


def build_examples(
    rows: Iterable[ConversationRow],
    template: ChatTemplate,
    stage: SftStage,
    *,
    index: NgramIndex | None,
    out: Path,
    progress: Progress = silent,
) -> Examples:
    """Writes `examples` into the folder `out`. Raises AbruzziError bad_data where nothing is left to learn from, mixed_teachers where
    the stand-in's conversations meet those of a language model."""
    writer = RowShardWriter(out, NOUN)
    kept: dict[str, list[Encoded]] = {"train": [], "heldout": []}
    seen: set[bytes] = set()
    waiting, done = iter(rows), 0
    while batch := list(islice(waiting, _BATCH)):
        conversations = ["\n".join(row.conversation.texts()) if row.conversation else "" for row in batch]
        shared = index.matches(conversations) if index is not None else [None] * len(batch)
        for row, contaminated in zip(batch, shared, strict=True):
            facts = row_facts(row)
            fate = row.fate
            if row.conversation is not None:
                print_32 = fingerprint(compact([row.conversation.tools, row.conversation.messages]))
                fate = "contaminated" if contaminated else "duplicate" if print_32 in seen else KEPT
                seen.add(print_32)
                if fate == KEPT:
                    style = _style(print_32, stage.template.json_fraction)
                    encoded = template.encode(row.conversation, style)
                    fate = _fate(row.conversation, encoded, stage.batch.sequence_length + 1)
                    facts |= {"tokens": len(encoded.tokens), "learned_tokens": int(encoded.is_learned.sum())}
                    if row.conversation.tools:
                        facts["declarations"] = style
                    if fate == KEPT:
                        facts["split"] = "heldout" if split_score(print_32) < stage.data.held_out_fraction else "train"
                        kept[facts["split"]].append(encoded)
                elif contaminated:
                    facts["evaluation_set"] = contaminated
            writer.write({**facts, "fate": fate})
        done += len(batch)
        progress(done, 0, "reading conversations")
    described = writer.close()
    if not kept["train"]:
        raise AbruzziError(
            "bad_data",
            f"No conversation is left to learn from: {_counted(described['fates'], len(kept['heldout']))}.",
            hint="Give more conversations, a longer batch.sequence_length for those that are too long, or a smaller data.held_out_fraction.",
        )
    return Examples(train=split_of(kept["train"]), heldout=split_of(kept["heldout"]), fates=described["fates"])


def _fate(conversation: Conversation, encoded: Encoded, room: int) -> str:
    said = (m for m in conversation.messages if m["role"] == "assistant")
    if not any(message["content"] or message.get("tool_calls") for message in said):
        return "no_answer"
    return KEPT if len(encoded.tokens) <= room else "too_long"


def _style(print_32: bytes, json_fraction: float) -> Style:
    return "json" if choice(f"declarations\0{print_32.hex()}", _SCALE) < json_fraction * _SCALE else "typescript"


def split_of(encoded: list[Encoded]) -> Split:
    lengths = [len(e.tokens) for e in encoded]
    return Split(
        tokens=np.concatenate([e.tokens for e in encoded] or [np.zeros(0)]).astype(np.int32),
        is_learned=np.concatenate([e.is_learned for e in encoded] or [np.zeros(0)]).astype(np.bool_),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def _counted(fates: dict[str, int], held_out: int) -> str:
    parts = [f"{count} {fate}" for fate, count in fates.items() if count and fate != KEPT]
    return ", ".join([*parts, *([f"{held_out} held out"] if held_out else [])]) or "there is none"
