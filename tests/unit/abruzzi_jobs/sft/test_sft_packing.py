"""Packed rows: every conversation once, nothing of one in the computation of another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import SftScheduleConfig
from abruzzi.contracts.training import MODEL_PRESETS, BatchConfig
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.sft.examples import Split
from abruzzi_jobs.sft.feed import ConversationFeed, PackedRows
from abruzzi_jobs.sft.packing import pack
from abruzzi_jobs.train.schedule import Schedule, schedule_of_epochs

PAD = 1


def split_of(lengths: list[int], *, seed: int = 0) -> Split:
    """Random tokens from 2 on; the second half of each example is learned."""
    draw = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    is_learned = np.concatenate([np.arange(n) >= n // 2 for n in lengths]).astype(np.bool_)
    return Split(tokens=draw.integers(2, 64, starts[-1]).astype(np.int32), is_learned=is_learned, starts=starts)


def packed(split: Split, length: int) -> PackedRows:
    return PackedRows(split, sequence_length=length, pad=PAD, token_bytes=np.ones(64, np.int32))


def schedule(rows: int, *, sequences: int, length: int, epochs: float) -> Schedule:
    batch = BatchConfig(sequences=sequences, sequence_length=length)
    return schedule_of_epochs(SftScheduleConfig(epochs=epochs, warmup_steps=2), batch, rows=rows)


@settings(max_examples=80, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), max_size=60), capacity=st.integers(40, 90))
def test_packing_places_each_once_within_capacity_and_leaves_no_two_rows_that_fit_into_one(
    lengths: list[int], capacity: int
) -> None:
    rows = pack(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    sizes = [sum(lengths[i] for i in row) for row in rows]
    assert all(size <= capacity for size in sizes)
    assert all(a + b > capacity for n, a in enumerate(sizes) for b in sizes[n + 1 :])


def test_what_is_longer_than_a_row_is_no_business_of_packing() -> None:
    with pytest.raises(ValueError, match="length 9 of conversation 1"):
        pack([3, 9], 8)


def test_a_packed_conversation_has_the_losses_that_it_has_alone() -> None:
    config = ModelConfig.from_dict({**MODEL_PRESETS["nano"], "vocab_size": 64})
    model = KimiK2(config, seed=3)
    split = split_of([7, 12, 9, 5])
    rows = packed(split, 39).take(np.array([0]), global_targets=1)
    assert rows.tokens_BL.shape == (1, 40)
    learned_BL = rows.learned_BL
    assert learned_BL is not None
    targets_BL = rows.tokens_BL[:, 1:].masked_fill(~learned_BL[:, 1:], -100)
    together = model.token_losses(rows.tokens_BL[:, :-1], targets_BL, rows.segments_BL[:, :-1])
    alone: list[torch.Tensor] = []
    for start, stop in zip(split.starts[:-1], split.starts[1:], strict=True):
        tokens = torch.from_numpy(split.tokens[start:stop].astype(np.int64))[None]
        targets = tokens[:, 1:].masked_fill(~torch.from_numpy(split.is_learned[start + 1 : stop])[None], -100)
        alone.append(model.token_losses(tokens[:, :-1], targets)[0])
    expected = torch.cat([losses[losses != 0] for losses in alone]).sort().values
    found = together[together != 0].sort().values
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_learned_tokens_of_a_row_are_those_of_its_conversations_and_no_padding() -> None:
    split = split_of([7, 12, 9, 5, 30])
    rows = packed(split, 31)
    taken = rows.take(np.arange(len(rows)), global_targets=rows.targets(range(len(rows))))
    assert taken.learned_BL is not None
    assert int(taken.learned_BL.sum()) == int(split.is_learned.sum()) == taken.global_targets
    assert not taken.learned_BL[taken.tokens_BL == PAD].any()
    assert taken.target_bytes == taken.global_targets, "each token stands for a byte here"
    padding = taken.tokens_BL == PAD
    for row in range(len(rows)):
        segments = set(taken.segments_BL[row][padding[row]].tolist())
        assert not segments & set(taken.segments_BL[row][~padding[row]].tolist())
    assert rows.fill == pytest.approx(63 / (len(rows) * 32))


def test_an_epoch_shows_each_row_once_on_any_number_of_ranks() -> None:
    split = split_of([20] * 12)
    plan = schedule(12, sequences=4, length=19, epochs=1.0)
    assert plan.total_steps == 3

    def seen(world_size: int) -> list[tuple[int, ...]]:
        feeds = [
            ConversationFeed(packed(split, 19), packed(split, 19), plan, seed=5, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        steps = [[feed.next(step)[1].tokens_BL for feed in feeds] for step in range(3)]
        return [tuple(row.tolist()) for step in steps for part in step for row in part]

    assert seen(1) == seen(2)
    assert sorted(seen(1)) == sorted(tuple(split.tokens[i : i + 20].tolist()) for i in range(0, 240, 20))


def test_a_feed_goes_on_where_its_state_was_taken_and_refuses_another_order() -> None:
    plan = schedule(9, sequences=2, length=19, epochs=3.0)
    rows, held_out = packed(split_of([20] * 9), 19), packed(split_of([20], seed=9), 19)
    feed = ConversationFeed(rows, held_out, plan, seed=1)
    for step in range(4):
        feed.next(step)
    state = feed.state_dict()
    again = ConversationFeed(rows, held_out, plan, seed=1)
    again.load_state_dict(state)
    assert torch.equal(again.next(4)[1].tokens_BL, feed.next(4)[1].tokens_BL)
    assert again.pass_over(5, 7) == 2
    assert (again.data_step(5), again.state_dict()["shift"]) == (7, 2)
    with pytest.raises(AbruzziError, match="conversations have seed = 1, these 2"):
        ConversationFeed(rows, held_out, plan, seed=2).load_state_dict(state)
    other = ConversationFeed(packed(split_of([20] * 9, seed=4), 19), held_out, plan, seed=1)
    with pytest.raises(AbruzziError, match="conversations have rows"):
        other.load_state_dict(state)


def test_held_out_rows_are_always_the_same_ones() -> None:
    plan = schedule(2, sequences=2, length=19, epochs=1.0)
    rows, held_out = packed(split_of([20] * 2), 19), packed(split_of([20] * 6, seed=2), 19)
    looks = [ConversationFeed(rows, held_out, plan, seed=seed).held_out(3) for seed in (0, 1)]
    assert looks[0] is not None
    assert looks[1] is not None
    assert torch.equal(looks[0].rows.tokens_BL, looks[1].rows.tokens_BL)
    assert looks[0].targets == 30
    empty = Split(tokens=np.zeros(0, np.int32), is_learned=np.zeros(0, np.bool_), starts=np.zeros(1, np.int64))
    assert ConversationFeed(rows, packed(empty, 19), plan, seed=0).held_out(3) is None
