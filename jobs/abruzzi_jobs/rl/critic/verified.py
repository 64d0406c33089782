"""Pairs whose right order a verifier knows: on-policy answers to verifiable tasks, one right and one wrong (paper 3.2.2, closed-loop refinement)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from abruzzi.contracts.rollout import Outcome, Status
from abruzzi_jobs.data.documents import choice
from abruzzi_jobs.rl.critic.asking import Critic
from abruzzi_jobs.rl.critic.comparing import Tally, agreed, both_orders
from abruzzi_jobs.rl.critic.form import question_and_answer
from abruzzi_jobs.rl.rollout.played import PlayedGroup

_CLEARLY = 0.5
"""Rewards of right and wrong differ by so much at least: a rule's rounding is no lesson."""


@dataclass(frozen=True, slots=True)
class VerifiedPair:
    task: str
    question: str
    right: str
    wrong: str


@dataclass(slots=True)
class Measured:
    """What a critic is worth on verified pairs."""

    pairs: int = 0
    points: float = 0.0
    """1 for a pair put right, half for one whose verdict turns with the order or that is a tie."""
    turned: int = 0
    longer_pairs: int = 0
    """Whose right answer is the longer one."""
    longer_points: float = 0.0
    shorter_pairs: int = 0
    shorter_points: float = 0.0
    confidence: float = 0.0
    """Summed over verdicts that have one."""
    confident: int = 0
    confident_right: int = 0

    def metrics(self) -> dict[str, float]:
        if not self.pairs:
            return {}
        found = {
            "rl/critic/accuracy": self.points / self.pairs,
            "rl/critic/swap_inconsistency": self.turned / self.pairs,
            "rl/critic/measured_pairs": float(self.pairs),
        }
        if self.longer_pairs and self.shorter_pairs:
            # Of a critic that only sees the matter, 0; of one that takes the longer answer always, 1.
            longer, shorter = self.longer_points / self.longer_pairs, self.shorter_points / self.shorter_pairs
            found["rl/critic/length_bias"] = longer - shorter
        if self.confident:
            found["rl/critic/overconfidence"] = (self.confidence - self.confident_right) / self.confident
        return found


def verified_pairs(
    groups: Sequence[PlayedGroup], outcomes: Mapping[str, Outcome], *, seed: str, most: int | None = None
) -> list[VerifiedPair]:
    """Of groups of verifiable tasks; each text once in its group, in an order that follows from the seed. `most`: the first so many, groups taking turns."""
    by_group = [_shuffled(_pairs(group, outcomes), f"{seed}/{group.id}") for group in groups]
    rounds = max(map(len, by_group), default=0)
    found = [pairs[turn] for turn in range(rounds) for pairs in by_group if turn < len(pairs)]
    return found[:most]


def is_held_out(task: str, percent: int) -> bool:
    """By the task alone, so that no lesson of any iteration is of it."""
    return choice(f"critic/{task}", 100) < percent


async def measure(critic: Critic, pairs: Sequence[VerifiedPair], tally: Tally) -> Measured:
    asked = [question for pair in pairs for question in both_orders(pair.question, pair.right, pair.wrong)]
    said = iter(await critic.ask(asked))
    found = Measured()
    for pair in pairs:
        there, back = next(said), next(said)
        winner, turned = agreed(there, back)
        points = 0.5 if winner is None else float(winner == 0)
        tally.add(turned, (there, back))
        found.pairs += 1
        found.points += points
        found.turned += turned
        if len(pair.right) > len(pair.wrong):
            found.longer_pairs += 1
            found.longer_points += points
        elif len(pair.right) < len(pair.wrong):
            found.shorter_pairs += 1
            found.shorter_points += points
        for verdict, is_right in ((there, there.better == "A"), (back, back.better == "B")):
            if verdict.confidence is not None:
                found.confident += 1
                found.confidence += verdict.confidence
                found.confident_right += is_right
    return found


def _pairs(group: PlayedGroup, outcomes: Mapping[str, Outcome]) -> list[VerifiedPair]:
    rewards: dict[str, float] = {}
    asked = ""
    for played in group.members:
        outcome = outcomes[played.trajectory.id]
        if outcome.status is Status.OK and outcome.reward is not None:
            asked, said = question_and_answer(played.messages)
            if said:
                rewards.setdefault(said, outcome.reward)
    task = group.members[0].trajectory.task.id
    return [
        VerifiedPair(task, asked, right, wrong)
        for right, wrong in product(rewards, rewards)
        if rewards[right] - rewards[wrong] >= _CLEARLY
    ]


def _shuffled(pairs: Sequence[VerifiedPair], seed: str) -> list[VerifiedPair]:
    return sorted(pairs, key=lambda p: hashlib.sha256(f"{seed}/{p.right}/{p.wrong}".encode()).digest())
