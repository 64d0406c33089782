"""Where an actor gives its weights to replicas that come later."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable

from abruzzi_jobs.rl.weights.late import PullServer
from abruzzi_jobs.rl.weights.registered import Registered


class Offers:
    """A server for each way by which others reach this actor, from when it is first asked for one until `close`."""

    def __init__(self, registered: Callable[[], Registered]) -> None:
        """As PullServer's."""
        self._registered = registered
        self._addresses: dict[str | None, str] = {}
        self._open = contextlib.ExitStack()

    def at(self, host: str | None, token: str) -> str:
        """Its address. `host`: of this node, None where there is one."""
        if host not in self._addresses:
            address = f"{host}:0"
            if host is None:
                address = f"{self._open.enter_context(tempfile.TemporaryDirectory(prefix='abruzzi-p-'))}/0"
            server = PullServer(address, self._registered, token=token)
            self._addresses[host] = self._open.enter_context(server).address
        return self._addresses[host]

    def close(self) -> None:
        """Of their folders nothing stays."""
        self._addresses.clear()
        self._open.close()
