"""A replica that joins late, or replaces one that has failed, takes the current weights from those who have them registered (paper 3.3.3).

It forms a group of its own with a thread in each of their processes, so no other engine hears of it: those keep serving. The update is the same as
any other (plan, checksums, deadline), of the version that was registered when it began.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.weights.collective import Collective
from abruzzi_jobs.rl.weights.group import Group, WeightUpdateFailed
from abruzzi_jobs.rl.weights.mesh import address_of, dial, listen, read_message, send_message
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.reload import Sink
from abruzzi_jobs.rl.weights.shared_memory import SharedMemory
from abruzzi_jobs.rl.weights.transport import Transport
from abruzzi_jobs.rl.weights.worker import BUCKET_BYTES, DEADLINE_SECONDS, CheckpointWorker, UpdateReport

logger = logging.getLogger(__name__)

_HELLO_SECONDS = 10.0


class PullServer:
    """Gives what is registered to replicas that ask, in threads of its own. A context manager."""

    def __init__(
        self,
        address: str,
        registered: Callable[[], Registered],
        *,
        token: str = "",
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """`address`: a path (replicas of this machine, by shared memory) or `host:port` (gloo). `registered`: what to give now; it must be a copy
        (`register(copy=True)`), as training goes on meanwhile."""
        self.address = address
        self._registered, self._token, self._deadline_seconds = registered, token, deadline_seconds
        self._pulls = 0

    def __enter__(self) -> Self:
        self._listener = listen(self.address)
        self.address = address_of(self._listener)
        threading.Thread(target=self._accept, name="abruzzi-pulls", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._listener.close()
        if "/" in self.address:
            Path(self.address).unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._pulls += 1
            threading.Thread(
                target=self._serve, args=(connection, self._pulls), name="abruzzi-pull", daemon=True
            ).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection:
                joined = self._meet(connection, number)
            if joined is None:
                return
            group, transport, bucket_bytes, source = joined
            worker = CheckpointWorker(
                group, transport, bucket_bytes=bucket_bytes, deadline_seconds=self._deadline_seconds
            )
            worker.registered = source
            worker.update()
            worker.close()
        except (OSError, ValueError, KeyError, TypeError, WeightUpdateFailed) as error:
            # The replica has its own side of it, with this one's words where they reached it.
            logger.warning("a replica that pulled the weights got none: %s", error)

    def _meet(self, connection: socket.socket, number: int) -> tuple[Group, Transport, int, Registered] | None:
        """The group with one replica that has proved itself and been told where to come; None where it is turned away."""
        connection.settimeout(_HELLO_SECONDS)
        if not hmac.compare_digest(str(read_message(connection)["token"]), self._token):
            return None
        source = self._registered()
        if not source.copied:
            send_message(connection, {"refusal": "what is registered here is no copy of its own"})
            return None
        with listen(_beside(self.address, number)) as listener:
            own = address_of(listener)
            try:
                send_message(connection, {"address": own, "refusal": ""})
                invitation = read_message(connection)
                group = Group.join(
                    invitation["rank"],
                    invitation["addresses"],
                    token=self._token,
                    seconds=self._deadline_seconds,
                    listener=listener,
                )
            finally:
                if "/" in own:
                    Path(own).unlink(missing_ok=True)
        return group, _transport(invitation["addresses"][0]), invitation["bucket_bytes"], source


def pull(
    sources: Sequence[str],
    sink: Sink,
    *,
    host: str = "127.0.0.1",
    token: str = "",
    bucket_bytes: int = BUCKET_BYTES,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> UpdateReport:
    """Weights for `sink` from all `sources` (addresses of PullServers that have the parameters between them). `host`: where they reach this process.

    Raises WeightUpdateFailed, or AbruzziError `no_weights` where a source does not answer or has nothing to give.
    """
    deadline = time.monotonic() + deadline_seconds
    local = all("/" in source for source in sources)
    folder = tempfile.mkdtemp(prefix="abruzzi-pull-")
    try:
        with contextlib.ExitStack() as open_:
            listener = open_.enter_context(listen(f"{folder}/0" if local else f"{host}:0"))
            own = address_of(listener)
            asked = [open_.enter_context(_ask(source, token, deadline)) for source in sources]
            addresses = [own, *(_answer(source, connection) for source, connection in zip(sources, asked, strict=True))]
            for rank, connection in enumerate(asked, start=1):
                send_message(connection, {"rank": rank, "addresses": addresses, "bucket_bytes": bucket_bytes})
            group = Group.join(0, addresses, token=token, seconds=deadline - time.monotonic(), listener=listener)
        worker = CheckpointWorker(
            group,
            _transport(own),
            sink=sink,
            bucket_bytes=bucket_bytes,
            deadline_seconds=max(0.001, deadline - time.monotonic()),
        )
        report = worker.update()
        worker.close()
        return report
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ask(source: str, token: str, deadline: float) -> socket.socket:
    try:
        connection = dial(source, deadline - time.monotonic())
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        send_message(connection, {"token": token})
    except OSError as error:
        raise _no_weights(source, str(error)) from error
    return connection


def _answer(source: str, connection: socket.socket) -> str:
    try:
        answer = read_message(connection)
    except (OSError, ValueError) as error:
        raise _no_weights(source, f"{error}; is the token the same?") from error
    if answer["refusal"]:
        raise _no_weights(source, answer["refusal"])
    return answer["address"]


def _no_weights(source: str, what: str) -> AbruzziError:
    return AbruzziError(
        "no_weights",
        f"No weights from {source}: {what}.",
        status=503,
        hint="See that the process there lives and has registered a copy; then pull again.",
    )


def _transport(first: str) -> Transport:
    """By the address of the member that joins."""
    return SharedMemory() if "/" in first else Collective("gloo", host=first.rsplit(":", 1)[0])


def _beside(address: str, number: int) -> str:
    return f"{address}.{number}" if "/" in address else f"{address.rsplit(':', 1)[0]}:0"
