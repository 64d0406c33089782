"""One process: the trainer's tensors to the engine beside it."""

import threading

import pytest
import torch
from weights_lab import InPieces, Parameters, sums, weights

from abruzzi_jobs.rl.weights.group import Group, WeightUpdateFailed
from abruzzi_jobs.rl.weights.transport import InProcess
from abruzzi_jobs.rl.weights.worker import CheckpointWorker


@pytest.mark.parametrize("kind", [Parameters, InPieces])
@pytest.mark.parametrize("copy", [True, False])
def test_engine_serves_what_the_trainer_registered(kind, copy):
    sink = kind(weights(0))
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink, bucket_bytes=4096)
    for version in (1, 2, 3):
        worker.register(version, weights(version), copy=copy)
        report = worker.update()
        assert report.plan_cached == (version > 1)
        assert sink.version == version
        assert sink.sums() == sums(weights(version))
    assert report.size_bytes == sum(t.numel() * t.element_size() for t in weights(3).values())
    assert report.seconds["total"] >= report.seconds["broadcast"] > 0


def test_engine_keeps_no_view_of_the_trainers_tensors():
    sink, tensors = Parameters(weights(0)), weights(1)
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink)
    worker.register(1, tensors, copy=False)
    worker.update()
    for tensor in tensors.values():
        tensor.zero_()
    assert sink.sums() == sums(weights(1))


def test_tensors_that_change_during_the_update_are_found_and_the_old_version_stays():
    sink, tensors = Parameters(weights(0)), weights(1)
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink)
    worker.register(1, tensors, copy=False)
    tensors["layers.3.weight"][0, 0] += 1
    with pytest.raises(
        WeightUpdateFailed, match=r"verification: checksums of 1 of 17 parameters differ, first layers\.3\.weight"
    ):
        worker.update()
    assert (sink.version, sink.sums()) == (0, sums(weights(0)))


def test_a_registered_copy_does_not_change_with_the_trainer():
    sink, tensors = Parameters(weights(0)), weights(1)
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink)
    worker.register(1, tensors)
    for tensor in tensors.values():
        tensor.zero_()
    worker.update()
    assert sink.sums() == sums(weights(1))


def test_versions_only_grow():
    sink = Parameters(weights(0), version=5)
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink)
    worker.register(4, weights(4))
    with pytest.raises(WeightUpdateFailed, match="version 4 is older than 5"):
        worker.update()
    assert sink.version == 5
    with pytest.raises(ValueError, match="version 3 is older than 4"):
        worker.register(3, weights(3))


def test_an_engine_that_serves_the_version_already_loads_nothing():
    sink = Parameters(weights(5), version=5)
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink)
    worker.register(5, weights(5))
    report = worker.update()
    assert not report.loaded
    assert sink.loads == 0


@pytest.mark.parametrize("at", [0, 2])
def test_an_engine_that_fails_while_loading_keeps_its_version(at):
    def fail(number: int) -> None:
        if number == at:
            raise MemoryError("no room for another parameter")

    sink = Parameters(weights(0))
    sink.at_load = fail
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink, bucket_bytes=4096)
    worker.register(1, weights(1))
    with pytest.raises(WeightUpdateFailed, match=r"rank 0, reload of bucket \d: no room.*serves version 0") as caught:
        worker.update()
    assert sink.sums() == sums(weights(0))
    assert [fault.rank for fault in caught.value.faults] == [0]


def test_a_missing_parameter_is_an_error_and_the_old_version_stays():
    sink = Parameters(weights(0))
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink)
    worker.register(1, {name: tensor for name, tensor in weights(1).items() if name != "norm.weight"})
    with pytest.raises(WeightUpdateFailed, match=r"change to version 1: parameters are missing: \['norm\.weight'\]"):
        worker.update()
    assert (sink.version, sink.sums()) == (0, sums(weights(0)))


def test_nothing_registered_is_said():
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=Parameters(weights(0)))
    with pytest.raises(WeightUpdateFailed, match="no member has registered anything"):
        worker.update()


def test_dtypes_and_shapes_arrive_as_they_were():
    sink = Parameters(weights(0))
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink, bucket_bytes=256)
    worker.register(1, weights(1))
    worker.update()
    assert {n: (t.dtype, t.shape) for n, t in sink.served.items()} == {
        n: (t.dtype, t.shape) for n, t in weights(1).items()
    }
    assert torch.equal(sink.served["steps"], torch.tensor(1))


def test_an_engine_that_hangs_is_found_at_the_deadline():
    sink = Parameters(weights(0))
    worker = CheckpointWorker(Group.alone(), InProcess(), sink=sink, deadline_seconds=0.2)
    expired = threading.Event()
    expire, worker.expire = worker.expire, lambda: (expire(), expired.set())
    sink.at_load = lambda number: expired.wait(240)
    worker.register(1, weights(1))
    with pytest.raises(WeightUpdateFailed, match=r"not done after 0\.2 s"):
        worker.update()
    assert (sink.version, sink.sums()) == (0, sums(weights(0)))
