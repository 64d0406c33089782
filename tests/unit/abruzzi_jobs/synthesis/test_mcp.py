"""The client of tool servers: it works with a good one, and names what a bad one does."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tool_servers import server

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.synthesis.mcp import Patience, ServerFault, session

PATIENT = Patience(start_seconds=120, answer_seconds=120, message_bytes=1 << 16, noise_lines=20)


async def use(change: str = "", patience: Patience = PATIENT):
    async with session(server(change), patience) as talk:
        listed = await talk.list_tools()
        return listed, await talk.call("double", {"n": 4})


async def test_a_good_server_is_initialized_listed_and_called():
    listed, answer = await use()
    assert [spec["name"] for spec in listed.specs] == ["double"]
    assert (answer.text, answer.structured, answer.failed) == ("8", {"n": 8}, False)


async def test_pages_are_followed_batches_banners_pings_and_foreign_answers_are_borne():
    change = """
def list_tools(message):
    print("a banner that does not belong here", flush=True)
    send({"jsonrpc": "2.0", "id": "p1", "method": "ping"})
    pong = json.loads(sys.stdin.readline())
    assert pong == {"jsonrpc": "2.0", "id": "p1", "result": {}}, pong
    send({"jsonrpc": "2.0", "id": "r1", "method": "roots/list"})
    assert json.loads(sys.stdin.readline())["result"]["roots"]
    send({"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": {}})
    assert json.loads(sys.stdin.readline())["error"]["code"] == -32601
    send({"jsonrpc": "2.0", "id": 999, "result": {}})
    cursor = message["params"].get("cursor")
    page = {"tools": TOOLS} if cursor == "2" else {"tools": [{"name": "other", "inputSchema": NUMBER}], "nextCursor": "2"}
    send([{"jsonrpc": "2.0", "method": "notifications/message", "params": {}}, {"jsonrpc": "2.0", "id": message["id"], "result": page}])
"""
    listed, answer = await use(change)
    assert [spec["name"] for spec in listed.specs] == ["other", "double"]
    assert answer.text == "8"


BAD = {
    "ends before it answers": ("def initialize(message): sys.stderr.write('no key\\n'); sys.exit(3)", "crashed", "exit code 3.*no key"),
    "dies while it is called": ("def call(message): os.kill(os.getpid(), 9)", "crashed", "before it answered tools/call double"),
    "never starts": ("sys.exit(1)", "crashed", "exit code 1"),
    "prints without end of line": ("def call(message):\n while True: sys.stdout.write('x' * 4096)", "flooded", "more than 65536 bytes"),
    "prints lines that are no answers": ("def call(message):\n while True: print('hello')", "garbled", "21 lines"),
    "answers others' questions": ("def call(message):\n while True: send({'id': 0, 'result': {}})", "garbled", "21 lines"),
    "nests its JSON without end": ("def call(message):\n while True: print('[' * 30000)", "garbled", "21 lines"),
    "answers with neither result nor error": ("def call(message): send({'id': message['id']})", "garbled", "neither result nor error"),
    "has no list of tools": ("def list_tools(message): answer(message, {'tools': 3})", "garbled", "no list of tools"),
    "has content that is none": ("def call(message): answer(message, {'content': [1]})", "garbled", "no tool result"),
    "lists in circles": ("def list_tools(message): answer(message, {'tools': [], 'nextCursor': 'a'})", "lied", "in circles"),
    "gives another result than it promised": (
        "def call(message): answer(message, {'content': [], 'structuredContent': {'n': 'eight'}})", "lied", "breaks its outputSchema"),
    "leaves out the result that it promised": ("def call(message): answer(message, {'content': []})", "lied", "no structuredContent"),
    "refuses what its schema allows": ("def call(message): refuse(message, -32602, 'n must be even')", "lied", "inputSchema allows"),
    "says that it failed": ("def call(message): refuse(message, -32603, 'broken inside')", "refused", "broken inside"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
async def test_a_server_that(what):
    change, kind, reason = BAD[what]
    with pytest.raises(ServerFault, match=reason) as fault:
        await use(change)
    assert (fault.value.kind, fault.value.code) == (kind, f"server_{kind}")


@pytest.mark.parametrize("when", ["initialize", "call"])
async def test_a_server_that_hangs_is_left_after_its_time_and_killed(when, tmp_path):
    pid = tmp_path / "pid"
    change = f"def {when}(message): open({str(pid)!r}, 'w').write(str(os.getpid())); __import__('signal').pause()"
    bound = {"initialize": "start_seconds", "call": "answer_seconds"}[when]
    for seconds in (2, 20, 120):  # a busy machine may need more than the first to get as far as hanging
        patience = Patience(**{"start_seconds": 120, "answer_seconds": 120, bound: seconds})
        with pytest.raises(ServerFault, match=rf"no answer to .* in {seconds} s") as fault:
            await use(change, patience)
        if pid.exists():
            break
    assert fault.value.kind == "hung"
    assert not Path(f"/proc/{pid.read_text()}").exists()


async def test_a_server_that_floods_its_standard_error_is_not_blocked_and_its_last_words_are_kept():
    change = "def call(message):\n for i in range(200000): sys.stderr.write('noise\\n')\n sys.stderr.write('the end\\n'); sys.exit(1)"
    with pytest.raises(ServerFault, match="the end") as fault:
        await use(change)
    assert len(fault.value.stderr) <= 4096


async def test_tools_with_unusable_names_or_schemas_are_set_aside_and_the_rest_is_kept():
    change = """
TOOLS += [
    {"inputSchema": NUMBER}, 7, {"name": "double", "inputSchema": NUMBER}, {"name": "a"}, {"name": "b", "inputSchema": {"type": "array"}},
    {"name": "c", "inputSchema": {"type": "object", "properties": {"x": {"type": "strin"}}}},
    {"name": "d", "inputSchema": {"type": "object", "properties": {"x": {"$ref": "http://192.0.2.1/schema.json"}}}},
    {"name": "e", "inputSchema": {"type": "object", "properties": {"x": {"$ref": "#/$defs/none"}}}},
    {"name": "f", "inputSchema": NUMBER, "outputSchema": {"type": "object", "required": 3}},
    {"name": "g", "inputSchema": {"type": "object", "properties": {"x": {"pattern": "("}}}},
]
"""
    listed, _ = await use(change)
    assert [spec["name"] for spec in listed.specs] == ["double"]
    reasons = dict(listed.set_aside)
    assert set("abcdefg") <= set(reasons)
    assert reasons["double"] == "listed twice"
    assert "outside of itself" in reasons["d"]


async def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent():
    change = "def call(message): sys.exit(9)"
    async with session(server(change), PATIENT) as talk:
        await talk.list_tools()
        with pytest.raises(AbruzziError, match=r"double: \$\.n: 'four' is not of type 'integer'"):
            await talk.call("double", {"n": "four"})
        with pytest.raises(AbruzziError, match="listed no tool 'triple'"):
            await talk.call("triple", {})


async def test_sessions_leave_no_process_behind():
    began = time.monotonic()
    pids = []
    for _ in range(4):
        async with session(server(), PATIENT) as talk:
            pids.append(talk._process.pid)
    await asyncio.gather(*(use() for _ in range(4)))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert time.monotonic() - began < 120
