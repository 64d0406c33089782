"""The life of one attempt on this machine: ranks started or adopted, watched, stopped together, told truly.

The attempt's directory is all that it knows and all that it leaves. It may be killed at any moment: whoever starts it again on the same
directory gets the same attempt, not a second one.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from abruzzi_operators.launcher.environment import attempt_environment, command, free_port, rank_environment
from abruzzi_operators.launcher.node import Node, whole
from abruzzi_operators.launcher.outcome import RankExit, summary
from abruzzi_operators.launcher.procfs import identity
from abruzzi_operators.launcher.ranks import Rank
from abruzzi_operators.launcher.shipping import LogShipper, read_launch, write_whole

PEER_GRACE_SECONDS = 5.0
"""The same for the other ranks once one has failed: without it they can save nothing in common."""
FLUSH_SECONDS = 10.0
"""How long the outcome waits for an API that is away."""
LOOK_SECONDS = 1.0
"""A look at the files even when no signal came; without pidfd (not Linux) every tenth of it."""


class Launcher:
    def __init__(
        self,
        directory: Path,
        *,
        node: Callable[[int], Node] = whole,
        on_outcome: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        """`node`: the part of an attempt of so many ranks that is run here. `on_outcome` hears of it before the rest of the logs is shipped."""
        self._directory = directory
        self._spec: dict[str, Any] = json.loads((directory / "spec.json").read_text())
        self._node = node(int(self._spec["world_size"]))
        self._on_outcome = on_outcome
        self._ranks = [Rank(directory, rank=r) for r in self._node.all_ranks]
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, int] = {}
        self._stop_at: float | None = None
        """Unix seconds at which patience ends; None: nobody asked to stop."""
        self._stop_requested = False
        self._terminated = False

    def run(self) -> int:
        """Exit code of the attempt."""
        self._watch_signals()
        shipper = LogShipper(
            self._directory, attempt_id=self._spec["attempt_id"], ranks=self._node.all_ranks, say=self._say
        )
        shipper.start()
        outcome = self._read("outcome.json")
        if outcome is None:
            exits = self._run_ranks(shipper)
            shipper.take_spools()
            if not shipper.flush(FLUSH_SECONDS):
                self._say("the API does not take the rest of logs and points yet; the outcome does not wait for it")
            outcome = summary(
                exits, started_at=self._began()["at"], ended_at=time.time(), stop_requested=self._stop_requested
            )
            write_whole(self._directory / "outcome.json", outcome)
            self._say(f"ended with code {outcome['exit_code']}: {outcome['reason'] or 'done'}")
        self._on_outcome(outcome)
        shipper.take_spools()
        self._terminated = False
        deadline = time.monotonic() + self._node.linger_seconds
        while not shipper.flush(LOOK_SECONDS) and not self._terminated and time.monotonic() < deadline:
            continue
        shipper.stop()
        return int(outcome["exit_code"])

    def _run_ranks(self, shipper: LogShipper) -> list[RankExit]:
        self._read_stop_request()
        self._start_ranks()
        told: set[int] = set()
        while None in [rank.look() for rank in self._ranks]:
            for rank in self._ranks:
                if rank.exit is not None and rank.exit.code == 0 and rank.rank not in told:
                    told.add(rank.rank)
                    shipper.tell_end(rank.rank, rank.exit.ended_at)
            self._watch_shims()
            self._pass_on_stops()
            self._wait()
            self._read_stop_request()
        return [rank.exit for rank in self._ranks if rank.exit is not None]

    def _start_ranks(self) -> None:
        """Those that no earlier launcher has started; the others are adopted."""
        missing = [rank for rank in self._ranks if not rank.was_started]
        if len(missing) < len(self._ranks):
            self._say(f"adopted {len(self._ranks) - len(missing)} ranks of a launcher that was killed")
        if self._stop_requested:
            for rank in missing:
                rank.never_started()
            return
        environment = attempt_environment(
            os.environ,
            directory=self._directory,
            spec=self._spec,
            url=read_launch(self._directory)["url"],
            node=self._node,
            port=int(self._began()["master_port"]),
        )
        for rank in missing:
            rank.start(command(self._spec), rank_environment(environment, rank=rank.rank, node=self._node))
        if missing:
            self._say(f"started {len(missing)} ranks")

    def _began(self) -> dict[str, Any]:
        """What must be the same for every launcher of this attempt; decided by the first."""
        began = self._read("began.json")
        if began is None:
            began = {"at": time.time(), "master_port": self._node.master_port or free_port()}
            write_whole(self._directory / "began.json", began)
        return began

    def _pass_on_stops(self) -> None:
        now = time.time()
        failed = next((r.exit for r in self._ranks if r.exit is not None and r.exit.code != 0), None)
        if failed is not None and self._stop_at is None:
            self._stop_at = now + PEER_GRACE_SECONDS
            if any(rank.exit is None for rank in self._ranks):
                self._say(f"rank {failed.rank} ended with code {failed.code}; stopping the others")
        if self._stop_at is None:
            return
        for rank in self._ranks:
            if rank.exit is not None:
                continue
            if not rank.asked_to_stop:
                rank.ask_to_stop()
            if now >= self._stop_at and not rank.asked_to_die:
                self._say(f"rank {rank.rank} did not end in time; killing it")
                rank.kill()

    def _read_stop_request(self) -> None:
        """stop.json lasts; the signal only says: look now."""
        request = self._read("stop.json")
        if request is None and not self._terminated:
            return
        if request is None:
            request = {"kill_at": time.time() + self._node.grace_seconds}
            write_whole(self._directory / "stop.json", request)
        kill_at = float(request["kill_at"])
        self._stop_requested = True
        self._terminated = False
        self._stop_at = kill_at if self._stop_at is None else min(self._stop_at, kill_at)

    # Events: a shim's end by pidfd, signals by the wake-up pipe

    def _watch_signals(self) -> None:
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        self._selector.register(read_end, selectors.EVENT_READ, "signal")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_terminate)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_terminate(self, *_: object) -> None:
        self._terminated = True

    def _watch_shims(self) -> None:
        for rank in self._ranks:
            pid = rank.shim_pid()
            if rank.exit is None and pid is not None and rank.rank not in self._watched and hasattr(os, "pidfd_open"):
                with suppress(ProcessLookupError):
                    descriptor = os.pidfd_open(pid)
                    self._watched[rank.rank] = descriptor
                    self._selector.register(descriptor, selectors.EVENT_READ, rank.rank)

    def _wait(self) -> None:
        seconds = LOOK_SECONDS if hasattr(os, "pidfd_open") else LOOK_SECONDS / 10
        if self._stop_at is not None and not all(r.asked_to_die or r.exit for r in self._ranks):
            seconds = min(seconds, max(0.0, self._stop_at - time.time()) + 0.01)
        for key, _ in self._selector.select(seconds):
            if key.data == "signal":
                with suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            else:
                self._selector.unregister(key.fd)
                os.close(self._watched.pop(key.data))

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self._directory / name).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}" + "\n")


def run(
    directory: Path,
    *,
    node: Callable[[int], Node] = whole,
    on_outcome: Callable[[dict[str, Any]], None] = lambda _: None,
) -> int:
    """Take the attempt's lock (an executor hands it over, open, in `ABRUZZI_LAUNCHER_LOCK_FD`) and live the attempt."""
    handed_over = os.environ.pop("ABRUZZI_LAUNCHER_LOCK_FD", None)
    lock = (
        int(handed_over)
        if handed_over
        else os.open(directory / "launcher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    )
    os.set_inheritable(lock, False)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write(f"Another launcher runs the attempt in {directory}." + "\n")
        return 0
    write_whole(directory / "launcher.json", identity(os.getpid()))
    return Launcher(directory, node=node, on_outcome=on_outcome).run()
