"""What is wrong with a box, told by its isolator alone: through a pipe that no program inside can reach, in the form of OCI runtimes' logs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_MOST_BYTES = 1 << 16
_NO_PROGRAM = re.compile(r"error finding executable|failed to load ")
"""runsc's words for a program that is not there, or is none: that is no fault of its box."""


class Faults:
    """`fd` is for the isolator; the starter's own end stays here."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        os.set_blocking(self._read, False)

    def said(self) -> str:
        """In words; empty where nothing is wrong. To be asked when the isolator has ended: what still holds the pipe says nothing any more."""
        try:
            lines = os.read(self._read, _MOST_BYTES).decode("utf-8", "replace").splitlines()
        except BlockingIOError:
            return ""
        found = [message for line in lines if (message := _message(line)) and not _NO_PROGRAM.search(message)]
        return "; ".join(found)[:1000]

    def close(self) -> None:
        os.close(self._read)
        os.close(self.fd)


@contextmanager
def pipe_of_faults() -> Iterator[Faults]:
    faults = Faults()
    try:
        yield faults
    finally:
        faults.close()


def _message(line: str) -> str:
    try:
        told = json.loads(line)
    except ValueError:
        return line
    return (
        str(told.get("msg", "")).partition("\n")[0] if isinstance(told, dict) and told.get("level") == "error" else ""
    )


def kills_for_memory() -> int:
    """Processes that this machine's kernel has ended for want of memory; 0 where it does not count them."""
    try:
        with open("/proc/vmstat", encoding="ascii") as counters:
            return next((int(line.split()[1]) for line in counters if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0
