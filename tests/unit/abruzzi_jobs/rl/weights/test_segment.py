"""Memory that other processes can map."""

import dataclasses
import gc

import pytest
import torch
from torch import nn

from abruzzi_jobs.distributed.mapped import IS_POSSIBLE, open_elsewhere
from abruzzi_jobs.rl.weights.registered import Registered, as_bytes
from abruzzi_jobs.rl.weights.segment import room_for, segment_of, share_memory

pytestmark = pytest.mark.skipif(not IS_POSSIBLE, reason="memfd is Linux's")


def handle_of(tensor):
    segment = segment_of(as_bytes(tensor))
    assert segment is not None
    return segment.handle


def test_another_who_maps_it_sees_what_is_written_in_place():
    first, second = room_for([100, 8])
    seen = open_elsewhere(handle_of(second))
    second.copy_(torch.arange(8, dtype=torch.uint8))
    assert first.data_ptr() + 128 == second.data_ptr(), "each begins at a cache line"
    assert seen[128:136].tolist() == list(range(8))


@pytest.mark.parametrize("wrong", [{"inode": 1}, {"device": -1}, {"descriptor": 1 << 20}, {"pid": 1 << 30}])
def test_what_is_another_file_or_out_of_reach_is_not_mapped(wrong):
    (room,) = room_for([64])
    assert open_elsewhere(dataclasses.replace(handle_of(room), **wrong)) is None


def test_a_modules_parameters_move_there_and_stay_the_optimizers():
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    share_memory(module)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    seen = open_elsewhere(handle_of(module[0].weight))
    module(torch.ones(2, 3)).square().sum().backward()
    module[0].weight.grad = torch.ones(5, 3)
    optimizer.step()
    assert torch.equal(module[0].weight, before["0.weight"] - 0.1)
    assert len({handle_of(tensor).number for tensor in module.state_dict().values()}) == 1
    assert torch.equal(seen[:60].view(torch.float32).view(5, 3), module[0].weight)


def test_a_registered_copys_memory_is_used_again_only_when_nobody_has_the_copy_any_more():
    tensors = {"a": torch.ones(1000), "none": torch.empty(0)}
    first = Registered(1, tensors, copy=True)
    held = handle_of(first.flat["a"])
    second = Registered(2, tensors, copy=True)
    assert handle_of(second.flat["a"]) != held
    del first
    gc.collect()
    assert handle_of(Registered(3, tensors, copy=True).flat["a"]) == held


def test_it_is_gone_with_the_last_tensor_over_it():
    (room,) = room_for([64])
    handle, view = handle_of(room), room[3:5]
    del room
    gc.collect()
    assert open_elsewhere(handle) is not None
    del view
    gc.collect()
    assert open_elsewhere(handle) is None
