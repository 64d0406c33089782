"""Tool use in the worlds of agentic synthesis: an application with state, a user with a wish, a rubric of clauses (paper 3.1.1 and 3.2.1).

Tasks are drawn with a plan that solves them. The reward is the rubric's, by programs alone; what does not meet it earns up to half by the clauses that
doing nothing would not have met, and nothing where it did harm.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import Field, StrictInt

from abruzzi.contracts import agent as agents
from abruzzi.contracts.agent import AgentSpec, CallRecord, Change, WorldGround
from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi.contracts.tool import ToolSpec
from abruzzi.contracts.training import Strict
from abruzzi_jobs.chat.request import ToolCall
from abruzzi_jobs.rl.environments.answers import scored
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym
from abruzzi_jobs.synthesis.agents import make_agents
from abruzzi_jobs.synthesis.evolution import evolve
from abruzzi_jobs.synthesis.evolution.tools_of import tools_of
from abruzzi_jobs.synthesis.judge import KEPT, Played, checks, judged
from abruzzi_jobs.synthesis.players.scripted import ScriptedAgent
from abruzzi_jobs.synthesis.tasks.make import draw_task
from abruzzi_jobs.synthesis.tasks.proof import catalogue_of
from abruzzi_jobs.synthesis.trajectories.play import told
from abruzzi_jobs.synthesis.trajectories.toolbox import Slip, Toolbox
from abruzzi_jobs.synthesis.user import STOP, scripted_reply
from abruzzi_jobs.synthesis.world import World

CALLS_AT_MOST = 8
"""Of one message."""
_PARTIAL = 0.5


class ToolOptions(Strict):
    tools: StrictInt = Field(default=6, ge=1, le=24)
    """That an agent has, at most. With fewer than four its system prompt is short, too."""
    turns: StrictInt = Field(default=12, ge=1, le=64)


class Tools(Gym):
    name = "tools"
    summary = "A user's wish in a synthetic application with state: call tools, ask what is missing, report; judged by the state and the rubric."
    families = ("simple", "moderate", "complex")
    Options = ToolOptions

    def draw(self, draw: random.Random, family: str) -> dict[str, Any] | None:
        source = draw.choice(sorted(applications()))
        tools = applications()[source]
        [agent] = make_agents(tools, 1, draw.getrandbits(31), tools_at_most=self.options.tools)
        difficulty: Any = family
        task = draw_task(agent, catalogue_of(tools), difficulty, draw.getrandbits(31))
        if task is None:
            return None
        data = {"agent": agent.model_dump(mode="json"), "task": task.model_dump(mode="json")}
        return {**data, "source": source, "turns": self.options.turns}

    def identity(self, data: Mapping[str, Any]) -> str:
        """Applications are held out whole: their tools were never seen."""
        return data["source"]

    def session(self, services: Services = Services()) -> Environment:
        return WorldSession()

    def solution(self, task: Task) -> tuple[Message, ...]:
        play = WorldPlay(task.data)
        try:
            agent = ScriptedAgent(play.task)
            while not play.is_over:
                play.act(_numbered(agent.reply(play.messages), play.calls))
            return tuple(play.messages[2:])
        finally:
            play.close()

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        task = agents.Task.model_validate(trajectory.task.data["task"])
        calls = [CallRecord.model_validate(call) for call in state["calls"]]
        played = Played(messages=messages, calls=calls, before=state["before"], after=state["after"])
        verdicts = {verdict.clause: verdict for verdict in checks(task, played)}
        idle = Played(messages=messages[:2], before=state["before"], after=state["before"])
        met_by_nothing = {verdict.clause for verdict in checks(task, idle) if verdict.passed}
        clauses = [clause for clause in task.rubric if clause.id in verdicts]
        work = [clause for clause in clauses if clause.id not in met_by_nothing]
        earned = sum(c.weight for c in work if verdicts[c.id].passed) / sum(c.weight for c in work)
        harm = any(c.mandatory and c.id in met_by_nothing and not verdicts[c.id].passed for c in clauses)
        judgement = judged(task, list(verdicts.values()))
        reward = judgement.score if judgement.fate == KEPT else 0.0 if harm else _PARTIAL * earned
        parts = {f"clause/{clause.id}": float(verdicts[clause.id].passed is True) for clause in clauses}
        detail = "; ".join(judgement.reasons)[:600]
        return scored(self.reference, reward, detail=detail, kept=float(judgement.fate == KEPT), earned=earned, **parts)


@cache
def applications() -> dict[str, tuple[ToolSpec, ...]]:
    """By source."""
    found = (tuple(tools_of(application)) for application in evolve(0))
    return {tools[0].source: tools for tools in found if tools}


class WorldPlay:
    """One conversation in one world, without any waiting: what the policy says, what the tools and the user answer."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.task = agents.Task.model_validate(data["task"])
        agent = AgentSpec.model_validate(data["agent"])
        ground = self.task.ground
        assert isinstance(ground, WorldGround)
        known = {tool.name: tool for tool in applications()[ground.source]}
        self.toolbox = Toolbox(known[tool.name] for tool in agent.tools)
        state = next(tool.simulation.state for tool in known.values() if tool.simulation)
        self._world = World(state, seed=ground.seed, rows_each=ground.rows_each)
        self.before = self._world.snapshot()
        self.calls: list[CallRecord] = []
        self.messages: list[Message] = [
            {"role": "system", "content": agent.system_prompt},
            {"role": "user", "content": self.task.instruction},
        ]
        self.is_over = False
        self.turns = 0
        self._heard = 0

    def act(self, message: Message) -> list[Message]:
        """What comes back."""
        self.turns += 1
        self.messages.append(message)
        calls = message.get("tool_calls") or ()
        answers = [self._call(index, call) for index, call in enumerate(calls)] if calls else self._hear()
        self.messages += answers
        return answers

    def _hear(self) -> list[Message]:
        """The scripted user: has what it wanted, goes on, or has had enough."""
        self._heard += 1
        said = scripted_reply(self.task, self.messages)
        self.is_over = said.endswith(STOP) or self._heard > self.task.persona.patience
        said = said.removesuffix(STOP).strip()
        return [{"role": "user", "content": said}] if said and not self.is_over else []

    def _call(self, index: int, call: Mapping[str, Any]) -> Message:
        function = call["function"]
        read: Any = Slip("too_many_calls", f"At most {CALLS_AT_MOST} calls at a time; this one was not made.")
        if index < CALLS_AT_MOST:
            read = self.toolbox.read(ToolCall(call["id"], function["name"], function["arguments"]))
        if isinstance(read, Slip):
            record: dict[str, Any] = {"source": "", "arguments": {}, "answer": read.answer(), "ok": False}
        else:
            tool, arguments = read
            done = self._world.call(tool, arguments)
            changes = tuple(Change(**change) for change in done.changes)
            record = {
                "source": tool.source,
                "arguments": arguments,
                "answer": done.answer,
                "ok": done.ok,
                "changes": changes,
            }
        self.calls.append(CallRecord(turn=self.turns, tool=function["name"], **record))
        return {"role": "tool", "tool_call_id": call["id"], "content": told(record["answer"])}

    def end(self) -> dict[str, Any]:
        return {
            "calls": [call.model_dump(mode="json") for call in self.calls],
            "before": self.before,
            "after": self._world.snapshot(),
        }

    def close(self) -> None:
        self._world.close()


class WorldSession:
    def __init__(self) -> None:
        self._play: WorldPlay | None = None
        self._turns = 0

    @property
    def play(self) -> WorldPlay:
        if self._play is None:
            raise RuntimeError("a session has to be reset before it is used")
        return self._play

    async def reset(self, task: Task, seed: int) -> Observation:
        await self.close()
        self._play, self._turns = WorldPlay(task.data), task.data["turns"]
        return Observation(messages=tuple(self._play.messages), tools=tuple(self._play.toolbox.described))

    async def step(self, action: Message) -> StepResult:
        answers = tuple(self.play.act(action))
        cut = not self.play.is_over and self.play.turns >= self._turns
        return StepResult(observation=Observation(messages=answers), terminated=self.play.is_over, truncated=cut)

    async def state(self) -> dict[str, Any]:
        return self.play.end()

    async def close(self) -> None:
        if self._play is not None:
            self._play.close()
            self._play = None


def _numbered(message: Message, made: Sequence[CallRecord]) -> Message:
    """With call ids as the chat template counts them."""
    calls = message.get("tool_calls") or ()
    named = [{**call, "id": f"functions.{call['function']['name']}:{len(made) + i}"} for i, call in enumerate(calls)]
    return {**message, "tool_calls": named} if named else message
