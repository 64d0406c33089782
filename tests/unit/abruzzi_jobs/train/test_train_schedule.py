"""The schedule is a pure function of the step: warm-up, stable, decay, annealing, and nothing else."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.toml import load_recipe
from abruzzi.contracts.training import AnnealConfig, BatchConfig, ScheduleConfig
from abruzzi.contracts.training import YarnConfig as YarnTable
from abruzzi_jobs.models import YarnConfig
from abruzzi_jobs.train.schedule import Schedule, build_schedule

BATCH = BatchConfig(sequences=8, sequence_length=128)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Schedule, ScheduleConfig, int]:
    config = ScheduleConfig(
        tokens=draw(st.integers(1, 400_000)),
        warmup_steps=draw(st.integers(0, 60)),
        decay_fraction=draw(st.floats(0, 1)),
        decay_lr_ratio=draw(st.floats(0, 1)),
        anneal=tuple(
            AnnealConfig(
                tokens=draw(st.integers(1, 50_000)),
                end_lr_ratio=draw(st.floats(0, 1)),
                sequence_length=draw(st.sampled_from([None, 128, 256, 4096])),
            )
            for _ in range(draw(st.integers(0, 3)))
        ),
    )
    world_size = draw(st.sampled_from([1, 2, 4]))
    return build_schedule(config, BATCH, world_size=world_size), config, world_size


@given(schedules())
def test_every_rate_is_a_share_of_the_peak(made: tuple[Schedule, ScheduleConfig, int]) -> None:
    schedule, _, _ = made
    assert all(0.0 <= schedule.lr_scale(step) <= 1.0 for step in range(schedule.total_steps))


@given(schedules())
def test_phases_follow_each_other_and_every_step_has_one(made: tuple[Schedule, ScheduleConfig, int]) -> None:
    schedule, config, world_size = made
    assert len(schedule.phases) == 1 + len(config.anneal)
    first = 0
    for phase in schedule.phases:
        assert phase.first_step == first
        assert phase.steps >= 1
        assert phase.sequences >= 1
        assert phase.sequences % world_size == 0
        assert schedule.phase_at(phase.first_step)[1] == schedule.phase_at(phase.end_step - 1)[1] == phase
        first = phase.end_step
    assert schedule.total_steps == first


@given(schedules())
def test_no_phase_takes_more_tokens_than_it_was_given_unless_one_step_is_more(
    made: tuple[Schedule, ScheduleConfig, int],
) -> None:
    schedule, config, _ = made
    for phase, tokens in zip(schedule.phases, (config.tokens, *(a.tokens for a in config.anneal)), strict=True):
        step_tokens = phase.sequences * phase.sequence_length
        assert phase.steps * step_tokens <= max(tokens, step_tokens)
        assert (phase.steps + 1) * step_tokens > tokens


@given(schedules())
def test_the_rate_rises_only_while_it_warms_up_or_where_an_annealing_asks_for_it(
    made: tuple[Schedule, ScheduleConfig, int],
) -> None:
    schedule, _, _ = made
    main = schedule.phases[0]
    rates = [schedule.lr_scale(step) for step in range(main.steps)]
    warm, rest = rates[: schedule.warmup_steps], rates[schedule.warmup_steps :]
    assert warm == sorted(warm)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(rest))


@given(schedules())
def test_every_phase_ends_at_its_ratio(made: tuple[Schedule, ScheduleConfig, int]) -> None:
    schedule, config, _ = made
    if schedule.decay_steps:
        assert schedule.lr_scale(schedule.phases[0].end_step - 1) == pytest.approx(config.decay_lr_ratio, abs=1e-12)
    for phase, anneal in zip(schedule.phases[1:], config.anneal, strict=True):
        assert schedule.lr_scale(phase.end_step - 1) == pytest.approx(anneal.end_lr_ratio, abs=1e-12)


def test_the_papers_recipe_has_its_rates() -> None:
    config = ScheduleConfig(
        tokens="15.5T",  # type: ignore[arg-type]
        warmup_steps=500,
        decay_fraction=5.5 / 15.5,
        anneal=(
            AnnealConfig(tokens=400_000_000_000, end_lr_ratio=0.04347826),
            AnnealConfig(tokens=60_000_000_000, sequence_length=32768, yarn=YarnTable(factor=32.0)),
        ),
    )
    stage = load_recipe((Path(__file__).parents[4] / "recipes" / "k2.toml").read_text()).stage_by_id("pretrain")
    assert isinstance(stage, PretrainStage)
    assert stage.schedule.anneal == config.anneal
    assert stage.schedule.tokens == config.tokens
    schedule = build_schedule(config, BatchConfig(sequences=16384, sequence_length=4096), world_size=256)
    main, anneal, long = schedule.phases
    peak = 2e-4
    assert schedule.lr_scale(499) == 1.0
    assert schedule.lr_scale(0) == pytest.approx(1 / 500)
    assert peak * schedule.lr_scale(main.end_step - 1) == pytest.approx(2e-5)
    assert peak * schedule.lr_scale(long.end_step - 1) == pytest.approx(7e-6)
    slopes = [
        (schedule.lr_scale(first) - schedule.lr_scale(last)) / (last - first)
        for first, last in ((main.end_step - 1, anneal.end_step - 1), (anneal.end_step - 1, long.end_step - 1))
    ]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)  # one decay over both
    assert (long.sequence_length, long.sequences) == (32768, 2048)
    assert (main.yarn, anneal.yarn, long.yarn) == (None, None, YarnConfig(factor=32.0))
    middle = main.end_step - schedule.decay_steps // 2
    assert schedule.lr_scale(middle) == pytest.approx((1 + 0.1) / 2, abs=1e-3)
    assert math.isclose(main.steps * 16384 * 4096, 15.5e12, rel_tol=1e-5)


def test_a_phase_has_the_batch_it_asks_for_and_keeps_yarn_from_the_phase_before() -> None:
    config = ScheduleConfig(
        tokens=10_000,
        anneal=(
            AnnealConfig(tokens=10_000, sequence_length=256),
            AnnealConfig(tokens=10_000, sequence_length=512, sequences=6, yarn=YarnTable(factor=4.0)),
            AnnealConfig(tokens=10_000),
            AnnealConfig(tokens=10_000, yarn=YarnTable(factor=8.0)),
        ),
    )
    phases = build_schedule(config, BATCH, world_size=2).phases
    assert [phase.sequences for phase in phases] == [8, 4, 6, 8, 8]
    assert [phase.yarn.factor if phase.yarn else None for phase in phases] == [None, None, 4.0, 4.0, 8.0]
