"""Who owns what under ZeRO-1, and how layers and experts lie: everything once, no matrix cut, work shared out evenly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi_jobs.distributed import Layout
from abruzzi_jobs.distributed.ownership import longest_first, newton_schulz_flops, share_dense, share_experts_out
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, ParameterPlan, plan_parameters

SMALL = ModelConfig(
    vocab_size=96, hidden_size=32, num_layers=5, num_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8,
    qk_rope_head_dim=4, v_head_dim=8, intermediate_size=64, moe_intermediate_size=16, num_experts=8,
    num_experts_per_token=2,
)  # fmt: skip


def plans() -> list[ParameterPlan]:
    shapes = {name: tuple(p.shape) for name, p in KimiK2(SMALL, device="meta").named_parameters()}
    return plan_parameters(shapes, OptimizerConfig(), model=SMALL)


@given(ranks=st.integers(1, 9))
def test_every_row_has_one_owner_and_no_matrix_two(ranks: int) -> None:
    pieces = share_dense(plans(), ranks, steps=5) + share_experts_out(plans(), ranks)
    for plan in plans():
        own = sorted((piece.first, piece.last, piece.owner) for piece in pieces if piece.name == plan.name)
        assert [first for first, _, _ in own] == [0] + [last for _, last, _ in own[:-1]]
        assert own[-1][1] == plan.shape[0]
        assert all(0 <= owner < ranks for _, _, owner in own)
        if plan.kind == "muon" and len(plan.shape) == 2:
            assert len(own) == 1


@given(costs=st.lists(st.integers(1, 1000), min_size=1, max_size=60), ranks=st.integers(1, 8))
def test_the_busiest_rank_has_at_most_one_matrix_more_than_the_mean(costs: list[int], ranks: int) -> None:
    owners = longest_first({f"matrix-{place}": cost for place, cost in enumerate(costs)}, ranks)
    loads = [
        sum(cost for place, cost in enumerate(costs) if owners[f"matrix-{place}"] == rank) for rank in range(ranks)
    ]
    assert max(loads) <= sum(costs) / ranks + max(costs)
    assert longest_first({"a": 7, "b": 6, "c": 5, "d": 4, "e": 3, "f": 3}, 2) == {
        "a": 0,
        "b": 1,
        "c": 1,
        "d": 0,
        "e": 0,
        "f": 1,
    }


def test_newton_schulz_of_the_papers_expert_costs_as_much_either_way_up() -> None:
    tall, wide = (
        ParameterPlan(name="x", kind="muon", shape=shape, num_matrices=1, rows=shape[0], cols=shape[1])
        for shape in ((7168, 2048), (2048, 7168))
    )
    assert (
        newton_schulz_flops(tall, steps=5)
        == newton_schulz_flops(wide, steps=5)
        == 5 * (4 * 2048**2 * 7168 + 2 * 2048**3)
    )


def test_what_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="3 does not divide the 4 ranks"):
        Layout(ep=3, dp=4)
    with pytest.raises(ValueError, match="2 chunks a rank need pp of 2"):
        Layout(vpp=2)
    with pytest.raises(ValueError, match="4 does not divide 6 experts"):
        Layout(ep=4, dp=4).experts(6, 0)
