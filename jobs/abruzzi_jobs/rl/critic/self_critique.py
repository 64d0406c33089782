"""The critic's part of an iteration: measured on held-out verified pairs, gated, asked about groups that nothing verifies, taught on the rest.

journal/it-000012/critic.json    what was measured, whether rewards are given, since when and why
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field

from abruzzi.contracts.critic import CriticConfig
from abruzzi.contracts.rollout import Frozen, Outcome, Status, Task
from abruzzi.contracts.rubric import RubricSet
from abruzzi_jobs.rl.controller.journal import Journal
from abruzzi_jobs.rl.critic.asking import Critic
from abruzzi_jobs.rl.critic.comparing import Contest, Ranked, Tally, rank
from abruzzi_jobs.rl.critic.form import question_and_answer
from abruzzi_jobs.rl.critic.gate import GateState, after
from abruzzi_jobs.rl.critic.teaching import rows_of
from abruzzi_jobs.rl.critic.verified import VerifiedPair, is_held_out, measure, verified_pairs
from abruzzi_jobs.rl.rollout.played import Played, PlayedGroup
from abruzzi_jobs.sft.template import ChatTemplate
from abruzzi_jobs.train.feed import Rows

RECORD = "critic"
_FROZEN = "the critic is not trusted at present: its rubric rewards are frozen"

logger = logging.getLogger(__name__)


class CriticRecord(Frozen):
    """Of one iteration."""

    rubrics: str
    """`name@version`."""
    gate: GateState
    metrics: dict[str, float] = Field(default_factory=dict)
    event: str = ""
    """What happened to the gate, in words; empty where nothing did."""


class SelfCritique:
    def __init__(
        self,
        config: CriticConfig,
        *,
        critic: Critic,
        rubrics: RubricSet,
        is_compared: Callable[[Task], bool],
        journal: Journal,
        template: ChatTemplate,
        positions: int,
        minibatches: int,
        seed: int,
    ) -> None:
        """`is_compared`: of a task, whether the critic gives its reward; all others are verifiable. `positions`: of the model."""
        self._config, self._critic, self._rubrics = config, critic, rubrics
        self._is_compared, self._journal, self._template = is_compared, journal, template
        self._positions, self._minibatches, self._seed = positions, minibatches, seed

    async def judge(
        self, iteration: int, groups: Sequence[PlayedGroup], outcomes: Mapping[str, Outcome]
    ) -> Mapping[str, Outcome]:
        """The outcomes with the critic's rewards in them. What was measured is in the journal before any of it counts."""
        tally = Tally()
        before = self.record(iteration - 1)
        held_out = await measure(self._critic, self._pairs(iteration, groups, outcomes, held_out=True), tally)
        gate, event = after(
            before.gate if before is not None else GateState(),
            self._config.gate,
            iteration=iteration,
            pairs=held_out.pairs,
            points=held_out.points,
            turned=held_out.turned,
        )
        compared = [group for group in groups if self._is_compared(_task(group))]
        judged, metrics = await self._compared(compared, outcomes, tally, frozen=gate.frozen)
        metrics |= held_out.metrics() | _told(tally) | {"rl/critic/frozen": float(gate.frozen)}
        record = CriticRecord(rubrics=self._rubrics.reference, gate=gate, metrics=metrics, event=event)
        self._journal.keep(iteration, RECORD, record.model_dump(mode="json"))
        if event:
            logger.warning("iteration %d: %s", iteration + 1, event)
        return {**outcomes, **judged}

    def metrics(self, iteration: int) -> Mapping[str, float]:
        """Of an iteration that was judged, by whichever attempt."""
        record = self.record(iteration)
        return {} if record is None else record.metrics

    def lessons(
        self, iteration: int, groups: Sequence[PlayedGroup], outcomes: Mapping[str, Outcome]
    ) -> tuple[Rows | None, ...]:
        """Of each optimizer step of the iteration."""
        refinement = self._config.refinement
        if not refinement.weight:
            return ()
        pairs = self._pairs(iteration, groups, outcomes, held_out=False, most=refinement.pairs)
        return tuple(
            rows_of(
                pairs[number :: self._minibatches],
                self._template,
                self._rubrics,
                self._config.form,
                positions=self._positions,
            )
            for number in range(self._minibatches)
        )

    def record(self, iteration: int) -> CriticRecord | None:
        found = self._journal.kept(iteration, RECORD) if iteration >= 0 else None
        return None if found is None else CriticRecord.model_validate(found)

    def _pairs(
        self,
        iteration: int,
        groups: Sequence[PlayedGroup],
        outcomes: Mapping[str, Outcome],
        *,
        held_out: bool,
        most: int | None = None,
    ) -> list[VerifiedPair]:
        percent = self._config.held_out_percent
        chosen = [
            group
            for group in groups
            if not self._is_compared(_task(group)) and is_held_out(_task(group).id, percent) == held_out
        ]
        return verified_pairs(chosen, outcomes, seed=f"{self._seed}/{iteration}", most=most)

    async def _compared(
        self, groups: Sequence[PlayedGroup], outcomes: Mapping[str, Outcome], tally: Tally, *, frozen: bool
    ) -> tuple[dict[str, Outcome], dict[str, float]]:
        # Over its budget an answer is not whole: it keeps its penalty, and nobody is compared with it.
        entered = [
            [m for m in group.members if outcomes[m.trajectory.id].status in (Status.OK, Status.TURNS)]
            for group in groups
        ]
        if frozen:
            members = [member for group in entered for member in group]
            return {m.trajectory.id: self._frozen(outcomes[m.trajectory.id]) for m in members}, {}
        contests = [_contest(group.id, members) for group, members in zip(groups, entered, strict=True) if members]
        ranked = await rank(self._critic, contests, self._rubrics, self._config, tally)
        found: dict[str, Outcome] = {}
        for members, ranks in zip((m for m in entered if m), ranked, strict=True):
            for place, member in enumerate(members):
                name = member.trajectory.id
                found[name] = self._outcome(outcomes[name], ranks, place)
        turned, decided = (sum(r.cycles[n] for r in ranked) for n in (0, 1))
        return found, {"rl/critic/cycles": turned / decided} if decided else {}

    def _outcome(self, environment: Outcome, ranks: Ranked, place: int) -> Outcome:
        low, high = self._config.reward_range
        score, broken = ranks.scores[place], ranks.violations[place]
        parts = {**environment.components, "win_rate": score, "violations": float(len(broken))}
        if environment.reward is not None:
            parts["environment"] = environment.reward
        return Outcome(
            status=environment.status,
            reward=low + (high - low) * score,
            components=parts,
            version=f"rubrics {self._rubrics.reference}",
            detail=f"violates {', '.join(broken)}" if broken else "",
        )

    def _frozen(self, environment: Outcome) -> Outcome:
        return Outcome(
            status=Status.REWARD_FROZEN,
            components=environment.components,
            version=f"rubrics {self._rubrics.reference}",
            detail=_FROZEN,
        )


def _contest(group: str, members: Sequence[Played]) -> Contest:
    told = [question_and_answer(member.messages) for member in members]
    return Contest(group, told[0][0], tuple(answer for _, answer in told))


def _task(group: PlayedGroup) -> Task:
    return group.members[0].trajectory.task


def _told(tally: Tally) -> dict[str, float]:
    found: dict[str, Any] = {"rl/critic/asked": 2.0 * tally.pairs, "rl/critic/unread": float(tally.unread)}
    if tally.read:
        found["rl/critic/position_bias"] = tally.said_first / tally.read - 0.5
    return found
