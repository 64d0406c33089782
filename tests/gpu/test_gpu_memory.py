"""The FP8 store's kernels against the CPU's operations: the same contract, to the same bits.

PYTHONPATH=jobs:tests python -m pytest --noconftest -c /dev/null -p no:cacheprovider tests/gpu/test_gpu_memory.py
"""

from __future__ import annotations

import pytest
import torch

from abruzzi_jobs.memory import Fp8Tiles, from_fp8_tiles, to_fp8_tiles

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with a GPU"),
]


def spread(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    magnitudes = (torch.randn(shape, generator=generator) * 5).exp2()
    return (torch.randn(shape, generator=generator) * magnitudes).clamp(-6e4, 6e4).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(33, 7168), (2, 3, 300), (5, 7), (128,), (0, 256)])
def test_codes_scales_and_what_comes_back_are_the_cpus(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = spread(shape, dtype)
    expected, tiles = to_fp8_tiles(x), to_fp8_tiles(x.cuda())
    assert torch.equal(tiles.scales_N.cpu(), expected.scales_N)
    assert torch.equal(tiles.codes_D.cpu().view(torch.uint8), expected.codes_D.view(torch.uint8))
    on_cpu = Fp8Tiles(tiles.codes_D.cpu(), tiles.scales_N.cpu())
    assert torch.equal(from_fp8_tiles(tiles, dtype).cpu(), from_fp8_tiles(on_cpu, dtype))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_its_tile(bad: float) -> None:
    x = torch.ones(4, 256, device="cuda")
    x[2, 200] = bad
    back = from_fp8_tiles(to_fp8_tiles(x), torch.bfloat16)
    assert back[2, 128:].isnan().all()
    assert int(back.eq(1).sum()) == 4 * 256 - 128
