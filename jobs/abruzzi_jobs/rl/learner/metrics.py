"""What a step and an iteration say of themselves. Sums go over all ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from abruzzi.contracts.environment import metric_name
from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Group, Status, TokenSource, Trajectory
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.rl.learner.packing import Minibatch
from abruzzi_jobs.rl.objective.advantages import advantages_of, reward_of
from abruzzi_jobs.rl.objective.losses import PolicyTokens, outside

_KEYS = (
    "loss", "ptx", "critic", "tokens", "entropy", "policy_kl", "outside", "sequences", "advantage_abs", "tau_rho_abs",
    "rejected", "fresh_tokens", "mismatch_kl",
)  # fmt: skip


class StepSums:
    """Of one step, over packed rows and ranks."""

    def __init__(self, ranks: Ranks, config: ObjectiveConfig, minibatch: Minibatch) -> None:
        self._ranks, self._config, self._minibatch = ranks, config, minibatch
        self._sums = {key: torch.zeros((), dtype=torch.float64, device=ranks.device) for key in _KEYS}
        self._mismatch_max = torch.zeros((), dtype=torch.float64, device=ranks.device)
        self._has_lessons = False

    @torch.no_grad()
    def add(
        self, tokens: PolicyTokens, loss: Tensor, *, entropy_T: Tensor, mismatch_T: Tensor, rejected: Tensor
    ) -> None:
        """`mismatch_T`: log-probability by the trainer less the engine's, of tokens that this iteration's policy drew."""
        ratio_T = tokens.log_ratio_T.double()
        rho_S = tokens.sums(tokens.log_ratio_T)
        mismatch_T = mismatch_T.double()
        found = {
            "loss": loss,
            "tokens": len(entropy_T),
            "entropy": entropy_T.double().sum(),
            "policy_kl": _kl(ratio_T),
            "outside": outside(tokens, self._config).sum(),
            "sequences": len(rho_S),
            "advantage_abs": tokens.advantage_S.abs().sum(),
            "tau_rho_abs": self._config.tau * rho_S.abs().sum(),
            "rejected": rejected.sum(),
            "fresh_tokens": len(mismatch_T),
            "mismatch_kl": _kl(mismatch_T),
        }
        for key, value in found.items():
            self._sums[key] += value
        if len(mismatch_T):
            self._mismatch_max = torch.maximum(self._mismatch_max, mismatch_T.abs().max())

    def add_rows(self, name: str, loss: Tensor) -> None:
        """`ptx` or `critic`."""
        self._sums[name] += loss.detach()
        self._has_lessons |= name == "critic"

    def metrics(self) -> dict[str, float]:
        """A collective. Means are over what counted; 0 where nothing did."""
        values = self._ranks.sum_(torch.stack([self._sums[key] for key in _KEYS])).tolist()
        total = dict(zip(_KEYS, values, strict=True))
        tokens, sequences = max(1.0, total["tokens"]), max(1.0, total["sequences"])
        found = {
            "rl/loss": total["loss"],
            "rl/entropy": total["entropy"] / tokens,
            "rl/policy_kl": total["policy_kl"] / tokens,
            "rl/advantage_abs": total["advantage_abs"] / sequences,
            "rl/tau_rho_abs": total["tau_rho_abs"] / sequences,
            "rl/tau_rho_ratio": total["tau_rho_abs"] / total["advantage_abs"] if total["advantage_abs"] else 0.0,
            "rl/mismatch_kl": total["mismatch_kl"] / max(1.0, total["fresh_tokens"]),
            "rl/mismatch_max": float(self._ranks.max_(self._mismatch_max)),
            "rl/rejected": total["rejected"],
            "rl/learned_sequences": total["sequences"],
            "rl/learned_tokens": total["tokens"],
            "rl/zero_variance_groups": float(self._minibatch.zero_variance_groups),
        }
        if self._config.loss != "opmd":
            found["rl/clipped"] = total["outside"] / tokens
        if self._config.ptx_weight > 0:
            found["rl/ptx_loss"] = total["ptx"]
        if self._has_lessons:
            found["rl/critic/loss"] = total["critic"]
        return found


def group_metrics(groups: Sequence[Group], *, version: int) -> dict[str, float]:
    """Of an iteration's groups as they came, by policy `version`: rewards as scored, without the length reward."""
    counted = [t for group in groups for t in group.counted]
    members = [t for group in groups for t in group.trajectories]
    by_key: dict[str, list[float]] = defaultdict(list)
    by_environment: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in counted:
        assert trajectory.outcome is not None
        reward = reward_of(trajectory)
        by_key["rl/reward"].append(reward)
        by_key[f"rl/reward/{trajectory.task.family}"].append(reward)
        by_key["rl/length/policy_tokens"].append(trajectory.policy_tokens)
        by_key["rl/turns"].append(trajectory.turns)
        by_environment[metric_name(trajectory.task.environment)].append(trajectory)
        for name, value in trajectory.outcome.components.items():
            by_key[f"rl/component/{name}"].append(value)
    ages = [
        (version - segment.policy_version, len(segment.tokens))
        for trajectory in counted
        for segment in trajectory.segments
        if segment.source is TokenSource.POLICY and segment.policy_version is not None
    ]
    found = {key: sum(values) / len(values) for key, values in by_key.items()}
    for name, mine in by_environment.items():
        found[f"rl/environment/{name}/reward"] = sum(map(reward_of, mine)) / len(mine)
        found[f"rl/environment/{name}/trajectories"] = float(len(mine))
        found[f"rl/environment/{name}/steps"] = float(sum(each.turns for each in mine))
    found["rl/staleness"] = sum(age * size for age, size in ages) / max(1, sum(size for _, size in ages))
    found["rl/truncated"] = _share(members, (Status.BUDGET, Status.CONTEXT, Status.TURNS))
    found["rl/uncounted"] = 1 - len(counted) / len(members) if members else 0.0
    rewards = [[reward_of(t) for t in group.counted] for group in groups]
    found["rl/groups"] = float(len(groups))
    found["rl/zero_variance_groups"] = float(sum(bool(r) and not any(advantages_of(r)) for r in rewards))
    return found


def _share(members: Sequence, statuses: tuple[Status, ...]) -> float:
    return sum(t.status in statuses for t in members) / len(members) if members else 0.0


def _kl(log_ratio_T: Tensor) -> Tensor:
    """Sum over tokens drawn from p of e^x − 1 − x, x = log q − log p: unbiased for KL(p‖q), and never negative."""
    return (log_ratio_T.expm1() - log_ratio_T).sum()
