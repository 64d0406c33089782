"""The directory of one attempt: what the local executor knows of it, and the few things that it writes there.

spec.json       the resolved spec; its appearance is the creation of the workload
token           0600, the attempt's own
launch.json     {"url": address of the API}
launcher.lock   held by the living launcher, whatever its pid
turn.json       {"at"}: it may have its processors; before that nothing is started
stop.json       {"kill_at"}: asked to end
outcome.json    how it ended
removed.json    {"at"}: forgotten by the engine; kept until retention
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ExitCode
from abruzzi_operators.launcher.environment import secrets_of, without_private
from abruzzi_operators.launcher.procfs import is_same_process
from abruzzi_operators.launcher.shipping import logs_are_shipped, write_whole

ENV_LOCK_FD = "ABRUZZI_LAUNCHER_LOCK_FD"
LAUNCHES_LIMIT = 10
LAUNCHES_WINDOW_SECONDS = 60.0
"""A launcher that is started this often in this time cannot work here (full disk, broken installation)."""


class AttemptDir:
    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        return (self.path / "spec.json").exists()

    @property
    def is_removed(self) -> bool:
        return (self.path / "removed.json").exists()

    @property
    def logs_are_shipped(self) -> bool:
        return logs_are_shipped(self.path)

    def create(self, spec: StageSpec, *, token: str, url: str) -> bool:
        """False when it exists already, with this spec or another."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.exists:
            return False
        write_private(self.path / "token", token)
        write_whole(self.path / "launch.json", {"url": url})
        scratch = self.path / f".spec.{os.getpid()}.{threading.get_ident()}"
        scratch.write_text(spec.model_dump_json())
        try:
            os.link(scratch, self.path / "spec.json")
        except FileExistsError:
            return False
        finally:
            scratch.unlink()
        return True

    @contextmanager
    def creation(self) -> Iterator[bool]:
        """The right to create, of all processes; False while another has it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._take_lock("create.lock")
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def spec(self) -> StageSpec:
        return StageSpec.model_validate_json((self.path / "spec.json").read_text())

    def outcome(self) -> dict[str, Any] | None:
        return self.read("outcome.json")

    @property
    def has_turn(self) -> bool:
        """Also of one that was launched before there were turns."""
        return (self.path / "turn.json").exists() or (self.path / "launches.json").exists()

    def give_turn(self) -> None:
        if not self.has_turn:
            write_whole(self.path / "turn.json", {"at": time.time()})

    def end_unstarted(self) -> None:
        """Of one that never had its turn."""
        self._end(ExitCode.PREEMPTED, "Stopped while it waited for its turn.")

    def ranks(self) -> list[Path]:
        return sorted(self.path.glob("rank-*"), key=lambda p: int(p.name.removeprefix("rank-")))

    def has_started(self) -> bool:
        return any((rank / "rank.json").exists() for rank in self.ranks())

    def move_to(self, url: str) -> None:
        """Tell a living launcher that the API has another address now."""
        if self.read("launch.json") != {"url": url}:
            write_whole(self.path / "launch.json", {"url": url})

    def renew_token(self, token: str) -> None:
        """The next request of a launcher reads it."""
        write_private(self.path / "token", token)

    def request_stop(self, *, kill_at: float) -> None:
        """Lasts; an earlier deadline stays. The signal to the launcher is only the bell."""
        known = self.read("stop.json")
        if known is None or float(known["kill_at"]) > kill_at:
            write_whole(self.path / "stop.json", {"kill_at": kill_at})
        self.signal_launcher(signal.SIGTERM)

    def mark_removed(self) -> None:
        """Also where nothing was created: a create that comes late finds it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.is_removed:
            write_whole(self.path / "removed.json", {"at": time.time()})

    def launcher_lives(self) -> bool:
        lock = self._take_lock()
        if lock is None:
            return True
        os.close(lock)
        return False

    def ranks_live(self) -> bool:
        """Whether any rank runs, with or without a launcher."""
        recorded = [_read(rank / "shim.json") for rank in self.ranks()]
        return any(shim is not None and is_same_process(shim) for shim in recorded)

    def signal_launcher(self, number: int) -> None:
        recorded = self.read("launcher.json")
        if recorded is not None and is_same_process(recorded):
            with suppress(ProcessLookupError):
                os.kill(int(recorded["pid"]), number)

    def ensure_launcher(self) -> subprocess.Popen[bytes] | None:
        """Start a launcher unless one lives or there is nothing left to do. It starts the ranks, or adopts those of a launcher that was killed."""
        lock = self._take_lock()
        if lock is None:
            return None
        try:
            if self.outcome() is not None and self.logs_are_shipped:
                return None
            if self._launched_too_often():
                self._give_up()
                return None
            secrets = secrets_of(os.environ, self.read("spec.json") or {})
            environment = without_private(os.environ) | secrets | {ENV_LOCK_FD: str(lock)}
            with (self.path / "launcher.log").open("ab") as log:
                return subprocess.Popen(
                    [sys.executable, "-m", "abruzzi_operators.launcher", str(self.path)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[lock],
                    cwd=self.path,
                )
        finally:
            os.close(lock)  # the launcher holds its own copy of the same lock

    def read(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _take_lock(self, name: str = "launcher.lock") -> int | None:
        """None: somebody else has it; of `launcher.lock`: a launcher lives."""
        lock = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _launched_too_often(self) -> bool:
        now = time.time()
        recent = [at for at in (self.read("launches.json") or {}).get("at", []) if now - at < LAUNCHES_WINDOW_SECONDS]
        write_whole(self.path / "launches.json", {"at": [*recent, now]})
        return len(recent) >= LAUNCHES_LIMIT

    def _give_up(self) -> None:
        if self.outcome() is not None:
            return
        for rank in self.ranks():
            shim = _read(rank / "shim.json")
            if shim is not None and is_same_process(shim):
                with suppress(ProcessLookupError):
                    os.kill(int(shim["pid"]), signal.SIGUSR2)
        reason = f"The launcher ended {LAUNCHES_LIMIT} times within {LAUNCHES_WINDOW_SECONDS:.0f} s; launcher.log in the attempt's directory says why."
        self._end(ExitCode.TRY_AGAIN, reason)

    def _end(self, code: ExitCode, reason: str) -> None:
        """Its outcome, of which no launcher tells."""
        outcome = {
            "exit_code": int(code),
            "out_of_memory": False,
            "node_lost": False,
            "reason": reason,
            "ranks": [],
        }
        write_whole(self.path / "outcome.json", outcome)


def write_private(path: Path, text: str) -> None:
    """0600 from the first byte."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(scratch, path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
