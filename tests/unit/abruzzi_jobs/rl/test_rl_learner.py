"""The learner: one loss and one gradient however the work is cut, and only from what counts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rl_groups import group_of, member, random_groups, read, segment
from torch import Tensor

from abruzzi.contracts.objective import LengthRewardConfig, ObjectiveConfig
from abruzzi.contracts.rollout import Group, Status, TokenSource
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.models.rows import policy_logprobs
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.learner.learner import Learner, LearnerStep
from abruzzi_jobs.rl.learner.metrics import group_metrics
from abruzzi_jobs.rl.learner.packing import PackedRow
from abruzzi_jobs.rl.objective.advantages import samples_of
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import Rows

VOCABULARY = 64
MODEL = ModelConfig(
    vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=2, q_lora_rank=16, kv_lora_rank=16,
    qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, intermediate_size=48, moe_intermediate_size=16,
    num_experts=4, num_experts_per_token=2, max_position=64, init_std=0.15,
)  # fmt: skip
ALONE = Ranks(0, 1, torch.device("cpu"))
Gradients = dict[str, Tensor]


class SeenLearner(Learner):
    """Keeps the gradients of each step."""

    def __init__(
        self, config: ObjectiveConfig, *, ranks: Ranks = ALONE, micro_tokens: int = 4096, lr: float = 1e-3
    ) -> None:
        model = KimiK2(MODEL, seed=3)
        settled = OptimizerConfig(newton_schulz_precision="float32", peak_lr=lr)
        optimizer = build_optimizer(model.named_parameters(), settled, model=MODEL)
        super().__init__(model, optimizer, ranks, config, watch=DivergenceWatch(), micro_tokens=micro_tokens)
        self.seen: list[Gradients] = []
        update = optimizer.step

        def step(lr_scale: float, *, gradients: Gradients, **more: Any) -> None:
            self.seen.append({name: gradient.clone() for name, gradient in gradients.items()})
            update(lr_scale, gradients=gradients, **more)

        optimizer.step = step  # type: ignore[method-assign]


def learned(
    groups: Sequence[Group], config: ObjectiveConfig = ObjectiveConfig(), *, minibatches: int = 1, version: int = 0,
    ptx: Rows | None = None, **how: Any,
) -> tuple[list[Gradients], list[LearnerStep]]:  # fmt: skip
    learner = SeenLearner(config, **how)
    prepared = learner.anchor(groups, version=version, minibatches=minibatches)
    steps = [learner.step(number, minibatch, ptx=ptx) for number, minibatch in enumerate(prepared)]
    return learner.seen, steps


def difference(first: Gradients, second: Gradients) -> float:
    """Largest, over the largest norm of a parameter's gradient."""
    assert first.keys() == second.keys()
    scale = max(float(gradient.norm()) for gradient in second.values())
    return max(float((first[name] - second[name]).norm()) for name in first) / scale


def is_same(first: Gradients, second: Gradients) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@dataclass
class Team:
    """Ranks that are threads: sums and maxima meet at a barrier."""

    size: int
    parts: list[Tensor | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = [None] * self.size
        self.barrier = threading.Barrier(self.size, timeout=240)

    def members(self) -> list[Ranks]:
        return [TeamRanks(rank, self.size, torch.device("cpu"), self) for rank in range(self.size)]


@dataclass(frozen=True)
class TeamRanks(Ranks):
    team: Team

    def _all_reduce_(self, tensor: Tensor, op: Any) -> Tensor:
        self.team.parts[self.rank] = tensor.clone()
        self.team.barrier.wait()
        stacked = torch.stack([part for part in self.team.parts if part is not None])
        total = stacked.sum(0) if op == torch.distributed.ReduceOp.SUM else stacked.amax(0)
        self.team.barrier.wait()
        return tensor.copy_(total)


LOSSES = st.sampled_from(["opmd", "grpo", "dapo", "token_log2"])
FEW = settings(max_examples=6, derandomize=True)
"""Not random: among enough tokens two experts are as good as equal, and rounding chooses."""


@given(seed=st.integers(0, 1000), loss=LOSSES, micro_tokens=st.integers(8, 120))
@FEW
def test_packing_and_micro_batches_change_neither_loss_nor_gradient(seed: int, loss: str, micro_tokens: int) -> None:
    groups = random_groups(seed, groups=3, members=3, vocabulary=VOCABULARY, failures=0.1)
    config = ObjectiveConfig(loss=loss, zero_variance="keep")
    (whole,), (one,) = learned(groups, config)
    (cut,), (many,) = learned(groups, config, micro_tokens=micro_tokens)
    assert difference(cut, whole) < 2e-5
    assert many.metrics["rl/loss"] == pytest.approx(one.metrics["rl/loss"], abs=1e-6)
    assert many.metrics["rl/entropy"] == pytest.approx(one.metrics["rl/entropy"], rel=1e-5)


@given(seed=st.integers(0, 1000), loss=LOSSES, size=st.integers(2, 4))
@FEW
def test_data_parallel_ranks_follow_one(seed: int, loss: str, size: int) -> None:
    groups = random_groups(seed, groups=3, members=2, vocabulary=VOCABULARY)
    config = ObjectiveConfig(loss=loss)
    alone, _ = learned(groups, config, minibatches=2)
    team = Team(size).members()
    with ThreadPoolExecutor(size) as pool:
        every = list(pool.map(lambda ranks: learned(groups, config, minibatches=2, ranks=ranks), team))
    for seen, steps in every:
        assert all(is_same(a, b) for a, b in zip(seen, every[0][0], strict=True))
        assert [step.metrics for step in steps] == [step.metrics for step in every[0][1]]
        assert len(seen) == len(alone)
        for together, one, near in zip(seen, alone, (2e-5, 1e-2), strict=False):
            named = {name: one.get(name, torch.zeros_like(gradient)) for name, gradient in together.items()}
            assert difference(together, named) < near, (
                "Muon gives directions of no gradient their share of the first step"
            )


def padded_gradients(model: KimiK2, groups: Sequence[Group], config: ObjectiveConfig) -> Gradients:
    """The same by other means: one padded row for each trajectory, all logits, autograd's softmax, losses with loops. At π_old, for opmd."""
    total = torch.zeros((), dtype=torch.float64)
    members = [sample for group in groups for sample in samples_of(group, config, iteration=0)]
    for sample in members:
        trajectory = sample.trajectory
        tokens = torch.tensor([[*trajectory.tokens, 0, 0, 0]])
        out = model(tokens, None, torch.cat([torch.zeros(1, len(trajectory.tokens)), torch.ones(1, 3)], 1))
        logits_LV = F.linear(model.final_norm(out.hidden_BLD[0]), model.head_weight)
        at, rho = 0, torch.zeros((), dtype=torch.float64)
        for piece in trajectory.segments:
            for token in piece.tokens:
                if piece.source is TokenSource.POLICY and at:
                    log_p = F.log_softmax(logits_LV[at - 1] / piece.temperature, -1)[token]
                    rho = rho + (log_p - log_p.detach())
                at += 1
        total = total + (sample.advantage - config.tau * rho).square() / (2 * config.tau)
    lengths = [s.trajectory.policy_tokens for s in members]
    loss = total / len(members) / (sum(lengths) / len(lengths))
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


def test_the_gradient_is_that_of_padded_rows_with_all_logits() -> None:
    groups = random_groups(5, groups=3, members=3, vocabulary=VOCABULARY)
    config = ObjectiveConfig()
    (ours,), _ = learned(groups, config)
    assert difference(ours, padded_gradients(KimiK2(MODEL, seed=3), groups, config)) < 2e-5


def test_log_probabilities_of_the_anchor_are_those_of_the_first_step_bit_for_bit() -> None:
    groups = random_groups(6, groups=4, members=4, vocabulary=VOCABULARY)
    learner = SeenLearner(ObjectiveConfig(), micro_tokens=100)
    (minibatch,) = learner.anchor(groups, version=0)
    with torch.no_grad():
        anchored = [replace(row, anchor_T=forward(learner, row)) for row in minibatch.rows]
    rho = [float((forward(learner, row).detach() - row.anchor_T).abs().max()) for row in anchored]
    assert len(rho) > 2
    assert rho == [0.0] * len(rho), "with gradient and without, the same numbers"
    (by_itself,), (step,) = learned(groups, micro_tokens=100)
    learner.step(0, replace(minibatch, rows=tuple(anchored)))
    assert is_same(learner.seen[0], by_itself)
    assert step.metrics["rl/tau_rho_abs"] == step.metrics["rl/policy_kl"] == 0.0


def forward(learner: Learner, row: PackedRow) -> Tensor:
    return policy_logprobs(learner.model, row.tokens_L, row.targets_L, row.positions, row.temperature_T).logprob_C


def test_later_minibatches_are_held_against_the_policy_of_the_start() -> None:
    groups = random_groups(7, groups=6, members=3, vocabulary=VOCABULARY)
    _, steps = learned(groups, minibatches=3)
    moved = [step.metrics["rl/tau_rho_abs"] for step in steps]
    assert moved[0] == 0.0
    assert all(value > 0 for value in moved[1:])
    learner = SeenLearner(ObjectiveConfig())
    first, second, _third = learner.anchor(groups, version=0, minibatches=3)
    learner.step(0, first)
    with pytest.raises(ValueError, match="in order, each once"):
        learner.step(1, first)
    assert learner.step(1, second).update is not None


def test_minibatches_hold_whole_groups_in_an_order_that_rollouts_have_no_part_in() -> None:
    groups = random_groups(8, groups=5, members=2, vocabulary=VOCABULARY)
    config = ObjectiveConfig(zero_variance="keep")
    forwards = SeenLearner(config).anchor(groups, version=0, minibatches=2)
    backwards = SeenLearner(config).anchor(groups[::-1], version=0, minibatches=2)
    for one, other in zip(forwards, backwards, strict=True):
        assert one.counts == other.counts
        assert [row.tokens_L.tolist() for row in one.rows] == [row.tokens_L.tolist() for row in other.rows]
    assert [part.learned_sequences for part in forwards] == [6, 4]


@pytest.mark.parametrize("status", [s for s in Status if not s.counted])
def test_what_does_not_count_is_as_if_it_had_never_been(status: Status) -> None:
    groups = random_groups(9, groups=2, members=3, vocabulary=VOCABULARY)
    failed = [
        group_of([*g.trajectories, member(g.id, 3, [read(TokenSource.PROMPT, [1]), segment([2, 3])], reward=None, status=status)])
        for g in groups
    ]  # fmt: skip
    (without,), (one,) = learned(groups)
    (beside,), (other,) = learned(failed)
    assert is_same(beside, without)
    assert one.metrics == other.metrics
    assert [g.mean_reward for g in failed] == [g.mean_reward for g in groups]


def pair(group: str, rewards: Sequence[float], **how: Any) -> Group:
    return group_of(
        [
            member(group, i, [read(TokenSource.PROMPT, [5, 6]), segment([7 + i, 8, 9], **how)], reward=reward)
            for i, reward in enumerate(rewards)
        ]
    )


def test_groups_without_variance_are_left_out_and_counted_and_the_gradient_stays() -> None:
    groups = [pair("a", (0.0, 1.0)), pair("b", (0.3, 0.3)), pair("c", (0.1 + 0.2, 0.3))]
    (dropped,), (step,) = learned(groups)
    (kept,), (other,) = learned(groups, ObjectiveConfig(zero_variance="keep"))
    assert difference(dropped, kept) < 1e-6
    assert (step.metrics["rl/zero_variance_groups"], step.metrics["rl/learned_sequences"]) == (2, 2)
    assert (other.metrics["rl/zero_variance_groups"], other.metrics["rl/learned_sequences"]) == (2, 6)


def test_where_nothing_is_to_learn_the_weights_stay() -> None:
    learner = SeenLearner(ObjectiveConfig())
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    (minibatch,) = learner.anchor([pair("a", (1.0, 1.0))], version=0)
    step = learner.step(0, minibatch)
    assert step.update is None
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.model.state_dict().items())
    (empty,) = learner.anchor([], version=0)
    assert learner.step(1, empty).metrics["rl/learned_tokens"] == 0


def resumed(version: int, source: TokenSource = TokenSource.POLICY) -> list[Group]:
    """Begun by policy 0, ended by `version`."""
    begun = segment([7, 8], version=0) if source is TokenSource.POLICY else read(source, [7, 8])
    return [
        group_of(
            [
                member(
                    "a", i, [read(TokenSource.PROMPT, [5]), begun, segment([9 + i, 10], version=version)], reward=reward
                )
                for i, reward in enumerate((0.0, 1.0))
            ]
        )
    ]


def test_of_resumed_sequences_all_tokens_count_or_the_earlier_ones_are_as_the_environments() -> None:
    all_count, (current,) = learned(resumed(2), version=2)
    masked, (mask,) = learned(resumed(2), ObjectiveConfig(partial="mask_old"), version=2)
    as_read, (read_step,) = learned(resumed(2, TokenSource.ENVIRONMENT), version=2)
    assert is_same(masked[0], as_read[0])
    assert mask.metrics == read_step.metrics
    assert difference(all_count[0], masked[0]) > 0.05
    assert (current.metrics["rl/learned_tokens"], mask.metrics["rl/learned_tokens"]) == (8, 4)
    _, (behaviour,) = learned(resumed(2), ObjectiveConfig(partial="anchor_behaviour"), version=2)
    assert behaviour.metrics["rl/tau_rho_abs"] > 0, "ρ is against what the engine said"


def test_sequences_that_engine_and_trainer_disagree_on_can_be_left_out() -> None:
    groups = [pair("a", (0.0, 1.0)), pair("b", (0.0, 1.0), logprob=-30.0)]
    _, (all_in,) = learned(groups)
    (seen,), (some,) = learned(groups, ObjectiveConfig(max_mismatch=8.0))
    assert (all_in.metrics["rl/rejected"], some.metrics["rl/rejected"]) == (0, 2)
    assert some.metrics["rl/learned_sequences"] == 2
    assert some.metrics["rl/mismatch_max"] > 20
    none, _ = learned(groups, ObjectiveConfig(max_mismatch=1e-6))
    assert max(float(gradient.abs().max()) for gradient in none[0].values()) == 0.0
    assert max(float(gradient.abs().max()) for gradient in seen.values()) > 0


def curated(rows: int) -> Rows:
    tokens = torch.randint(0, VOCABULARY, (rows, 17), generator=torch.Generator().manual_seed(1))
    learned_BL = torch.arange(17).expand(rows, 17) > 4
    return Rows(tokens, torch.zeros(rows, 17, dtype=torch.int32), 0, learned_BL=learned_BL, global_targets=rows * 12)


def test_ptx_has_its_own_denominator_and_off_it_leaves_every_bit() -> None:
    groups = random_groups(11, groups=2, members=3, vocabulary=VOCABULARY)
    (without,), _ = learned(groups)
    (off,), _ = learned(groups, ptx=curated(4))
    assert is_same(off, without)
    (alone,), (ptx_step,) = learned([], ObjectiveConfig(ptx_weight=0.5), ptx=curated(4))
    (both,), (step,) = learned(groups, ObjectiveConfig(ptx_weight=0.5), ptx=curated(4))
    added = {
        name: without.get(name, torch.zeros_like(g)) + alone.get(name, torch.zeros_like(g)) for name, g in both.items()
    }
    assert difference(both, added) < 2e-6
    assert step.metrics["rl/ptx_loss"] == pytest.approx(ptx_step.metrics["rl/ptx_loss"], rel=1e-6)
    assert 3.5 < step.metrics["rl/ptx_loss"] < 5.0, "nats a token of random ones among 64"
    with pytest.raises(ValueError, match="no rows, but ptx_weight"):
        learned(groups, ObjectiveConfig(ptx_weight=0.5))


def test_momenta_begin_anew_with_each_iteration_where_asked() -> None:
    groups = random_groups(12, groups=2, members=3, vocabulary=VOCABULARY)

    def momentum(config: ObjectiveConfig) -> float:
        learner = SeenLearner(config)
        (minibatch,) = learner.anchor(groups, version=0)
        learner.step(0, minibatch)
        learner.anchor(groups, version=1)
        return sum(float(t.abs().sum()) for name, t in learner.optimizer.state_dict().items() if name != "step")

    assert momentum(ObjectiveConfig()) > 0
    assert momentum(ObjectiveConfig(reset_optimizer=True)) == 0


def test_the_divisor_of_the_first_iteration_outlives_the_process() -> None:
    learner = SeenLearner(ObjectiveConfig())
    learner.anchor([pair("a", (0.0, 1.0))], version=0)
    assert learner.state_dict() == {"divisor_tokens": 3.0}
    later = SeenLearner(ObjectiveConfig())
    later.load_state_dict(learner.state_dict())
    (minibatch,) = later.anchor(random_groups(1, groups=2, members=2, vocabulary=VOCABULARY), version=1)
    assert minibatch.counts.divisor_tokens == 3.0


def test_the_same_groups_give_the_same_bits_again() -> None:
    groups = random_groups(13, groups=4, members=3, vocabulary=VOCABULARY, failures=0.2)
    first, steps = learned(groups, minibatches=2)
    again, more = learned(groups, minibatches=2)
    assert all(is_same(a, b) for a, b in zip(first, again, strict=True))
    assert [step.metrics for step in steps] == [step.metrics for step in more]


def test_a_length_reward_favours_the_shorter_of_two_right_answers() -> None:
    config = ObjectiveConfig(length_reward=LengthRewardConfig(weight=0.5, warmup_iterations=2))
    members = [
        member("a", i, [read(TokenSource.PROMPT, [1]), segment(list(range(size)))], reward=right, components={"correct": right})
        for i, (size, right) in enumerate([(2, 1.0), (6, 1.0), (2, 0.0), (6, 0.0)])
    ]  # fmt: skip
    group = group_of(members)
    assert [s.reward for s in samples_of(group, config, iteration=1)] == [1.0, 1.0, 0.0, 0.0]
    assert [s.reward for s in samples_of(group, config, iteration=2)] == [1.25, 0.75, 0.0, -0.25]
    unsaid = group_of([member("a", 0, [segment([1])], reward=1.0), member("a", 1, [segment([1, 2])], reward=0.0)])
    assert [s.reward for s in samples_of(unsaid, config, iteration=2)] == [1.0, 0.0]


def test_an_iterations_metrics_say_what_came_from_whom() -> None:
    groups = [*resumed(3), pair("b", (0.5, 0.5), version=3)]
    found = group_metrics(groups, version=3)
    assert found["rl/reward"] == found["rl/reward/math"] == 0.5
    assert found["rl/staleness"] == pytest.approx(3 * 4 / 14)
    assert found["rl/zero_variance_groups"] == 1
    assert found["rl/length/policy_tokens"] == 3.5
    assert found["rl/uncounted"] == found["rl/truncated"] == 0
    assert group_metrics([], version=0)["rl/groups"] == 0
