"""The store of activations in eight bits: its contract, by properties. tests/gpu holds the kernel to the same bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi_jobs.memory import Fp8Tiles, from_fp8_tiles, to_fp8_tiles

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def drawn(seed: int, rows: int, size: int, spread: float, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    magnitudes = (torch.randn(rows, size, generator=generator) * spread).exp2()
    return (torch.randn(rows, size, generator=generator) * magnitudes).clamp(-6e4, 6e4).to(dtype)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 5),
    size=st.integers(1, 400),
    spread=st.floats(0, 8),
    dtype=st.sampled_from(DTYPES),
)
def test_an_element_comes_back_within_its_bound(
    seed: int, rows: int, size: int, spread: float, dtype: torch.dtype
) -> None:
    x = drawn(seed, rows, size, spread, dtype)
    tiles = to_fp8_tiles(x)
    back = from_fp8_tiles(tiles, torch.float32)
    scale = tiles.scales_N.repeat_interleave(128, dim=-1)[:, :size]
    bound = torch.maximum(x.float().abs() / 16, scale / 1024) * (1 + 1e-6)
    assert (back - x.float()).abs().le(bound).all()


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 400), power=st.integers(-20, 20))
def test_a_power_of_two_before_the_store_is_one_behind_it(seed: int, size: int, power: int) -> None:
    x = drawn(seed, 3, size, 2.0, torch.float32)
    plain, scaled = to_fp8_tiles(x), to_fp8_tiles(x * 2.0**power)
    assert torch.equal(plain.codes_D.view(torch.uint8), scaled.codes_D.view(torch.uint8))
    assert torch.equal(plain.scales_N * 2.0**power, scaled.scales_N)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 400), dtype=st.sampled_from(DTYPES))
def test_what_came_back_is_stored_without_a_further_loss(seed: int, size: int, dtype: torch.dtype) -> None:
    tiles = to_fp8_tiles(drawn(seed, 2, size, 3.0, dtype))
    back = from_fp8_tiles(tiles, torch.float32)
    assert torch.equal(from_fp8_tiles(to_fp8_tiles(back), torch.float32), back)


def test_an_outlier_costs_its_own_tile_only() -> None:
    x = torch.randn(1, 256, generator=torch.Generator().manual_seed(0))
    x[0, 3] = 1e6
    back = from_fp8_tiles(to_fp8_tiles(x), torch.float32)
    assert float((back[0, 128:] - x[0, 128:]).abs().max()) < 0.3
    assert float(back[0, 3]) == pytest.approx(1e6, rel=1e-6)
    assert back[0, :128].count_nonzero() < 128


def test_tiles_of_zeros_and_the_smallest_numbers_come_back() -> None:
    x = torch.zeros(2, 130)
    x[1, 129] = 1e-44
    back = from_fp8_tiles(to_fp8_tiles(x), torch.float32)
    assert back.isfinite().all()
    assert not back[0].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_its_tile(bad: float) -> None:
    x = torch.ones(1, 256)
    x[0, 200] = bad
    back = from_fp8_tiles(to_fp8_tiles(x), torch.bfloat16)
    assert back[0, :128].eq(1).all()
    assert back[0, 200].isnan()
    assert back[0, 128:].isnan().all()


@pytest.mark.parametrize("shape", [(0, 128), (3, 0), (2, 3, 200), (7,)])
def test_shapes_and_bytes(shape: tuple[int, ...]) -> None:
    tiles = to_fp8_tiles(torch.ones(shape, dtype=torch.bfloat16))
    assert isinstance(tiles, Fp8Tiles)
    count = -(-shape[-1] // 128)
    assert tiles.codes_D.shape == shape
    assert tiles.scales_N.shape == (*shape[:-1], count)
    assert tiles.num_bytes == tiles.codes_D.numel() + 4 * tiles.scales_N.numel()
    assert from_fp8_tiles(tiles, torch.bfloat16).eq(1).all()


def test_k2_stores_an_experts_input_in_little_over_half_of_bfloat16() -> None:
    x = torch.zeros(4, 7168, dtype=torch.bfloat16)
    assert to_fp8_tiles(x).num_bytes / x.nbytes == pytest.approx(0.5 + 2 / 128)


def test_integers_and_scalars_are_refused_with_what_to_give() -> None:
    for x in (torch.zeros(4, dtype=torch.int64), torch.zeros(())):
        with pytest.raises(ValueError, match="give float32, bfloat16 or float16"):
            to_fp8_tiles(x)
