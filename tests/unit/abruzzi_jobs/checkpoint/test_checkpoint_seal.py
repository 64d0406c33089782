"""Weights that change between updates are no checkpoint: whatever bit flips, in a weight or in the copy of it, before the manifest is written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_lab import Ground, load, manifests, save_flipped
from hypothesis import given
from hypothesis import strategies as st
from rank_processes import fork_ranks

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.checkpoint.seal import Seal, bit_sum
from abruzzi_jobs.distributed import Layout, lone_rank
from abruzzi_jobs.distributed.whole import whole_parts
from abruzzi_jobs.train.replicas import differing

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8]


def flip(tensor: torch.Tensor, byte: int = 0, bit: int = 0) -> None:
    word = tensor.view(-1).view(torch.uint8)[byte : byte + 1]
    word.bitwise_xor_(torch.tensor([1 << bit], dtype=torch.uint8))


@given(st.sampled_from(DTYPES), st.integers(1, 40), st.integers(0, 7), st.integers(0, 7), st.data())
def test_any_flipped_bit_of_any_type_changes_the_sum_wherever_the_tensor_begins(
    dtype: torch.dtype, size: int, begin: int, bit: int, data: st.DataObject
) -> None:
    whole = torch.arange(1, begin + size + 1).to(dtype)
    tensor = whole[begin:]
    before = int(bit_sum(tensor))
    assert int(bit_sum(tensor.clone())) == before, "it is of the values, not of where they lie"
    flip(tensor, data.draw(st.integers(0, tensor.nbytes - 1)), bit)
    assert int(bit_sum(tensor)) != before


def test_a_seal_names_what_has_changed_and_nothing_else() -> None:
    tensors = {"a": torch.ones(3, 5), "b": torch.ones(4).bfloat16(), "step": torch.tensor(9)}
    sealed = Seal({"model": whole_parts(tensors)})
    assert sealed.broken(Seal({"model": whole_parts(tensors)})) == []
    flip(tensors["b"], 3)
    assert sealed.broken(Seal({"model": whole_parts(tensors)})) == [("model", "b", 0)]


def test_a_weight_that_has_changed_since_the_update_is_not_committed_and_the_checkpoint_before_stays(
    tmp_path: Path,
) -> None:
    assert fork_ranks(1, save_flipped, tmp_path, None, 0)[0] == "corruption"
    assert [manifest.step for manifest in manifests(tmp_path)] == [1]
    load(lone_rank(), tmp_path, [None])


def test_no_rank_commits_what_one_of_them_has_wrong_and_that_one_alone_is_blamed(tmp_path: Path) -> None:
    assert fork_ranks(2, save_flipped, tmp_path, Layout(pp=2), 1) == ["", "corruption"]
    assert [manifest.step for manifest in manifests(tmp_path)] == [1]


def test_a_bit_that_flips_in_the_copy_while_it_is_written_is_seen_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground(tmp_path, lone_rank(), None)
    ground.fill(1)
    writes, go, put = threading.Event(), threading.Event(), ground.store.put_below

    def wait(prefix: str, content: bytes | memoryview, key: Callable[[], str]) -> None:
        writes.set()
        go.wait()
        put(prefix, content, key)

    monkeypatch.setattr(ground.store, "put_below", wait)
    ground.save(1, seal=ground.seal())
    writes.wait()
    flip(ground.checkpointer._files["optimizer"].parts()[0].tensor)
    go.set()
    with pytest.raises(AbruzziError, match=r"Checkpoint step 1 would hold .* \(optimizer\) of rank 0") as caught:
        ground.checkpointer.finish()
    assert caught.value.code == "corruption"
    assert manifests(tmp_path) == []


def test_of_replicas_the_minority_is_wrong_and_of_two_either() -> None:
    place, own = ("model", "a", 0), ("optimizer", "a", 3)

    def wrong(*values: int, **others: Any) -> list[bool]:
        told = [
            {place: value, own: rank} if others.get("owned") and rank == 0 else {place: value}
            for rank, value in enumerate(values)
        ]
        return [differing(told, rank) == [place] for rank in range(len(told))]

    assert wrong(5, 5, 5) == [False] * 3
    assert wrong(5, 6, 5, owned=True) == [False, True, False]
    assert wrong(5, 6) == [True, True]
    assert wrong(5, 5, 6, 6) == [True] * 4
    assert wrong(5, 5, 6, 7) == [False, False, True, True]
    assert differing([{place: 1}, {}], 1) == []
