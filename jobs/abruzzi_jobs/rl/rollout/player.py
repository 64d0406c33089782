"""One trajectory: engine x environment x chat template, as a coroutine. Tokens in, tokens out: what was read or drawn is never encoded again.

The whole state is the list of segments, plus the environment's session; what comes next follows from the last segment. So a paused trajectory goes on
from its segments (partial rollout, paper 3.3.4), in the session that was held, or, where that is gone (its lease was over, the process died), in a new one
in which its actions are played again and every observation must be the same, token for token.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Ending, Outcome, Segment, Status, Task, TokenSource, Trajectory
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, StepResult
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.played import Played
from abruzzi_jobs.sft.conversation import Malformed, read_tools

T = TypeVar("T")
Generate = Callable[[Request], Awaitable[Segment]]
"""Of an engine: the next segment of a sequence. `paused` and `aborted` ones may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    budget_tokens: int
    """The policy's, of the whole trajectory: the task family's budget (paper 3.2.3)."""
    positions: int
    """The model's, prompt and observations included."""
    turns: int = 128
    reset_s: float = 120.0
    step_s: float = 120.0
    close_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Of one dispatch."""

    temperature: float
    cap_tokens: int | None = None
    """The policy's in this iteration; None: no cap but the budget."""


def member_seed(stage_seed: int, task: Task, *, begun: int, member: int) -> int:
    """63 bits. `begun`: a number of the group, so that a task that is drawn again is answered differently."""
    return _seed_of(f"{stage_seed} {task.environment} {task.id} {begun} {member}")


def _seed_of(told: str) -> int:
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big") >> 1


class _Stands(Exception):
    """Paused, or out of this dispatch's tokens."""


class _Over(Exception):
    def __init__(self, status: Status, detail: str = "") -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Player:
    """`begun`: the trajectory as another process left it, or without segments. `make`: a new session of the task's environment.

    What the environment does (a session opened, a step) goes on while the trajectory is paused. Close it with `release`, also after its end.
    """

    def __init__(
        self,
        begun: Trajectory,
        *,
        seed: int,
        limits: Limits,
        dialogue: Dialogue,
        make: Callable[[Task], Environment],
        generate: Generate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.begun = begun
        self.is_capped = False
        """Whether it stands because the dispatch's tokens are used up."""
        self.engine_s = self.environment_s = 0.0
        """Waited for either, so far."""
        self._segments = list(begun.segments)
        self._seed, self._limits, self._dialogue = seed, limits, dialogue
        self._make, self._generate, self._clock = make, generate, clock
        self._session: Environment | None = None
        self._is_open = False
        self._work: asyncio.Task[Any] | None = None
        self._messages: list[Message] = []
        self._heard: list[Message] = []
        """Of them, since the history began or was begun anew."""
        self._tools: tuple[dict[str, Any], ...] = ()
        self._turns = 0
        self._asked = asyncio.Event()

    # From outside

    @property
    def is_held(self) -> bool:
        """Whether a session of its environment is open."""
        return self._session is not None

    @property
    def drawn(self) -> int:
        """Tokens of the policy so far."""
        return sum(len(segment.tokens) for segment in self._segments if segment.source is TokenSource.POLICY)

    def so_far(self) -> Played:
        return self._played(Status.PARTIAL)

    def pause(self) -> None:
        """It stands soon: at once where the environment is at work, else when the engine gives back the request that it waits for."""
        self._asked.set()

    def play(self, terms: Terms) -> Coroutine[Any, Any, Played]:
        """To its end, or until it stands (`partial`). One at a time; a `pause` from now on counts."""
        self._asked.clear()
        return self._play(terms)

    async def release(self) -> None:
        """Closes the session, once. The next `play` opens another and plays the actions again. Raises what the environment raises."""
        work, self._work = self._work, None
        session, self._session = self._session, None
        self._is_open = False
        if work is not None:
            work.cancel()
            await asyncio.wait({work}, timeout=self._limits.close_s)
        if session is not None:
            closing = asyncio.ensure_future(session.close())
            done, _ = await asyncio.wait({closing}, timeout=self._limits.close_s)
            if not done:
                closing.cancel()
                raise TimeoutError(f"{self.begun.task.environment} has not closed within {self._limits.close_s:g} s")
            closing.result()

    # What comes next

    async def _play(self, terms: Terms) -> Played:
        self.is_capped = False
        drawn_before = self.drawn
        try:
            if not self._is_open:
                await self._environment(self._open)
                self._is_open = True
            while True:
                last = self._segments[-1]
                if last.source is TokenSource.POLICY and last.ending is Ending.STOP:
                    await self._act()
                elif self._asked.is_set():
                    raise _Stands
                else:
                    await self._speak(terms, drawn_before)
        except _Stands:
            return self._played(Status.PARTIAL)
        except _Over as over:
            return await self._ended(over)

    async def _speak(self, terms: Terms, drawn_before: int) -> None:
        drawn, tokens = self.drawn, tuple(token for segment in self._sequence() for token in segment.tokens)
        if drawn >= self._limits.budget_tokens:
            raise _Over(Status.BUDGET)
        if len(tokens) >= self._limits.positions:
            raise _Over(Status.CONTEXT)
        room = min(self._limits.budget_tokens - drawn, self._limits.positions - len(tokens))
        cap = room if terms.cap_tokens is None else terms.cap_tokens - (drawn - drawn_before)
        if cap <= 0:
            self.is_capped = True
            raise _Stands
        try:
            constraint = self._dialogue.constraint(self._segments, self._heard, self._tools)
        except AbruzziError as error:
            raise _Over(Status.ENVIRONMENT_ERROR, f"{error.message} {error.hint}") from error
        segment = await self._from_engine(
            Request(
                id=self.begun.id,
                tokens=tokens,
                max_tokens=min(room, cap),
                temperature=terms.temperature,
                seed=self._sequence_seed(),
                stop_tokens=self._dialogue.stop_tokens,
                group=self.begun.group,
                constraint=constraint,
            )
        )
        ending = segment.ending
        if ending is Ending.LENGTH and cap < room:
            # Cut by this dispatch's cap, by no limit of the trajectory.
            segment = segment.model_copy(update={"ending": Ending.PAUSED})
        if segment.tokens:
            self._segments.append(segment)
        if ending is Ending.STOP:
            self._turns += 1
        if ending is Ending.ABORTED and not self._asked.is_set():
            raise _Over(Status.ENGINE_ERROR, "The engine gave the request up.")
        if ending in (Ending.PAUSED, Ending.ABORTED):
            raise _Stands

    async def _from_engine(self, request: Request) -> Segment:
        began = self._clock()
        try:
            return await self._generate(request)
        except Exception as error:
            raise _Over(Status.ENGINE_ERROR, _told(error)) from error
        finally:
            self.engine_s += self._clock() - began

    async def _act(self) -> None:
        """The environment's answer to the turn that has just ended."""
        turn = self._dialogue.turn(self._segments, self._heard)
        result, segment = await self._environment(lambda: self._step(turn.message))
        self._hear(turn.message, result.observation)
        if result.terminated:
            raise _Over(Status.OK)
        if result.truncated or self._turns >= self._limits.turns:
            raise _Over(Status.TURNS)
        if turn.is_last:
            # It closed the text, not the turn: nothing can follow.
            raise _Over(Status.OK)
        before = 0 if segment.source is TokenSource.PROMPT else self._length()
        if before + len(segment.tokens) >= self._limits.positions:
            raise _Over(Status.CONTEXT, "The environment's answer leaves no room to speak.")
        self._segments.append(segment)

    # The environment

    async def _open(self) -> None:
        """A session as it was when the last segment ended."""
        try:
            self._session = session = self._make(self.begun.task)
        except Exception as error:
            raise _Over(Status.ENVIRONMENT_ERROR, _told(error)) from error
        task = self.begun.task
        first = await self._called(session.reset(task, task.seed), self._limits.reset_s)
        prompt, messages = self._read(lambda: self._dialogue.prompt(first))
        self._tools = self._read(lambda: read_tools(first.tools))
        self._messages, self._heard = messages, list(messages)
        recorded = self._segments or [prompt]
        turns = 0
        self._same(prompt, recorded[0], turns)
        for number, segment in enumerate(recorded):
            if number and segment.source is not TokenSource.POLICY:
                turn = self._dialogue.turn(recorded[:number], self._heard)
                result, observed = await self._step(turn.message)
                self._hear(turn.message, result.observation)
                self._same(observed, segment, turns)
            turns += segment.ending is Ending.STOP
        self._segments, self._turns = recorded, turns

    def _hear(self, said: Message, observation: Observation) -> None:
        """The policy's message, and what follows it."""
        self._messages += [said, *observation.messages]
        if observation.restarts:
            self._heard = list(observation.messages)
            self._tools = self._read(lambda: read_tools(observation.tools))
        else:
            self._heard += [said, *observation.messages]

    async def _step(self, message: Message) -> tuple[StepResult, Segment]:
        assert self._session is not None
        result = await self._called(self._session.step(message), self._limits.step_s)
        return result, self._read(lambda: self._dialogue.observed(result.observation))

    def _same(self, now: Segment, then: Segment, turns: int) -> None:
        if now.tokens != then.tokens:
            raise _Over(
                Status.ENVIRONMENT_ERROR,
                f"Played again, {self.begun.task.environment} answered something else after {turns} turns than at first. Give its "
                "sessions a longer lease, or let the task's seed decide all that it does.",
            )

    def _read(self, reading: Callable[[], T]) -> T:
        try:
            return reading()
        except Malformed as error:
            told = f"{self.begun.task.environment}: its observation is no chat: {error}. {error.hint}"
            raise _Over(Status.ENVIRONMENT_ERROR, told) from error

    async def _called(self, call: Coroutine[Any, Any, T], seconds: float) -> T:
        """A method of the environment; one that does not answer is left to itself."""
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                task.cancel()
        if not task.done() or task.cancelled():
            name = self.begun.task.environment
            raise _Over(Status.ENVIRONMENT_TIMEOUT, f"{name} has not answered within {seconds:g} s.")
        if (error := task.exception()) is not None:
            raise _Over(Status.ENVIRONMENT_ERROR, _told(error)) from error
        return task.result()

    async def _environment(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What it is doing already, or `work`; a pause does not wait for it, but finds it again."""
        if self._work is None:
            self._work = asyncio.create_task(work())
        asked = asyncio.create_task(self._asked.wait())
        began = self._clock()
        try:
            await asyncio.wait({self._work, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            self.environment_s += self._clock() - began
        if not self._work.done():
            raise _Stands
        done, self._work = self._work, None
        return done.result()

    # Ends

    async def _ended(self, over: _Over) -> Played:
        state: dict[str, Any] = {}
        if over.status.counted and self._session is not None:
            try:
                state = await self._called(self._session.state(), self._limits.step_s)
            except _Over as failed:
                over = failed
        return self._played(over.status, state=state, detail=over.detail)

    def _played(self, status: Status, *, state: dict[str, Any] | None = None, detail: str = "") -> Played:
        is_error = status is not Status.PARTIAL and not status.counted
        changed = {
            "segments": tuple(self._segments),
            "status": status,
            "outcome": Outcome(status=status, detail=detail) if is_error else None,
            "turns": self._turns,
        }
        return Played(
            trajectory=self.begun.model_copy(update=changed), messages=tuple(self._messages), state=state or {}
        )

    def _length(self) -> int:
        return sum(len(segment.tokens) for segment in self._sequence())

    def _sequence(self) -> list[Segment]:
        """What the policy has before it: from the last prompt on."""
        begin = max(i for i, segment in enumerate(self._segments) if segment.source is TokenSource.PROMPT)
        return self._segments[begin:]

    def _sequence_seed(self) -> int:
        """A draw is of (seed, position): sequences of one trajectory begin at like positions and must not draw alike."""
        begun_anew = sum(segment.source is TokenSource.PROMPT for segment in self._segments) - 1
        return self._seed if begun_anew == 0 else _seed_of(f"{self._seed} {begun_anew}")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
