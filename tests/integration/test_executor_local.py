"""The local executor with real processes: outcomes, stops, kills of every part, logs through outages."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from executor_bench import IGNORES_TERM, WAITS_FOR_FILE, Bench, open_bench

import abruzzi_operators
from abruzzi.contracts.stage import StageSpec
from abruzzi.engine.ports import SpecConflict
from abruzzi.engine.view import Phase
from abruzzi_operators.executors.attempt_dir import AttemptDir
from abruzzi_operators.launcher.procfs import memory_kills, start_time, started_with


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with open_bench(tmp_path) as bench:
        yield bench


@pytest.mark.parametrize("code", [0, 64, 65, 75, 3])
async def test_the_exit_code_is_the_commands(bench: Bench, code: int) -> None:
    spec = bench.spec(f"print('bye'); raise SystemExit({code})")
    await bench.executor.create(spec)
    seen = await bench.until_exited(spec)
    assert (seen.exit_code, seen.out_of_memory, seen.node_lost) == (code, False, False)
    assert bench.api.of(spec.attempt_id) == "bye\n"
    assert bench.api.tokens == {f"Bearer token-of-{spec.attempt_id}"}


async def test_a_command_that_does_not_exist_is_the_users_error(bench: Bench) -> None:
    spec = bench.spec("")
    config = {"container": {"command": ["no-such-program"], "env": {}}}
    await bench.executor.create(spec := spec.model_copy(update={"config": config}))
    assert (await bench.until_exited(spec)).exit_code == 64
    assert "cannot start 'no-such-program'" in bench.api.of(spec.attempt_id)


async def test_an_unknown_attempt_is_gone(bench: Bench) -> None:
    assert (await bench.executor.observe(["nothing-here-1"]))["nothing-here-1"].phase == Phase.GONE


async def test_creating_twice_starts_one_process_and_another_spec_is_a_conflict(bench: Bench) -> None:
    spec = bench.spec(WAITS_FOR_FILE)
    await asyncio.gather(*(bench.executor.create(spec) for _ in range(4)))
    await bench.until_printed(spec, "ready")
    bench.renew()
    await bench.executor.create(spec)
    with pytest.raises(SpecConflict):
        await bench.executor.create(spec.model_copy(update={"seed": 7}))
    (bench.directory(spec) / "go").touch()
    assert (await bench.until_exited(spec)).exit_code == 0
    assert bench.api.of(spec.attempt_id) == "ready\ndone\n"
    assert (bench.directory(spec) / "token").stat().st_mode & 0o777 == 0o600


async def test_creations_that_race_issue_one_token_and_it_is_the_attempts(bench: Bench) -> None:
    issued: list[str] = []

    async def issue(spec: StageSpec) -> str:
        issued.append(f"token {len(issued)}")
        await asyncio.sleep(0)
        return issued[-1]

    bench.executor._issue_token = issue
    spec = bench.spec("print('bye')")
    await asyncio.gather(*(bench.executor.create(spec) for _ in range(4)))
    assert issued == ["token 0"]
    await bench.until_exited(spec)
    assert bench.api.tokens == {"Bearer token 0"}


async def test_a_new_executor_adopts_what_the_old_one_started(bench: Bench) -> None:
    spec = bench.spec(WAITS_FOR_FILE)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready")
    bench.renew()
    assert (await bench.look(spec)).phase == Phase.RUNNING
    assert await bench.executor.list_attempts() == [spec.attempt_id]
    (bench.directory(spec) / "go").touch()
    assert (await bench.until_exited(spec)).exit_code == 0


async def test_a_killed_launcher_is_replaced_and_the_code_stays_true(bench: Bench) -> None:
    spec = bench.spec(WAITS_FOR_FILE + "\nraise SystemExit(65)")
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready")
    rank = bench.pid(spec, "rank-0/rank.json")
    first = bench.pid(spec, "launcher.json")
    await bench.kill(spec, "launcher.json")
    while (
        bench.pid(spec, "launcher.json") == first
    ):  # every look is a chance to notice; the kernel takes a moment to drop the lock
        assert (await bench.look(spec)).phase == Phase.RUNNING
        await asyncio.sleep(0.02)
    assert bench.pid(spec, "rank-0/rank.json") == rank
    (bench.directory(spec) / "go").touch()
    assert (await bench.until_exited(spec)).exit_code == 65
    assert bench.api.of(spec.attempt_id) == "ready\ndone\n"


async def test_a_rank_that_ends_while_no_launcher_lives_keeps_its_code(bench: Bench) -> None:
    spec = bench.spec(WAITS_FOR_FILE + "\nraise SystemExit(75)")
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready")
    await bench.kill(spec, "launcher.json")
    (bench.directory(spec) / "go").touch()
    await bench.until(lambda: (bench.directory(spec) / "rank-0" / "exit.json").exists())
    assert (await bench.until_exited(spec)).exit_code == 75


async def test_what_the_rank_of_a_killed_shim_had_started_ends_before_the_outcome_is_written(bench: Bench) -> None:
    shell = "sleep 600 & (sleep 600 & wait) & wait"
    code = "import subprocess, sys; subprocess.Popen(['setsid', 'sleep', '600']); subprocess.Popen(['sh', '-c', sys.argv[1]]).wait()"
    spec = bench.spec("")
    config = {"container": {"command": ["python", "-c", code, shell], "env": {}}}
    await bench.executor.create(spec := spec.model_copy(update={"config": config}))
    marks = {"ABRUZZI_ATTEMPT_DIR": str(bench.directory(spec)), "RANK": "0"}
    await bench.until(lambda: len(started_with(marks)) >= 6)  # shim, rank, shell, three times sleep
    await bench.kill(spec, "rank-0/shim.json")
    seen = await bench.until_exited(spec)
    assert started_with(marks) == []
    assert (seen.exit_code, seen.out_of_memory) == (137, False)


@pytest.mark.parametrize("victim", ["rank-0/rank.json", "rank-0/shim.json"])
async def test_a_killed_rank_or_shim_ends_the_attempt_as_killed_not_as_out_of_memory(bench: Bench, victim: str) -> None:
    spec = bench.spec(WAITS_FOR_FILE)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready")
    rank = bench.pid(spec, "rank-0/rank.json")
    await bench.kill(spec, victim)
    seen = await bench.until_exited(spec)
    assert (seen.exit_code, seen.out_of_memory) == (137, False)
    await bench.until(lambda: start_time(rank) is None)


async def test_stopping_saves_and_exits_143(bench: Bench) -> None:
    spec = bench.spec(WAITS_FOR_FILE)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready")
    await bench.executor.stop(spec.attempt_id, grace_seconds=20)
    await bench.executor.stop(spec.attempt_id, grace_seconds=20)
    assert (await bench.until_exited(spec)).exit_code == 143
    assert bench.api.of(spec.attempt_id) == "ready\nsaved\n"


async def test_a_stop_reaches_ranks_whose_launcher_was_killed(bench: Bench) -> None:
    spec = bench.spec(WAITS_FOR_FILE)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready")
    await bench.kill(spec, "launcher.json")
    await bench.executor.stop(spec.attempt_id, grace_seconds=20)
    assert (await bench.until_exited(spec)).exit_code == 143


async def test_what_ignores_the_stop_is_killed_after_the_grace(bench: Bench) -> None:
    spec = bench.spec(IGNORES_TERM)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "deaf")
    await bench.executor.stop(spec.attempt_id, grace_seconds=0.3)
    seen = await bench.until_exited(spec)
    assert (seen.exit_code, seen.out_of_memory) == (137, False)


async def test_a_failed_rank_takes_the_others_down_and_its_code_counts(bench: Bench) -> None:
    code = WAITS_FOR_FILE.replace(
        'print("done"', "os.environ['RANK'] == '1' and sys.exit(65)\nsignal.pause()\nprint(\"done\""
    )
    spec = bench.spec(code, ranks=2)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready", rank=0)
    await bench.until_printed(spec, "ready", rank=1)
    (bench.directory(spec) / "go").touch()
    assert (await bench.until_exited(spec)).exit_code == 65
    assert "saved" in bench.api.of(spec.attempt_id, rank=0)


async def test_ranks_see_the_contracts_environment(bench: Bench) -> None:
    code = "import os, json; print(json.dumps({k: os.environ[k] for k in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'ABRUZZI_ATTEMPT')}))"
    spec = bench.spec(code, ranks=2)
    await bench.executor.create(spec)
    await bench.until_exited(spec)
    first, second = (json.loads(bench.api.of(spec.attempt_id, rank=r)) for r in (0, 1))
    assert (first["RANK"], second["RANK"], first["WORLD_SIZE"]) == ("0", "1", "2")
    assert first["MASTER_PORT"] == second["MASTER_PORT"]
    assert first["ABRUZZI_ATTEMPT"] == spec.attempt_id


async def test_logs_survive_an_outage_and_lost_answers_without_gap_or_duplicate(bench: Bench) -> None:
    bench.api.is_away = True
    spec = bench.spec("for i in range(20000): print(f'line {i}')")
    await bench.executor.create(spec)
    expected = "".join(f"line {i}\n" for i in range(20000))
    await bench.until(lambda: (bench.directory(spec) / "rank-0" / "exit.json").exists())
    await bench.kill(spec, "launcher.json")
    bench.api.is_away = False
    bench.api.swallow_answers = 2
    assert (await bench.until_exited(spec)).exit_code == 0
    await bench.until(lambda: bench.api.of(spec.attempt_id) == expected)


LEAVES_A_SPOOL = """
import json, os, pathlib
spool = pathlib.Path(os.environ["ABRUZZI_ATTEMPT_DIR"], "rank-0", "spool")
spool.mkdir()
for segment in range(2):
    steps = [2 * segment, 2 * segment + 1]
    body = json.dumps({"series": {"train/loss": {"steps": steps, "values": [0.5, 0.25], "at": [1.0, 2.0]}}})
    (spool / f"{segment:010d}.jsonl").write_text(body + "\\n" + '{"series": {"tra')
"""


async def test_points_that_a_rank_left_in_its_spool_are_sent_by_the_launcher_even_after_an_outage(bench: Bench) -> None:
    bench.api.is_away = True
    spec = bench.spec(LEAVES_A_SPOOL)
    await bench.executor.create(spec)
    await bench.until(lambda: (bench.directory(spec) / "rank-0" / "exit.json").exists())
    await bench.kill(spec, "launcher.json")
    assert not AttemptDir(bench.directory(spec)).logs_are_shipped
    bench.api.is_away = False
    assert (await bench.until_exited(spec)).exit_code == 0
    await bench.until(lambda: AttemptDir(bench.directory(spec)).logs_are_shipped)
    assert bench.api.points == {("train/loss", step): 0.5 / (1 + step % 2) for step in range(4)}


async def test_points_that_are_refused_for_good_do_not_keep_the_attempt(bench: Bench) -> None:
    bench.api.refuse_points = True
    spec = bench.spec(LEAVES_A_SPOOL)
    await bench.executor.create(spec)
    assert (await bench.until_exited(spec)).exit_code == 0
    await bench.until(lambda: AttemptDir(bench.directory(spec)).logs_are_shipped)
    assert "refused with 422: no such points" in (bench.directory(spec) / "launcher.log").read_text()


async def test_removing_ships_the_rest_forgets_the_attempt_and_keeps_its_directory(bench: Bench) -> None:
    spec = bench.spec("print('kept')")
    await bench.executor.create(spec)
    await bench.until_exited(spec)
    await bench.executor.remove(spec.attempt_id)
    await bench.executor.remove(spec.attempt_id)
    assert (await bench.look(spec)).phase == Phase.GONE
    assert await bench.executor.list_attempts() == []
    assert (bench.directory(spec) / "rank-0" / "output.log").read_text() == "kept\n"
    assert bench.api.of(spec.attempt_id) == "kept\n"


async def test_removing_a_living_attempt_kills_it_first(bench: Bench) -> None:
    spec = bench.spec(IGNORES_TERM)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "deaf")
    rank = bench.pid(spec, "rank-0/rank.json")
    await bench.executor.remove(spec.attempt_id)
    assert start_time(rank) is None


async def test_a_removed_attempt_goes_when_its_time_is_over(bench: Bench) -> None:
    spec = bench.spec("pass")
    await bench.executor.create(spec)
    await bench.until_exited(spec)
    await bench.executor.remove(spec.attempt_id)
    await bench.until(lambda: start_time(bench.pid(spec, "launcher.json")) is None)
    bench.executor._keep_removed_seconds = 0.0
    await bench.executor.list_attempts()
    assert not bench.directory(spec).exists()


async def test_logs_left_over_for_longer_than_a_token_lives_are_shipped_with_a_new_one(bench: Bench) -> None:
    spec = bench.spec("print('kept')")
    await bench.executor.create(spec)
    await bench.until_exited(spec)
    await bench.executor.remove(spec.attempt_id)
    await bench.until(lambda: start_time(bench.pid(spec, "launcher.json")) is None)
    with (bench.directory(spec) / "rank-0" / "output.log").open("a") as log:
        log.write("left over\n")

    async def issue(_: StageSpec) -> str:
        return "late"

    bench.executor._issue_token = issue
    assert await bench.executor.list_attempts() == []
    await bench.until(lambda: bench.api.of(spec.attempt_id) == "kept\nleft over\n")
    assert "Bearer late" in bench.api.tokens


async def test_what_a_rank_leaves_running_goes_with_it(bench: Bench) -> None:
    spec = bench.spec("import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)")
    await bench.executor.create(spec)
    await bench.until_exited(spec)
    left = int(bench.api.of(spec.attempt_id))
    await bench.until(lambda: start_time(left) is None)
    assert (await bench.look(spec)).exit_code == 0


async def test_heartbeats_are_read_with_the_files_time_and_broken_ones_are_ignored(bench: Bench) -> None:
    spec = bench.spec(WAITS_FOR_FILE, ranks=2)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready", rank=1)
    beat = {"rank": 0, "step": 12, "phase": "train", "at": 1.0}
    (bench.directory(spec) / "rank-0" / "heartbeat.json").write_text(json.dumps(beat))
    (bench.directory(spec) / "rank-1" / "heartbeat.json").write_text('{"rank": 1, "st')
    seen = await bench.look(spec)
    assert set(seen.beats) == {0}
    assert (seen.beats[0].step, seen.beats[0].phase) == (12, "train")
    assert abs(seen.beats[0].at - time.time()) < 60


async def test_a_restarted_machine_is_a_lost_node(bench: Bench) -> None:
    spec = bench.spec(WAITS_FOR_FILE)
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready")
    for name in ("launcher.json", "rank-0/shim.json", "rank-0/rank.json"):
        recorded = json.loads((bench.directory(spec) / name).read_text())
        with suppress(ProcessLookupError):  # the kernel kills the rank with its shim
            os.kill(recorded["pid"], signal.SIGKILL)
        (bench.directory(spec) / name).write_text(json.dumps({**recorded, "boot_id": "the boot before"}))
    seen = await bench.until_exited(spec)
    assert seen.node_lost
    assert seen.reason == "The machine was restarted while the attempt ran."


async def test_the_stacks_of_a_python_rank_are_kept_and_shown_in_its_log(bench: Bench) -> None:
    spec = bench.spec(
        WAITS_FOR_FILE.replace("while not", "def stuck_here():\n    signal.pause()\nstuck_here()\nwhile not")
    )
    await bench.executor.create(spec)
    await bench.until_printed(spec, "ready")
    await bench.executor.dump_stacks(spec.attempt_id, 0)
    assert (await bench.look(spec)).stacks_ready
    assert "stuck_here" in (bench.directory(spec) / "rank-0" / "stacks.txt").read_text()
    await bench.until(lambda: "stuck_here" in bench.api.of(spec.attempt_id))


async def test_where_py_spy_is_missing_the_stages_fault_handler_is_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abruzzi_operators.launcher.stacks.shutil.which", lambda *_, **__: None)
    handler = (
        "import faulthandler, os, signal\n"
        "f = open(os.environ['ABRUZZI_ATTEMPT_DIR'] + '/rank-0/stacks.txt', 'a')\n"
        "faulthandler.register(signal.SIGUSR1, file=f, all_threads=True)\n"
    )
    with_handler, without = bench.spec(handler + WAITS_FOR_FILE), bench.spec(WAITS_FOR_FILE)
    for spec in (with_handler, without):
        await bench.executor.create(spec)
        await bench.until_printed(spec, "ready")
        await bench.executor.dump_stacks(spec.attempt_id, 0)
        assert (await bench.look(spec)).phase == Phase.RUNNING
        assert (await bench.look(spec)).stacks_ready
    assert "most recent call first" in (bench.directory(with_handler) / "rank-0" / "stacks.txt").read_text()
    assert "py-spy is not installed" in (bench.directory(without) / "rank-0" / "stacks.txt").read_text()


async def test_a_launcher_that_cannot_work_here_ends_the_attempt_with_try_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    spec = bench.spec("pass")
    await bench.executor.create(spec)
    seen = await bench.until_exited(spec)
    assert seen.exit_code == 75
    assert seen.reason is not None
    assert "launcher.log" in seen.reason


@pytest.fixture
def small_group() -> Iterator[Path | None]:
    """A cgroup of 64 MiB; None where none can be made (no root, or cgroups that are not writable, as in most containers)."""
    v1 = Path("/sys/fs/cgroup/memory")
    root, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = root / f"abruzzi-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(64 << 20))
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield None
        return
    yield group
    for line in (group / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(line), signal.SIGKILL)
    deadline = time.monotonic() + 120
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    group.rmdir()


async def test_a_memory_kill_is_told_by_the_cgroups_counter(bench: Bench, small_group: Path | None) -> None:
    if small_group is None:
        assert_told_by_a_counter(bench)
        return
    procs = str(small_group / "cgroup.procs")
    join = f"[open({procs!r}, 'w').write(str(pid)) for pid in (os.getppid(), os.getpid())]"
    spec = bench.spec(f"import os\n{join}\nprint('in', flush=True)\nx = bytearray(256 << 20)\nprint('survived')")
    before = memory_kills()
    await bench.executor.create(spec)
    seen = await bench.until_exited(spec)
    assert memory_kills() == before  # our own group has no part in it
    assert (seen.exit_code, seen.out_of_memory) == (137, True)
    assert seen.reason == "The kernel killed the process for memory."


COUNTING_LAUNCHER = """
import sys
from pathlib import Path
from abruzzi_operators.launcher import launch, ranks
ranks.SHIM = Path(sys.argv[2])
sys.exit(launch.run(Path(sys.argv[1])))
"""
COUNTING_SHIM = """
import sys
sys.path.insert(0, {root!r})
from abruzzi_operators.launcher import shim
counts = iter((4, 5))
shim.memory_kills = lambda: next(counts)
sys.exit(shim.main(sys.argv[1:]))
"""


def test_a_kill_that_the_kernel_counted_is_told_as_a_memory_kill_without_any_cgroup(bench: Bench) -> None:
    assert_told_by_a_counter(bench)


def assert_told_by_a_counter(bench: Bench) -> None:
    """Launcher, shim and rank are real; that the kernel's counter grew while the rank died of SIGKILL is said to the shim."""
    spec = bench.spec("import os; os.kill(os.getpid(), 9)")
    attempt = AttemptDir(bench.directory(spec))
    attempt.create(spec, token="token", url=bench.api.url)
    shim = bench.home / "shim.py"
    shim.write_text(COUNTING_SHIM.format(root=str(Path(abruzzi_operators.__file__).parents[1])))
    command = [sys.executable, "-c", COUNTING_LAUNCHER, str(attempt.path), str(shim)]
    assert subprocess.run(command, timeout=240, check=False).returncode == 137
    outcome = attempt.outcome()
    assert outcome is not None
    assert outcome["out_of_memory"] is True
    assert outcome["reason"] == "The kernel killed the process for memory."
