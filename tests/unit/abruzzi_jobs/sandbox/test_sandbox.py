"""Boxes: what is inside cannot reach the network, the machine's files or its neighbours, and ends with its time, its output or its starter."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox import Box, Limits, box, isolators, processes, python_files, run, start

TOOLS = os.environ.get("ABRUZZI_CLUSTER_TOOLS", "")
SEARCHED = f"{os.environ['PATH']}{os.pathsep}{TOOLS}"


@pytest.fixture(params=["namespaces", *(["gvisor"] if shutil.which("runsc", path=SEARCHED) else [])])
def isolator(request, monkeypatch):
    monkeypatch.setenv("PATH", SEARCHED)
    assert request.param in isolators(), box._fault(request.param)
    return request.param


def python(isolator, folder: Path, code: str, *, limits: Limits | None = None, **bounds):
    held = Box(workspace=folder, readable=python_files(), limits=limits or Limits(), isolator=isolator)
    return run(held, [sys.executable, "-I", "-S", "-c", code], **bounds)


def test_a_program_reads_and_writes_its_workspace_and_gives_its_output(isolator, tmp_path):
    (tmp_path / "in").write_text("4")
    code = "print(int(open('in').read()) ** 2); open('out', 'w').write('done'); import sys; sys.exit(3)"
    done = python(isolator, tmp_path, code)
    assert (done.ending, done.exit_code, done.stdout, (tmp_path / "out").read_text()) == ("exited", 3, b"16\n", "done")


def test_network_files_and_rights_of_the_machine_are_not_there(isolator, tmp_path, monkeypatch):
    (secret := tmp_path / "secret").write_text("hush")
    (work := tmp_path / "work").mkdir()
    monkeypatch.setenv("ABRUZZI_TOKEN", "hush")
    code = f"""
import os, socket
def refused(act):
    try: act()
    except OSError: return True
print(refused(lambda: socket.create_connection(("192.0.2.1", 80), 1)), refused(lambda: open({str(secret)!r})),
      refused(lambda: open("/usr/x", "w")), os.getuid() == 0, "ABRUZZI_TOKEN" in os.environ, os.path.exists("/run"),
      [line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1].strip("0"))
"""
    done = python(isolator, work, code)
    assert done.stdout.split() == [b"True", b"True", b"True", b"False", b"False", b"False"], done


def test_memory_processes_and_files_are_bounded(isolator, tmp_path):
    limits = Limits(memory_bytes=512 << 20, processes=24, file_bytes=1 << 20)
    code = """
import os, signal
try: bytearray(1 << 30)
except MemoryError: print("memory")
try: open("big", "wb").write(bytes(2 << 20))
except OSError: print("file")
try:
    for _ in range(200):
        if os.fork() == 0: signal.pause()
except OSError: print("processes")
"""
    done = python(
        isolator, tmp_path, "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + code, limits=limits
    )
    assert done.stdout.split() == [b"memory", b"file", b"processes"], done


def test_a_program_that_hangs_or_floods_is_ended_and_says_which(isolator, tmp_path):
    for seconds in (2, 20, 200):  # a busy machine may need the first two to get as far as printing
        hung = python(
            isolator, tmp_path, "import signal; print('here', flush=True); signal.pause()", wall_seconds=seconds
        )
        assert hung.ending == "timed_out"
        if hung.stdout:
            break
    assert hung.stdout == b"here\n"
    flood = run(Box(workspace=tmp_path, isolator=isolator), ["yes"], output_bytes=10_000)
    assert (flood.ending, len(flood.stdout)) == ("flooded", 10_000)


def test_when_the_starter_is_killed_nothing_is_left_running(isolator, tmp_path):
    argv = ["sh", "-c", "sleep 600 & echo here; while true; do sleep 0.1; done"]
    command = start(Box(workspace=tmp_path, isolator=isolator), argv)
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        os.kill(child.pid, signal.SIGKILL)
        # The pipe ends when the last process that holds it does.
        assert child.communicate(timeout=120) == (b"", None)


def test_a_machine_that_cannot_hold_a_box_says_so_and_starts_nothing(tmp_path, monkeypatch):
    faults = {"pods": "no service", "gvisor": "no runsc", "namespaces": "not permitted"}
    monkeypatch.setattr(box, "_fault", faults.__getitem__)
    reasons = r"cannot hold a sandbox \(pods: no service; gvisor: no runsc; namespaces: not permitted\)"
    with pytest.raises(AbruzziError, match=reasons) as told:
        run(Box(workspace=tmp_path), ["true"])
    assert told.value.code == "no_sandbox"
    assert "user.max_user_namespaces" in str(told.value)


SAYS_THAT_ITS_BOX_FAILED = """
import os, sys
reached = set(range(1, 64))
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            reached.add(os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK))
    except OSError: pass
for said in (b"sandbox: it failed\\n", b'{"level": "error", "msg": "it failed"}\\n'):
    for number in reached:
        try: os.write(number, said)
        except OSError: pass
sys.exit(125)
"""


def test_what_a_program_says_of_its_box_and_exits_with_is_its_own(isolator, tmp_path):
    for _ in range(3):  # it must not be first at what is closed before it
        done = python(isolator, tmp_path, SAYS_THAT_ITS_BOX_FAILED)
        assert (done.ending, done.exit_code) == ("exited", 125), done
        assert b"sandbox: it failed" in done.stderr


def test_a_box_that_cannot_be_built_is_no_result_of_a_program(isolator, tmp_path):
    with pytest.raises(AbruzziError, match="The sandbox failed: ") as told:
        run(Box(workspace=tmp_path, isolator=isolator, limits=Limits(open_files=-2)), ["true"])
    assert (told.value.code, told.value.status) == ("sandbox_failed", 503)


def test_a_program_that_is_killed_is_told_apart_from_one_that_the_machine_killed(isolator, tmp_path, monkeypatch):
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = python(isolator, tmp_path, killed)
    assert (done.exit_code, done.machine_killed) == (128 + signal.SIGKILL, False)
    monkeypatch.setattr(processes, "kills_for_memory", itertools.count().__next__)
    assert python(isolator, tmp_path, killed).machine_killed


def test_a_program_that_is_not_there_is_told_by_name(isolator, tmp_path):
    done = run(Box(workspace=tmp_path, isolator=isolator), ["no-such-program"])
    assert done.exit_code != 0
    assert b"no-such-program" in done.stderr + done.stdout
