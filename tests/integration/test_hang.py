"""Ranks that stop to move, and ranks that only cannot be heard, over the whole real platform."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from abruzzi.contracts.states import AttemptState, Cause, RunState

pytestmark = [pytest.mark.serial, pytest.mark.slow]

RECIPE = """
version = 1
name = "hangs"
[[stage]]
id = "work"
kind = "container"
[stage.container]
command = ["python", "-u", "{program}"]
env = {{ GO = "{go}" }}
[stage.resources]
ranks = {ranks}
[stage.retry]
hang = "{hang}"
"""
HANGS_ONCE = """
import pathlib, sys, time
from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.states import ArtifactKind

def stuck_here():
    while True:
        time.sleep(60)

context = StageContext.from_env()
context.install_signals()
resumed = context.resume()
step = resumed.manifest.step if resumed else 0
print("begins at step", step)
with Reporter.from_context(context) as reporter:
    while step < 20 or resumed is None:
        step += 1
        reporter.heartbeat(step, "work", total_steps=20, even_steps=True)
        if step == 10 and resumed is None and context.rank == 0:
            weights = pathlib.Path("weights.txt")
            weights.write_text("good")
            context.commit(ArtifactKind.CHECKPOINT, "step-10", {"weights.txt": weights}, step=10)
        if step == 10 and resumed is None and context.rank == 1:
            stuck_here()
        if context.stop_requested.wait(0.05):
            sys.exit(143)
print("ends at step", step)
"""
SPEAKS_HTTP = """
import json, os, time, urllib.request

token = open(os.environ["ABRUZZI_TOKEN"]).read().strip()
url = f"{os.environ['ABRUZZI_URL']}/api/v1/attempts/{os.environ['ABRUZZI_ATTEMPT']}/heartbeats"
step = 0
while not os.path.exists(os.environ["GO"]):
    step += 1
    beat = json.dumps({"rank": 0, "step": step, "phase": "work", "at": time.time()}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        urllib.request.urlopen(urllib.request.Request(url, beat, headers), timeout=1.0)
        print("heard", flush=True)
        time.sleep(0.2)
    except OSError:
        print("unheard", flush=True)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def disturbed(lasting):  # type: ignore[no-untyped-def]
    """One platform for all tests of this file."""
    return lasting


def recipe(tmp_path: Path, program: str, *, ranks: int, hang: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(program)
    return RECIPE.format(program=path, go=tmp_path / "go", ranks=ranks, hang=hang)


def test_a_rank_that_hangs_is_named_its_stack_is_kept_and_the_next_attempt_goes_on(disturbed, tmp_path: Path) -> None:
    run_id = disturbed.submit(recipe(tmp_path, HANGS_ONCE, ranks=2, hang="10 s"))
    run = disturbed.wait_end(run_id)
    assert run.state is RunState.SUCCEEDED
    first, second = sorted(run.detail[0].attempts, key=lambda attempt: attempt.number)
    assert (first.state, first.cause) == (AttemptState.FAILED, Cause.HANG)
    assert first.reason is not None
    assert first.reason.startswith("Rank 1 made no progress for ")
    assert "at step 10" in first.reason
    assert "stuck_here" in (disturbed.attempt_dir(first.id).path / "rank-1" / "stacks.txt").read_text()
    assert "stuck_here" in disturbed.served_log(first.id, rank=1)
    assert "stuck_here" not in disturbed.served_log(first.id, rank=0)
    assert (second.state, second.exit_code) == (AttemptState.SUCCEEDED, 0)
    assert second.epoch > first.epoch
    for rank in (0, 1):
        assert disturbed.served_log(second.id, rank=rank) == "begins at step 10\nends at step 20\n"


def test_an_outage_of_the_api_is_no_hang_of_a_stage_that_speaks_plain_http(disturbed, tmp_path: Path) -> None:
    run_id = disturbed.submit(recipe(tmp_path, SPEAKS_HTTP, ranks=1, hang="5 s"))
    printed = lambda: disturbed.printed(run_id, "work")  # noqa: E731
    disturbed.until(lambda: printed().count("heard") >= 5)
    api = disturbed.pid("api")
    os.kill(api, signal.SIGSTOP)
    try:
        disturbed.until(lambda: printed().count("unheard") >= 9)  # each waits a second for its answer
    finally:
        os.kill(api, signal.SIGCONT)
    disturbed.until(lambda: printed().rstrip().endswith("heard\nheard\nheard") and not printed().endswith("unheard\n"))
    (tmp_path / "go").touch()
    run = disturbed.wait_end(run_id)
    assert [(a.state, a.cause) for a in run.detail[0].attempts] == [(AttemptState.SUCCEEDED, None)]
