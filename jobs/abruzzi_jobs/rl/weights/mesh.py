"""Sockets between the members of a group: every one with every other. Small JSON messages only; the weights go by a transport.

A peer that dies is known at once (its sockets close), whatever the transport is. Nothing blocks: what a peer does not read yet waits in a buffer here,
and every wait reads what arrives meanwhile.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Message = dict[str, Any]

_HEADER = struct.Struct("<I")
_HELLO_BYTES = 64 << 10
_HELLO_SECONDS = 10.0
"""That one who has connected may take to say who it is, while others wait."""
_RETRY_SECONDS = 0.01
_PATH_BYTES = 103
"""The smallest limit of the systems that we run on (macOS)."""


class Mesh:
    """One member's sockets. `tell`, `take` and `wait` may be called from several threads."""

    def __init__(self, rank: int, peers: dict[int, socket.socket]) -> None:
        self.rank = rank
        self.size = len(peers) + 1
        self.lost: set[int] = set()
        self._peers = peers
        self._incoming = {peer: bytearray() for peer in peers}
        self._outgoing = {peer: bytearray() for peer in peers}
        self._arrived: deque[tuple[int, Message]] = deque()
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        for peer, connection in peers.items():
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, peer)

    @classmethod
    def join(
        cls,
        rank: int,
        addresses: Sequence[str],
        *,
        token: str = "",
        deadline: float,
        listener: socket.socket | None = None,
    ) -> Mesh:
        """Meets the other members: `addresses[r]` is where rank r listens, a path (one machine) or `host:port`. `token`: what all of them know.

        `listener`: where its port had to be known before the others' addresses were, the socket of `listen`, which is closed here.
        `deadline` on the clock of `time.monotonic`. Raises TimeoutError that names who has not come.
        """
        with listener or listen(addresses[rank]) as own:
            peers: dict[int, socket.socket] = {}
            try:
                for other in range(rank):
                    peers[other] = _connect(addresses[other], rank, token, other, deadline)
                while len(peers) < len(addresses) - 1:
                    missing = [r for r in range(rank + 1, len(addresses)) if r not in peers]
                    other, connection = _accept(own, token, missing, deadline)
                    peers[other] = connection
            except BaseException:
                for connection in peers.values():
                    connection.close()
                raise
            finally:
                if "/" in addresses[rank]:
                    Path(addresses[rank]).unlink(missing_ok=True)
        return cls(rank, peers)

    def tell(self, message: Message, ranks: Sequence[int] | None = None) -> None:
        """To these, or to all others; to those who are lost, nothing."""
        content = json.dumps(message, separators=(",", ":")).encode()
        frame = _HEADER.pack(len(content)) + content
        with self._lock:
            for peer in self._peers if ranks is None else ranks:
                if peer != self.rank and peer not in self.lost:
                    self._outgoing[peer] += frame
                    self._push(peer)

    def take(self) -> list[tuple[int, Message]]:
        """(rank, message) that have arrived, in order, and are taken now."""
        with self._lock:
            found = list(self._arrived)
            self._arrived.clear()
            return found

    def wait(self, seconds: float) -> None:
        """Until something arrives or somebody is lost, at most so long."""
        events = self._selector.select(
            max(0.0, seconds)
        )  # not under the lock: a watchdog must be able to speak meanwhile
        with self._lock:
            for key, mask in events:
                if mask & selectors.EVENT_WRITE:
                    self._push(key.data)
                if mask & selectors.EVENT_READ and key.data not in self.lost:
                    self._pull(key.data)

    def flush(self, seconds: float) -> None:
        """Until all that was told is on its way, at most so long."""
        end = time.monotonic() + seconds
        while any(self._outgoing.values()) and time.monotonic() < end:
            self.wait(end - time.monotonic())

    def close(self) -> None:
        with self._lock:
            for peer in list(self._peers):
                self._lose(peer)
            self._selector.close()

    def _push(self, peer: int) -> None:
        waiting = self._outgoing[peer]
        try:
            while waiting:
                del waiting[: self._peers[peer].send(waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self._lose(peer)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting else 0)
        if self._selector.get_key(self._peers[peer]).events != events:
            self._selector.modify(self._peers[peer], events, peer)

    def _pull(self, peer: int) -> None:
        incoming = self._incoming[peer]
        try:
            content = self._peers[peer].recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        if not content:
            self._lose(peer)
            return
        incoming += content
        while len(incoming) >= _HEADER.size:
            (size,) = _HEADER.unpack_from(incoming)
            if len(incoming) < _HEADER.size + size:
                break
            self._arrived.append((peer, json.loads(bytes(incoming[_HEADER.size : _HEADER.size + size]))))
            del incoming[: _HEADER.size + size]

    def _lose(self, peer: int) -> None:
        if peer not in self.lost:
            self.lost.add(peer)
            self._outgoing[peer].clear()
            self._selector.unregister(self._peers[peer])
            self._peers[peer].close()


def listen(address: str) -> socket.socket:
    """At a path or `host:port`; port 0 is any that is free."""
    if "/" in address:
        if len(os.fsencode(address)) > _PATH_BYTES:
            raise ValueError(
                f"{address}: the path of a socket has at most {_PATH_BYTES} bytes; choose a shorter folder"
            )
        listener = socket.socket(socket.AF_UNIX)
        Path(address).unlink(missing_ok=True)
        listener.bind(address)
    else:
        host, port = address.rsplit(":", 1)
        listener = socket.create_server((host, int(port)))
    listener.listen(64)
    return listener


def address_of(listener: socket.socket) -> str:
    """Where others reach it."""
    name = listener.getsockname()
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


def _connect(address: str, rank: int, token: str, other: int, deadline: float) -> socket.socket:
    while True:
        try:
            connection = dial(address, deadline - time.monotonic())
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"rank {other} does not listen at {address}: {error}") from error
            threading.Event().wait(_RETRY_SECONDS)
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    send_message(connection, {"rank": rank, "token": token})
    return connection


def dial(address: str, seconds: float) -> socket.socket:
    if "/" not in address:
        host, port = address.rsplit(":", 1)
        connection = socket.create_connection((host, int(port)), timeout=max(0.001, seconds))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _accept(listener: socket.socket, token: str, missing: Sequence[int], deadline: float) -> tuple[int, socket.socket]:
    """The next member that proves itself; strangers are turned away."""
    while True:
        listener.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            connection, _ = listener.accept()
        except TimeoutError as error:
            raise TimeoutError(f"ranks {', '.join(map(str, missing))} did not come") from error
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            connection.settimeout(min(_HELLO_SECONDS, max(0.001, deadline - time.monotonic())))
            hello = read_message(connection)
            if hmac.compare_digest(str(hello["token"]), token) and hello["rank"] in missing:
                return hello["rank"], connection
        connection.close()


def send_message(connection: socket.socket, message: Message) -> None:
    """Outside of a mesh, by a socket that blocks with a timeout."""
    content = json.dumps(message).encode()
    connection.sendall(_HEADER.pack(len(content)) + content)


def read_message(connection: socket.socket) -> Message:
    """Of a peer that has proved nothing yet: small. Raises OSError or ValueError."""
    (size,) = _HEADER.unpack(_exactly(connection, _HEADER.size))
    if size > _HELLO_BYTES:
        raise ValueError(f"a message of {size} bytes")
    return json.loads(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = connection.recv(size - len(content))
        if not more:
            raise OSError("closed")
        content += more
    return content
