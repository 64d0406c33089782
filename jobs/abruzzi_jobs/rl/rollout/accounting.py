"""What an iteration's rollouts cost and came to: wall time by what was at work, and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from abruzzi.contracts.rollout import Status, Trajectory
from abruzzi_jobs.rl.rollout.played import Played


class Attribution:
    """Seconds that sum to the whole. `engine`: a request is in it. `environment`: none is, and a trajectory is being played. `other`: neither."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.requests = 0
        """In the engine."""
        self.begin()

    def begin(self) -> None:
        self.seconds = dict.fromkeys(("engine", "environment", "other"), 0.0)
        self._cause, self._since = "other", self._clock()

    def note(self, *, playing: int) -> None:
        """Something has changed; `playing`: trajectories from now on."""
        now = self._clock()
        self.seconds[self._cause] += now - self._since
        self._since = now
        self._cause = "engine" if self.requests else "environment" if playing else "other"


def metrics(
    trained: Sequence[Trajectory], dropped: Sequence[Played], under_way: Iterable[Played], counts: Counter[str]
) -> dict[str, float]:
    """Of one iteration; `counts`: the scheduler's, of this iteration."""
    tokens = sum(trajectory.policy_tokens for trajectory in trained)
    many = max(len(trained), 1)
    found = {
        "rollout/trajectories": float(len(trained)),
        "rollout/policy_tokens": float(tokens),
        "rollout/policy_tokens_mean": tokens / many,
        "rollout/turns_mean": sum(t.turns for t in trained) / many,
        "rollout/partial_fraction": sum(len(t.versions) > 1 for t in trained) / many,
        "rollout/versions_max": float(max((len(t.versions) for t in trained), default=0)),
        "rollout/dropped": float(len(dropped)),
        "rollout/held": float(sum(played.trajectory.status is Status.PARTIAL for played in under_way)),
    }
    for name in ("played", "resumed", "preempted", "released", "retried", "late", "rounds"):
        found[f"rollout/{name}"] = float(counts[name])
    for status in Status:
        if number := counts[f"ended/{status.value}"]:
            found[f"rollout/ended/{status.value}"] = float(number)
    return found
