"""What looks for silent corruption and for stragglers, on CUDA: sums of bits, and time without waits.

PYTHONPATH=jobs:tests:platform python -m pytest --noconftest -c /dev/null -p no:cacheprovider tests/gpu/test_gpu_corruption.py
"""

from __future__ import annotations

import pytest
import torch

from abruzzi_jobs.checkpoint.seal import Seal, bit_sum
from abruzzi_jobs.distributed.stopwatch import Stopwatch
from abruzzi_jobs.distributed.whole import whole_parts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with a GPU"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_those_of_a_cpu_and_one_flipped_bit_breaks_the_seal(dtype: torch.dtype) -> None:
    tensors = {name: torch.randn(257, 1031, device="cuda").to(dtype) for name in ("a", "b")}
    assert int(bit_sum(tensors["a"])) == int(bit_sum(tensors["a"].cpu()))
    sealed = Seal({"model": whole_parts(tensors)})
    assert sealed.broken(Seal({"model": whole_parts(tensors)})) == []
    tensors["b"].view(torch.uint8).view(-1)[12345:12346].bitwise_xor_(4)
    assert sealed.broken(Seal({"model": whole_parts(tensors)})) == [("model", "b", 0)]


def test_time_is_the_devices_and_goes_on_without_what_it_waits_for() -> None:
    a = torch.randn(4096, 4096, device="cuda")
    watch = Stopwatch(a.device)

    def works(waits: int) -> float:
        watch.begin()
        watch.start()
        for _ in range(20):
            a @ a
        with watch.standing_still():
            for _ in range(waits):
                a @ a
        watch.stop()
        torch.cuda.synchronize()
        return watch.read()

    works(0)
    alone, beside = works(0), works(200)
    assert 0 < beside < 3 * alone
