"""A shard function for tests that can be killed in the middle; worker processes import it by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from abruzzi_jobs.data.processing.function import Output, Row

KILL = "SHARD_LAB_KILL"
"""A file: the first process that finds it takes it away and is killed, in the middle of a shard."""
KILL_ALWAYS = "SHARD_LAB_KILL_ALWAYS"
HOLD = "SHARD_LAB_HOLD"
"""A folder: in the middle of the shard `late`, a process leaves a file `waiting` there and waits."""


class Shouting:
    """Texts in capitals; those that begin with x are rejected."""

    def __init__(self, config: dict[str, Any], seed: int, files: dict[str, bytes]) -> None:
        self._suffix = config.get("suffix", "") + str(seed) + files.get("end", b"").decode()

    def __call__(self, rows: Iterator[Row], output: Output) -> None:
        for number, row in enumerate(rows):
            if number == 5:
                _accident(row)
            if row["text"] == "bug":
                raise LookupError("a bug of the function")
            if row["text"].startswith("x"):
                output.reject(row, "lab.x")
            else:
                output.note("lab.letters", len(row["text"]))
                output.keep({**row, "text": row["text"].upper() + self._suffix})
        output.attach("end", b"end")


def _accident(row: Row) -> None:
    if KILL_ALWAYS in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    if KILL in os.environ:
        try:
            Path(os.environ[KILL]).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
    if HOLD in os.environ and row["source"] == "late":
        (Path(os.environ[HOLD]) / "waiting").touch()
        time.sleep(300)
