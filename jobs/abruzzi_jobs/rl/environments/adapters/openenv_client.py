"""Environments that others serve on OpenEnv's wire, and ours where they are served so: a Gym whose sessions are connections.

Where a service says that its sessions can be replayed (ours do), one that dies costs no trajectory: the session waits for it to come back, and what was said
is said again; every answer must be the same.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import aiohttp
from pydantic import Field, StrictFloat, StrictInt, StrictStr

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Outcome, Status, Task, Trajectory
from abruzzi.contracts.training import Strict
from abruzzi_jobs.rl.environments.answers import as_user, scored
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym
from abruzzi_jobs.sft.conversation import arguments_object, read_tools

_MESSAGE_BYTES = 16 << 20
_RETRY_SECONDS = 0.1


class OpenEnvOptions(Strict):
    url: StrictStr = "http://127.0.0.1:8000"
    """`/ws` is added."""
    system: StrictStr = ""
    """What the policy is told about an environment that does not speak in messages."""
    action: StrictStr = "message"
    """The action's field that takes the policy's text; empty, the text is the action, as JSON. Ours take messages whole."""
    observation: StrictStr = ""
    """The observation's field that is shown; empty, all of it, as JSON."""
    turns: StrictInt = Field(default=100, ge=1)
    patience_seconds: StrictFloat = Field(default=60.0, ge=0.0)
    """For a service that is gone to come back, where its sessions can be replayed."""


class OpenEnv(Gym):
    name = "openenv"
    summary = "An environment that is served on OpenEnv's wire, by whomever; the reward is the sum of its rewards."
    families = ("served",)
    replays = False
    Options = OpenEnvOptions

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        return {"seed": draw.getrandbits(31)}

    def session(self, services: Services = Services()) -> Environment:
        return OpenEnvSession(self.options, self)

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        """What the service said of the end, where it is ours; otherwise the sum of its rewards. One that gave none has no reward."""
        if (said := state.get("outcome")) is not None:
            return Outcome.model_validate(said)
        rewards = [float(reward) for reward in state["rewards"] if reward is not None]
        if not rewards:
            return Outcome(status=Status.REWARD_ERROR, version=self.reference, detail="the service gave no reward")
        return scored(self.reference, sum(rewards), steps=float(len(state["rewards"])))


class OpenEnvSession:
    """One connection at a time: opened by `reset`, closed by `close`."""

    def __init__(self, options: Any, gym: Gym) -> None:
        self._options, self._gym = options, gym
        self._http: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._rewards: list[float | None] = []
        self._outcome: dict[str, Any] | None = None
        self._speaks_messages = self._replays = self._is_begun = False
        self._said: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        """(kind, data, answer) since the last reset."""

    async def reset(self, task: Task, seed: int) -> Observation:
        self._rewards, self._outcome, self._said = [], None, []
        self._is_begun, self._replays = True, True  # nothing has been said yet that a service could have lost
        split = "held_out" if self._gym.is_held_out(task.data) else "train"
        begin = await self.ask("reset", {"seed": task.data["seed"], "split": split})
        observed = begin["observation"]
        self._replays = bool((observed.get("metadata") or {}).get("replays"))
        self._speaks_messages = isinstance(observed.get("messages"), list)
        if self._speaks_messages:
            return Observation(messages=tuple(observed["messages"]), tools=read_tools(observed.get("tools") or ()))
        return Observation(messages=as_user(self._shown(observed), system=self._options.system))

    async def step(self, action: Message) -> StepResult:
        found = await self.ask("step", self._action(action))
        self._rewards.append(found.get("reward"))
        done = bool(found.get("done"))
        told = found.get("metadata") or {}
        self._outcome = told.get("outcome") if isinstance(told.get("outcome"), dict) else None
        if self._speaks_messages:
            messages = tuple(found["observation"]["messages"])
        else:
            messages = () if done else as_user(self._shown(found["observation"]))
        cut = bool(told.get("truncated")) if done else len(self._rewards) >= self._options.turns
        return StepResult(observation=Observation(messages=messages), terminated=done and not cut, truncated=cut)

    async def state(self) -> dict[str, Any]:
        return {"rewards": self._rewards, "outcome": self._outcome}

    async def close(self) -> None:
        self._is_begun = False
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._ws is not None:
            await self._ws.close()
            self._ws = None
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """Raises AbruzziError with the service's own words, `environment_gone` where it does not come back, `environment_differs` where it comes back as
        another."""
        if not self._is_begun:
            raise RuntimeError("a session has to be reset before it is used")
        try:
            answer = await self._asked(kind, data)
        except _Gone:
            if not self._replays:
                raise
            answer = await self._resumed(kind, data)
        self._said.append((kind, data, answer))
        return answer

    async def _asked(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        ws = self._ws or await self._connect()
        try:
            await ws.send_str(json.dumps({"type": kind, "data": data}))
            said = await ws.receive_json()
        except (aiohttp.ClientError, TypeError, ConnectionError) as error:
            raise _Gone("environment_gone", f"The service broke off: {error}", status=503) from error
        if said["type"] == "error":
            raise AbruzziError("environment_error", f"{said['data'].get('code')}: {said['data'].get('message')}")
        return said["data"]

    async def _resumed(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """The answer of a service that has come back. It may go again at any time."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._options.patience_seconds
        while True:
            await self._disconnect()
            try:
                for earlier, given, answer in self._said:
                    if (now := await self._asked(earlier, given)) != answer:
                        told = f"After it had gone, {self._options.url} answered {earlier!r} with something else than before."
                        raise AbruzziError("environment_differs", told, hint=f"Then: {answer}. Now: {now}.")
                return await self._asked(kind, data)
            except _Gone:
                if clock() > end:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        self._http = aiohttp.ClientSession()
        url = f"{self._options.url.rstrip('/')}/ws"
        try:
            self._ws = await self._http.ws_connect(url, max_msg_size=_MESSAGE_BYTES, compress=0)
        except aiohttp.ClientError as error:
            await self._disconnect()
            raise _Gone("environment_unreachable", f"{url}: {error}", status=503) from error
        return self._ws

    def _action(self, message: Message) -> dict[str, Any]:
        text = str(message.get("content") or "")
        if self._speaks_messages:
            return {"content": text, "tool_calls": list(message.get("tool_calls") or ())}
        if self._options.action:
            return {self._options.action: text}
        return arguments_object(text) or {}

    def _shown(self, observed: dict[str, Any]) -> str:
        found = observed.get(self._options.observation, "") if self._options.observation else observed
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


class _Gone(AbruzziError):
    """No connection, or it broke."""
