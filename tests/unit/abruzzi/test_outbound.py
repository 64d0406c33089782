"""Webhooks do not lead into our own network, however the address is written, and go to the address that was checked."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from abruzzi.notifications.errors import BadTarget, NotDelivered
from abruzzi.notifications.outbound import Outbound, check_url, pinned, post

STRICT = Outbound()
LOOPBACK = Outbound(frozenset({"http"}), frozenset(range(1024, 65536)), (ipaddress.ip_network("127.0.0.0/8"),))
PRIVATE = (
    "0.0.0.0", "10.0.0.1", "10.255.255.255", "100.64.0.1", "127.0.0.1", "127.255.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.254",
    "192.0.0.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip
PRIVATE_V6 = (
    "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "::127.0.0.1", "64:ff9b:1::10.0.0.1",
)  # fmt: skip


def spellings(address: str) -> set[str]:
    """Everything that inet_aton reads as this address: each part in three bases, and the last parts put together."""
    parts = [int(part) for part in address.split(".")]
    bases = (str, hex, lambda n: "0" + oct(n)[2:], lambda n: f"0x{n:08X}")
    found = {
        ".".join(write(p) for write, p in zip(choice, parts, strict=True))
        for choice in itertools.product(bases, repeat=4)
    }
    a, b, c, d = parts
    for write in bases:
        found |= {
            f"{a}.{write(b << 16 | c << 8 | d)}",
            f"{a}.{b}.{write(c << 8 | d)}",
            write(a << 24 | b << 16 | c << 8 | d),
        }
    return found


def test_no_spelling_of_a_private_address_is_accepted() -> None:
    tried = 0
    for address in PRIVATE:
        for host in spellings(address):
            assert socket.inet_aton(host) == socket.inet_aton(address), host
            with pytest.raises(BadTarget):
                check_url(f"https://{host}/hook", STRICT)
            tried += 1
    assert tried > 1000


@pytest.mark.parametrize("address", PRIVATE_V6)
async def test_no_private_ipv6_address_is_accepted_in_the_url_or_from_a_name(address: str) -> None:
    with pytest.raises(BadTarget, match="not a public address"):
        check_url(f"https://[{address}]/", STRICT)
    with pytest.raises(BadTarget, match="not a public address"):
        await pinned("https://hooks.example.org/", STRICT, _names(address))


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_inside_is_refused_even_beside_a_public_address(address: str) -> None:
    with pytest.raises(BadTarget, match="not a public address"):
        await pinned("https://hooks.example.org/", STRICT, _names("93.184.216.34", address))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/", "scheme"),
        ("ftp://example.org/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://example.org:443/", "scheme"),
        ("https://example.org:22/", "port"),
        ("https://example.org:0/", "port"),
        ("https://example.org:99999/", "no URL"),
        ("https://user@example.org/", "user"),
        ("https://example.org:443@127.0.0.1/", "user"),
        ("https://example.org/#fragment", "fragment"),
        ("https:///path", "host"),
        ("https://exa mple.org/", "printable"),
        ("https://example.org\\@127.0.0.1/", "printable"),
        ("https://exämple.org/", "printable"),
        ("https://example.org/" + "a" * 2000, "2000"),
        ("", "scheme"),
    ],
)
def test_urls_that_are_no_public_receiver_are_refused_with_a_reason(url: str, said: str) -> None:
    with pytest.raises(BadTarget, match=said) as refused:
        check_url(url, STRICT)
    assert "https://hooks.example.org" in str(refused.value.hint)


def test_a_public_receiver_is_accepted() -> None:
    for url in (
        "https://example.org/x?y=z",
        "https://example.org:8443/",
        "https://93.184.216.34/",
        "https://[2606:2800:220:1::1]/",
    ):
        assert check_url(url, STRICT).scheme == "https"


def test_an_operator_allows_a_network_and_no_more_than_that() -> None:
    policy = Outbound(networks=(ipaddress.ip_network("10.1.0.0/16"),))
    check_url("https://10.1.2.3/", policy)
    check_url("https://[::ffff:10.1.2.3]/", policy)
    with pytest.raises(BadTarget):
        check_url("https://10.2.0.1/", policy)


async def test_a_name_without_an_address_is_a_failed_try() -> None:
    async def nothing(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(NotDelivered, match="cannot be resolved"):
        await pinned("https://nowhere.example.org/", STRICT, nothing)


class Receiver(BaseHTTPRequestHandler):
    status = 204
    asked: list[tuple[str, str | None, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).asked.append((self.path, self.headers["host"], body))
        self.send_response(type(self).status)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver():  # type: ignore[no-untyped-def]
    kind = type("Receiver", (Receiver,), {"asked": [], "status": 204})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port, kind
        server.shutdown()


async def test_the_connection_goes_to_the_address_that_was_checked(receiver) -> None:  # type: ignore[no-untyped-def]
    port, kind = receiver
    asked: list[str] = []

    async def once(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    await post(f"http://rebinding.example.org:{port}/hook?a=b", b"{}", {}, LOOPBACK, resolve=once)
    assert asked == ["rebinding.example.org"], "a second look-up could be answered with another address"
    assert kind.asked == [("/hook?a=b", f"rebinding.example.org:{port}", b"{}")]


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 410, 500, 503])
async def test_anything_but_success_is_a_failed_try_and_redirects_lead_nowhere(receiver, status: int) -> None:  # type: ignore[no-untyped-def]
    port, kind = receiver
    kind.status = status
    with pytest.raises(NotDelivered, match=str(status)):
        await post(f"http://127.0.0.1:{port}/", b"{}", {}, LOOPBACK)
    assert len(kind.asked) == 1


async def test_a_closed_port_is_a_failed_try() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(NotDelivered, match="cannot be reached"):
            await post(f"http://127.0.0.1:{port}/", b"{}", {}, LOOPBACK)


async def test_proxies_of_the_environment_are_not_used(receiver, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    port, kind = receiver
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    await post(f"http://127.0.0.1:{port}/", b"{}", {}, LOOPBACK)
    assert len(kind.asked) == 1


def _names(*addresses: str):  # type: ignore[no-untyped-def]
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve
