"""The address of the platform: a port that nobody else is given while the platform lives."""

from __future__ import annotations

import socket

from abruzzi.contracts.errors import AbruzziError

DEFAULT_PORT = 8600


def hold_port(host: str, asked: int | None, last: int | None) -> socket.socket:
    """Bound, not listening, to the port asked for, or (0) the last one of this home if it is free, or any. Close it to give the port back.

    The API listens there seconds later, and again after each restart. A port that were free meanwhile could be given to another platform, and what
    asks for this one would be answered by that one. Whoever sets SO_REUSEADDR may listen beside a socket that only holds; the kernel gives the
    port to nobody who asks for any.

    Raises AbruzziError `port`.
    """
    candidates = [asked] if asked else [*([last] if last else []), *([DEFAULT_PORT] if asked is None else []), 0]
    for candidate in candidates:
        held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, candidate))
        except OSError as error:
            held.close()
            if asked or candidate == 0:
                raise AbruzziError(
                    "port",
                    f"Port {candidate} of {host} cannot be used: {error.strerror}.",
                    hint="Name another with --port, or 0 for a free one.",
                ) from error
            continue
        return held
    raise AssertionError("port 0 is always answered")


def reachable(host: str) -> str:
    """An address that this machine reaches itself by."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
