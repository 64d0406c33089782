"""Our own processor time a call, at an endpoint that answers at once: what 500 conversations at a time cost beside the models' work.

    python bench/chat_calls.py [--out FILE] [--rounds 7] [--calls 2000] [--concurrency 500]

Candidates take turns in one process; the server is another process, whose time is not counted. "roles" is the whole of `RoleClient.complete`:
HTTP, hash and cache, ledger, a record of each call packed and written. "cached" is the same questions again, answered from the log of calls.
Rivals are clients alone, which keep and count nothing: bare aiohttp (what ours stands on), and httpx, which OpenAI's own client stands on
(its pool looks through all connections at each call, so its cost grows with their number).
Processor time, because it stays true on a busy machine. Target: at most 1 ms a call, half of what a turn of a trajectory may cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import httpx
from interleaved import machine, report

from abruzzi.contracts.endpoint import ChatRole, OpenAiEndpoint, RoleConfig
from abruzzi.store import DirectoryStore
from abruzzi_jobs.chat.calls import CallLog
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.chat.roles import Roles, open_roles

TARGET_US = 1000.0
PASSAGE = "The quick brown fox jumps over the lazy dog, and nobody knows why it does. " * 25
"""1 900 characters: about the part of a document that is rewritten at a time."""


class AtOnce(asyncio.Protocol):
    """Answers each request when its last byte is there; keeps the connection."""

    BODY = json.dumps(
        {
            "id": "chatcmpl-1", "object": "chat.completion", "model": "at-once", "created": 1,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": PASSAGE}}],
            "usage": {"prompt_tokens": 480, "completion_tokens": 470, "total_tokens": 950},
        }
    ).encode()  # fmt: skip
    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            head = self._waiting[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._waiting) < end + 4 + length:
                return
            self._waiting = self._waiting[end + 4 + length :]
            self._transport.write(self.ANSWER)  # type: ignore[attr-defined]


def serve(told: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(AtOnce, "127.0.0.1", 0, backlog=2048)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def processor_us(ask: Callable[[str], Awaitable[object]], questions: list[str], concurrency: int) -> float:
    """Of this process, a call; `concurrency` tasks take the questions in turn, as as many trajectories would."""
    remaining = iter(questions)

    async def worker() -> None:
        for question in remaining:
            await ask(question)

    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return (time.process_time() - began) / len(questions) * 1e6


def questions_of(round_number: int, calls: int) -> list[str]:
    return [f"Round {round_number}, question {number}: {PASSAGE}" for number in range(calls)]


async def measure(url: str, folder: Path, *, rounds: int, calls: int, concurrency: int) -> dict[str, list[float]]:
    def messages(question: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": question}]

    endpoint = OpenAiEndpoint(kind="openai", base_url=url, model="at-once", concurrency=concurrency)
    config = {ChatRole.AGENT: RoleConfig(endpoint="e")}
    log = CallLog(DirectoryStore(folder), "calls/", writer="bench")
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    slots = asyncio.Semaphore(concurrency)
    found: dict[str, list[float]] = {"roles": [], "cached": [], "aiohttp": [], "httpx": []}
    async with (
        open_roles(config, {"e": endpoint}, log=log) as roles,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as bare,
        httpx.AsyncClient(limits=limits, timeout=120) as rival,
    ):

        async def by_roles(question: str) -> None:
            await roles["agent"].complete(ChatRequest(messages=messages(question), temperature=0.7, max_tokens=512))

        def body(question: str) -> dict[str, object]:
            asked = {"model": "at-once", "messages": messages(question)}
            return {**asked, "temperature": 0.7, "max_tokens": 512, "seed": 1}

        async def by_aiohttp(question: str) -> None:
            async with slots, bare.post(f"{url}/chat/completions", json=body(question)) as response:
                await response.json()

        async def by_httpx(question: str) -> None:
            async with slots:
                (await rival.post(f"{url}/chat/completions", json=body(question))).json()

        ways = {"roles": by_roles, "cached": by_roles, "aiohttp": by_aiohttp, "httpx": by_httpx}
        for number in range(-1, rounds):  # the first opens the connections
            for name in list(ways) if number % 2 else ["httpx", "aiohttp", "roles", "cached"]:
                # httpx takes so long that a share of the questions says as much.
                count = max(2 * concurrency, calls // 4) if name == "httpx" else calls
                spent = await processor_us(ways[name], questions_of(number, count), concurrency)
                if number >= 0:
                    found[name].append(spent)
        check(roles, calls * (rounds + 1))
    return found


def check(roles: Roles, calls: int) -> None:
    account = roles["agent"].account
    if (account.calls, account.cache_hits) != (calls, calls):
        raise SystemExit(f"{account.calls} calls and {account.cache_hits} hits, expected {calls} of each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=500)
    options = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            measure(url, Path(folder), rounds=options.rounds, calls=options.calls, concurrency=options.concurrency)
        )
    server.terminate()
    medians = {name: statistics.median(values) for name, values in found.items()}
    result = {
        "figure": "processor time of our own a chat call, at an endpoint that answers at once",
        "concurrency": options.concurrency,
        "calls_a_round": options.calls,
        "prompt_characters": len(PASSAGE),
        "unit": "microseconds of this process a call, median of the rounds",
        "medians": {name: round(value, 1) for name, value in medians.items()},
        "rounds": {name: [round(value, 1) for value in values] for name, values in found.items()},
        "times_httpx": round(medians["httpx"] / medians["roles"], 2),
        "target": {"roles_us_at_most": TARGET_US, "met": medians["roles"] <= TARGET_US},
        "machine": machine(threads=1),
    }
    report(result, out=options.out)
    if not result["target"]["met"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
