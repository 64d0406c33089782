"""Postgres' part of the node controller in memory: rows, who leads, and what people decided."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from abruzzi.contracts.node import NodeWord
from abruzzi.contracts.pool import Amounts, PoolSpec
from abruzzi.nodes.records import NodeMemory, NodeRecord
from abruzzi_operators.nodes.witnesses import Beat, Beats

H800 = PoolSpec(
    name="h800", kind="kubernetes", ranks_per_node=8, rank=Amounts(cpus=12, memory=1 << 30, gpus=1),
    node_labels={"flavor": "h800"}, topology=("rack",),
)  # fmt: skip


class Rows:
    """Postgres' part: rows, who leads, and what was asked of it."""

    def __init__(self) -> None:
        self.rows: dict[str, NodeRecord] = {}
        self.drains: dict[str, NodeWord] = {}
        self.forgiven: dict[str, datetime] = {}
        self.words: dict[str, dict[int, Beat]] = {}
        self.told: list[str] = []
        self.pools = [PoolSpec(name="any", kind="kubernetes"), H800, PoolSpec(name="local", kind="local")]
        self.writes = 0
        self.leader: str | None = None
        self.down: Exception | None = None

    def of(self, owner: str) -> Store:
        return Store(self, owner)


class Store:
    def __init__(self, rows: Rows, owner: str) -> None:
        self._rows, self._owner = rows, owner

    async def remembered(self) -> Mapping[str, NodeMemory]:
        if self._rows.down:
            raise self._rows.down
        return {
            name: NodeMemory(
                name, row.state, row.since, row.faults, None if name in self._rows.forgiven else row.quarantine,
                self._rows.drains.get(name), self._rows.forgiven.get(name),
            )
            for name, row in self._rows.rows.items()
        }  # fmt: skip

    async def pools(self) -> Sequence[PoolSpec]:
        return self._rows.pools

    async def beats(self, attempt_ids: Collection[str]) -> Beats:
        return {name: beats for name, beats in self._rows.words.items() if name in attempt_ids}

    async def write(
        self, records: Sequence[NodeRecord], heard: Mapping[str, datetime | None], gone: Sequence[str]
    ) -> bool:
        self._rows.leader = self._rows.leader or self._owner
        if self._rows.leader != self._owner:
            return False
        self._rows.writes += len(records)
        self._rows.rows |= {record.name: record for record in records}
        for name in gone:
            del self._rows.rows[name]
        return True
