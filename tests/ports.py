"""Ports for the servers that tests start: below those that the kernel hands out (from 32768), so that no connection and nobody's port 0 takes one
between its choice and its server's start, nor while a test has stopped that server. Each process of a test run goes on from a place of its own."""

from __future__ import annotations

import itertools
import random
import socket

FIRST, BEYOND = 11_000, 30_000
"""Above Kubernetes' own (10250 to 10259), below its NodePorts."""
_candidates = itertools.count(random.SystemRandom().randrange(FIRST, BEYOND))


def free_port() -> int:
    """Of all addresses of this machine; no process is given one twice before it has seen all the others."""
    for candidate in itertools.islice(_candidates, BEYOND - FIRST):
        port = FIRST + candidate % (BEYOND - FIRST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port
    raise OSError(f"every port from {FIRST} to {BEYOND - 1} is taken")


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]
