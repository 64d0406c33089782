"""A checkpoint that ranks save each a part of: whole or not to be seen, and the same to whoever loads it in another layout."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from checkpoint_lab import (
    MODEL,
    Ground,
    left_after_load,
    load,
    load_and_save,
    manifests,
    newest,
    save,
    save_twice,
    value,
)
from rank_processes import fork_ranks

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.checkpoint import load_checkpoint, load_weights, open_checkpoint
from abruzzi_jobs.checkpoint.tensor_file import tensors_of_folder
from abruzzi_jobs.distributed import Layout, lone_rank
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

FOUR = Layout(pp=2, ep=2, dp=2)
"""Pipeline and expert-parallel ranks."""
PIPELINE = Layout(pp=2)
DATA = None
"""Data-parallel ranks, or one alone: all of them have everything."""


def size(root: Path) -> int:
    return manifests(root)[0].size_bytes


def test_saved_by_one_layout_it_is_the_same_to_any_other_and_back_and_each_byte_is_read_once(tmp_path: Path) -> None:
    fork_ranks(4, save, tmp_path, FOUR, 1)
    weights = [entry.path for entry in manifests(tmp_path)[0].files if entry.path.startswith("model")]
    assert weights == [f"model-0000{rank}-of-00004.safetensors" for rank in (1, 2, 3, 4)]

    assert load(lone_rank(), tmp_path, [DATA]) == [size(tmp_path)]

    once = size(tmp_path)
    read = fork_ranks(2, load_and_save, tmp_path, [DATA, Layout(pp=2, vpp=2), PIPELINE], 2)
    assert [sum(of_layout) for of_layout in zip(*read, strict=True)] == [once] * 3, "over both ranks"
    assert manifests(tmp_path)[0].step == 2

    once = size(tmp_path)
    assert load_and_save(lone_rank(), tmp_path, [DATA], 3) == [once]
    names = {entry.path for entry in manifests(tmp_path)[0].files}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json"}

    once = size(tmp_path)
    read = fork_ranks(4, load, tmp_path, [FOUR])
    assert sum(of_rank[0] for of_rank in read) == once


@pytest.mark.parametrize("ranks_of_a_node", [1, 2])
def test_ranks_of_other_nodes_are_sent_what_those_of_the_readers_node_see(tmp_path: Path, ranks_of_a_node: int) -> None:
    fork_ranks(2, save, tmp_path, PIPELINE, 1)
    read = fork_ranks(4, load, tmp_path, [DATA, FOUR, Layout(dp=4)], ranks_of_a_node=ranks_of_a_node)
    assert [sum(of_layout) for of_layout in zip(*read, strict=True)] == [size(tmp_path)] * 3


def test_in_the_layout_that_saved_it_each_rank_reads_its_own_and_keeps_none_of_it_open_or_mapped(
    tmp_path: Path,
) -> None:
    fork_ranks(2, save, tmp_path, PIPELINE, 1)
    files = {entry.path: entry.size_bytes for entry in manifests(tmp_path)[0].files}
    first, second = (sum(count for path, count in files.items() if f"-0000{rank}-of" in path) for rank in (1, 2))
    left = fork_ranks(2, left_after_load, tmp_path, PIPELINE)
    assert left == [(first + files["state.json"], []), (second, [])]


@pytest.mark.prove
@pytest.mark.parametrize("saved", [FOUR, Layout(dp=4), Layout(ep=4, dp=4), Layout(pp=4), Layout(pp=2, vpp=2, dp=2)])
def test_any_layout_of_four_ranks_loads_what_any_other_saved(tmp_path: Path, saved: Layout) -> None:
    fork_ranks(4, save, tmp_path, saved, 1)
    layouts = [FOUR, DATA, Layout(ep=4, dp=4), Layout(pp=4), Layout(pp=2, vpp=2, dp=2)]
    read = fork_ranks(4, load, tmp_path, layouts)
    assert [sum(of_layout) for of_layout in zip(*read, strict=True)] == [size(tmp_path)] * len(layouts)


@pytest.mark.parametrize(("rank", "write"), [(1, 1), (0, 4)], ids=["its part", "the manifest"])
def test_a_rank_killed_while_it_writes_leaves_the_checkpoint_before_and_nothing_of_the_new_one(
    tmp_path: Path, rank: int, write: int
) -> None:
    told = fork_ranks(2, save_twice, tmp_path, PIPELINE, rank=rank, dies_at=write)
    assert told[rank] == -signal.SIGKILL
    assert told[1 - rank][0], "the other one is told, and does not wait for ever"
    assert [manifest.step for manifest in manifests(tmp_path)] == [1]
    load(lone_rank(), tmp_path, [DATA])


def test_what_stops_a_ranks_part_stops_the_checkpoint_and_all_ranks_say_why(tmp_path: Path) -> None:
    told = fork_ranks(2, save_twice, tmp_path, PIPELINE, rank=1, fails_at=1)
    assert told[1] == ("store_error", "The object store refused it.")
    assert told[0] == ("store_error", "Rank 1: The object store refused it.")
    assert [manifest.step for manifest in manifests(tmp_path)] == [1]


def test_a_checkpoint_of_several_ranks_begins_another_stage_and_is_read_as_a_folder(tmp_path: Path) -> None:
    fork_ranks(2, save, tmp_path, PIPELINE, 1)
    ground = Ground(tmp_path, lone_rank(), DATA, resume=newest(tmp_path))
    folder = ground.context.resume().folder
    model = KimiK2(MODEL, seed=7)
    load_weights(folder, model, name="given")
    for name, tensor in model.state_dict().items():
        assert (tensor == value(name, tensor.shape, tensors_of_folder(folder, "model")[name].dtype, 1)).all(), name
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(AbruzziError, match=r"does not fit this stage's model: (missing|.* in no file)"):
        load_weights(folder, model, name="given")


def test_a_checkpoint_of_another_model_is_refused_with_a_sentence(tmp_path: Path) -> None:
    ranks = lone_rank()
    save(ranks, tmp_path, DATA, 1)
    ground = Ground(tmp_path, ranks, DATA, resume=newest(tmp_path))
    opened = open_checkpoint(ground.context, ranks)
    assert opened is not None
    for change, said in (
        ({"num_layers": 5}, r"missing layers\.4\."),
        ({"num_layers": 3}, r"unknown layers\.3\."),
        ({"vocab_size": 64}, r"shape \(66, 32\), expected \(64, 32\)"),
    ):
        config = ModelConfig.from_dict({**MODEL.to_dict(), **change})
        other = KimiK2(config, seed=0)
        optimizer = build_optimizer(other.named_parameters(), OptimizerConfig(), model=config)
        with pytest.raises(AbruzziError, match=said) as refused:
            load_checkpoint(opened, other, optimizer, ranks=ranks)
        assert refused.value.code == "bad_data"
