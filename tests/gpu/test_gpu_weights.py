"""The checkpoint engine's device pipelines: copy-in buffer, exchange buffers, NCCL. On one GPU a group of one member, whose broadcasts go to itself.

PYTHONPATH=jobs:platform:tests python -m pytest --noconftest -c /dev/null -p no:cacheprovider tests/gpu/test_gpu_weights.py
"""

import pytest
import torch
from weights_tensors import Parameters, sums, weights

from abruzzi_jobs.rl.weights.collective import Collective
from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.worker import CheckpointWorker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with a GPU"),
]


@pytest.mark.parametrize("engines_share_bus", [True, False])
@pytest.mark.parametrize("source", ["cpu", "cuda"])
@pytest.mark.parametrize("copy", [True, False])
def test_weights_arrive_on_the_gpu_through_the_copy_in_buffer(engines_share_bus, source, copy):
    def on(version, device):
        return {name: tensor.contiguous().to(device) for name, tensor in weights(version).items()}

    sink = Parameters(on(0, "cuda"))
    transport = Collective("nccl", engines_share_bus=engines_share_bus)
    worker = CheckpointWorker(Group.alone(), transport, sink=sink, bucket_bytes=4096)
    for version in (1, 2):
        worker.register(version, on(version, source), copy=copy)
        report = worker.update()
        assert (sink.version, sink.sums()) == (version, sums(weights(version)))
        assert all(tensor.is_cuda for tensor in sink.served.values() if tensor.numel())
    assert report.pipeline == ("two-stage" if engines_share_bus else "three-stage")
    worker.close()
