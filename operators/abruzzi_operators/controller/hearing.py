"""Since when the API has been there for ranks that speak over HTTP alone: their silence while it was away is no hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 5.0
STALE_SECONDS = 3.0
"""An answer says so much about the present; one that takes longer to come finds a rank's words waiting, too."""


class Hearing:
    """Asks `/readyz`, which answers 200 when the API can take what a rank says. An answer that does not come begins anew."""

    def __init__(self, url: str, *, now: Callable[[], float] = time.time) -> None:
        self._url = f"{url.rstrip('/')}/readyz"
        self._now = now
        self._since: float | None = None
        self._answered_at = 0.0

    @property
    def since(self) -> float | None:
        """Unix seconds; None while it is away, and until it has answered a controller that has just started."""
        return self._since if self._now() - self._answered_at < STALE_SECONDS else None

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            while True:
                await self.look(client)
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self, client: httpx.AsyncClient) -> None:
        try:
            answers = (await client.get(self._url)).is_success
        except httpx.TransportError:
            answers = False
        known = self.since
        self._since = (known or self._now()) if answers else None
        self._answered_at = self._now()
