"""Groups of trajectories for tests of the learner: what an engine and a reward would have made, from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from abruzzi.contracts.rollout import Ending, Group, Outcome, Segment, Status, Task, TokenSource, Trajectory


def segment(tokens: Sequence[int], *, version: int = 0, temperature: float = 1.0, logprob: float = -2.0) -> Segment:
    """Of the policy."""
    return Segment(
        source=TokenSource.POLICY, tokens=tuple(tokens), logprobs=(logprob,) * len(tokens),
        policy_version=version, temperature=temperature, ending=Ending.STOP,
    )  # fmt: skip


def read(source: TokenSource, tokens: Sequence[int]) -> Segment:
    return Segment(source=source, tokens=tuple(tokens))


def member(
    group: str,
    number: int,
    segments: Sequence[Segment],
    *,
    reward: float | None,
    status: Status = Status.OK,
    components: dict[str, float] | None = None,
    family: str = "math",
) -> Trajectory:
    """`reward` None: the status is one that does not count."""
    return Trajectory(
        id=f"{group}/{number}", group=group, member=number, task=task(group, family), segments=tuple(segments),
        status=status, outcome=Outcome(status=status, reward=reward, components=components or {}), turns=1,
    )  # fmt: skip


def task(group: str, family: str = "math") -> Task:
    return Task(id=group, family=family, environment="arithmetic@1")


def group_of(members: Sequence[Trajectory]) -> Group:
    return Group(id=members[0].group, task=members[0].task, trajectories=tuple(members))


def random_groups(
    seed: int,
    *,
    groups: int,
    members: int,
    vocabulary: int,
    versions: Sequence[int] = (0,),
    temperatures: Sequence[float] = (1.0, 0.7),
    failures: float = 0.0,
) -> list[Group]:
    """Prompts of 1 to 6 tokens, one to three turns of 1 to 12 tokens with 0 to 5 of the environment's between; rewards 0, 0.5 and 1."""
    draw = random.Random(seed)

    def tokens(low: int, high: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(draw.randint(low, high))]

    found = []
    for number in range(groups):
        name, prompt = f"g{number:07d}", tokens(1, 6)
        trajectories = []
        for index in range(members):
            segments = [read(TokenSource.PROMPT, prompt)]
            for turn in range(draw.randint(1, 3)):
                if turn:
                    segments.append(read(TokenSource.ENVIRONMENT, tokens(0, 5)))
                segments.append(
                    segment(
                        tokens(1, 12), version=draw.choice(versions), temperature=draw.choice(temperatures),
                        logprob=-draw.uniform(0.5, 6.0),
                    )
                )  # fmt: skip
            failed = draw.random() < failures
            trajectories.append(
                member(
                    name, index, segments, reward=None if failed else draw.choice((0.0, 0.5, 1.0)),
                    status=draw.choice((Status.REWARD_ERROR, Status.ENVIRONMENT_TIMEOUT)) if failed else Status.OK,
                )
            )  # fmt: skip
        found.append(group_of(trajectories))
    return found
