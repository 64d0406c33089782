"""A whole platform as an object: for tests, for `abruzzi demo`, for notebooks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.supervisor.child import last_line
from abruzzi_operators.supervisor.home import open_private_log, private_directory, read_up
from abruzzi_operators.supervisor.postgres_binaries import guarded
from abruzzi_operators.supervisor.supervise import PATIENCE_SECONDS

START_SECONDS = 240.0
"""Where it cannot start it says so at once; this is for a machine with much else to do."""
STOP_SECONDS = PATIENCE_SECONDS + 15.0
"""Longer than the supervisor's own patience, which saves what runs."""
POLL_SECONDS = 0.02


class EmbeddedPlatform:
    """`abruzzi up` in a process of its own, ready when the constructor's `start` returns. Use it as a context manager.

    The platform gets SIGTERM when the thread that started it is gone (however it went), so that nothing is left behind.
    """

    def __init__(self, home: Path, *, port: int = 0) -> None:
        self.home = home.absolute()
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EmbeddedPlatform:
        return self if self._process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return str(self._up()["url"])

    @property
    def token(self) -> str:
        """The administrator's."""
        return (self.home / "token").read_text().strip()

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def children(self) -> dict[str, int]:
        """Pids of postgres, api and controller, as they are now."""
        return self._up()["children"]

    @property
    def log_path(self) -> Path:
        return self.home / "logs" / "up.log"

    def start(self) -> EmbeddedPlatform:
        """Returns when the API answers. Raises AbruzziError with the reason that `abruzzi up` gives."""
        for directory in (self.home, self.log_path.parent):
            private_directory(directory)
        command = [sys.executable, "-m", "abruzzi.cli.main", "up", "--home", str(self.home), "--port", str(self._port)]
        with open_private_log(self.log_path) as log:
            self._process = subprocess.Popen(
                guarded(command, identity="same", death_signal=signal.SIGTERM),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        try:
            self._wait_until_up(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while (up := read_up(self.home)) is None or up["pid"] != process.pid:
            if process.poll() is not None:
                raise AbruzziError(
                    "start_failed",
                    f"The platform did not start: {last_line(self.log_path)}",
                    hint=f"Read {self.log_path}.",
                )
            if time.monotonic() > deadline:
                self.kill()
                raise AbruzziError(
                    "start_failed",
                    f"The platform was not ready after {START_SECONDS:.0f} s.",
                    hint=f"Read {self.log_path}.",
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """As Ctrl-C: running attempts save, their runs are continued by the next start. Idempotent.

        An interrupt while it waits is passed on: the supervisor then waits for nobody any more.
        """
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except (KeyboardInterrupt, SystemExit):
                process.send_signal(signal.SIGTERM)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AbruzziError(
                    "stop_failed",
                    f"The platform did not stop within {STOP_SECONDS:.0f} s.",
                    hint=f"Read {self.log_path}.",
                ) from None

    def kill(self) -> None:
        """kill -9 of the supervisor. Running attempts go on; the next start on the same home adopts them."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _up(self) -> dict[str, Any]:
        up = read_up(self.home)
        if up is None:
            raise AbruzziError("not_running", f"No platform runs in {self.home}.")
        return up


def start_platform(home: Path, port: int = 0) -> EmbeddedPlatform:
    """A started platform; its owner calls `stop`."""
    return EmbeddedPlatform(home, port=port).start()
