"""The row of a conversation: everything that people, training and a replay need of it (noun `trajectories`)."""

from __future__ import annotations

from typing import Any, Protocol

from abruzzi.contracts.agent import Task, Verdict, WorldGround
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.synthesis.trajectories.episode import ENDED_WELL, Episode
from abruzzi_jobs.synthesis.trajectories.plan import Planned

NOUN = "trajectories"
LOW_SCORE = "low_score"


class Judgement(Protocol):
    """What the rubric says of it. `fate`: "kept", or why not."""

    @property
    def fate(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def reasons(self) -> Any: ...


def fate_of(episode: Episode, judgement: Judgement, *, min_score: float) -> str:
    """A conversation that ended badly is discarded for that, whatever it reached before."""
    if episode.ended_by not in ENDED_WELL:
        return episode.ended_by
    if judgement.fate != KEPT:
        return judgement.fate
    return KEPT if judgement.score >= min_score else LOW_SCORE


def row_of(
    planned: Planned, episode: Episode, verdicts: list[Verdict], judgement: Judgement, *, min_score: float
) -> dict[str, Any]:
    """Nothing in it depends on when, where or how fast it was made. Empty strings mean that there is nothing to say."""
    task, agent = planned.task, planned.agent
    tools = planned.toolbox.tools.values()
    return {
        "id": planned.id,
        "fate": fate_of(episode, judgement, min_score=min_score),
        "source": " ".join(sorted({tool.source for tool in tools})),
        "licence": " AND ".join(sorted({tool.licence for tool in tools})),
        "generator": episode.generators.get("agent", "none"),
        "is_llm": episode.is_llm,
        "seed": planned.seed,
        "task": task.model_dump(mode="json"),
        "agent": agent.model_dump(mode="json"),
        "tools": planned.toolbox.described,
        "messages": episode.messages,
        "calls": [call.model_dump(mode="json", exclude={"seconds"}) for call in episode.calls],
        "world": _world(task, episode),
        "probes": [probe.model_dump(mode="json") for probe in episode.probes],
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
        "score": round(judgement.score, 6),
        "reasons": list(judgement.reasons),
        "ended_by": episode.ended_by,
        "why": episode.why,
        "turns": episode.turns,
        "slips": dict(sorted(episode.slips.items())),
        "user_fallbacks": dict(sorted(episode.user_fallbacks.items())),
        "generators": dict(sorted(episode.generators.items())),
        "call_ids": episode.call_ids,
        "faults": planned.faults.model_dump(mode="json"),
    }


def _world(task: Task, episode: Episode) -> dict[str, Any] | None:
    ground = task.ground
    if not isinstance(ground, WorldGround):
        return None
    return {
        "application": ground.source,
        "seed": ground.seed,
        "rows_each": ground.rows_each,
        "before": episode.before,
        "after": episode.after,
        "digest_before": episode.digest_before,
        "digest_after": episode.digest_after,
    }
