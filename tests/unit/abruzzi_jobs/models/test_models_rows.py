"""Rows of many sequences: a token's numbers are the same bits alone, beside others, from a whole pass or decoded against a cache in pages; and they are the model's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from abruzzi_jobs.models import Decoder, KimiK2, Llama, LlamaConfig, ModelConfig
from abruzzi_jobs.models.invariance import BLOCK, ROWS, exp2_rows_, multiple
from abruzzi_jobs.models.moe import expert_rows
from abruzzi_jobs.models.paged import Tiles, plan_tiles
from abruzzi_jobs.models.rows import head_logits, new_pages, paged_forward, ragged_forward
from abruzzi_jobs.models.swiglu import swiglu

KIMI = ModelConfig(
    vocab_size=300, hidden_size=64, num_layers=2, num_heads=3, q_lora_rank=32, kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8,
    v_head_dim=16, intermediate_size=96, moe_intermediate_size=24, num_experts=8, num_experts_per_token=2, max_position=512,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=300, hidden_size=72, num_layers=2, num_heads=9, num_kv_heads=3, head_dim=16, intermediate_size=96,
    max_position=512,
)  # fmt: skip
LENGTHS = (1, 5, 64, 65, 130, 17, 32, 33)
TILE_ROWS = 16


@pytest.fixture(params=[1, 2], ids=["one-thread", "two-threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def sharp(model: Decoder) -> Decoder:
    """Weights large enough that no two tokens are nearly alike."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


@pytest.fixture(params=["kimi", "llama"])
def model(request: pytest.FixtureRequest) -> Decoder:
    return sharp(KimiK2(KIMI, seed=1) if request.param == "kimi" else Llama(LLAMA, seed=1))


@pytest.fixture
def sequences() -> list[Tensor]:
    return list(torch.randint(0, 300, (sum(LENGTHS),), generator=torch.Generator().manual_seed(7)).split(LENGTHS))


@torch.no_grad()
def logits_of(model: Decoder, sequences: Sequence[Tensor]) -> list[Tensor]:
    lengths = [len(s) for s in sequences]
    return list(head_logits(model, ragged_forward(model, torch.cat(list(sequences)), lengths).hidden_TD).split(lengths))


def test_a_sequence_is_the_same_bits_alone_and_beside_others(
    threads: int, model: Decoder, sequences: list[Tensor]
) -> None:
    together = logits_of(model, sequences)
    backwards = logits_of(model, sequences[::-1])[::-1]
    for index, sequence in enumerate(sequences):
        assert torch.equal(logits_of(model, [sequence])[0], together[index]), len(sequence)
        assert torch.equal(backwards[index], together[index]), len(sequence)


def test_they_are_the_model_s_numbers_and_gradients(model: Decoder, sequences: list[Tensor]) -> None:
    for ours, sequence in zip(logits_of(model, sequences), sequences, strict=True):
        torch.testing.assert_close(ours, model.logits(sequence.unsqueeze(0))[0], atol=2e-5, rtol=0)
    lengths = [len(s) for s in sequences]
    weights = torch.randn(sum(lengths), model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    out = ragged_forward(model, torch.cat(sequences), lengths)
    (out.hidden_TD * weights).sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    counts, maxima = torch.zeros_like(out.expert_counts), torch.full_like(out.max_logit_per_layer, -torch.inf)
    for sequence, weight in zip(sequences, weights.split(lengths), strict=True):
        single = model(sequence.unsqueeze(0))
        (single.hidden_BLD[0] * weight).sum().backward()
        counts += single.expert_counts
        maxima = torch.maximum(maxima, single.max_logit_per_layer)
    assert ours
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            error = (parameter.grad - ours[name]).abs().max() / parameter.grad.abs().max()
            assert error < 1e-4, name
    assert torch.equal(out.expert_counts, counts)
    torch.testing.assert_close(out.max_logit_per_layer, maxima, atol=1e-5, rtol=1e-5)


class Decoding:
    """Sequences fed to the model in steps of some rows each, their pages in any order."""

    def __init__(self, model: Decoder, sequences: list[Tensor], seed: int, *, one_by_one: float = 0.3) -> None:
        """`one_by_one`: how many of the sequences get a single token in a step."""
        self.one_by_one = one_by_one
        self.model, self.sequences, self.random = model, sequences, random.Random(seed)
        self.cache = new_pages(model, 32)
        self.free = list(range(32))
        self.pages: list[list[int]] = [[] for _ in sequences]
        self.done = [0] * len(sequences)
        dims = model.attentions()[0].cache_dims()
        self.queries = model.config.num_heads // dims.heads
        self.tiles: list[Tiles] = []
        """Of the last step."""

    def step(self) -> list[tuple[int, int, Tensor]]:
        """(sequence, position, logits) of each row."""
        left = [i for i, s in enumerate(self.sequences) if self.done[i] < len(s)]
        one = [i for i in left if self.random.random() < self.one_by_one]
        rows = [(i, self.done[i]) for i in one]
        single = len(rows)
        rows += rows[:1] * (multiple(single, ROWS) - single)
        spans: list[tuple[int, int, int]] = []
        filled = len(rows)
        for i in set(left) - set(one):
            end = min(self.done[i] + self.random.randint(1, 70), len(self.sequences[i]))
            for first in range(self.done[i], end, TILE_ROWS):
                last = min(first + TILE_ROWS, end) - 1
                spans.append((i, first, last))
                rows += [(i, min(p, last)) for p in range(first, first + TILE_ROWS)]
        for i, position in rows:
            while len(self.pages[i]) * BLOCK <= position:
                self.pages[i].append(self.free.pop(self.random.randrange(len(self.free))))
        tiles: list[Tiles] = []
        if single:
            tiles.append(self._tiles(slice(0, filled), [(i, p, p) for i, p in rows[:single]], 1))
        if spans:
            tiles.append(self._tiles(slice(filled, len(rows)), spans, TILE_ROWS))
        self.tiles = tiles
        tokens = torch.tensor([int(self.sequences[i][p]) for i, p in rows])
        slots = torch.tensor([self.pages[i][p // BLOCK] * BLOCK + p % BLOCK for i, p in rows])
        hidden = paged_forward(self.model, tokens, torch.tensor([p for _, p in rows]), slots, self.cache, tiles)
        logits = head_logits(self.model, hidden)
        for i, position in rows:
            self.done[i] = max(self.done[i], position + 1)
        return [(i, position, logits[row]) for row, (i, position) in enumerate(rows)]

    def _tiles(self, rows: slice, spans: list[tuple[int, int, int]], tile_rows: int) -> Tiles:
        return plan_tiles(
            rows,
            [(first, last) for _, first, last in spans],
            [self.pages[i][: last // BLOCK + 1] for i, _, last in spans],
            tile_rows=tile_rows,
            queries=self.queries,
            in_use=1 + max(max(own, default=-1) for own in self.pages),
            device=torch.device("cpu"),
        )


@torch.no_grad()
def test_decoding_against_pages_gives_the_same_bits_in_any_batch(
    threads: int, model: Decoder, sequences: list[Tensor]
) -> None:
    expected = logits_of(model, sequences)
    sequences = sequences if threads == 1 else sequences[:4]
    decoding = Decoding(model, sequences, seed=threads)
    seen = set()
    while any(done < len(s) for done, s in zip(decoding.done, sequences, strict=True)):
        for i, position, logits in decoding.step():
            seen.add((i, position))
            assert torch.equal(logits, expected[i][position]), (i, position)
    assert len(seen) == sum(map(len, sequences))


@torch.no_grad()
def test_sequences_of_one_page_each_have_the_same_bits(threads: int, model: Decoder) -> None:
    sequences = list(torch.randint(0, 300, (5, 40), generator=torch.Generator().manual_seed(8)))
    expected, decoding = logits_of(model, sequences), Decoding(model, sequences, seed=threads, one_by_one=0.95)
    of_one_page = 0
    while any(done < len(s) for done, s in zip(decoding.done, sequences, strict=True)):
        for i, position, logits in decoding.step():
            assert torch.equal(logits, expected[i][position]), (i, position)
        of_one_page += sum(tiles.are_of_one_page for tiles in decoding.tiles)
    assert of_one_page > 3


@pytest.mark.parametrize("partly", [False, True])
def test_rows_of_experts_stand_in_order_and_are_filled_up(partly: bool) -> None:
    experts_TK = torch.randint(0, 5 + partly, (37, 3), generator=torch.Generator().manual_seed(4))
    counts_E = torch.bincount(experts_TK.flatten(), minlength=6)[:5]
    token_R, row_TK, place_R, ends_E = expert_rows(experts_TK, counts_E, partly=partly)
    assert (ends_E.dtype, len(token_R)) == (torch.int32, int(ends_E[-1]))
    assert torch.equal(token_R, place_R // 3)
    sizes = torch.diff(ends_E, prepend=ends_E.new_zeros(1))
    assert torch.equal(sizes, (counts_E + 3) // 4 * 4)
    expert_R = torch.arange(5).repeat_interleave(sizes)
    for place, (expert, row) in enumerate(zip(experts_TK.flatten().tolist(), row_TK.flatten().tolist(), strict=True)):
        if expert == 5:
            assert row == len(token_R), "an expert that is not here"
        else:
            assert (int(expert_R[row]), int(place_R[row])) == (expert, place)
    for expert in range(5):  # in the order of tokens, which is the order of sums
        rows = row_TK.flatten()[experts_TK.flatten() == expert]
        assert rows.tolist() == sorted(rows.tolist())


def test_pointwise_pieces_are_whole_rows_for_any_number_of_threads() -> None:
    before = torch.get_num_threads()
    x = torch.randn(1801, 2 * 96, generator=torch.Generator().manual_seed(3))
    try:
        found = []
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            found.append((swiglu(x), exp2_rows_(x.clone())))
    finally:
        torch.set_num_threads(before)
    for gated, powers in found[1:]:
        assert torch.equal(gated, found[0][0])
        assert torch.equal(powers, found[0][1])
    assert torch.equal(swiglu(x[7:20]), found[0][0][7:20])


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 1801])
def test_pointwise_pieces_keep_the_shape_for_any_number_of_rows(rows: int) -> None:
    x = torch.randn(rows, 1, 2 * 96, generator=torch.Generator().manual_seed(3))
    assert swiglu(x).shape == (rows, 1, 96)
    assert torch.equal(swiglu(x)[:, 0], swiglu(x[:, 0]))
    assert exp2_rows_(x.clone()).shape == x.shape
