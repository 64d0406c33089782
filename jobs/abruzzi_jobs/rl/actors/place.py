"""Where actors live: objects in processes of their own that are called by name, and may be gone at any call."""

from __future__ import annotations

from typing import Any, Protocol


class ActorLost(Exception):
    """Its process has ended, or cannot be reached: whatever it was doing has no result."""


class Actor(Protocol):
    @property
    def node(self) -> str: ...

    async def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """What the method returns (awaited). Raises ActorLost, and AbruzziError as the method did."""
        ...

    async def end(self) -> None:
        """At once, whatever it does."""
        ...


class Place(Protocol):
    async def nodes(self) -> dict[str, str]:
        """{node: address} of those that live, this process's own first."""
        ...

    async def start(self, kind: type, *arguments: Any, node: str) -> Actor:
        """`kind` and arguments travel to another process. Raises ActorLost where it does not come up."""
        ...
