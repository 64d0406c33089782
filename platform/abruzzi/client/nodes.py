"""Nodes in the SDK."""

from __future__ import annotations

from abruzzi.client.transport import Transport
from abruzzi.contracts.node import NodeListOut, NodeOut, NodeState


class Nodes:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def list(self, *, pool: str | None = None, state: NodeState | None = None) -> NodeListOut:
        return self._http.get(NodeListOut, "nodes", pool=pool, state=state)

    def get(self, name: str) -> NodeOut:
        return self._http.get(NodeOut, f"nodes/{name}")

    def drain(self, name: str, reason: str) -> NodeOut:
        """Stages on it save and go on elsewhere; nothing new is placed there until it is returned."""
        return self._http.post(NodeOut, f"nodes/{name}/drain", {"reason": reason})

    def return_(self, name: str, reason: str) -> NodeOut:
        """It takes part again, and its faults so far are forgotten."""
        return self._http.post(NodeOut, f"nodes/{name}/return", {"reason": reason})
