"""The policy's losses: against finite differences, each other, other writings of the formulas, and the bandit's golden numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi_jobs.rl.objective.losses import LOSSES, Counts, PolicyTokens, dapo, opmd, outside

LENGTHS = (3, 1, 5, 2)
COUNTS = Counts(sequences=4, tokens=11, divisor_tokens=2.75)
FEW = settings(max_examples=20)
CONFIGS = [
    ObjectiveConfig(tau=0.3),
    ObjectiveConfig(tau=0.3, scale="paper"),
    ObjectiveConfig(tau=0.3, divisor="own_length"),
    ObjectiveConfig(loss="grpo"),
    ObjectiveConfig(loss="dapo", advantage="mean_std"),
    ObjectiveConfig(loss="token_log2", tau=0.3),
]


def drawn(seed: int, *, near: float = 0.15) -> PolicyTokens:
    """Ratios within the clipping bounds, but some at both sides."""
    generator = torch.Generator().manual_seed(seed)
    anchor_T = -3 * torch.rand(sum(LENGTHS), generator=generator, dtype=torch.float64)
    logprob_T = anchor_T + near * torch.randn(sum(LENGTHS), generator=generator, dtype=torch.float64)
    advantage_S = torch.randn(len(LENGTHS), generator=generator, dtype=torch.float64)
    return PolicyTokens(logprob_T.requires_grad_(), anchor_T, advantage_S, torch.tensor(LENGTHS))


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Of a growing function."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return (low + high) / 2


def gradient(tokens: PolicyTokens, config: ObjectiveConfig) -> Tensor:
    (found,) = torch.autograd.grad(LOSSES[config.loss](tokens, COUNTS, config), tokens.logprob_T)
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.loss}-{c.scale}-{c.divisor}")
@given(seed=st.integers(0, 10_000))
@FEW
def test_the_gradient_of_each_loss_is_that_of_finite_differences(config: ObjectiveConfig, seed: int) -> None:
    tokens = drawn(seed)
    ratio_T = tokens.log_ratio_T.detach().exp()
    corners = (ratio_T - (1 - config.clip_low)).abs().minimum((ratio_T - (1 + config.clip_high)).abs())
    assume(bool(corners.min() > 1e-3))  # a clipped loss has no derivative there
    step = 1e-5
    direction_T = torch.randn(11, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)

    def loss_at(change: float) -> float:
        moved_T = tokens.logprob_T.detach() + change * direction_T
        moved = PolicyTokens(moved_T, tokens.anchor_T, tokens.advantage_S, tokens.length_S)
        return float(LOSSES[config.loss](moved, COUNTS, config))

    numeric = (loss_at(step) - loss_at(-step)) / (2 * step)
    assert float(gradient(tokens, config) @ direction_T) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@given(seed=st.integers(0, 10_000), tau=st.floats(0.01, 2.0))
@FEW
def test_opmds_gradient_is_a_grad_log_pi_less_half_tau_grad_rho_squared(seed: int, tau: float) -> None:
    tokens = drawn(seed)
    rho_S = tokens.sums(tokens.log_ratio_T)
    kimi15 = (tokens.advantage_S.detach() * tokens.sums(tokens.logprob_T) - tau / 2 * rho_S.square()).sum()
    (wanted,) = torch.autograd.grad(-kimi15 / COUNTS.sequences / COUNTS.divisor_tokens, tokens.logprob_T)
    assert torch.allclose(gradient(tokens, ObjectiveConfig(tau=tau)), wanted, rtol=1e-10, atol=1e-14)


def test_the_papers_form_is_two_tau_times_ours() -> None:
    tokens = drawn(1)
    ours, paper = (gradient(tokens, ObjectiveConfig(tau=0.05, scale=scale)) for scale in ("unit", "paper"))
    assert torch.allclose(paper, 2 * 0.05 * ours, rtol=1e-12)


def test_at_pi_old_every_loss_has_the_policy_gradient() -> None:
    drawn_tokens = drawn(2)
    tokens = PolicyTokens(
        drawn_tokens.anchor_T.clone().requires_grad_(),
        drawn_tokens.anchor_T, drawn_tokens.advantage_S, drawn_tokens.length_S,
    )  # fmt: skip
    by_token = -drawn_tokens.advantage_S.repeat_interleave(drawn_tokens.length_S)
    by_length = by_token / drawn_tokens.length_S.repeat_interleave(drawn_tokens.length_S)
    wanted = {"opmd": by_token / 11, "dapo": by_token / 11, "token_log2": by_token / 11, "grpo": by_length / 4}
    for name, expected in wanted.items():
        assert torch.allclose(gradient(tokens, ObjectiveConfig(loss=name)), expected, rtol=1e-12), name
    own = gradient(tokens, ObjectiveConfig(divisor="own_length"))
    assert torch.allclose(own, by_length / 4, rtol=1e-12)


def test_clipping_takes_the_gradient_where_it_would_lead_further_out() -> None:
    ratio_T = torch.tensor([0.5, 0.5, 2.0, 2.0, 1.1], dtype=torch.float64)
    advantage_S = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    tokens = PolicyTokens(
        ratio_T.log().requires_grad_(), torch.zeros(5, dtype=torch.float64), advantage_S,
        torch.ones(5, dtype=torch.int64),
    )  # fmt: skip
    for loss, free in (("dapo", [0, 3, 4]), ("token_log2", [4])):
        config = ObjectiveConfig(loss=loss, tau=1e-9)
        found = gradient(tokens, config).abs() > 1e-6
        assert found.nonzero().squeeze(1).tolist() == free
        assert (~outside(tokens, config)).nonzero().squeeze(1).tolist() == free


class Bandit:
    """Six arms, a softmax policy; expectations are exact sums, nothing is sampled."""

    tau = 0.05

    def __init__(self) -> None:
        draw = random.Random(0)
        self.old = torch.log_softmax(torch.tensor([draw.gauss(0, 1) for _ in range(6)], dtype=torch.float64), 0)
        self.rewards = torch.tensor([draw.random() for _ in range(6)], dtype=torch.float64)

    def optimum(self) -> Tensor:
        """log π where the gradient is zero: A − τρ = c·e^ρ for every arm, with the c for which π sums to one. By bisection."""
        advantages = (self.rewards - (self.old.exp() * self.rewards).sum()).tolist()

        def ratios(c: float) -> Tensor:
            return torch.tensor(
                [root(lambda rho, a=a: c * math.exp(rho) + self.tau * rho - a, -60.0, 60.0) for a in advantages],
                dtype=torch.float64,
            )

        c = root(lambda c: 1 - float((self.old + ratios(c)).exp().sum()), 1e-6, 10.0)
        return self.old + ratios(c)

    def loss(self, theta: Tensor, scale: str) -> Tensor:
        """Expectation under π_old of the product's loss: one token a sequence, each arm as often as π_old draws it."""
        weights = self.old.exp()
        advantage = self.rewards - (weights * self.rewards).sum()
        config = ObjectiveConfig(tau=self.tau, scale=scale)
        one = torch.ones(1, dtype=torch.int64)
        log_pi = torch.log_softmax(theta, 0)
        parts = [
            opmd(PolicyTokens(log_pi[a : a + 1], self.old[a : a + 1], advantage[a : a + 1], one), Counts(1, 1, 1.0), config)
            for a in range(6)
        ]  # fmt: skip
        return (weights * torch.stack(parts)).sum()

    def gradient(self, theta: Tensor, scale: str = "paper") -> Tensor:
        theta = theta.clone().requires_grad_()
        (found,) = torch.autograd.grad(self.loss(theta, scale), theta)
        return found


def test_the_bandits_gradient_is_two_tau_times_reinforce_at_pi_old() -> None:
    bandit = Bandit()
    theta = bandit.old.clone().requires_grad_()
    weights = bandit.old.exp()
    advantage = bandit.rewards - (weights * bandit.rewards).sum()
    (reinforce,) = torch.autograd.grad(-(weights * advantage * torch.log_softmax(theta, 0)).sum(), theta)
    assert torch.allclose(bandit.gradient(bandit.old), 2 * bandit.tau * reinforce, rtol=1e-12, atol=1e-15)
    assert torch.allclose(bandit.gradient(bandit.old, "unit"), reinforce, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("away", [0.0, 1.0])
def test_the_bandits_gradient_is_that_of_finite_differences(away: float) -> None:
    bandit = Bandit()
    theta = bandit.old + away * torch.linspace(-1, 1, 6, dtype=torch.float64)
    step, numeric = 1e-6, torch.zeros(6, dtype=torch.float64)
    for arm in range(6):
        change = torch.zeros(6, dtype=torch.float64)
        change[arm] = step
        up, down = bandit.loss(theta + change, "paper"), bandit.loss(theta - change, "paper")
        numeric[arm] = (up - down) / (2 * step)
    assert float((bandit.gradient(theta) - numeric).abs().max()) < 1e-9


def test_the_bandits_optimum_is_more_conservative_than_kl_regularisation() -> None:
    """r̄ in the place of τ log Z is a mixed KL–χ² regulariser (arXiv 2602.05933): at small τ it moves far less."""
    bandit = Bandit()
    ours, kl = bandit.optimum(), torch.log_softmax(bandit.old + bandit.rewards / bandit.tau, 0)
    assert float(bandit.gradient(ours).abs().max()) < 1e-12
    best = int(bandit.rewards.argmax())
    moved = [round(float((new - bandit.old)[best].exp()), 2) for new in (ours, kl)]
    means = [round(float((log_p.exp() * bandit.rewards).sum()), 3) for log_p in (bandit.old, ours, kl)]
    assert moved == [3.36, 10.49]
    assert means == [0.655, 0.797, 0.861]


def plain_dapo(tokens: PolicyTokens, low: float, high: float) -> float:
    """With loops."""
    total, at = 0.0, 0
    for length, advantage in zip(tokens.length_S.tolist(), tokens.advantage_S.tolist(), strict=True):
        for t in range(at, at + length):
            ratio = math.exp(float(tokens.log_ratio_T.detach()[t]))
            total -= min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
        at += length
    return total / at


@given(seed=st.integers(0, 10_000))
@FEW
def test_dapo_is_the_formula_written_with_loops(seed: int) -> None:
    tokens = drawn(seed, near=0.4)
    config = ObjectiveConfig(loss="dapo")
    assert float(dapo(tokens, COUNTS, config).detach()) == pytest.approx(plain_dapo(tokens, 0.2, 0.28), rel=1e-12)


def cut(tokens: PolicyTokens, at: int) -> Callable[[slice], PolicyTokens]:
    def part(which: slice) -> PolicyTokens:
        ends = [0, *torch.cumsum(tokens.length_S, 0).tolist()]
        first, last = which.start, which.stop
        here = slice(ends[first], ends[last])
        return PolicyTokens(
            tokens.logprob_T[here], tokens.anchor_T[here], tokens.advantage_S[which], tokens.length_S[which]
        )

    return part


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.loss}-{c.scale}-{c.divisor}")
@given(seed=st.integers(0, 10_000), at=st.integers(1, 3))
@FEW
def test_losses_add_up_however_the_sequences_are_divided(config: ObjectiveConfig, seed: int, at: int) -> None:
    tokens = drawn(seed)
    loss, part = LOSSES[config.loss], cut(tokens, at)
    whole = float(loss(tokens, COUNTS, config).detach())
    parts = sum(float(loss(part(which), COUNTS, config).detach()) for which in (slice(0, at), slice(at, 4)))
    assert parts == pytest.approx(whole, rel=1e-12)
