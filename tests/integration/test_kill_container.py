"""kill -9 of every part of the platform while a `container` stage runs: the run succeeds, logs are whole, exit codes are true.

tests/conftest.py holds the harness (`disturbed`); it takes any recipe.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from abruzzi.contracts.states import AttemptState, RunState
from abruzzi_operators.launcher.procfs import start_time

pytestmark = pytest.mark.slow

STAGE = "work"
TICKS = """
import os, signal, sys, time
def save(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
count = 0
while not os.path.exists(os.environ["GO_FILE"]):
    print(f"tick {count}", flush=True)
    count += 1
    time.sleep(0.01)
print(f"end {count}", flush=True)
"""


@pytest.fixture(scope="module")
def disturbed(lasting):  # type: ignore[no-untyped-def]
    """One platform for all tests of this file."""
    return lasting


def recipe(go_file: Path, *, ranks: int = 1) -> str:
    """Prints numbered lines until `go_file` appears."""
    return f"""
version = 1
name = "ticks"

[[stage]]
id = "{STAGE}"
kind = "container"
[stage.container]
command = ["python", "-c", '''{TICKS}''']
env = {{ GO_FILE = "{go_file}" }}
[stage.resources]
ranks = {ranks}
"""


def assert_whole(log: str) -> None:
    """No gap, no duplicate, the end there."""
    *ticks, end = log.splitlines()
    assert ticks == [f"tick {i}" for i in range(len(ticks))]
    assert end == f"end {len(ticks)}"


def ticks(disturbed, run_id: str, rank: int = 0) -> int:
    return disturbed.printed(run_id, STAGE, rank).count("\n")


@pytest.mark.parametrize("part", ["controller", "api", "postgres", "supervisor", "launcher"])
def test_a_run_survives_the_kill_of_the(part: str, disturbed, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run_id = disturbed.submit(recipe(go))
    disturbed.until(lambda: ticks(disturbed, run_id) >= 5)
    # What the first start has made is on disk (otherwise the recovery writes it, and takes as long as this busy disk likes).
    disturbed.until(lambda: "checkpoint complete" in (disturbed.home / "logs" / "postgres.log").read_text())
    rank = disturbed.pid("rank", run_id=run_id, stage_id=STAGE)
    before = disturbed.pid(part, run_id=run_id, stage_id=STAGE)
    disturbed.kill(part, run_id=run_id, stage_id=STAGE)
    if part in ("controller", "api", "postgres"):
        disturbed.until_back(part, before=before)  # test_back_in_time.py measures it
    if part == "launcher":
        disturbed.until(lambda: disturbed.pid(part, run_id=run_id, stage_id=STAGE) != before)
    after = ticks(disturbed, run_id)
    disturbed.until(lambda: ticks(disturbed, run_id) >= after + 5)
    assert disturbed.pid("rank", run_id=run_id, stage_id=STAGE) == rank, "the rank went on all the time"
    go.touch()
    run = disturbed.wait_end(run_id)
    assert run.state is RunState.SUCCEEDED
    [attempt] = run.detail[0].attempts
    assert (attempt.state, attempt.exit_code) == (AttemptState.SUCCEEDED, 0)
    assert_whole(disturbed.served_log(attempt.id))


@pytest.mark.parametrize("part", ["rank", "shim"])
def test_a_killed_rank_is_one_failed_attempt_and_the_next_succeeds(part: str, disturbed, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run_id = disturbed.submit(recipe(go, ranks=2))
    disturbed.until(lambda: min(ticks(disturbed, run_id, rank) for rank in (0, 1)) >= 5)
    disturbed.kill(part, run_id=run_id, stage_id=STAGE, rank=1)
    disturbed.until(lambda: len(disturbed.attempts(run_id, STAGE)) == 2 and ticks(disturbed, run_id) >= 5)
    go.touch()
    run = disturbed.wait_end(run_id)
    assert run.state is RunState.SUCCEEDED
    first, second = sorted(run.detail[0].attempts, key=lambda attempt: attempt.number)
    assert (first.state, first.exit_code) == (AttemptState.FAILED, 137)
    assert (second.state, second.exit_code) == (AttemptState.SUCCEEDED, 0)
    assert second.epoch > first.epoch
    assert disturbed.served_log(first.id, rank=0).endswith("saved\n")
    for rank in (0, 1):
        assert_whole(disturbed.served_log(second.id, rank=rank))


def test_a_user_error_stays_one_when_the_control_plane_is_killed_meanwhile(disturbed, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run_id = disturbed.submit(recipe(go).replace('print(f"end {count}", flush=True)', "sys.exit(64)"))
    disturbed.until(lambda: ticks(disturbed, run_id) >= 5)
    disturbed.platform.kill()
    go.touch()
    attempt = disturbed.newest_attempt(run_id, STAGE)
    disturbed.until(lambda: attempt.read("rank-0/exit.json") is not None)
    disturbed.platform.start()
    run = disturbed.wait_end(run_id)
    assert run.state is RunState.FAILED
    assert [a.exit_code for a in run.detail[0].attempts] == [64]


def test_ctrl_c_saves_leaves_nothing_behind_and_the_next_up_continues(disturbed, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run_id = disturbed.submit(recipe(go))
    disturbed.until(lambda: ticks(disturbed, run_id) >= 5)
    disturbed.platform.stop()
    assert processes_of(disturbed.home) == []
    disturbed.platform.start()
    disturbed.until(lambda: len(disturbed.attempts(run_id, STAGE)) == 2 and ticks(disturbed, run_id) >= 5)
    go.touch()
    run = disturbed.wait_end(run_id)
    assert run.state is RunState.SUCCEEDED
    first, second = sorted(run.detail[0].attempts, key=lambda attempt: attempt.number)
    assert (first.state, first.exit_code) == (AttemptState.INTERRUPTED, 143)
    assert disturbed.served_log(first.id).endswith("saved\n")
    assert_whole(disturbed.served_log(second.id))


LOGS = """
import os, sys, time
from abruzzi.client.stage import Reporter, StageContext
reporter = Reporter.from_context(StageContext.from_env())
step = 0
while not os.path.exists(sys.argv[1]):
    step += 1
    reporter.log({"work/step": float(step)}, step=step)
    time.sleep(0.01)
reporter.close(deadline_seconds=0.5)
print(step)
"""


def test_points_that_a_rank_could_not_send_before_its_end_are_all_there_when_the_platform_is_back(
    disturbed, tmp_path: Path
) -> None:
    go, program = tmp_path / "go", tmp_path / "logs.py"
    program.write_text(LOGS)
    lines = ["version = 1", 'name = "logs"', "[[stage]]", f'id = "{STAGE}"', 'kind = "container"', "[stage.container]"]
    run_id = disturbed.submit("\n".join([*lines, f'command = ["python", "-u", "{program}", "{go}"]']))
    disturbed.until(lambda: disturbed.ask(lambda client: client.metrics.keys(run_id)))
    attempt = disturbed.newest_attempt(run_id, STAGE)
    disturbed.platform.kill()
    spool = attempt.path / "rank-0" / "spool"
    disturbed.until(lambda: any(segment.stat().st_size for segment in spool.glob("*.jsonl")))
    go.touch()
    disturbed.until(lambda: attempt.read("rank-0/exit.json") is not None)
    assert any(spool.glob("*.jsonl")), "it could not send what it had"
    disturbed.platform.start()
    assert disturbed.wait_end(run_id).state is RunState.SUCCEEDED
    last = int(disturbed.printed(run_id, STAGE).splitlines()[-1])
    disturbed.until(lambda: attempt.logs_are_shipped)
    [series] = disturbed.ask(lambda client: client.metrics.series(run_id, ["work/step"], max_points=last))
    assert series.steps == list(range(1, last + 1))


def test_cancelling_stops_the_processes(disturbed, tmp_path: Path) -> None:
    run_id = disturbed.submit(recipe(tmp_path / "never"))
    disturbed.until(lambda: ticks(disturbed, run_id) >= 5)
    rank = disturbed.pid("rank", run_id=run_id, stage_id=STAGE)
    disturbed.ask(lambda client: client.runs.cancel(run_id))
    assert disturbed.wait_end(run_id).state is RunState.CANCELLED
    assert start_time(rank) is None


def processes_of(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            mine = str(home) in " ".join(process.cmdline()) or process.cwd().startswith(str(home))
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
