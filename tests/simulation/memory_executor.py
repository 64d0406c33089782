"""An Executor in memory, with the same contract as the local one (executor_contract.py holds both to it): processes with a fate that the seed decides."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from simulation.memory_store import Switch

from abruzzi.contracts.reason import Reason
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import Cause
from abruzzi.engine.ports import SpecConflict
from abruzzi.engine.view import Leave, Phase, RankBeat, Seen
from abruzzi_operators.executors.turns import Claim, free_for, next_in, wait_reason


@dataclass(slots=True)
class Fate:
    """How a process ends if nobody intervenes."""

    exit_code: int | None
    """None: it hangs."""
    seconds: float
    out_of_memory: bool = False
    node_lost: bool = False
    listens: bool = True
    """Exits with 143 when told to stop; else only SIGKILL ends it."""


@dataclass(slots=True)
class Process:
    spec: StageSpec
    fate: Fate
    born_at: float
    phase: Phase = Phase.PENDING
    exit_code: int | None = None
    kill_at: float | None = None
    stops_at: float | None = None
    beat_at: float = 0.0
    has_turn: bool = False
    steps: int = 0
    stacks: bool = False
    created_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.created_at = self.born_at

    @property
    def is_alive(self) -> bool:
        return self.phase in (Phase.PENDING, Phase.RUNNING)


class MemoryExecutor:
    """`fates(attempt_id)` says what becomes of a new process."""

    def __init__(
        self,
        fates: Callable[[str], Fate],
        *,
        now: Callable[[], float],
        rng: random.Random,
        switches: bool = False,
        cpus: float = math.inf,
    ) -> None:
        """`cpus`: of the machine; each process asks for one a rank."""
        self.processes: dict[str, Process] = {}
        self.started: list[str] = []
        self._removed: set[str] = set()
        self._fates, self._now, self._rng, self.cpus = fates, now, rng, cpus
        self._switch = Switch(switches)

    async def create(self, spec: StageSpec, *, excluded_nodes: Sequence[str] = ()) -> None:
        await self._switch
        if spec.attempt_id in self._removed:
            return  # a late create by a controller that was replaced: an attempt never lives twice
        known = self.processes.get(spec.attempt_id)
        if known is not None:
            if known.spec is not spec and known.spec.digest() != spec.digest():
                raise SpecConflict(spec.attempt_id)
            return
        self.started.append(spec.attempt_id)
        self.processes[spec.attempt_id] = Process(spec, self._fates(spec.attempt_id), self._now(), beat_at=self._now())
        self._give_turns()

    async def observe(self, attempt_ids: Sequence[str]) -> Mapping[str, Seen]:
        await self._switch
        return {attempt_id: self._look(attempt_id) for attempt_id in attempt_ids}

    async def stop(self, attempt_id: str, *, grace_seconds: float) -> None:
        await self._switch
        process = self.processes.get(attempt_id)
        if process is not None and process.is_alive and not process.has_turn:
            self._exit(process, 143)
        elif process is not None and process.is_alive:
            kill_at = self._now() + grace_seconds
            process.kill_at = kill_at if process.kill_at is None else min(process.kill_at, kill_at)
            if process.fate.listens and process.fate.exit_code is not None and process.stops_at is None:
                process.stops_at = self._now() + self._rng.uniform(0, 20)

    async def dump_stacks(self, attempt_id: str, rank: int) -> None:
        await self._switch
        if attempt_id in self.processes:
            self.processes[attempt_id].stacks = True

    async def remove(self, attempt_id: str) -> None:
        await self._switch
        self.processes.pop(attempt_id, None)
        self._removed.add(attempt_id)

    async def list_attempts(self) -> Sequence[str]:
        await self._switch
        return list(self.processes)

    def successor(self) -> MemoryExecutor:
        """Another object before the same processes."""
        made = MemoryExecutor(self._fates, now=self._now, rng=self._rng, cpus=self.cpus)
        made.processes, made.started, made._removed = self.processes, self.started, self._removed
        return made

    def kill(self, attempt_id: str) -> None:
        """SIGKILL by a stranger."""
        self._exit(self.processes[attempt_id], 137)

    def live(self) -> dict[str, Process]:
        return {attempt_id: p for attempt_id, p in self.processes.items() if p.is_alive}

    def tick(self) -> None:
        """The world moves on."""
        now = self._now()
        self._give_turns()
        for process in self.processes.values():
            if not process.is_alive or not process.has_turn:
                continue
            if process.phase is Phase.PENDING and now - process.born_at > 1:
                process.phase = Phase.RUNNING
            if process.fate.exit_code is not None:
                process.beat_at, process.steps = now, int(now - process.born_at)
            if process.kill_at is not None and now >= process.kill_at:
                self._exit(process, 137)
            elif process.stops_at is not None and now >= process.stops_at:
                self._exit(process, 143)
            elif process.fate.exit_code is not None and now - process.born_at >= process.fate.seconds:
                self._exit(process, process.fate.exit_code)

    def claims(self) -> list[Claim]:
        return [
            Claim(name, f"stage {name}", p.spec.project_id, float(p.spec.world_size), p.created_at, p.has_turn, 1)
            for name, p in self.processes.items()
            if p.is_alive
        ]

    def _give_turns(self) -> None:
        for claim in next_in(self.claims(), self.cpus):
            process = self.processes[claim.attempt_id]
            process.has_turn, process.born_at, process.beat_at = True, self._now(), self._now()

    def _exit(self, process: Process, code: int) -> None:
        process.phase, process.exit_code = Phase.EXITED, code

    def _look(self, attempt_id: str) -> Seen:
        process = self.processes.get(attempt_id)
        if process is None:
            return Seen(Phase.GONE, observed_at=self._now())
        if process.is_alive and not process.has_turn:
            claims = self.claims()
            mine = next(claim for claim in claims if claim.attempt_id == attempt_id)
            reason = wait_reason(mine, claims, self.cpus)
            code, room = Reason.WAITS_FOR_CPUS, self._room(attempt_id)
            return Seen(Phase.PENDING, reason=reason, waits_for=code, room=room, observed_at=self._now())
        natural = process.exit_code == process.fate.exit_code
        return Seen(
            process.phase, process.exit_code, out_of_memory=process.fate.out_of_memory and natural and process.phase is Phase.EXITED,
            node_lost=process.fate.node_lost and natural and process.phase is Phase.EXITED, node="node-1",
            beats={0: RankBeat(process.steps, "train", process.beat_at)} if process.phase is not Phase.PENDING else {},
            stacks_ready=process.stacks, leave=self._leave(process), observed_at=self._now(),
            held_since=process.born_at if _is_given(attempt_id) else None, room=self._room(attempt_id),
        )  # fmt: skip

    def _room(self, attempt_id: str) -> int | None:
        claims = self.claims()
        mine = next((claim for claim in claims if claim.attempt_id == attempt_id), None)
        return None if mine is None or math.isinf(self.cpus) else int(free_for(mine, claims, self.cpus))

    def _leave(self, process: Process) -> Leave | None:
        """Some nodes are drained under what runs there, some fall sick; which, the attempt's name decides."""
        number = zlib.crc32(process.spec.attempt_id.encode()) % 16
        if number > 1 or not process.is_alive or self._now() - process.born_at < 20:
            return None
        cause = Cause.PREEMPTION if number else Cause.NODE
        return Leave(cause, "Node node-1 is wanted elsewhere.", "node-1")


def _is_given(attempt_id: str) -> bool:
    """Half of the workloads hold what somebody else gives them, as in a cluster; the others simply run."""
    return zlib.crc32(attempt_id.encode()) // 16 % 2 == 0
