"""The artifact `rollouts`: a row for each trajectory that ended, for people to look at."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from abruzzi.contracts.rollout import Outcome, Segment, Status, TokenSource
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.rl.controller.journal import Journal
from abruzzi_jobs.rl.rollout.played import Played
from abruzzi_jobs.rl.rollout.store import RolloutStore
from abruzzi_jobs.sft.template import ChatTemplate

NOUN = "rollouts"


def write_rollouts(store: RolloutStore, journal: Journal, template: ChatTemplate, folder: Path) -> dict[str, Any]:
    """Into a folder that is there; returns what `rollouts.json` says."""
    writer = RowShardWriter(folder, NOUN)
    rewards: dict[int, list[float]] = defaultdict(list)
    outcomes: dict[str, Outcome] = {}
    of = -1
    for iteration, played in store.played():
        if iteration != of:
            of, outcomes = iteration, dict(journal.outcomes(iteration) or {})
        row = row_of(played, outcomes.get(played.trajectory.id), template, iteration=iteration)
        writer.write(row)
        if row["reward"] is not None:
            rewards[iteration].append(row["reward"])
    means = [round(sum(values) / len(values), 4) for _, values in sorted(rewards.items())]
    first, last = (means[0], means[-1]) if means else (None, None)
    return writer.close(iterations=of + 1, reward_first=first, reward_last=last)


def row_of(played: Played, outcome: Outcome | None, template: ChatTemplate, *, iteration: int) -> dict[str, Any]:
    """`fate`: "kept" where the trajectory ended by itself and has a reward, else its status. Rewards are compared within a `group`."""
    trajectory = played.trajectory
    outcome = outcome or trajectory.outcome
    status = outcome.status if outcome is not None else trajectory.status
    return {
        "id": trajectory.id,
        "fate": KEPT if status is Status.OK else status.value,
        "iteration": iteration + 1,
        "group": trajectory.group,
        "member": trajectory.member,
        "family": trajectory.task.family,
        "environment": trajectory.task.environment,
        "task": trajectory.task.id,
        "reward": None if outcome is None else outcome.reward,
        "components": {} if outcome is None else outcome.components,
        "reward_version": "" if outcome is None else outcome.version,
        "detail": "" if outcome is None else outcome.detail,
        "turns": trajectory.turns,
        "policy_tokens": trajectory.policy_tokens,
        "versions": list(trajectory.versions),
        "segments": [_segment(segment, template) for segment in trajectory.segments],
        "messages": list(played.messages),
        "generator": "policy",
        "is_llm": False,
    }


def _segment(segment: Segment, template: ChatTemplate) -> dict[str, Any]:
    row: dict[str, Any] = {
        "source": segment.source.value,
        "text": template.shown(segment.tokens),
        "tokens": len(segment.tokens),
    }
    if segment.source is TokenSource.POLICY:
        row |= {
            "policy_version": segment.policy_version,
            "temperature": segment.temperature,
            "ending": None if segment.ending is None else segment.ending.value,
            "mean_logprob": round(sum(segment.logprobs) / max(1, len(segment.logprobs)), 6),
        }
    return row
