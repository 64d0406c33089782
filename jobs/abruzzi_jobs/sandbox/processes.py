"""Runs a program in a box to its end, or to the end of its time, of the output that it may write, or of the room that it may take."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox.box import Box, start
from abruzzi_jobs.sandbox.faults import kills_for_memory, pipe_of_faults
from abruzzi_jobs.sandbox.pod_box import OVERFULL
from abruzzi_jobs.sandbox.usage import Watch

Ending = Literal["exited", "timed_out", "flooded", "overfull"]
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Finished:
    """`ending`: `exited` by itself (or by its limits), `timed_out`, `flooded`: killed for more output than allowed, or `overfull`: for more memory of all its
    processes, or more in its workspace. `exit_code` is 128 + n after signal n. Output is cut at the allowed bytes, never refused."""

    ending: Ending
    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float
    late_seconds: float = 0.0
    """The longest that this machine kept whoever watched the box from looking when it was to: one that stands still cannot be told from a program that does."""
    machine_killed: bool = False
    """The kernel ended processes of this machine for want of memory meanwhile: a program that was killed need not have done it itself."""

    @property
    def ok(self) -> bool:
        return self.ending == "exited" and self.exit_code == 0


def run(
    box: Box, argv: Sequence[str], *, stdin: bytes = b"", wall_seconds: float = 60.0, output_bytes: int = 1 << 20
) -> Finished:
    """Raises AbruzziError `no_sandbox` where this machine cannot hold one, `sandbox_failed` when the box could not be built."""
    with pipe_of_faults() as faults:
        command = start(box, argv, fault_fd=faults.fd)  # its time begins when there is a box
        began, killed_before = time.monotonic(), kills_for_memory()
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(faults.fd,),
            start_new_session=True,
        )
        try:
            watch = Watch(child.pid, box.workspace, box.limits)
            ending, out, err, late = _converse(child, stdin, began + wall_seconds, output_bytes, watch)
        finally:
            end(child)
        fault = faults.said()
    code = child.returncode
    if ending == "exited" and fault:
        raise AbruzziError("sandbox_failed", f"The sandbox failed: {fault}", status=503)
    if ending == "exited" and code == -OVERFULL:
        ending = "overfull"  # told by the watch inside a pod
    return Finished(
        ending=ending,
        exit_code=128 - code if code < 0 else code,
        stdout=out[:output_bytes],
        stderr=err[:output_bytes],
        seconds=time.monotonic() - began,
        late_seconds=late,
        machine_killed=kills_for_memory() > killed_before,
    )


def end(child: subprocess.Popen[bytes]) -> None:
    """Kills what is left of it, waits and closes its pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _converse(
    child: subprocess.Popen[bytes], stdin: bytes, deadline: float, most: int, watch: Watch
) -> tuple[Ending, bytes, bytes, float]:
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    taken = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    rest = memoryview(stdin)
    ending: Ending = "exited"
    late = 0.0
    with selectors.DefaultSelector() as ready:
        for number in taken:
            ready.register(number, selectors.EVENT_READ)
        os.set_blocking(child.stdin.fileno(), False)
        ready.register(child.stdin, selectors.EVENT_WRITE)
        while any(key.fd in taken for key in ready.get_map().values()):
            left = deadline - time.monotonic()
            if left <= 0:
                ending = "timed_out"
                break
            if watch.exceeds():
                ending = "overfull"
                break
            asleep = time.monotonic()
            pause = max(0.0, min(left, watch.next_look - asleep))
            events = ready.select(pause)
            late = max(late, time.monotonic() - asleep - pause)
            for key, _ in events:
                if key.fileobj is child.stdin:
                    rest = _feed(child, rest, ready)
                    continue
                chunk = os.read(key.fd, _CHUNK_BYTES)
                taken[key.fd] += chunk
                if not chunk:
                    ready.unregister(key.fd)
            if any(len(text) > most for text in taken.values()):
                ending = "flooded"
                break
    while ending == "exited" and child.poll() is None:  # it has closed its output, and may go on
        left = deadline - time.monotonic()
        if left <= 0:
            ending = "timed_out"
        elif watch.exceeds():
            ending = "overfull"
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, min(left, watch.next_look - time.monotonic())))
    return ending, bytes(taken[child.stdout.fileno()]), bytes(taken[child.stderr.fileno()]), late


def _feed(child: subprocess.Popen[bytes], rest: memoryview, ready: selectors.BaseSelector) -> memoryview:
    assert child.stdin is not None
    try:
        rest = rest[os.write(child.stdin.fileno(), rest[:_CHUNK_BYTES]) :]
    except BrokenPipeError:
        rest = rest[len(rest) :]
    if not rest:
        ready.unregister(child.stdin)
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
    return rest
