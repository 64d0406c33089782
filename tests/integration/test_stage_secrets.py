"""What a stage of the local executor finds when it looks for the secrets of the platform that started it: none but the keys of endpoints that
its recipe refers to. The stage that asks is the one of docs/how-to/ask-a-language-model.md."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server, said

from abruzzi.client import Client
from abruzzi.contracts.states import RunState
from abruzzi_jobs.data.text_shards import zstd_lines
from abruzzi_operators.supervisor.home import read_up

DEADLINE_SECONDS = 240.0
PR_CAPBSET_DROP = 24
READ_OTHERS = (19, 21, 38)
"""CAP_SYS_PTRACE, and since Linux 6.14 CAP_SYS_ADMIN and CAP_PERFMON."""

RECIPE = """
version = 1
name = "curious"
[[stage]]
id = "looks"
kind = "container"
[stage.container]
command = ["python", "-u", "{program}"]
"""
LOOKS = """
import os, pathlib

looked = 0
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        environment = (process / "environ").read_bytes()
    except OSError:
        continue
    looked += 1
    if b"ABRUZZI_HOME={home}" in environment and b"ABRUZZI_CONTROLLER_DATABASE_URL=" in environment:
        print("found the passwords of", (process / "cmdline").read_bytes().replace(bytes(1), b" ").decode())
print("looked" if looked else "saw nothing at all")
print("own:", sorted(name for name in os.environ if name.startswith(("ABRUZZI_", "AWS_", "PG"))))
"""
KEY = "sk-do-not-tell-anybody"
HOW_TO = Path(__file__).parents[2] / "docs/how-to/ask-a-language-model.md"
ASKS = """
version = 1
name = "asking"
[endpoint.teacher]
kind = "openai"
base_url = "{url}"
model = "real-1"
api_key = "secret:teacher-key"
[[stage]]
id = "ask"
kind = "container"
[stage.container]
command = ["python", "-u", "{program}"]
[stage.roles]
rephraser = {{ endpoint = "teacher", max_tokens = 9 }}
"""
CONTRACT = sorted(
    f"ABRUZZI_{name}" for name in ("SPEC", "URL", "TOKEN", "RUN", "STAGE", "ATTEMPT", "EPOCH", "RESUME", "ATTEMPT_DIR")
)


def as_in_a_container() -> None:
    """Where not even root has the capabilities to read every process."""
    for capability in READ_OTHERS if os.geteuid() == 0 else ():
        assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a platform that has cloud credentials and an endpoint's key in its environment."""
    tmp_path = tmp_path_factory.mktemp("up")
    home = tmp_path / "home"
    private = {"AWS_SECRET_ACCESS_KEY": "the cloud's", "ABRUZZI_SECRET_TEACHER_KEY": KEY}
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "abruzzi.cli.main", "up", "--home", str(home), "--port", "0"],
            stdout=log, stderr=log, env=os.environ | private, preexec_fn=as_in_a_container,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while read_up(home) is None:
            assert time.monotonic() < deadline, (tmp_path / "up.log").read_text()
            time.sleep(0.05)
        yield home
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux shows environments")
def test_a_stage_that_looks_finds_neither_the_platforms_passwords_nor_cloud_credentials(
    home: Path, tmp_path: Path
) -> None:
    program = tmp_path / "looks.py"
    program.write_text(LOOKS.replace("{home}", str(home)))
    up = read_up(home)
    assert up is not None
    with Client(up["url"], (home / "token").read_text().strip()) as client:
        run = client.runs.wait(client.runs.submit(RECIPE.format(program=program)).id, timeout_seconds=DEADLINE_SECONDS)
        assert run.state is RunState.SUCCEEDED
        attempt = run.detail[0].attempts[0]
        said = [line.text for line in client.logs.follow(attempt.id, rank=0, poll_seconds=0.05)]
    assert said == ["looked", f"own: {CONTRACT}"]


async def test_a_stage_asks_with_the_key_that_its_recipe_refers_to_and_keeps_what_was_said(
    home: Path, tmp_path: Path
) -> None:
    program = tmp_path / "asks.py"
    program.write_text(HOW_TO.read_text().split("```python\n")[1].split("```")[0])
    up = read_up(home)
    assert up is not None

    def run(url: str) -> tuple[list[str], dict[str, Any]]:
        with Client(up["url"], (home / "token").read_text().strip()) as client:
            recipe = ASKS.format(program=program, url=url)
            run = client.runs.wait(client.runs.submit(recipe).id, timeout_seconds=DEADLINE_SECONDS)
            log = [line.text for line in client.logs.follow(run.detail[0].attempts[0].id, rank=0, poll_seconds=0.05)]
            assert run.state is RunState.SUCCEEDED, log
            [artifact] = client.artifacts.list(run.id)
            client.artifacts.pull(artifact.id, tmp_path / "pulled")
            return log, json.loads((tmp_path / "pulled/calls.json").read_text())

    async with chat_server(said(f"in other words, {KEY}")) as server:
        log, calls = await asyncio.to_thread(run, server.url)
    assert len(server.requests) == 100
    assert all(f"Bearer {KEY}" in head for head in server.headers)
    assert calls["roles"]["rephraser"]["calls"] == 100
    assert calls["roles"]["rephraser"]["generators"] == {"real-1": 100}
    with (tmp_path / "pulled/calls-00000.jsonl.zst").open("rb") as packed:
        records = [json.loads(line) for line in zstd_lines(packed)]
    assert {record["response"]["text"] for record in records} == {"in other words, [key]"}
    assert KEY not in "\n".join(log)
    assert not [path for path in home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
