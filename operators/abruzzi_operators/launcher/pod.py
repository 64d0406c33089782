"""`python -m abruzzi_operators.launcher.pod`: the first process of a stage's pod.

It lays the attempt's directory (an emptyDir) from the mounted Secret, runs the launcher for the ranks of its node, and leaves their outcome
in the termination log, where the kubelet reads it. What the ranks print also goes to standard output, for `kubectl logs`.
SIGTERM (a deleted pod) lets the ranks save and ends with 143. Standard library only, as the launcher.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from abruzzi.contracts.states import ExitCode
from abruzzi_operators.launcher.environment import ENV_ATTEMPT_DIR, ENV_SECRET_DIR, ENV_URL
from abruzzi_operators.launcher.launch import run
from abruzzi_operators.launcher.node import Node, from_pod
from abruzzi_operators.launcher.outcome import to_message
from abruzzi_operators.launcher.procfs import is_same_process
from abruzzi_operators.launcher.shipping import write_whole
from abruzzi_operators.launcher.stacks import dump_stacks

POLL_SECONDS = 0.5
CHUNK_BYTES = 256 * 1024


def main() -> int:
    environment = dict(os.environ)
    directory = Path(environment[ENV_ATTEMPT_DIR])
    try:
        lay(directory, secret=Path(environment[ENV_SECRET_DIR]), url=environment[ENV_URL])
    except OSError as error:
        sys.stderr.write(f"The attempt cannot start: {error}.\n")
        return int(ExitCode.TRY_AGAIN)
    termination_log = Path(environment.get("ABRUZZI_TERMINATION_LOG", "/dev/termination-log"))
    pod_dir = environment.get("ABRUZZI_POD_DIR")

    def node(world_size: int) -> Node:
        return from_pod(environment, world_size=world_size)

    def leave(outcome: dict[str, Any]) -> None:
        termination_log.write_text(to_message(outcome))

    echo = Echo(directory)
    echo.start()
    if pod_dir:
        StackWatch(directory, Path(pod_dir) / "stacks").start()
    code = run(directory, node=node, on_outcome=leave)
    echo.finish()
    return code


def lay(directory: Path, *, secret: Path, url: str) -> None:
    """As the local executor does; spec.json last, so that its presence means a whole directory. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "launch.json", {"url": url})
    for name in ("token", "spec.json"):
        scratch = directory / f".{name}"
        scratch.touch(mode=0o600)
        shutil.copyfile(secret / name, scratch)
        scratch.rename(directory / name)


class Echo:
    """Copies what the ranks print to standard output; with several ranks each line says whose it is."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="echo", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._stopping.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        logs = sorted(self._directory.glob("rank-*/output.log"))
        for log in logs:
            with log.open("rb") as file:
                file.seek(self._offsets.get(log, 0))
                while chunk := file.read(CHUNK_BYTES):
                    whole = chunk if len(logs) == 1 else chunk[: chunk.rfind(b"\n") + 1]
                    if not whole:
                        break  # a line that is still being written
                    self._say(log.parent.name, whole, named=len(logs) > 1)
                    self._offsets[log] = self._offsets.get(log, 0) + len(whole)
                    file.seek(self._offsets[log])

    def _say(self, rank: str, text: bytes, *, named: bool) -> None:
        with suppress(OSError):  # nobody may be listening
            prefix = f"[{rank}] ".encode() if named else b""
            sys.stdout.buffer.write(b"".join(prefix + line for line in text.splitlines(keepends=True)))
            sys.stdout.buffer.flush()


class StackWatch:
    """Keeps a rank's stacks when the executor asks for them: it writes `<rank> <time>` on the pod, and the kubelet into this file."""

    def __init__(self, directory: Path, request: Path) -> None:
        self._directory, self._request = directory, request
        self._thread = threading.Thread(target=self._run, name="stack-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        answered = ""
        while True:
            time.sleep(POLL_SECONDS)
            with suppress(OSError):
                asked = self._request.read_text().strip()
                if asked and asked != answered:
                    answered = asked
                    self._dump(asked.split()[0])

    def _dump(self, rank: str) -> None:
        rank_dir = self._directory / f"rank-{rank}"
        if not rank_dir.is_dir():
            return  # a rank of another node
        with suppress(ValueError):
            recorded = json.loads((rank_dir / "rank.json").read_text())
            if is_same_process(recorded):
                dump_stacks(rank_dir, rank_pid=int(recorded["pid"]))


if __name__ == "__main__":
    sys.exit(main())
