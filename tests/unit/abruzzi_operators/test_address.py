"""The platform's port belongs to it from the moment that it is chosen, whether or not its API listens."""

from __future__ import annotations

import socket

import pytest
from ports import free_port

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.supervisor.address import hold_port

HOST = "127.0.0.1"


def _port(held: socket.socket) -> int:
    return held.getsockname()[1]


def _listening(port: int) -> socket.socket:
    """As uvicorn binds."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((HOST, port))
    found.listen()
    return found


def test_a_held_port_is_no_free_one_and_the_api_may_listen_there_again_and_again() -> None:
    with hold_port(HOST, 0, None) as held:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, _port(held)))
        for _ in range(2):
            with _listening(_port(held)), socket.create_connection((HOST, _port(held)), timeout=60.0):
                pass


def test_the_kernel_gives_a_held_port_to_nobody_who_asks_for_any() -> None:
    held = [hold_port(HOST, 0, None) for _ in range(500)]
    try:
        ports = [_port(each) for each in held]
        assert len(set(ports)) == len(ports)
    finally:
        for each in held:
            each.close()


def test_the_last_port_of_a_home_is_taken_again_and_another_one_where_somebody_listens_on_it() -> None:
    last = free_port()
    with hold_port(HOST, 0, last) as held:
        assert _port(held) == last
    with _listening(last), hold_port(HOST, 0, last) as held:
        assert _port(held) != last


def test_a_port_that_was_asked_for_and_is_taken_is_named_with_the_remedy() -> None:
    asked = free_port()
    with _listening(asked), pytest.raises(AbruzziError, match=f"Port {asked} of {HOST} cannot be used") as caught:
        hold_port(HOST, asked, None)
    assert "--port" in (caught.value.hint or "")
