"""The node controller: watches Nodes and their leases, judges, and does what follows.

Every replica judges for itself, because each has attempts to look after; the one that leads writes rows and marks nodes. All it does is
level-triggered: a step that failed, or a leader that was replaced in the middle, is healed by the next look.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from prometheus_client import Counter

from abruzzi.contracts.node import FAULT_WEIGHT, KEPT_FAULTS, NodeFacts, NodeFault, NodeState
from abruzzi.contracts.pool import PoolSpec
from abruzzi.nodes.records import NodeMemory, NodeRecord
from abruzzi_operators.executors.ground import LEASE_NAMESPACE
from abruzzi_operators.executors.node_words import UNKNOWN, NodeWord
from abruzzi_operators.kubernetes import projections
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import ApiError, Conflict, NotFound
from abruzzi_operators.kubernetes.reflector import Reflector, Tuning
from abruzzi_operators.kubernetes.resources import LEASES, NODES, Object
from abruzzi_operators.nodes.judge import Signals, Verdict, judge
from abruzzi_operators.nodes.listening import Listening
from abruzzi_operators.nodes.marks import mark_patch
from abruzzi_operators.nodes.signals import Report, read_facts, read_report
from abruzzi_operators.nodes.witnesses import Beats, Witnesses

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
LEAST_SECONDS = 0.1
"""Between two looks, however much happens."""
REMEMBER_SECONDS = 2.0
WRITE_SECONDS = 30.0
"""At least so often each row is written, so that people see that somebody looks."""
SUSPECT_SECONDS = 10.5
"""From this age of its lease on (it is renewed every 10 s) a node's ranks are listened to."""
STALE_SECONDS = 10.0
"""A controller that has not looked for so long says nothing about nodes."""
EPISODE_SECONDS = 180.0
"""A fault of the same kind that comes again within this time is the same one."""
KEPT_SECONDS = 86400.0
"""How long a node that was removed from the cluster is remembered."""
PATCHES_AT_ONCE = 16
LEAD_SECONDS = 5.0
"""How often a leader says so, and another asks whether it may be it."""
LOST = Counter("abruzzi_nodes_lost", "Nodes that were called lost")

Placed = Callable[[], Mapping[str, Mapping[str, tuple[int, ...]]]]


class NodeStore(Protocol):
    async def remembered(self) -> Mapping[str, NodeMemory]: ...

    async def pools(self) -> Sequence[PoolSpec]: ...

    async def beats(self, attempt_ids: Collection[str]) -> Beats: ...

    async def write(
        self, records: Sequence[NodeRecord], heard: Mapping[str, datetime | None], gone: Sequence[str]
    ) -> bool:
        """In one transaction; False, and nothing is written, when another controller leads."""
        ...


class NodeController:
    """`now` is Postgres' time, `ticks` steady seconds."""

    def __init__(
        self,
        api: Api,
        store: NodeStore,
        *,
        now: Callable[[], datetime],
        ticks: Callable[[], float] = time.monotonic,
        heard_since: Callable[[], float | None] = lambda: 0.0,
        tuning: Tuning | None = None,
    ) -> None:
        """`heard_since`: since when (Unix seconds) the API has been there for what ranks say; None: it is away."""
        self._api, self._store, self._now, self._ticks, self._heard_since = api, store, now, ticks, heard_since
        self._nodes: Reflector[Object] = Reflector(api, NODES, project=projections.node, tuning=tuning)
        self._leases: Reflector[Object] = Reflector(
            api, LEASES, project=projections.lease, namespace=LEASE_NAMESPACE, tuning=tuning
        )
        self._watches = AsyncExitStack()
        self._listening = Listening(ticks())
        self._witnesses = Witnesses()
        self.tell: Callable[[Collection[str]], None] = lambda attempts: None
        """Gets attempts whose nodes are lost or to be left, and were not before."""
        self._words: dict[str, NodeWord] = {}
        self._looked_at = -math.inf
        self._reports: dict[str, tuple[str, Report]] = {}
        """By node: (version of the object, what it says)."""
        self._facts: dict[str, tuple[Any, NodeFacts, str]] = {}
        """By node: (what they were made of, the facts, their JSON). Most looks find most of a thousand nodes as they were."""
        self._memory: dict[str, NodeMemory] = {}
        self._remembered_at = -math.inf
        self._pools: Sequence[PoolSpec] = ()
        self._written: dict[str, tuple[Any, ...]] = {}
        self._written_at = -math.inf
        self._led_at = -math.inf
        self.leads = False

    def word(self, node: str) -> NodeWord:
        """For the executor."""
        if self._ticks() - self._looked_at > STALE_SECONDS:
            return UNKNOWN
        return self._words.get(node, UNKNOWN)

    def usable(self) -> Sequence[Object] | None:
        """Nodes that take new pods; None: it is not known. For the executor."""
        if self._ticks() - self._looked_at > STALE_SECONDS:
            return None
        cordoned = {name for name, (_, report) in self._reports.items() if report.cordoned or report.ready != "True"}
        return [entry.value for (_, name), entry in self._nodes.entries.items() if name not in cordoned]

    async def __aenter__(self) -> NodeController:
        await self._watches.enter_async_context(self._nodes)
        await self._watches.enter_async_context(self._leases)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._watches.aclose()

    async def run(self, placed: Placed) -> None:
        """Until cancelled, its watches with it."""
        async with self:
            news = self._nodes.subscribe()
            while True:
                try:
                    await self.look(placed())
                except Exception:
                    # The database is away, for instance. What we said about nodes is soon too old to count.
                    logger.exception("cannot look after the nodes; again in %.0f s", LOOK_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await news.changed()
                await asyncio.sleep(LEAST_SECONDS)

    async def look(self, placed: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
        """One round: hear, judge, tell the executor, then write and mark if we lead."""
        hears = self._nodes.problem is None and self._leases.problem is None and self._is_complete()
        self._listening.look(self._ticks(), hears=hears)
        if not self._is_complete():
            return
        self._hear()
        await self._remember()
        signals = await self._signals(placed)
        verdicts = self._judge(signals)
        if await self._confirm(signals, verdicts):
            signals = await self._signals(placed)
            verdicts = self._judge(signals)
        told = {name: verdict.word for name, verdict in verdicts.items()}
        moved = {
            attempt
            for name, word in told.items()
            if _is_news(word, self._words.get(name, UNKNOWN))
            for attempt in placed.get(name, ())
        }
        for name, verdict in verdicts.items():
            if verdict.word.lost and not self._words.get(name, UNKNOWN).lost:
                LOST.inc()
                logger.warning("%s Attempts there: %d.", verdict.word.lost, len(placed.get(name, ())))
        self._words, self._looked_at = told, self._ticks()
        if moved:
            self.tell(moved)
        await self._keep(signals, verdicts, placed)

    def _is_complete(self) -> bool:
        return self._nodes.is_synced and self._leases.is_synced

    def _hear(self) -> None:
        now = self._ticks()
        leases = {name: str(entry.value["spec"].get("renewTime")) for (_, name), entry in self._leases.entries.items()}
        self._listening.renewals(leases, now)
        reports: dict[str, tuple[str, Report]] = {}
        for (_, name), entry in self._nodes.entries.items():
            known = self._reports.get(name)
            fresh = known is not None and known[0] == entry.resource_version
            reports[name] = known if fresh and known else (entry.resource_version, read_report(entry.value))
        self._reports = reports
        self._listening.readiness((name for name, (_, report) in reports.items() if report.ready != "True"), now)

    async def _remember(self) -> None:
        """What Postgres knows; raises while it is away."""
        if self._ticks() - self._remembered_at < REMEMBER_SECONDS:
            return
        self._memory = dict(await self._store.remembered())
        self._pools = await self._store.pools()
        self._remembered_at = self._ticks()

    async def _signals(self, placed: Mapping[str, Mapping[str, tuple[int, ...]]]) -> dict[str, Signals]:
        """Of every node that there is, that something of ours is on, or that is remembered."""
        found: dict[str, Signals] = {}
        for name in self._reports.keys() | placed.keys() | self._memory.keys():
            known = self._reports.get(name)
            found[name] = Signals(
                report=known[1] if known is not None else None,
                lease_age=self._listening.lease_age(name),
                not_ready_seconds=self._listening.not_ready_seconds(name),
                has_attempts=name in placed,
            )
        suspects = {
            name: placed[name]
            for name, one in found.items()
            if name in placed
            and one.report is not None
            and (one.report.ready != "True" or (one.lease_age or 0.0) >= SUSPECT_SECONDS)
        }
        if suspects:
            attempts = {attempt for there in suspects.values() for attempt in there}
            beats = await self._store.beats(attempts)
            self._witnesses.hear(beats, at=self._ticks())
            for name, there in suspects.items():
                witness = self._witnesses.of(
                    there, now=self._ticks(), wall=self._now().timestamp(), heard_since=self._heard_since()
                )
                found[name] = replace(found[name], witness=witness)
        self._witnesses.forget_all_but({attempt for there in suspects.values() for attempt in there})
        return found

    def _judge(self, signals: Mapping[str, Signals]) -> dict[str, Verdict]:
        return judge(signals, self._memory, self._now(), holds_off=self._listening.holds_off)

    async def _confirm(self, signals: Mapping[str, Signals], verdicts: Mapping[str, Verdict]) -> bool:
        """Before a node is called lost for being silent or absent, the apiserver itself is asked: a watch may be the one that is silent.
        True: something was otherwise than the watches said."""
        news = False
        for name, verdict in verdicts.items():
            if verdict.word.lost is None or self._words.get(name, UNKNOWN).lost is not None:
                continue
            report = signals[name].report
            try:
                if report is None or report.ready == "Unknown" or report.dead is not None:
                    news |= await self._reads_otherwise(name, report)
                else:
                    news |= await self._was_renewed(name)
            except ApiError as error:
                logger.warning("node %s looks lost, but the apiserver cannot be asked: %s", name, error.message)
                self._listening.look(self._ticks(), hears=False)
                news = True
        return news

    async def _reads_otherwise(self, name: str, known: Report | None) -> bool:
        try:
            node = await self._api.get(NODES, name)
        except NotFound:
            self._reports.pop(name, None)
            return known is not None
        report = read_report(node)
        self._reports[name] = (node["metadata"]["resourceVersion"], report)
        return report != known

    async def _was_renewed(self, name: str) -> bool:
        try:
            lease = await self._api.get(LEASES, name, namespace=LEASE_NAMESPACE)
        except NotFound:
            return False
        renewed = str((lease.get("spec") or {}).get("renewTime"))
        if renewed == self._listening.renewal(name):
            return False
        self._listening.renewal_of(name, renewed, self._ticks())
        return True

    # What only the leader does

    async def _keep(
        self,
        signals: Mapping[str, Signals],
        verdicts: Mapping[str, Verdict],
        placed: Mapping[str, Mapping[str, tuple[int, ...]]],
    ) -> None:
        if not self.leads and self._ticks() - self._led_at < LEAD_SECONDS:
            return
        now = self._now()
        records = {
            name: self._record(name, verdict, placed.get(name, {}), now)
            for name, verdict in verdicts.items()
            if name in self._reports or name in placed or name in self._memory
        }
        gone = [name for name in records if self._is_forgotten(name, placed, now)]
        self._facts = {name: known for name, known in self._facts.items() if name in records}
        keys = {name: _key(record, self._facts[name][2]) for name, record in records.items()}
        is_due = self._ticks() - self._written_at >= WRITE_SECONDS
        changed = [
            record
            for name, record in records.items()
            if name not in gone
            and (self._written.get(name) != keys[name] or (is_due and record.quarantine is not None))
        ]
        others = set(records) - {record.name for record in changed} - set(gone)
        heard = {name: records[name].heartbeat_at for name in others} if is_due else {}
        if changed or heard or gone or self._ticks() - self._led_at >= LEAD_SECONDS:
            leads = await self._store.write(changed, heard, gone)
            self._led_at = self._ticks()
            if leads is not self.leads:
                logger.info(
                    "this controller looks after the nodes" if leads else "another controller looks after the nodes"
                )
            self.leads = leads
        if not self.leads:
            self._written, self._written_at = {}, -math.inf
            return
        self._written |= {record.name: keys[record.name] for record in changed}
        for name in gone:
            self._written.pop(name, None)
            self._memory.pop(name, None)
        for record in changed:
            self._memory[record.name] = _remembered(record, self._memory.get(record.name))
        if is_due:
            self._written_at = self._ticks()
        await self._mark({name: verdict.marks for name, verdict in verdicts.items() if self._is_ours(name, records)})

    def _record(
        self, name: str, verdict: Verdict, attempts: Mapping[str, tuple[int, ...]], now: datetime
    ) -> NodeRecord:
        memory = self._memory.get(name)
        faults = memory.faults if memory is not None else ()
        if verdict.fault is not None and _is_new(verdict, memory, now):
            kind, sentence = verdict.fault
            new = NodeFault(at=now, kind=kind, sentence=sentence, weight=FAULT_WEIGHT[kind])
            faults = (new, *faults)[:KEPT_FAULTS]
        pool, facts = self._read_facts(name, sum(len(there) for there in attempts.values()))
        ago = self._listening.heard_seconds_ago(name)
        return NodeRecord(
            name=name,
            kind="kubernetes",
            pool=pool.name if pool is not None else None,
            state=verdict.state,
            reason=verdict.reason,
            since=memory.since if memory is not None and memory.state is verdict.state else now,
            facts=facts,
            heartbeat_at=now - timedelta(seconds=ago) if ago is not None else None,
            attempts=attempts,
            faults=faults,
            quarantine=verdict.quarantine,
            forgiven_at=memory.forgiven_at if memory is not None else None,
        )

    def _read_facts(self, name: str, ranks: int) -> tuple[PoolSpec | None, NodeFacts]:
        entry = self._nodes.entries.get(("", name))
        pool = _pool_of(entry.value, self._pools) if entry is not None else None
        topology, used = (tuple(pool.topology), ranks * pool.rank.gpus) if pool is not None else ((), 0)
        made_of = (entry.resource_version if entry is not None else None, topology, used)
        known = self._facts.get(name)
        if known is None or known[0] != made_of:
            facts = read_facts(entry.value if entry is not None else _ABSENT, topology, gpus_used=used)
            known = self._facts[name] = (made_of, facts, facts.model_dump_json())
        return pool, known[1]

    def _is_forgotten(self, name: str, placed: Mapping[str, Any], now: datetime) -> bool:
        memory = self._memory.get(name)
        if name in self._reports or name in placed or memory is None:
            return False
        return memory.state is NodeState.LOST and now - memory.since > timedelta(seconds=KEPT_SECONDS)

    def _is_ours(self, name: str, records: Mapping[str, NodeRecord]) -> bool:
        """Whether we may mark it: a node of a pool, or one that has something of ours. Others share the cluster."""
        record, memory = records.get(name), self._memory.get(name)
        known = self._reports.get(name)
        return (
            (record is not None and (record.pool is not None or bool(record.attempts)))
            or (memory is not None and memory.drain is not None)
            or (known is not None and bool(known[1].marks))
        )

    async def _mark(self, wanted: Mapping[str, Collection[str]]) -> None:
        limit = asyncio.Semaphore(PATCHES_AT_ONCE)

        async def one(name: str, patch: dict[str, Any], marks: Collection[str]) -> None:
            async with limit:
                try:
                    await self._api.patch(NODES, name, patch)
                    logger.info("node %s: our taints are now %s", name, ", ".join(sorted(marks)) or "none")
                except (Conflict, NotFound):
                    pass  # it changed meanwhile: the next look sees how
                except ApiError as error:
                    logger.warning("node %s cannot be marked: %s The next look tries again.", name, error.message)

        entries = ((name, self._nodes.entries.get(("", name))) for name in wanted)
        patches = {name: mark_patch(entry.value, wanted[name]) for name, entry in entries if entry is not None}
        await asyncio.gather(*(one(name, patch, wanted[name]) for name, patch in patches.items() if patch is not None))


_ABSENT: Object = {"metadata": {}}


def _is_news(word: NodeWord, before: NodeWord) -> bool:
    """What runs there has to move, and had not yet."""
    return (word.lost is not None and before.lost is None) or (word.leave is not None and before.leave is None)


def _is_new(verdict: Verdict, memory: NodeMemory | None, now: datetime) -> bool:
    """The fault is no continuation of one that counts already."""
    assert verdict.fault is not None
    if memory is None or memory.quarantine is None or not memory.faults:
        return True
    is_over = now - memory.quarantine.seen_at > timedelta(seconds=EPISODE_SECONDS)
    return is_over or all(
        fault.kind is not verdict.fault[0] for fault in memory.faults if fault.at >= memory.quarantine.since
    )


def _remembered(record: NodeRecord, before: NodeMemory | None) -> NodeMemory:
    return NodeMemory(
        name=record.name,
        state=record.state,
        since=record.since,
        faults=record.faults,
        quarantine=record.quarantine,
        drain=before.drain if before is not None else None,
        forgiven_at=record.forgiven_at,
    )


def _key(record: NodeRecord, facts: str) -> tuple[Any, ...]:
    """What makes a row worth writing; not that a second has passed. `facts`: as JSON."""
    said = re.sub(r"\d+", "#", record.reason)
    since = record.quarantine.since if record.quarantine is not None else None
    return (
        record.pool, record.state, said, facts, tuple(sorted(record.attempts.items())), len(record.faults), since,
    )  # fmt: skip


def _pool_of(node: Object, pools: Iterable[PoolSpec]) -> PoolSpec | None:
    """Whose labels it has; of several, the one that asks for most."""
    labels = node["metadata"].get("labels") or {}
    fitting = [pool for pool in pools if pool.kind == "kubernetes" and pool.node_labels.items() <= labels.items()]
    return min(fitting, key=lambda pool: (-len(pool.node_labels), pool.name), default=None)
