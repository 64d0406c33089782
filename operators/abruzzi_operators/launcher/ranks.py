"""One rank as the launcher sees it: started or adopted, told to stop, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from abruzzi.contracts.states import ExitCode
from abruzzi_operators.launcher.environment import ENV_ATTEMPT_DIR
from abruzzi_operators.launcher.outcome import RankExit
from abruzzi_operators.launcher.procfs import boot_id, is_same_process, session_members, start_time, started_with

SHIM = Path(__file__).with_name("shim.py")
DEATH_SECONDS = 0.5
"""How long a look waits for what it has killed; the next look goes on."""
POLL_SECONDS = 0.01


class Rank:
    """The shim is the launcher's child, or (after the launcher was killed) only known by its files."""

    def __init__(self, directory: Path, *, rank: int) -> None:
        self.rank = rank
        self.directory = directory / f"rank-{rank}"
        self._attempt_directory = directory
        self._shim: subprocess.Popen[bytes] | None = None
        self._exit: RankExit | None = None
        self.asked_to_stop = False
        self.asked_to_die = False

    @property
    def was_started(self) -> bool:
        """In this launcher's life or an earlier one's."""
        return self._shim is not None or (self.directory / "shim.json").exists()

    @property
    def exit(self) -> RankExit | None:
        return self._exit

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        work = self._attempt_directory / "work"
        work.mkdir(exist_ok=True)
        with (self._attempt_directory / "launcher.log").open("ab") as log:
            self._shim = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SHIM), str(self.directory), str(work), "--", *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def shim_pid(self) -> int | None:
        """The recorded shim's: where two launchers raced, it may be another than the one that this launcher started."""
        recorded = self._read("shim.json")
        if recorded is not None:
            return int(str(recorded["pid"]))
        return self._shim.pid if self._shim is not None else None

    def look(self) -> RankExit | None:
        """How it ended, once it has. Asks the shim's record, and the kernel when there is none."""
        if self._exit is None and self.was_started and not self._shim_runs() and self._nothing_is_left():
            self._exit = self._read_exit()
        return self._exit

    def ask_to_stop(self) -> None:
        """SIGTERM: save and exit."""
        self.asked_to_stop = True
        self._signal_shim(signal.SIGTERM)

    def kill(self) -> None:
        self.asked_to_die = True
        self._signal_shim(signal.SIGUSR2)

    def never_started(self) -> None:
        """The attempt was stopped before this rank's turn."""
        self._exit = RankExit(rank=self.rank, code=ExitCode.PREEMPTED, by_launcher=True, ended_at=time.time())

    def _shim_runs(self) -> bool:
        if self._shim is not None and self._shim.poll() is None:
            return True
        recorded = self._read("shim.json")
        return recorded is not None and is_same_process(recorded)

    def _nothing_is_left(self) -> bool:
        """A shim that was killed could not end what its rank had started, and the next attempt must not run beside that. False: not yet."""
        if self._read("exit.json") is not None:
            return True
        deadline = time.monotonic() + DEATH_SECONDS
        while left := self._left_behind():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _left_behind(self) -> set[int]:
        """The rank, its session, and whoever left the session with the rank's environment."""
        shim, rank = self._read("shim.json"), self._read("rank.json")
        if shim is None or shim.get("boot_id") != boot_id():
            return set()
        found = set(started_with({ENV_ATTEMPT_DIR: str(self._attempt_directory), "RANK": str(self.rank)}))
        if rank is not None:
            leader = int(str(rank["pid"]))
            # The kernel gives a session's number to nobody else while one of its members lives.
            if is_same_process(rank) or start_time(leader) is None:
                found.update(session_members(leader))
        return found

    def _read_exit(self) -> RankExit:
        by_launcher = self.asked_to_stop or self.asked_to_die
        written = self._read("exit.json")
        if written is not None:
            return RankExit(
                rank=self.rank,
                code=int(str(written["code"])),
                signal=int(str(written["signal"])),
                by_launcher=by_launcher,
                out_of_memory=bool(written["out_of_memory"]) and not self.asked_to_die,
                ended_at=float(str(written["ended_at"])),
            )
        shim = self._read("shim.json")
        if shim is None:  # it could not even write its name (a full disk): nothing ran, launcher.log says why
            return RankExit(rank=self.rank, code=ExitCode.TRY_AGAIN, by_launcher=by_launcher, ended_at=time.time())
        # The shim was killed, and the kernel killed the rank with it; or the whole machine went down.
        node_lost = shim.get("boot_id") != boot_id()
        return RankExit(
            rank=self.rank,
            code=ExitCode.KILLED,
            signal=signal.SIGKILL,
            by_launcher=by_launcher,
            node_lost=node_lost,
            ended_at=time.time(),
        )

    def _signal_shim(self, number: int) -> None:
        pid = self.shim_pid()
        if pid is None or not self._shim_runs():
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    def _read(self, name: str) -> dict[str, object] | None:
        try:
            return json.loads((self.directory / name).read_text())
        except (FileNotFoundError, ValueError):
            return None
