"""Our environments on OpenEnv's wire (0.10): a WebSocket `/ws` with one session a connection; JSON messages {"type": reset | step | state | close, "data"}.

    reset: {"seed", "index", "split", "family", "episode_id"}, or {"task": a whole Task}  → observation {"messages", "tools"}
    step:  {"content", "tool_calls"}, a message of the policy without its role               → observation {"messages"}; at the end `done` and `reward`
    state: what the reward looks at, with `episode_id` and `step_count`

Heavy environments run so, as services of their own; so do trainers of others use ours.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import WSMsgType, web
from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Segment, Status, Task, TokenSource, Trajectory
from abruzzi_jobs.rl.environments.environment import Message, Observation, Services
from abruzzi_jobs.rl.environments.gym import Gym
from abruzzi_jobs.rl.rewards import RewardPool

_MESSAGE_BYTES = 16 << 20
_NO_TOKENS = Segment(source=TokenSource.PROMPT, tokens=())
"""The wire knows no tokens; a reward that looks at them finds none."""


class OpenEnvServer:
    """`pool` computes rewards at the end of an episode; without one the reward is null, as OpenEnv allows."""

    def __init__(
        self, gym: Gym, *, pool: RewardPool | None = None, services: Services = Services(), max_sessions: int = 4096
    ) -> None:
        self.gym, self.sessions = gym, 0
        self._pool, self._services, self._most = pool, services, max_sessions

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/ws", self._ws)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metadata", self._metadata)
        return app

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """The address, for as long as the block lasts."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=self._most)
            await site.start()
            yield f"http://{host}:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def _metadata(self, request: web.Request) -> web.Response:
        told = {"name": self.gym.name, "description": self.gym.summary, "version": str(self.gym.version)}
        return web.json_response(told)

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=_MESSAGE_BYTES, compress=False)
        await ws.prepare(request)
        if self.sessions >= self._most:
            full = {"active_sessions": self.sessions, "max_sessions": self._most}
            await ws.send_str(_error("CAPACITY_REACHED", f"{self._most} sessions are open.", **full))
            await ws.close()
            return ws
        self.sessions += 1
        episode = _Episode(self.gym, self._pool, self._services)
        try:
            async for said in ws:
                if said.type is not WSMsgType.TEXT:
                    break
                answer = await episode.answer(said.data)
                if answer is None:
                    break
                await ws.send_str(answer)
        except ConnectionResetError:  # the client is gone: its session ends below
            pass
        finally:
            self.sessions -= 1
            await episode.close()
            with suppress(ConnectionResetError):
                await ws.close()
        return ws


class _Episode:
    """One connection."""

    def __init__(self, gym: Gym, pool: RewardPool | None, services: Services) -> None:
        self._gym, self._pool = gym, pool
        self._session = gym.session(services)
        self._task: Task | None = None
        self._messages: list[Message] = []
        self._id: str | None = None
        self._steps = 0
        self._is_over = False

    async def answer(self, text: str) -> str | None:
        """None: the client says goodbye."""
        try:
            asked = json.loads(text)
            kind = asked.get("type", "")
            data = asked.get("data") or {}
        except (ValueError, AttributeError, RecursionError) as error:
            return _error("INVALID_JSON", f"Invalid JSON: {error}")
        if kind == "close":
            return None
        try:
            if kind == "reset":
                return await self._reset(data)
            if kind == "step":
                return await self._step(data)
            if kind == "state":
                return await self._state()
        except ValidationError as error:
            return _error("VALIDATION_ERROR", "Invalid message", errors=json.loads(error.json(include_url=False)))
        except AbruzziError as error:
            return _error("EXECUTION_ERROR", str(error))
        except (
            Exception
        ) as error:  # the session's own fault, told to whoever drives it; the connection goes on, as OpenEnv's does
            return _error("EXECUTION_ERROR", f"{type(error).__name__}: {error}")
        return _error("UNKNOWN_TYPE", f"Unknown message type: {kind}")

    async def _reset(self, data: dict[str, Any]) -> str:
        if "task" in data:
            task = Task.model_validate(data["task"])
        else:
            where = {name: data[name] for name in ("split", "family") if data.get(name) is not None}
            task = self._gym.task(int(data.get("seed") or 0), int(data.get("index") or 0), **where)
        self._task, self._id = task, data.get("episode_id") or task.id
        self._steps, self._is_over = 0, False
        begin = await self._session.reset(task, task.seed)
        self._messages = list(begin.messages)
        told: dict[str, Any] = {"task_id": task.id, "family": task.family, "environment": task.environment}
        told["replays"] = self._gym.replays
        return _observed(begin, metadata=told, tools=list(begin.tools))

    async def _step(self, data: dict[str, Any]) -> str:
        if self._task is None or self._is_over:
            raise AbruzziError("not_begun", "The episode is over or has not begun.", hint="Send a reset.")
        action: Message = {"role": "assistant", "content": str(data.get("content") or "")}
        if data.get("tool_calls"):
            action["tool_calls"] = data["tool_calls"]
        result = await self._session.step(action)
        self._steps += 1
        self._messages += [action, *result.observation.messages]
        self._is_over = result.terminated or result.truncated
        if not self._is_over:
            return _observed(result.observation)
        reward, told = None, {"truncated": result.truncated}
        if self._pool is not None:
            ended = _ended(self._task, self._id or "", self._steps, cut=result.truncated)
            outcome = await self._pool.score(ended, tuple(self._messages), await self._session.state())
            reward, told = outcome.reward, {**told, "outcome": outcome.model_dump(mode="json")}
        return _observed(result.observation, reward=reward, done=True, metadata=told)

    async def _state(self) -> str:
        found = await self._session.state() if self._task is not None else {}
        return json.dumps({"type": "state", "data": {**found, "episode_id": self._id, "step_count": self._steps}})

    async def close(self) -> None:
        await self._session.close()


def _ended(task: Task, episode: str, turns: int, *, cut: bool) -> Trajectory:
    status = Status.TURNS if cut else Status.OK
    return Trajectory(
        id=f"{episode}/0", group=episode, member=0, task=task, segments=(_NO_TOKENS,), status=status, turns=turns
    )


def _observed(
    observation: Observation,
    *,
    reward: float | None = None,
    done: bool = False,
    metadata: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    data: dict[str, Any] = {
        "observation": {"messages": list(observation.messages), **more, "metadata": metadata or {}},
        "reward": reward,
        "done": done,
    }
    return json.dumps({"type": "observation", "data": data | ({"metadata": metadata} if metadata else {})})


def _error(code: str, message: str, **more: Any) -> str:
    return json.dumps({"type": "error", "data": {"message": message, "code": code, **more}})
