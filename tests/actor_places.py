"""Actors as objects of this process, which a test may kill at a call that it chooses: whoever waits for them then hears that they are lost."""

from __future__ import annotations

import asyncio
import inspect
import pickle  # noqa: TID251 what Ray does with arguments
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from abruzzi_jobs.rl.actors.place import ActorLost


@dataclass(frozen=True)
class Death:
    """Of the actor whose call it is: the `number`-th of this method of this kind, counted over all of them. `start`: it does not come up."""

    kind: str
    method: str
    number: int
    is_after: bool = False
    """When it has done it, and nobody has heard."""


@dataclass
class HerePlace:
    deaths: list[Death] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    actors: list[HereActor] = field(default_factory=list)
    happened: list[Death] = field(default_factory=list)

    async def nodes(self) -> dict[str, str]:
        return {"here": "127.0.0.1"}

    async def start(self, kind: type, *arguments: Any, node: str, **named: Any) -> HereActor:
        self.calls[kind.__name__, "start"] += 1
        death = Death(kind.__name__, "start", self.calls[kind.__name__, "start"])
        if death in self.deaths:
            self.deaths.remove(death)
            self.happened.append(death)
            raise ActorLost(f"{kind.__name__} does not come up")
        actor = HereActor(self, kind.__name__, kind(*travelled(arguments), **named))
        self.actors.append(actor)
        return actor


class HereActor:
    node = "here"

    def __init__(self, place: HerePlace, kind: str, target: Any) -> None:
        self.place, self.kind, self.target = place, kind, target
        self.dead = asyncio.Event()

    async def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        if self.dead.is_set():
            raise ActorLost(f"{self.kind} is dead")
        self.place.calls[self.kind, method] += 1
        number = self.place.calls[self.kind, method]
        self._meet(Death(self.kind, method, number))
        work = asyncio.ensure_future(self._do(method, travelled(arguments), travelled(named)))
        death = asyncio.ensure_future(self.dead.wait())
        try:
            await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            death.cancel()
            if not work.done():
                work.cancel()
        self._meet(Death(self.kind, method, number, is_after=True))
        if self.dead.is_set():
            raise ActorLost(f"{self.kind} was killed in {method}")
        return travelled(work.result())

    async def end(self) -> None:
        self.kill()

    def kill(self) -> None:
        """Its sockets close, as a process's do; what its threads still do nobody hears."""
        if not self.dead.is_set():
            self.dead.set()
            group = getattr(getattr(self.target, "_member", None), "_group", None)
            if group is not None:
                group.close()

    def _meet(self, death: Death) -> None:
        if death in self.place.deaths:
            self.place.deaths.remove(death)
            self.place.happened.append(death)
            self.kill()
            if not death.is_after:
                raise ActorLost(f"{self.kind} was killed before {death.method}")

    async def _do(self, method: str, arguments: Any, named: Any) -> Any:
        found = getattr(self.target, method)(*arguments, **named)
        return await found if inspect.isawaitable(found) else found


def travelled(value: Any) -> Any:
    """As it comes out in another process."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 our own
