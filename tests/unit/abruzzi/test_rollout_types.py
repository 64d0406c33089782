"""Segments, trajectories and groups: what cannot be of a policy cannot be written, and errors never become zeros."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from abruzzi.contracts.rollout import Ending, Group, Outcome, Segment, Status, Task, TokenSource, Trajectory

TASK = Task(id="sum-1", family="math", environment="arithmetic@1")


def policy(tokens: tuple[int, ...], version: int, ending: Ending = Ending.STOP) -> Segment:
    return Segment(
        source=TokenSource.POLICY, tokens=tokens, logprobs=(-0.5,) * len(tokens), policy_version=version,
        temperature=1.0, ending=ending,
    )  # fmt: skip


def trajectory(member: int, outcome: Outcome | None, *segments: Segment) -> Trajectory:
    status = outcome.status if outcome else Status.PARTIAL
    return Trajectory(
        id=f"g/{member}", group="g", member=member, task=TASK, segments=segments, status=status, outcome=outcome
    )


def test_tokens_of_the_policy_have_a_log_probability_each_a_version_and_a_temperature_and_no_others_do() -> None:
    whole = policy((5, 6), 3).model_dump()
    for change in ({"logprobs": (-0.5,)}, {"policy_version": None}, {"temperature": None}, {"ending": None}):
        with pytest.raises(ValidationError):
            Segment.model_validate({**whole, **change})
    with pytest.raises(ValidationError, match="1 for 2 tokens"):
        Segment(source=TokenSource.ENVIRONMENT, tokens=(1, 2), logprobs=(-1.0,))
    assert Segment.model_validate_json(policy((5, 6), 3).model_dump_json()) == policy((5, 6), 3)


def test_a_resumed_trajectory_counts_all_its_policy_tokens_and_names_its_versions() -> None:
    seen = Segment(source=TokenSource.ENVIRONMENT, tokens=(9, 9, 9))
    whole = trajectory(0, None, policy((1, 2), 3, Ending.PAUSED), policy((4,), 4), seen, policy((5, 6, 7), 4))
    assert (whole.tokens, whole.policy_tokens, whole.versions) == ((1, 2, 4, 9, 9, 9, 5, 6, 7), 6, (3, 4))


def test_what_is_not_counted_has_no_reward_and_does_not_enter_the_mean() -> None:
    for status in Status:
        with pytest.raises(ValidationError, match="with status"):
            Outcome(status=status, reward=None if status.counted else 0.0)
    ended = [
        Outcome(status=Status.OK, reward=1.0),
        Outcome(status=Status.BUDGET, reward=-0.5),
        Outcome(status=Status.REWARD_TIMEOUT),
        None,
    ]
    group = Group(id="g", task=TASK, trajectories=tuple(trajectory(n, o) for n, o in enumerate(ended)))
    assert ([t.member for t in group.counted], group.mean_reward) == ([0, 1], 0.25)
    assert Group(id="g", task=TASK, trajectories=()).mean_reward is None
    with pytest.raises(ValidationError, match="of another group"):
        Group(id="h", task=TASK, trajectories=group.trajectories)
