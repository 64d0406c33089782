"""The reader's promises: every token once an epoch, the same global order for every number of ranks, exact resume."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.permutation import permute
from abruzzi_jobs.data.shards import DatasetInfo, Shard, read_info, read_shard, write_info, write_shard
from abruzzi_jobs.data.tokens import TokenDataset

EOT = 0


def _dataset(
    directory: Path, document_lengths: list[list[int]], *, dtype: str = "uint16", vocab: int = 500
) -> np.ndarray:
    """Shards of documents with the given lengths; returns the whole stream."""
    rng = np.random.default_rng(0)
    shards, stream = [], []
    for number, lengths in enumerate(document_lengths):
        documents = [np.concatenate([[EOT], rng.integers(2, vocab, length)]) for length in lengths]
        shard = Shard(
            name=f"train-{number:05d}",
            split="train",
            domain="",
            tokens=sum(map(len, documents)),
            documents=len(documents),
            text_bytes=sum(lengths),
        )
        write_shard(directory, shard, documents=documents, dtype=dtype)
        shards.append(shard)
        stream += documents
    info = DatasetInfo(
        dtype=dtype,
        vocab_size=vocab,
        end_of_text=EOT,
        pad=1,
        tokenizer_digest="sha256:" + "0" * 64,
        bytes_per_token=1.0,
        token_bytes=(0, 0) + (1,) * (vocab - 2),
        shards=tuple(shards),
    )
    write_info(directory, info)
    return np.concatenate(stream)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000))
def test_the_order_is_a_bijection_for_every_size(size: int, seed: int, epoch: int) -> None:
    order = permute(np.arange(size), size=size, seed=seed, epoch=epoch)
    assert np.array_equal(np.sort(order), np.arange(size))


def test_the_order_differs_by_seed_and_epoch_and_is_not_the_identity() -> None:
    orders = [permute(np.arange(1000), size=1000, seed=s, epoch=e) for s in (0, 1) for e in (0, 1)]
    for i, a in enumerate(orders):
        assert (a == np.arange(1000)).mean() < 0.01
        for b in orders[i + 1 :]:
            assert (a == b).mean() < 0.01


def test_the_order_of_a_huge_set_needs_no_memory() -> None:
    positions = np.array([0, 1, 10**14, 10**15 - 1])
    order = permute(positions, size=10**15, seed=3, epoch=7)
    assert len(set(order.tolist())) == 4
    assert order.max() < 10**15


@settings(max_examples=40, deadline=None)
@given(
    shards=st.lists(st.lists(st.integers(0, 40), max_size=8), min_size=1, max_size=4),
    sequence_length=st.integers(1, 24),
    dtype=st.sampled_from(["uint16", "uint32"]),
)
def test_an_epoch_gives_every_sequence_once_with_its_segments(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[int]], sequence_length: int, dtype: str
) -> None:
    directory = tmp_path_factory.mktemp("dataset")
    shards = [*shards, [sequence_length + 1]]
    stream = _dataset(directory, shards, dtype=dtype)
    data = TokenDataset(directory, sequence_length=sequence_length, seed=5)
    n = data.num_sequences
    assert n == (len(stream) - 1) // sequence_length
    batch = data.rows(0, n)
    starts = permute(np.arange(n), size=n, seed=5, epoch=0) * sequence_length
    document_of = np.cumsum(stream == EOT) - 1
    for row, start in enumerate(starts):
        window = slice(start, start + sequence_length + 1)
        assert np.array_equal(batch.tokens_BL[row], stream[window])
        assert np.array_equal(batch.segments_BL[row], document_of[window] - document_of[start])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_number_of_ranks_reads_the_same_global_order(tmp_path: Path, world_size: int) -> None:
    _dataset(tmp_path, [[50, 3, 200], [77, 400]])
    alone = TokenDataset(tmp_path, sequence_length=16, seed=1)
    ranks = [TokenDataset(tmp_path, sequence_length=16, seed=1) for _ in range(world_size)]
    for _ in range(30):
        whole = alone.next_batch(8)
        parts = [d.next_batch(8, rank=r, world_size=world_size) for r, d in enumerate(ranks)]
        assert np.array_equal(whole.tokens_BL, np.concatenate([p.tokens_BL for p in parts]))
        assert np.array_equal(whole.segments_BL, np.concatenate([p.segments_BL for p in parts]))
        assert {p.position for p in parts} == {whole.position}
    assert alone.position // alone.num_sequences >= 4


@settings(max_examples=20, deadline=None)
@given(before=st.integers(0, 40), after=st.integers(1, 10))
def test_resume_continues_bit_for_bit_over_epoch_ends(
    tmp_path_factory: pytest.TempPathFactory, before: int, after: int
) -> None:
    directory = tmp_path_factory.mktemp("dataset")
    _dataset(directory, [[100, 30], [60]])
    first = TokenDataset(directory, sequence_length=8, seed=2)
    for _ in range(before):
        first.next_batch(3)
    state = json.loads(json.dumps(first.state_dict()))
    assert all(type(v) is int for v in state.values())
    second = TokenDataset(directory, sequence_length=8, seed=2)
    second.load_state_dict(state)
    for _ in range(after):
        a, b = first.next_batch(3), second.next_batch(3)
        assert np.array_equal(a.tokens_BL, b.tokens_BL)
        assert np.array_equal(a.segments_BL, b.segments_BL)


def test_another_seed_or_dataset_is_refused_at_resume(tmp_path: Path) -> None:
    _dataset(tmp_path, [[100]])
    state = TokenDataset(tmp_path, sequence_length=8, seed=1).state_dict()
    with pytest.raises(AbruzziError, match="seed"):
        TokenDataset(tmp_path, sequence_length=8, seed=2).load_state_dict(state)
    with pytest.raises(AbruzziError, match="sequence_length"):
        TokenDataset(tmp_path, sequence_length=4, seed=1).load_state_dict(state)


def test_shards_and_description_round_trip(tmp_path: Path) -> None:
    _dataset(tmp_path, [[5, 0, 9]], dtype="uint32", vocab=70_000)
    info = read_info(tmp_path)
    assert info.vocab_size == 70_000
    tokens, boundaries = read_shard(tmp_path, info.shards[0], dtype=info.dtype)
    assert boundaries.tolist() == [0, 6, 7, 17]
    assert (tokens[boundaries[:-1]] == EOT).all()
    write_info(tmp_path, info)
    assert read_info(tmp_path) == info


def test_missing_short_and_nonsense_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AbruzziError, match=r"dataset\.json"):
        TokenDataset(tmp_path, sequence_length=4)
    _dataset(tmp_path, [[100]])
    with pytest.raises(AbruzziError, match="less than one sequence") as error:
        TokenDataset(tmp_path, sequence_length=400)
    assert error.value.code == "bad_data"
    with (tmp_path / "train-00000.bin").open("ab") as out:
        out.write(b"\0\0")
    with pytest.raises(AbruzziError, match=r"train-00000\.bin"):
        TokenDataset(tmp_path, sequence_length=4)
    (tmp_path / "train-00000.bin").unlink()
    with pytest.raises(AbruzziError, match="is missing"):
        TokenDataset(tmp_path, sequence_length=4)
    (tmp_path / "dataset.json").write_text('{"shards": 3}')
    with pytest.raises(AbruzziError, match="not a dataset"):
        TokenDataset(tmp_path, sequence_length=4)


def test_uneven_shares_are_refused(tmp_path: Path) -> None:
    _dataset(tmp_path, [[100]])
    with pytest.raises(ValueError, match="cannot be shared"):
        TokenDataset(tmp_path, sequence_length=4).next_batch(3, rank=0, world_size=2)


def test_rows_are_the_same_whatever_was_read_before(tmp_path: Path) -> None:
    _dataset(tmp_path, [[50] * 40])
    # Over ends of epochs and of what is kept, forwards and back.
    asked = ((0, 3), (1500, 700), (1499, 2), (2000, 5), (2198, 4), (4000, 1200), (5, 1))
    one = TokenDataset(tmp_path, sequence_length=8, seed=3)
    for start, count in asked:
        anew = TokenDataset(tmp_path, sequence_length=8, seed=3)
        rows = np.concatenate([anew.rows(at, 1).tokens_BL for at in range(start, start + count)])
        assert (one.rows(start, count).tokens_BL == rows).all()


@pytest.mark.serial
def test_reading_is_faster_than_ten_million_tokens_a_second(tmp_path: Path) -> None:
    _dataset(tmp_path, [[700] * 3000])
    data = TokenDataset(tmp_path, sequence_length=512, seed=0)
    best = 0.0
    for _ in range(9):
        began = time.thread_time()
        for _ in range(20):
            data.next_batch(32)
        best = max(best, 20 * 32 * 512 / (time.thread_time() - began))
    assert best > 10e6, f"{best / 1e6:.1f}M tokens/s"
