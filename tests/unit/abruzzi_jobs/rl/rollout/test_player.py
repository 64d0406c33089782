"""One trajectory: what goes through it are tokens, whatever cuts it in pieces changes none of them, and each way to end has a name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rollout_lab import Adding, ScriptedEngine, ScriptedFront, adding_policy, adding_task, begun

from abruzzi.contracts.rollout import Ending, Segment, Status, Task, TokenSource, Trajectory
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.played import Played
from abruzzi_jobs.rl.rollout.player import Limits, Player, Terms, member_seed
from abruzzi_jobs.sft.template import ChatTemplate

TERMS = Terms(temperature=0.8)
LIMITS = Limits(budget_tokens=4000, positions=100_000, step_s=240.0, reset_s=240.0)


class Table:
    """Everything that a player needs, and the sessions that it opened."""

    def __init__(self, template: ChatTemplate, *, wrong: float = 0.1) -> None:
        self.template = template
        middle = template.tokenizer.token_to_id(template.markers.middle)
        self.engine = ScriptedEngine(adding_policy(template, wrong=wrong), opening_ends_with=middle)
        self.front = ScriptedFront(self.engine)
        self.sessions: list[Adding] = []
        self.make: Callable[[], Adding] = Adding

    def player(self, task: Task | None = None, *, of: Trajectory | None = None, limits: Limits = LIMITS) -> Player:
        trajectory = of if of is not None else begun(task or adding_task())
        seed = member_seed(1, trajectory.task, begun=0, member=trajectory.member)
        return Player(
            trajectory,
            seed=seed,
            limits=limits,
            dialogue=Dialogue(self.template),
            make=self._session,
            generate=self.front.generate,
        )

    def _session(self, task: Task) -> Adding:
        self.sessions.append(self.make())
        return self.sessions[-1]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(240):
            while not condition():
                await asyncio.sleep(0)


@pytest.fixture
def table(template: ChatTemplate) -> Table:
    return Table(template)


def drawn(played: Played) -> list[tuple[int, float]]:
    policy = [s for s in played.trajectory.segments if s.source is TokenSource.POLICY]
    return [pair for s in policy for pair in zip(s.tokens, s.logprobs, strict=True)]


async def test_a_dialogue_is_played_to_its_end_as_tokens(table: Table) -> None:
    player = table.player()
    played = await player.play(TERMS)
    await player.release()
    trajectory = played.trajectory
    assert trajectory.status is Status.OK
    assert played.state["sum"] >= 12
    sources = [segment.source for segment in trajectory.segments]
    assert sources[0] is TokenSource.PROMPT
    assert sources[1:] == [TokenSource.POLICY, TokenSource.ENVIRONMENT] * (trajectory.turns - 1) + [TokenSource.POLICY]
    assert table.sessions[0].log == ["reset", *["step"] * trajectory.turns, "state", "close"]
    _, messages = table.template.read(trajectory.tokens)
    assert messages == list(played.messages[: len(messages)]), "tokens and messages are the same dialogue"
    for request, later in zip(table.engine.requests, table.engine.requests[1:], strict=False):
        assert later.tokens[: len(request.tokens)] == request.tokens, "a prompt only grows"
    assert Played.model_validate_json(played.model_dump_json()) == played


@pytest.mark.parametrize("seed", range(8))
async def test_pausing_anywhere_changes_nothing_also_where_the_session_is_lost(table: Table, seed: int) -> None:
    """Invariant 3, end to end: tokens, log-probabilities, messages and state are those of a trajectory that nobody interrupted."""
    rng = random.Random(seed)
    task = adding_task(seed, target=rng.randint(8, 30))
    whole_player = table.player(task)
    whole = await whole_player.play(TERMS)
    await whole_player.release()
    player, pieces = table.player(task), 0
    while True:
        cap = rng.choice((None, 1, 7, 40)) if pieces else 1
        playing = asyncio.create_task(player.play(replace(TERMS, cap_tokens=cap)))
        for _ in range(rng.randint(0, 60)):
            await asyncio.sleep(0)
        if rng.random() < 0.7:
            player.pause()
            await (table.front.pause("abort") if rng.random() < 0.5 else table.front.cancel(player.begun.id))
        async with asyncio.timeout(240):
            played = await playing
        await table.front.resume()
        pieces += 1
        if played.trajectory.status is not Status.PARTIAL:
            break
        kept = Played.model_validate_json(played.model_dump_json())
        if rng.random() < 0.5:
            await player.release()
        if rng.random() < 0.5:
            await player.release()
            player = table.player(of=kept.trajectory)
    await player.release()
    assert pieces > 1
    assert played.trajectory.tokens == whole.trajectory.tokens
    assert drawn(played) == drawn(whole)
    assert (played.messages, played.state) == (whole.messages, whole.state)
    assert (played.trajectory.status, played.trajectory.turns) == (whole.trajectory.status, whole.trajectory.turns)
    assert all(session.log.count("close") == 1 for session in table.sessions)


async def test_a_pause_does_not_wait_for_the_environment_and_finds_its_answer_later(table: Table) -> None:
    hold = asyncio.Event()
    table.make = lambda: Adding(hold=hold)
    player = table.player(adding_task(target=1))
    playing = asyncio.create_task(player.play(TERMS))
    await table.until(lambda: table.sessions and "step" in table.sessions[0].log)
    player.pause()
    stood = await playing
    assert stood.trajectory.status is Status.PARTIAL
    assert stood.trajectory.segments[-1].ending is Ending.STOP
    assert player.is_held
    hold.set()
    assert (await player.play(TERMS)).trajectory.status is not Status.ENVIRONMENT_ERROR
    assert table.sessions[0].log[:2] == ["reset", "step"]
    assert table.sessions[0].log.count("step") == table.sessions[0].turns, (
        "the step that was under way is not done again"
    )
    await player.release()


async def test_a_pause_before_the_first_step_counts(table: Table) -> None:
    player = table.player()
    playing = player.play(TERMS)
    player.pause()
    played = await playing
    assert played.trajectory.status is Status.PARTIAL
    assert not table.engine.requests
    await player.release()


@pytest.mark.parametrize(
    ("limits", "task", "status", "is_counted"),
    [
        ({"budget_tokens": 30}, adding_task(target=10**6), Status.BUDGET, True),
        ({"positions": 700}, adding_task(target=10**6), Status.CONTEXT, False),
        ({"turns": 3}, adding_task(target=10**6), Status.TURNS, True),
        ({}, adding_task(target=10**6, turns=3), Status.TURNS, True),
    ],
)
async def test_each_limit_has_its_status(
    table: Table, limits: dict[str, Any], task: Task, status: Status, is_counted: bool
) -> None:
    player = table.player(task, limits=replace(LIMITS, **limits))
    played = await player.play(TERMS)
    trajectory = played.trajectory
    assert trajectory.status is status
    assert trajectory.policy_tokens <= limits.get("budget_tokens", 4000)
    assert len(trajectory.tokens) <= limits.get("positions", 100_000)
    assert (trajectory.outcome is None) == is_counted
    assert bool(played.state) == is_counted
    if status is Status.BUDGET:
        assert trajectory.policy_tokens == 30
        assert trajectory.segments[-1].ending is Ending.LENGTH
        assert trajectory.segments[-1].tokens[-1] != table.template.end, "no end is appended"
    await player.release()


async def test_tokens_of_an_iteration_end_a_dispatch_and_not_the_trajectory(table: Table) -> None:
    player, dispatches = table.player(), 0
    while (played := await player.play(replace(TERMS, cap_tokens=10))).trajectory.status is Status.PARTIAL:
        dispatches += 1
        assert player.is_capped
        assert played.trajectory.policy_tokens == 10 * dispatches
        assert len(table.sessions) == 1
    assert not player.is_capped
    assert played.trajectory.status is Status.OK
    await player.release()


@pytest.mark.parametrize("method", ["reset", "step", "state"])
async def test_what_an_environment_raises_is_an_error_and_never_a_zero(table: Table, method: str) -> None:
    table.make = lambda: Adding(raises={method: RuntimeError("no such file")})
    player = table.player()
    played = await player.play(TERMS)
    assert played.trajectory.status is Status.ENVIRONMENT_ERROR
    assert played.trajectory.outcome is not None
    assert played.trajectory.outcome.reward is None
    assert played.trajectory.outcome.detail == "RuntimeError: no such file"
    await player.release()
    assert table.sessions[0].log[-1] == "close"


async def test_an_environment_that_does_not_answer_is_left(table: Table) -> None:
    table.make = lambda: Adding(hold=asyncio.Event())
    player = table.player(limits=replace(LIMITS, step_s=0.01))
    played = await player.play(TERMS)
    assert played.trajectory.status is Status.ENVIRONMENT_TIMEOUT
    assert played.trajectory.turns == 1, "what was said before it is kept"
    await player.release()


async def test_an_environment_that_answers_otherwise_when_played_again_is_an_error_that_says_what_to_do(
    table: Table,
) -> None:
    player = table.player(adding_task(target=1000))
    played = await player.play(replace(TERMS, cap_tokens=200))
    await player.release()
    table.make = lambda: Adding(sum=1)
    again = await table.player(of=played.trajectory).play(TERMS)
    assert again.trajectory.status is Status.ENVIRONMENT_ERROR
    assert again.trajectory.tokens == played.trajectory.tokens
    assert "longer lease" in again.trajectory.outcome.detail


async def test_an_engine_that_fails_may_be_tried_again_from_the_same_tokens(table: Table) -> None:
    whole = await table.player(adding_task(5)).play(TERMS)
    player = table.player(adding_task(5))
    first = await player.play(replace(TERMS, cap_tokens=20))
    table.front.failures = 1
    failed = await player.play(TERMS)
    assert failed.trajectory.status is Status.ENGINE_ERROR
    assert failed.trajectory.outcome.detail == "ConnectionError: the engine is gone"
    assert failed.trajectory.tokens == first.trajectory.tokens
    assert (await player.play(TERMS)).trajectory.tokens == whole.trajectory.tokens
    assert len(table.sessions) == 2


async def test_a_turn_that_follows_no_template_reaches_the_environment_by_name(template: ChatTemplate) -> None:
    table = Table(template, wrong=1.0)
    seen: list[str] = []

    class Listening(Adding):
        async def step(self, action: dict[str, Any]) -> Any:
            seen.append(action.get("malformed", "fine"))
            assert "Step" in action["content"]
            return await super().step(action)

    table.make = Listening
    player = table.player(adding_task(target=1, turns=12))
    played = await player.play(TERMS)
    assert played.trajectory.status is Status.TURNS
    assert set(seen) == {"fine", "misplaced_marker"}
    await player.release()


async def test_a_policy_that_ends_the_text_instead_of_its_turn_has_ended(template: ChatTemplate) -> None:
    table = Table(template)
    table.engine._speak = lambda prompt, seed: [*template.tokenizer.encode("Done.").ids, template.end_of_text]
    player = table.player(adding_task(target=100))
    played = await player.play(TERMS)
    assert played.trajectory.status is Status.OK
    assert played.messages[1] == {"role": "assistant", "content": "Done."}
    assert played.trajectory.segments[-1].tokens[-1] == template.end_of_text
    await player.release()


def test_members_of_a_group_draw_differently_and_the_same_ones_always_the_same() -> None:
    task = adding_task()
    seeds = {member_seed(1, task, begun=b, member=m) for b in range(3) for m in range(4)}
    assert len(seeds) == 12
    assert member_seed(1, task, begun=0, member=0) == 6984246406020904812


def test_a_segment_of_the_policy_is_of_one_version() -> None:
    with pytest.raises(ValueError, match="policy_version"):
        Segment(source=TokenSource.POLICY, tokens=(1,), logprobs=(-0.5,), temperature=1.0, ending=Ending.STOP)
