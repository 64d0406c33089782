"""Pools in the SDK."""

from __future__ import annotations

from abruzzi.client.transport import Transport
from abruzzi.contracts.pool import PoolOut, PoolSpec
from abruzzi.contracts.queue import QueueOut
from abruzzi.contracts.resources import Resource


class _Pools(Resource):
    items: list[PoolOut]


class Pools:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def list(self) -> list[PoolOut]:
        return self._http.get(_Pools, "pools").items

    def get(self, name: str) -> PoolOut:
        return self._http.get(PoolOut, f"pools/{name}")

    def queue(self, name: str, *, limit: int = 100) -> QueueOut:
        return self._http.get(QueueOut, f"pools/{name}/queue", limit=limit)

    def apply(self, spec: PoolSpec) -> PoolOut:
        """Makes or changes it."""
        return self._http.put(PoolOut, f"pools/{spec.name}", spec.model_dump(mode="json"))

    def delete(self, name: str) -> None:
        self._http.delete(f"pools/{name}")
