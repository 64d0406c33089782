"""Adapter for the package `checkpoint-engine` (0.4.2, MoonshotAI): the paper authors' own engine, between GPUs only, as an optional extra.

Its trainer side is a ParameterServer in each training process; its engine side reads CUDA IPC buffers. Trainer and engine must share IPC and network
namespaces (containers of one pod): it passes handles by pickle over a socket that knows no authentication. It has no checksums, no versions and, where
an engine dies while it is being fed, no deadline; those three are added here. The package is imported only when a server is made.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch import Tensor

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.weights.group import Fault, WeightUpdateFailed
from abruzzi_jobs.rl.weights.registered import Registered, as_bytes, checksum
from abruzzi_jobs.rl.weights.reload import Sink, compare
from abruzzi_jobs.rl.weights.worker import DEADLINE_SECONDS, UpdateReport

Handles = list[tuple[str, str]]
"""(UUID of a device, address of the socket that its engine connects to)."""

Request = Callable[[Handles, int, Mapping[str, str]], None]
"""Tells the engines to `receive` this version with these checksums; returns when they have, raises where one has failed. Called in a thread."""


class PackageWorker:
    """One training process's side. After a failure it is not used again: make a new one in all processes (its device list is from its first update)."""

    def __init__(
        self,
        request: Request,
        *,
        rank: int,
        world_size: int,
        master_addr: str,
        master_port: int,
        deadline_seconds: float = DEADLINE_SECONDS,
        package: Any = None,
    ) -> None:
        """Raises AbruzziError `missing_package`."""
        self._request, self._rank, self._deadline_seconds = request, rank, deadline_seconds
        with _environment_rank(rank):
            self._server = (package or _imported()).ParameterServer(
                rank=rank, world_size=world_size, master_addr=master_addr, master_port=master_port
            )
        self._registered: Registered | None = None
        self._failed = False

    def register(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Copies into the server's pinned memory. Versions only grow."""
        before = self._registered
        if before is not None and version <= before.version:
            raise ValueError(f"version {version} is not newer than {before.version}, which is registered")
        if before is not None:
            self._server.unregister_checkpoint(_name(before.version))
        self._registered = Registered(version, tensors, copy=False)  # for the checksums
        # In place, it would delete the files that it pins.
        self._server.register_checkpoint(_name(version), named_tensors=dict(tensors), use_inplace_pin_memory=False)

    def update(self) -> UpdateReport:
        """All training processes call it. Raises WeightUpdateFailed within the deadline."""
        if self._registered is None or self._failed:
            raise ValueError("register weights first, with a server that has not failed")
        registered, started = self._registered, time.perf_counter()
        answers: list[BaseException] = []
        planned = started

        def request(handles: Handles) -> None:
            # In a thread of the package's, where an exception would be lost.
            try:
                self._request(handles, registered.version, registered.sums)
            except Exception as error:
                answers.append(error)

        def work() -> None:
            nonlocal planned
            try:
                self._server.gather_metas(_name(registered.version))
                planned = time.perf_counter()
                self._server.update(
                    _name(registered.version), request, timeout=timedelta(seconds=self._deadline_seconds)
                )
            except Exception as error:
                answers.append(error)

        thread = threading.Thread(target=work, name="abruzzi-checkpoint-engine", daemon=True)
        thread.start()
        thread.join(self._deadline_seconds)
        if thread.is_alive():
            answers.append(TimeoutError(f"not done after {self._deadline_seconds:g} s"))
        if answers:
            self._failed = True
            faults = [Fault(self._rank, "update by checkpoint-engine", str(error)) for error in answers]
            raise WeightUpdateFailed(faults, serving=None)
        ended = time.perf_counter()
        size = sum(len(flat) for flat in registered.flat.values())
        seconds = {"plan": planned - started, "broadcast": ended - planned, "verify": 0.0, "total": ended - started}
        return UpdateReport(registered.version, "checkpoint-engine", "two-stage", size, 0, False, False, seconds)


def receive(
    sink: Sink,
    handle: str,
    device_id: int,
    version: int,
    sums: Mapping[str, str],
    *,
    package: Any = None,
    context: Any = None,
) -> None:
    """The engine's side: loads what comes from `handle` (its device's among the request's). `sums`: of the parameters that the asking process has
    registered. `context`: of pyzmq.

    Raises ValueError where checksums differ, and what the sink raises; the old version is served then.
    """
    if version <= sink.version:
        raise ValueError(f"version {version} is not newer than {sink.version}, which is served")
    found: dict[str, str] = {}
    refused: list[Exception] = []

    def run(tensors: Iterable[tuple[str, Tensor]]) -> None:
        arrived = list(tensors)
        found.update({name: checksum(as_bytes(tensor)) for name, tensor in arrived})
        sink.load_bucket(arrived)

    def finish() -> None:
        # The package's server would wait for ever for one that raises here; it hears of it by the request's answer.
        try:
            compare(sums, found)
            sink.finish_update(version)
        except Exception as error:
            refused.append(error)

    sink.begin_update(version)
    try:
        (package or _imported()).update_weights_from_ipc(
            context or importlib.import_module("zmq").Context(), handle, device_id, run=run, post_hook=finish
        )
        if refused:
            raise refused[0]
    except BaseException:
        sink.abandon_update()
        raise


def _name(version: int) -> str:
    return f"version-{version}"


@contextmanager
def _environment_rank(rank: int) -> Iterator[None]:
    """The package takes `rank=0` for not given, and looks into the environment."""
    before = os.environ.get("RANK")
    os.environ["RANK"] = str(rank)
    try:
        yield
    finally:
        if before is None:
            del os.environ["RANK"]
        else:
            os.environ["RANK"] = before


def _imported() -> Any:
    try:
        return importlib.import_module("checkpoint_engine")
    except (ImportError, TypeError) as error:
        raise AbruzziError(
            "missing_package",
            f"The package checkpoint-engine is not to be used here: {error}.",
            hint="Install abruzzi-jobs[checkpoint-engine] on a machine with GPUs, or take another transport.",
        ) from error
