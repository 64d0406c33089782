"""Attempts as process groups of this machine, as many at a time as its processors allow (executors/machine.py).

Everything that it knows lies in the attempts' directories, so a new executor (after a crash of the control plane) sees what the old
one saw. An attempt exists from the moment its spec.json appears, and is started when it has its turn; a launcher that was killed is started again
on the next look and adopts the ranks.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.metric import Heartbeat
from abruzzi.contracts.pool import Capacity
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.stage import StageSpec
from abruzzi.engine.ports import SpecConflict
from abruzzi.engine.view import Phase, RankBeat, Seen
from abruzzi_operators.executors.attempt_dir import AttemptDir
from abruzzi_operators.executors.machine import Machine
from abruzzi_operators.launcher.procfs import is_same_process
from abruzzi_operators.launcher.stacks import dump_stacks

KEEP_REMOVED_SECONDS = 7 * 24 * 3600.0
REMOVE_SECONDS = 10.0
"""How long `remove` waits for a living attempt to be killed."""
SHIP_SECONDS = 2.0
"""How long `remove` waits for the rest of the logs; the launcher goes on shipping behind it."""
CREATE_SECONDS = 10.0
"""How long `create` waits for another process that creates the same attempt."""
POLL_SECONDS = 0.05

IssueToken = Callable[[StageSpec], Awaitable[str]]
"""Mints the token that reaches this attempt only."""


class LocalExecutor:
    """Implements abruzzi.engine.ports.Executor."""

    def __init__(
        self,
        attempts_dir: Path,
        *,
        capacity: Capacity,
        api_url: str,
        issue_token: IssueToken,
        keep_removed_seconds: float = KEEP_REMOVED_SECONDS,
    ) -> None:
        self._attempts_dir = attempts_dir.absolute()
        self._attempts_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.machine = Machine(self._attempts_dir, capacity)
        self._api_url = api_url
        self._issue_token = issue_token
        self._keep_removed_seconds = keep_removed_seconds
        self._node = socket.gethostname()
        self._launchers: dict[str, subprocess.Popen[bytes]] = {}
        self._elastic: dict[str, bool] = {}

    async def create(self, spec: StageSpec, *, excluded_nodes: Sequence[str] = ()) -> None:
        """`excluded_nodes` means nothing here: there is one node."""
        attempt = self._attempt(spec.attempt_id)
        if attempt.is_removed:
            return
        deadline = time.monotonic() + CREATE_SECONDS
        while not attempt.exists:
            with attempt.creation() as mine:  # one token is issued, not one a rival, of which the last alone is valid
                if mine and not attempt.exists:
                    token = await self._issue_token(spec)
                    await asyncio.to_thread(attempt.create, spec, token=token, url=self._api_url)
            if not mine and time.monotonic() > deadline:
                raise AbruzziError("create_busy", f"Another process is creating {spec.attempt_id}.", status=500)
            if not mine:
                await asyncio.sleep(POLL_SECONDS)
        await asyncio.to_thread(self._adopt, attempt, spec)

    async def observe(self, attempt_ids: Sequence[str]) -> Mapping[str, Seen]:
        return await asyncio.to_thread(lambda: {attempt_id: self._look(attempt_id) for attempt_id in attempt_ids})

    async def stop(self, attempt_id: str, *, grace_seconds: float) -> None:
        attempt = self._attempt(attempt_id)
        if not attempt.exists or attempt.outcome() is not None:
            return
        if not attempt.has_turn and await asyncio.to_thread(self.machine.withdraw, attempt):
            return
        await asyncio.to_thread(attempt.request_stop, kill_at=time.time() + grace_seconds)
        await asyncio.to_thread(self._ensure_launcher, attempt)

    async def dump_stacks(self, attempt_id: str, rank: int) -> None:
        rank_dir = self._attempt(attempt_id).path / f"rank-{rank}"
        recorded = AttemptDir(rank_dir).read("rank.json")
        if recorded is not None and is_same_process(recorded):
            await asyncio.to_thread(dump_stacks, rank_dir, rank_pid=int(recorded["pid"]))

    async def remove(self, attempt_id: str) -> None:
        attempt = self._attempt(attempt_id)
        if attempt.is_removed:
            return
        if not attempt.exists:
            await asyncio.to_thread(attempt.mark_removed)
            if not attempt.exists:
                return
        if attempt.outcome() is None:
            await self.stop(attempt_id, grace_seconds=0.0)
            if not await _until(lambda: attempt.outcome() is not None, seconds=REMOVE_SECONDS):
                raise AbruzziError(
                    "attempt_lives",
                    f"Attempt {attempt_id} did not end {REMOVE_SECONDS:.0f} s after SIGKILL.",
                    status=500,
                )
        await asyncio.to_thread(attempt.move_to, self._api_url)
        await asyncio.to_thread(self._ensure_launcher, attempt)  # ships what is left, also after this returns
        await _until(lambda: attempt.logs_are_shipped, seconds=SHIP_SECONDS)
        await asyncio.to_thread(attempt.mark_removed)

    async def list_attempts(self) -> Sequence[str]:
        living, unshipped = await asyncio.to_thread(self._sweep)
        for attempt in unshipped:
            # The token that it was born with lasts an hour beyond its end; its machine may have been off for longer.
            with contextlib.suppress(NotFound):  # an orphan's: nobody would take its logs
                attempt.renew_token(await self._issue_token(attempt.spec()))
                await asyncio.to_thread(self._ensure_launcher, attempt)
        return living

    def _attempt(self, attempt_id: str) -> AttemptDir:
        return AttemptDir(self._attempts_dir / attempt_id)

    def _adopt(self, attempt: AttemptDir, spec: StageSpec) -> None:
        found = attempt.spec()
        if found.digest() != spec.digest():
            raise SpecConflict(f"Attempt {spec.attempt_id} exists with spec {found.digest()}, not {spec.digest()}.")
        if not attempt.is_removed:
            attempt.move_to(self._api_url)
            self._go_on(attempt)

    def _look(self, attempt_id: str) -> Seen:
        attempt = self._attempt(attempt_id)
        now = time.time()
        if not attempt.exists or attempt.is_removed:
            return Seen(phase=Phase.GONE, observed_at=now)
        outcome = attempt.outcome()
        if outcome is None:
            attempt.move_to(self._api_url)
            reason = self._go_on(attempt)
            if reason is not None:
                waits_for = Reason.WAITS_FOR_CPUS
                room = self._room(attempt)
                return Seen(
                    Phase.PENDING, node=self._node, reason=reason, waits_for=waits_for, room=room, observed_at=now
                )
        else:
            self._reap(attempt_id)
        seen = _seen(attempt, outcome, node=self._node, now=now)
        return replace(seen, room=self._room(attempt)) if seen.phase is Phase.RUNNING else seen

    def _room(self, attempt: AttemptDir) -> int | None:
        name = attempt.path.name
        if name not in self._elastic:
            self._elastic[name] = bool(attempt.spec().config.get("elastic"))
        return self.machine.room(name) if self._elastic[name] else None

    def _go_on(self, attempt: AttemptDir) -> str | None:
        """Whatever has its turn has a launcher then. None; or why this one has to wait."""
        if attempt.has_turn:
            self._ensure_launcher(attempt)
            return None
        reason = self.machine.reason(attempt.path.name)
        if reason is None:
            for given in self.machine.give_turns():
                self._ensure_launcher(given)
            reason = self.machine.reason(attempt.path.name)
        return reason

    def _ensure_launcher(self, attempt: AttemptDir) -> None:
        self._reap(attempt.path.name)
        started = attempt.ensure_launcher()
        if started is not None:
            self._launchers[attempt.path.name] = started

    def _reap(self, attempt_id: str) -> None:
        launcher = self._launchers.get(attempt_id)
        if launcher is not None and launcher.poll() is not None:
            del self._launchers[attempt_id]

    def _sweep(self) -> tuple[list[str], list[AttemptDir]]:
        """(the attempts that exist, removed ones whose logs nobody ships to their end). Old removed ones go."""
        living, unshipped = [], []
        for path in sorted(self._attempts_dir.iterdir()):
            attempt = AttemptDir(path)
            removed = attempt.read("removed.json")
            if removed is None:
                living += [path.name] if attempt.exists else []
            elif time.time() - removed["at"] >= self._keep_removed_seconds:
                if not attempt.launcher_lives():
                    shutil.rmtree(path)
            elif attempt.exists and not attempt.logs_are_shipped:
                attempt.move_to(self._api_url)
                unshipped += [] if attempt.launcher_lives() else [attempt]
        return living, unshipped


def _seen(attempt: AttemptDir, outcome: dict[str, Any] | None, *, node: str, now: float) -> Seen:
    ranks = attempt.ranks()
    beats = {int(rank.name.removeprefix("rank-")): beat for rank in ranks if (beat := _beat(rank)) is not None}
    ended = frozenset(int(r.name.removeprefix("rank-")) for r in ranks if (r / "exit.json").exists())
    stacks_ready = any((rank / "stacks.txt").exists() and (rank / "stacks.txt").stat().st_size > 0 for rank in ranks)
    if outcome is None:
        phase = Phase.RUNNING if attempt.has_started() else Phase.PENDING
        return Seen(phase=phase, node=node, beats=beats, ended_ranks=ended, stacks_ready=stacks_ready, observed_at=now)
    return Seen(
        phase=Phase.EXITED,
        exit_code=outcome["exit_code"],
        out_of_memory=outcome["out_of_memory"],
        node_lost=outcome["node_lost"],
        reason=outcome["reason"],
        failed_rank=outcome.get("failed_rank"),  # no launcher tells of it, or one before this field
        node=node,
        beats=beats,
        ended_ranks=ended,
        stacks_ready=stacks_ready,
        observed_at=now,
    )


def _beat(rank_dir: Path) -> RankBeat | None:
    """The file's own time, by this machine's clock: the rank's word about time is not needed."""
    path = rank_dir / "heartbeat.json"
    try:
        at = path.stat().st_mtime
        beat = Heartbeat.model_validate_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return RankBeat(step=beat.step, phase=beat.phase, at=at)


async def _until(condition: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
