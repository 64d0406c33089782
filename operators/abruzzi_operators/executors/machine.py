"""The turns of a machine's stages: which attempts of a directory may have their processors, and why the others wait.

All of it lies in the directory: an attempt that has had its turn has a turn.json. So whoever looks, also another controller or the next one, goes
on where the last one stopped. Blocks: for threads.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from abruzzi.contracts.pool import Capacity, stage_cpus
from abruzzi_operators.executors.attempt_dir import AttemptDir
from abruzzi_operators.executors.turns import Claim, free_for, next_in, wait_reason

LOOK_AGAIN_SECONDS = 0.25
"""Many that wait are each looked at every second: within this time the last answer is given again."""


@dataclass(frozen=True, slots=True)
class Use:
    cpus: float
    running: int
    waiting: int


class Machine:
    def __init__(self, attempts_dir: Path, capacity: Capacity) -> None:
        """`attempts_dir` exists."""
        self.capacity = capacity
        self._attempts_dir = attempts_dir
        self._lock_path = attempts_dir.with_name(f"{attempts_dir.name}.lock")
        self._lock = threading.Lock()
        self._claims: dict[str, Claim] = {}
        self._over: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._looked_at = float("-inf")

    def give_turns(self) -> list[AttemptDir]:
        """Those that have theirs from now on, in their order."""
        with self._alone():
            claims = self._look()
            given = [self._attempt(claim.attempt_id) for claim in next_in(claims, self.capacity.cpus)]
            for attempt in given:
                attempt.give_turn()
            now_held = {attempt.path.name for attempt in given}
            claims = [replace(c, holds=True) if c.attempt_id in now_held else c for c in claims]
            cpus = self.capacity.cpus
            self._reasons = {c.attempt_id: wait_reason(c, claims, cpus) for c in claims if not c.holds}
            self._looked_at = time.monotonic()
        return given

    def use(self) -> Use:
        with self._alone():
            claims = self._look()
        holders = [claim for claim in claims if claim.holds]
        return Use(sum(claim.cpus for claim in holders), len(holders), len(claims) - len(holders))

    def reason(self, attempt_id: str) -> str | None:
        """Why it waits, as it was a moment ago; None where that must be asked anew."""
        fresh = time.monotonic() - self._looked_at < LOOK_AGAIN_SECONDS
        return self._reasons.get(attempt_id) if fresh else None

    def room(self, attempt_id: str) -> int | None:
        """Ranks of this attempt's stage for which processors are free, those that it holds among them. None: its ranks share what there is,
        however many they are."""
        with self._alone():
            claims = self._look()
        mine = next((claim for claim in claims if claim.attempt_id == attempt_id), None)
        if mine is None or mine.threads is None:
            return None
        return int(free_for(mine, claims, self.capacity.cpus) / mine.threads + 1e-6)

    def withdraw(self, attempt: AttemptDir) -> bool:
        """Ends one that has not had its turn: nothing of it was started. False where it has."""
        with self._alone():
            if attempt.has_turn:
                return False
            attempt.end_unstarted()
            return True

    def _look(self) -> list[Claim]:
        names = os.listdir(self._attempts_dir)
        self._over.intersection_update(names)
        found = []
        for name in names:
            claim = None if name in self._over else self._claim(self._attempt(name))
            if claim is not None:
                found.append(claim)
        self._claims = {claim.attempt_id: claim for claim in found}
        return found

    def _claim(self, attempt: AttemptDir) -> Claim | None:
        """None: it claims nothing (any more)."""
        name = attempt.path.name
        if attempt.is_removed or attempt.outcome() is not None:
            self._over.add(name)
            return None
        if not attempt.exists:
            return None
        known = self._claims.get(name)
        if known is None:
            spec = attempt.spec()
            threads = (spec.config.get("resources") or {}).get("threads")
            known = Claim(
                attempt_id=name,
                stage=f"stage {spec.stage_id!r} of run {spec.run_id}",
                project_id=spec.project_id,
                cpus=stage_cpus(spec.world_size, threads=threads, share=self.capacity.share),
                since=(attempt.path / "spec.json").stat().st_mtime,
                holds=False,
                threads=threads,
            )
        return known if known.holds else replace(known, holds=attempt.has_turn)

    def _attempt(self, name: str) -> AttemptDir:
        return AttemptDir(self._attempts_dir / name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of all threads and processes on this directory."""
        with self._lock:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)
