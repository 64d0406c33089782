"""Actors on a Ray cluster. They are replaced by who uses them, with what they need to know, so Ray restarts none.

They claim no CPUs of Ray's: a stage's resources are those of its pods, in which trainer and engine take turns (paper 3.3.1).
"""

from __future__ import annotations

import inspect
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.actors.place import ActorLost

CALLS = 100_000
"""At a time; those that wait for their turn wait in the actor."""


class RayPlace:
    """On a connected Ray (abruzzi_jobs.data.ray_session)."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    async def nodes(self) -> dict[str, str]:
        own = self._ray.get_runtime_context().get_node_id()
        alive = {node["NodeID"]: node["NodeManagerAddress"] for node in self._ray.nodes() if node["Alive"]}
        return dict(sorted(alive.items(), key=lambda item: (item[0] != own, item[0])))

    async def start(self, kind: type, *arguments: Any, node: str) -> RayActor:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # with the extra `ray` only

        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "max_restarts": 0, "max_concurrency": CALLS, "scheduling_strategy": strategy}
        actor = RayActor(self._ray, self._ray.remote(Hosted).options(**options).remote(), node)
        try:
            await actor.made(kind, arguments)
        except BaseException:
            await actor.end()
            raise
        return actor


class RayActor:
    def __init__(self, ray: Any, handle: Any, node: str) -> None:
        self._ray, self._handle, self.node = ray, handle, node

    async def made(self, kind: type, arguments: tuple[Any, ...]) -> None:
        await self._answer(self._handle.make.remote(kind, arguments))

    async def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        return await self._answer(self._handle.call.remote(method, arguments, named))

    async def end(self) -> None:
        self._ray.kill(self._handle)

    async def _answer(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            answer = await reference
        except errors.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, Exception) else error) from error
        except errors.RayError as error:
            raise ActorLost(str(error).partition("\n")[0]) from error
        if "error" in answer:
            raise AbruzziError(**answer["error"])
        return answer["value"]


class Hosted:
    """In the actor's process. An error of ours travels as its parts."""

    def __init__(self) -> None:
        self._object: Any = None

    async def make(self, kind: type, arguments: tuple[Any, ...]) -> dict[str, Any]:
        try:
            self._object = kind(*arguments)
        except AbruzziError as error:
            return {"error": error.parts}
        return {"value": None}

    async def call(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        try:
            found = getattr(self._object, method)(*arguments, **named)
            return {"value": await found if inspect.isawaitable(found) else found}
        except AbruzziError as error:
            return {"error": error.parts}
