"""Rollouts with the embedded engine and its front: pausing, updating and resuming change no token and no log-probability (invariants 2 and 3, end to end)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from rollout_lab import Adding, adding_task

from abruzzi.contracts.rollout import Status, Task, TokenSource, Trajectory
from abruzzi.store.objects import DirectoryStore
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.rollout.collect import Rollouts
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.player import Limits, Terms
from abruzzi_jobs.rl.rollout.scheduler import SchedulerPolicy
from abruzzi_jobs.rl.rollout.store import RolloutStore
from abruzzi_jobs.sft.template import ChatTemplate

BUDGETS = {"short": 60, "long": 250}


def new_engine(template: ChatTemplate) -> TorchEngine:
    config = ModelConfig(
        vocab_size=template.tokenizer.get_vocab_size(), hidden_size=32, num_layers=2, num_heads=2, q_lora_rank=16, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, intermediate_size=64, moe_intermediate_size=16, num_experts=4,
        num_experts_per_token=2, max_position=1024,
    )  # fmt: skip
    return TorchEngine(KimiK2(config, seed=4), max_running=16)


def long_or_short(number: int) -> Task:
    family = "short" if number % 2 else "long"
    return adding_task(number, target=10**6).model_copy(update={"family": family})


async def rolled(
    template: ChatTemplate, policy: SchedulerPolicy, *, iterations: int, cap: int | None, folder: Path | None = None
) -> dict[str, Trajectory]:
    """By id. After each iteration the engine gets the same weights as a new version; with a folder, each iteration is a process of its own."""
    found: dict[str, Trajectory] = {}
    async with AsyncEngine(new_engine(template)) as front:

        def process() -> Rollouts:
            return Rollouts(
                policy,
                engine=front,
                dialogue=Dialogue(template),
                make=lambda task: Adding(),
                task_of=long_or_short,
                limits=lambda family: Limits(
                    budget_tokens=BUDGETS[family], positions=1024, step_s=240.0, reset_s=240.0
                ),
                terms=lambda family, version: Terms(temperature=0.9, cap_tokens=cap),
                seed=9,
                store=RolloutStore(DirectoryStore(folder), "rl/") if folder else None,
            )

        rollouts = process()
        for version in range(iterations):
            async with asyncio.timeout(240):
                collected = await rollouts.collect(version)
            members = [played.trajectory for group in collected.groups for played in group.members]
            found |= {trajectory.id: trajectory for trajectory in members}
            await front.call(lambda engine, v=version: renewed(engine, v + 1))
            if folder is not None:
                await rollouts.close()
                rollouts = process()
        await rollouts.close()
    return found


def renewed(engine: Any, version: int) -> None:
    state = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    engine.begin_update(version)
    engine.load_bucket(state.items())
    engine.finish_update(version)


def drawn(trajectory: Trajectory) -> list[tuple[int, float]]:
    policy = [s for s in trajectory.segments if s.source is TokenSource.POLICY]
    return [pair for s in policy for pair in zip(s.tokens, s.logprobs, strict=True)]


@pytest.mark.parametrize("dies", [False, True])
async def test_partial_rollouts_are_those_of_a_barrier_bit_for_bit(
    template: ChatTemplate, tmp_path: Path, dies: bool
) -> None:
    barrier = SchedulerPolicy(groups=4, members=2, ahead=0.0)
    whole = await rolled(template, barrier, iterations=1, cap=None)
    partial = SchedulerPolicy(groups=1, members=2, ahead=2.0, max_span=100)
    pieces = await rolled(template, partial, iterations=4, cap=70, folder=tmp_path if dies else None)
    same = set(whole) & set(pieces)
    assert len(same) >= 4, sorted(pieces)
    for name in same:
        assert pieces[name].tokens == whole[name].tokens
        assert drawn(pieces[name]) == drawn(whole[name])
        assert pieces[name].status is whole[name].status
        assert all(s.policy_version is not None for s in pieces[name].segments if s.source is TokenSource.POLICY)
    assert any(len(pieces[name].versions) > 1 for name in same), "some went on under a newer version, and say so"
    assert any(trajectory.turns > 0 for trajectory in whole.values()), "some have several turns"
    assert Status.BUDGET in {trajectory.status for trajectory in whole.values()}
