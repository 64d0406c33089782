"""The processes of the cluster: started in sessions of their own, remembered by pid and start time, ended for sure.

A component's command is kept beside its pid, so that any later process (a fault test, `down`) can stop and start it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError
from cluster.layout import Layout

from abruzzi_operators.launcher.procfs import identity, is_same_process

STOP_SECONDS = 5.0
"""The apiserver would wait for its watchers much longer; nothing here needs that politeness."""
LAST_WORDS_BYTES = 3000
_children: list[subprocess.Popen[bytes]] = []


def wait_until(what: str, ready: Callable[[], object], *, seconds: float, last_words: Callable[[], str] = str) -> None:
    """Polls; on time-out the error carries `last_words()`, usually the end of the part's log."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not so after {seconds:.0f} s.\n{last_words()}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Component:
    name: str
    layout: Layout

    @property
    def _record(self) -> Path:
        return self.layout.run / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return self.layout.logs / f"{self.name}.log"

    def _read(self) -> dict[str, Any]:
        return json.loads(self._record.read_text()) if self._record.exists() else {}

    @property
    def pid(self) -> int | None:
        """None when it does not run; a process that took over its number does not count."""
        recorded = self._read().get("process")
        return int(recorded["pid"]) if recorded and is_same_process(recorded) else None

    def start(self, command: Sequence[str | Path] = (), environment: Mapping[str, str] | None = None) -> None:
        """Without a command: the one that it was started with before."""
        if command:
            recorded: dict[str, Any] = {"command": [str(part) for part in command], "environment": environment or {}}
        else:
            recorded = self._read()
            if not recorded:
                raise ClusterError(f"{self.name} was never started here, so its command is not known")
        if self.pid is not None:
            raise ClusterError(f"{self.name} runs already as process {self.pid}; stop it first")
        # KUBECONFIG and proxies of the caller are none of the components' business.
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                recorded["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.layout.state,
                env={**inherited, **recorded["environment"]},
                start_new_session=True,
            )
        _children.append(process)
        recorded["process"] = identity(process.pid)
        fresh = self._record.with_suffix(".new")
        fresh.write_text(json.dumps(recorded))
        fresh.replace(self._record)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends the signal; SIGSTOP and SIGCONT too."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        reap()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, and SIGKILL when it does not end. Nothing happens when it does not run."""
        self.kill(signal.SIGCONT)
        self.kill(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.pid is not None:
            if time.monotonic() > deadline:
                self.kill(signal.SIGKILL)
            reap()
            time.sleep(0.05)

    def last_words(self) -> str:
        if not self.log.exists():
            return f"{self.name} has written no log"
        state = "runs" if self.pid is not None else "has ended"
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - LAST_WORDS_BYTES))
            return f"{self.name} {state}; the end of {self.log}:\n{log.read().decode(errors='replace')}"

    def wait_ready(self, ready: Callable[[], object], *, seconds: float) -> None:
        """Ends early with the log when the process ended."""

        def is_ready() -> object:
            reap()
            if self.pid is None:
                raise ClusterError(f"{self.name} ended while it should have started.\n{self.last_words()}")
            return ready()

        wait_until(f"{self.name} is ready", is_ready, seconds=seconds, last_words=self.last_words)


def reap() -> None:
    """Collects those of this process's components that have ended, else they would stay zombies as long as it lives."""
    for process in [child for child in _children if child.poll() is not None]:
        _children.remove(process)


def components(layout: Layout) -> Iterator[Component]:
    for record in sorted(layout.run.glob("*.json")):
        yield Component(record.stem, layout)
