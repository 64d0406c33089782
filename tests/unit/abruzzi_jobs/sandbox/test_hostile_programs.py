"""What a program that nobody has read can try: a shortened bench/hostile_programs.py, which runs each program in a box of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

import pytest
from hostile_boxes import BOUNDS, GRACE_SECONDS, attack, outside, programs

from abruzzi_jobs.rl.environments.evaluating import evaluate
from abruzzi_jobs.sandbox import Box, Limits, box, isolators, python_files, run, scratch_folder
from abruzzi_jobs.sandbox.usage import LOOK_SECONDS, Watch, family, resident_bytes

ON_TIME_SECONDS = (BOUNDS.box_seconds or 0.0) + 10 * GRACE_SECONDS
"""Of its box, and to tear that down on a busy machine."""
SEARCHED = f"{os.environ['PATH']}{os.pathsep}{os.environ.get('ABRUZZI_CLUSTER_TOOLS', '')}"


@pytest.fixture(params=["namespaces", *(["gvisor"] if shutil.which("runsc", path=SEARCHED) else [])])
def isolator(request, monkeypatch):
    monkeypatch.setenv("PATH", SEARCHED)
    assert request.param in isolators(), box._fault(request.param)
    monkeypatch.setattr("abruzzi_jobs.sandbox.box.isolators", lambda: (request.param,))
    return request.param


def test_there_are_more_than_a_hundred_of_every_kind() -> None:
    _, found = programs()
    assert len({program.name for program in found}) == len(found) >= 100
    assert {program.kind for program in found} == {
        "files", "links", "writing", "network", "signals", "ptrace", "proc", "rights", "forks", "memory", "disk", "output", "forever", "processor",
    }  # fmt: skip


def harm_by(chosen) -> list[str]:
    """In words; a program that was cut short has not shown that it can do none."""
    prelude, _ = programs()
    with outside() as there:
        told = attack(there, prelude, chosen)
        cut = [f"{program.name}: cut" for program, value in zip(chosen, told.values, strict=True) if value is None]
        return cut + there.harm(told)


def test_programs_that_reach_for_what_is_outside_get_nothing(isolator) -> None:
    reaching = [program for program in programs()[1] if not program.lingers and program.kind != "signals"]
    one_of_each = {(program.kind, program.code.partition("\n")[0][:9]): program for program in reaching}
    assert harm_by([*one_of_each.values()]) == []


@pytest.mark.prove
def test_all_programs_that_reach_for_what_is_outside_get_nothing(isolator) -> None:
    reaching = [program for program in programs()[1] if not program.lingers and program.kind != "signals"]
    assert harm_by(reaching) == []


def ended(chosen) -> tuple[float, list[str]]:
    """(seconds until it was, harm that it did and what it left)."""
    with outside() as there:
        begun = time.monotonic()
        told = attack(there, programs()[0], [chosen])
        seconds = time.monotonic() - begun
        return seconds, there.harm(told) + there.left()


@pytest.mark.parametrize("kind", ["forks", "disk"])
def test_programs_that_take_all_are_ended_and_leave_nothing(isolator, kind) -> None:
    seconds, done = ended(next(program for program in programs()[1] if program.kind == kind and "fork" in program.code))
    assert seconds < ON_TIME_SECONDS
    assert done == []


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["signals", "forks", "memory", "disk", "output", "forever", "processor"])
def test_one_of_each_kind_that_takes_all_or_never_ends_is_ended_and_leaves_nothing(isolator, kind) -> None:
    seconds, done = ended(next(program for program in programs()[1] if program.kind == kind))
    assert seconds < ON_TIME_SECONDS
    assert done == []


def python(isolator, folder, code, limits, **bounds):
    held = Box(workspace=folder, readable=python_files(), limits=limits, isolator=isolator)
    return run(held, [sys.executable, "-I", "-S", "-c", code], **bounds)


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("while True: open(f'{len(held)}', 'wb').write(bytes(1 << 20)); held.append(0)", Limits(workspace_bytes=8 << 20)),
        ("while True: open(f'{len(held)}', 'w').close(); held.append(0)", Limits(workspace_files=100)),
        ("while True: held.append(open('f', 'wb', 0)); os.unlink('f'); held[-1].write(bytes(1 << 20))", Limits(workspace_bytes=8 << 20)),
        ("while True: held.append(os.fork() or b'x' * (100 << 20)); len(held) > 7 and signal.pause()", Limits(together_bytes=256 << 20)),
    ],
)  # fmt: skip
def test_a_box_ends_where_its_processes_together_take_more_than_it_has(isolator, tmp_path, code, limits) -> None:
    done = python(isolator, tmp_path, f"import os, signal\nheld = []\n{code}", limits, wall_seconds=240)
    assert done.ending == "overfull", done


def test_what_its_folder_holds_from_before_is_no_fault_of_a_program_that_ends(isolator, tmp_path) -> None:
    (tmp_path / "given").write_bytes(bytes(1 << 20))
    done = python(isolator, tmp_path, "print('well')", Limits(workspace_bytes=8 << 20))
    assert (done.ending, done.stdout) == ("exited", b"well\n")


def test_a_program_that_took_too_much_is_wrong_and_no_fault_of_the_machine(isolator) -> None:
    taken = evaluate({}, "held = [open(str(n), 'wb').write(bytes(1 << 23)) for n in range(10**9)]", ["held"], BOUNDS)
    assert taken.values == (None,)
    assert taken.cut == ""


def test_folders_without_rights_or_deeper_than_python_can_remove_are_removed() -> None:
    with scratch_folder("abruzzi-deep-") as folder:
        here = os.open(folder, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
        (folder / "closed").mkdir(mode=0)
    assert not folder.exists()


def test_a_look_waits_for_its_time_and_finds_a_process_with_its_children(tmp_path) -> None:
    now = [0.0]
    watch = Watch(os.getpid(), tmp_path, Limits(together_bytes=1), clock=lambda: now[0])
    assert not watch.exceeds(), "not yet"
    now[0] = LOOK_SECONDS
    assert watch.exceeds()
    child = os.fork()
    if child == 0:
        signal.pause()  # until it is killed
    try:
        assert child in family(os.getpid())
        assert resident_bytes([child]) > 0
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
