"""Boxes that are pods, from the program's side to the service's: what test_sandbox.py asks of every isolator, and that no pod is left.

Pods are processes of this machine here (local_execs.py); that they reach nothing, and are bounded, tests/cluster/test_cluster_sandboxes.py shows on real ones."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandbox_service import TOKEN, Service, sandbox_service

from abruzzi.contracts.errors import AbruzziError
from abruzzi.kit.settings import SandboxPods
from abruzzi_jobs.rl.environments.evaluating import evaluate
from abruzzi_jobs.sandbox import Box, Finished, Limits, isolators, pod_box, python_files, run, start
from abruzzi_operators.kubernetes.resources import Object, Resource

KILLED = 128 + signal.SIGKILL


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with sandbox_service(SandboxPods(image="stages", ready=1, most=4)) as service:
        yield service


@pytest.fixture(autouse=True)
def stage(service: Service, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path_factory.mktemp("secret") / "token"
    token.write_text(TOKEN)
    monkeypatch.setenv("ABRUZZI_SANDBOXES_URL", service.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", str(token))
    service.execs.reached = []


def python(folder: Path, code: str, limits: Limits | None = None, **bounds) -> Finished:
    held = Box(workspace=folder, readable=python_files(), limits=limits or Limits(), isolator="pods")
    return run(held, [sys.executable, "-I", "-S", "-c", code], **bounds)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def only_ready(service: Service) -> bool:
    return len(service.pods()) == 1


def test_a_program_reads_and_writes_its_workspace_and_gives_its_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("4")
    (tmp_path / "kept" / "deep").mkdir(parents=True)
    (tmp_path / "kept" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "kept" / "run.sh").chmod(0o755)
    code = """
import os, sys
print(int(open("in").read()) ** 2, sys.stdin.read(), file=sys.stderr)
os.unlink("in"), open("out", "w").write("done"), os.symlink("out", "link"), os.mkdir("closed", 0)
sys.exit(3)
"""
    done = python(tmp_path, code, stdin=b"said")
    assert (done.ending, done.exit_code, done.stdout, done.stderr) == ("exited", 3, b"", b"16 said\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed", "kept", "link", "out"]
    assert (tmp_path / "out").read_text() == "done"
    assert os.readlink(tmp_path / "link") == "out"
    assert os.access(tmp_path / "kept" / "run.sh", os.X_OK)
    assert (tmp_path / "kept" / "deep").is_dir()


def test_where_the_cluster_gives_sandboxes_they_are_the_first_choice() -> None:
    assert isolators()[0] == "pods"


def test_a_program_that_hangs_or_floods_is_ended_and_says_which(service: Service, tmp_path: Path) -> None:
    for seconds in (2, 20, 200):  # a busy machine may need the first two to get as far as printing
        hung = python(tmp_path, "import signal; print('here', flush=True); signal.pause()", wall_seconds=seconds)
        assert hung.ending == "timed_out"
        if hung.stdout:
            break
    assert hung.stdout == b"here\n"
    flood = run(Box(workspace=tmp_path, isolator="pods"), ["yes"], output_bytes=10_000)
    assert (flood.ending, len(flood.stdout)) == ("flooded", 10_000)
    until(lambda: only_ready(service))


def test_when_the_starter_is_killed_its_pod_goes(service: Service, tmp_path: Path) -> None:
    command = start(Box(workspace=tmp_path, isolator="pods"), ["sh", "-c", "echo here; while true; do sleep 0.1; done"])
    until(lambda: len(service.pods()) == 2)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        os.kill(child.pid, signal.SIGKILL)
    until(lambda: only_ready(service))


def test_a_program_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    done = run(Box(workspace=tmp_path, isolator="pods"), ["no-such-program"])
    assert (done.exit_code, done.stderr) == (127, b"no-such-program: No such file or directory\n")


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("while True: open(f'{len(held)}', 'wb').write(bytes(1 << 20)); held.append(0)", Limits(workspace_bytes=8 << 20)),
        ("while True: held.append(os.fork() or b'x' * (100 << 20)); len(held) > 7 and signal.pause()", Limits(together_bytes=256 << 20)),
    ],
)  # fmt: skip
def test_a_box_ends_where_its_processes_together_take_more_than_it_has(
    tmp_path: Path, code: str, limits: Limits
) -> None:
    done = python(tmp_path, f"import os, signal\nheld = []\n{code}", limits, wall_seconds=240)
    assert done.ending == "overfull", done


def test_a_program_that_stays_is_spoken_with_line_by_line(tmp_path: Path) -> None:
    code = "import sys\nfor line in sys.stdin: print(int(line) + 1, flush=True)"
    held = Box(workspace=tmp_path, readable=python_files(), isolator="pods")
    command = start(held, [sys.executable, "-I", "-S", "-c", code])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for number in (1, 41):
            child.stdin.write(f"{number}\n")
            child.stdin.flush()
            assert child.stdout.readline() == f"{number + 1}\n"
        child.stdin.close()
        assert child.wait(240) == 0


def test_a_program_that_ends_its_keeper_is_taken_for_killed(tmp_path: Path) -> None:
    done = python(tmp_path, "import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    assert (done.ending, done.exit_code) == ("exited", KILLED)


@pytest.mark.parametrize(
    ("frames", "exit_code"),
    [
        (pod_box.frame(pod_box.FAULT, b"it failed"), 125),
        (b"o" + b"\xff" * 4, KILLED),
        (pod_box.frame(pod_box.END, b"[]"), KILLED),
        (pod_box.frame(pod_box.WORKSPACE, b"no tar" * 100) + pod_box.frame(pod_box.END, b'{"exit_code": 0, "ending": "exited"}'), KILLED),
    ],
)  # fmt: skip
def test_what_a_program_makes_the_pod_say_of_its_box_is_the_programs_own(
    tmp_path: Path, frames: bytes, exit_code: int
) -> None:
    code = f"""
import os, sys
keeper = f"/proc/{{os.getppid()}}/fd"
for number in os.listdir(keeper):
    try: os.write(os.open(f"{{keeper}}/{{number}}", os.O_WRONLY | os.O_NONBLOCK), {frames!r})
    except OSError: pass
print("sandbox: it failed", file=sys.stderr)
sys.exit(125)
"""
    done = python(tmp_path, code)
    assert (done.ending, done.exit_code) == ("exited", exit_code), done


@pytest.mark.parametrize(
    ("why", "its_own"),
    [
        ("The node was low on resource: memory.", False),
        ('Usage of EmptyDir volume "tmp" exceeds the limit "4Gi".', True),
    ],
)
def test_a_pod_that_the_cluster_took_is_told_apart_from_one_that_its_program_ended(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str, its_own: bool
) -> None:
    until(lambda: only_ready(service))
    [mine], get = service.pods(), service.api.get

    async def evicted(resource: Resource, name: str, **where: str) -> Object:
        found = await get(resource, name, **where)
        return {**found, "status": {"phase": "Failed", "reason": "Evicted", "message": why}} if name == mine else found

    monkeypatch.setattr(service.api, "get", evicted)
    code = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
    if its_own:
        assert python(tmp_path, code).exit_code == KILLED
    else:
        with pytest.raises(AbruzziError, match="broken off") as told:
            python(tmp_path, code)
        assert told.value.code == "sandbox_failed"


def test_answers_of_a_policy_are_graded_in_pods() -> None:
    found = evaluate({}, "word = 'so'", ["word * 2", "1 / 0"])
    assert found.values == ("'soso'", None)
    assert found.fault == "1 / 0 raised ZeroDivisionError"


def test_after_many_boxes_no_pod_is_left_but_those_that_are_ready(service: Service, tmp_path: Path) -> None:
    for _ in range(8):
        assert run(Box(workspace=tmp_path, isolator="pods"), ["true"]).ok
    until(lambda: only_ready(service))


def test_a_sandbox_that_nobody_uses_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox_service(claim_seconds=0.05) as service:
        monkeypatch.setenv("ABRUZZI_SANDBOXES_URL", service.url)
        before = set(service.pods())
        command = start(Box(workspace=tmp_path, isolator="pods"), ["true"])
        until(lambda: len(service.pods()) == 1 and before.isdisjoint(service.pods()))
        late = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (late.returncode, late.stderr) == (
            125,
            "sandbox: There is no such sandbox: it was used, or not used in time.\n",
        )


def test_without_an_attempts_token_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("somebody's")
    monkeypatch.setenv("ABRUZZI_TOKEN", str(tmp_path / "token"))
    with pytest.raises(AbruzziError, match="This is for stages, with their attempt's token") as told:
        run(Box(workspace=tmp_path, isolator="pods"), ["true"])
    assert told.value.code == "no_sandbox"


def test_a_service_that_gives_none_says_why_and_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox_service(SandboxPods(image="stages", ready=0)) as service:
        service.execs.reached = ["10.0.0.1:443"]
        monkeypatch.setenv("ABRUZZI_SANDBOXES_URL", service.url)
        with pytest.raises(AbruzziError, match=r"reaches 10\.0\.0\.1:443: no untrusted program is run there"):
            run(Box(workspace=tmp_path, isolator="pods"), ["true"])
    monkeypatch.setenv("ABRUZZI_SANDBOXES_URL", service.url)
    with pytest.raises(AbruzziError, match="does not answer"):
        run(Box(workspace=tmp_path, isolator="pods"), ["true"])


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil"])
def test_files_whose_names_lead_out_of_the_workspace_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(pod_box.Tampered, match="leads out of the box"):
        pod_box.unpack(archive((name, None)), str(tmp_path), 1 << 20, 10)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (outside := tmp_path / "outside").mkdir()
    (inside := tmp_path / "inside").mkdir()
    with pytest.raises(FileExistsError):
        pod_box.unpack(archive(("door", str(outside)), ("door/evil", None)), str(inside), 1 << 20, 10)
    assert list(outside.iterdir()) == []


def test_more_than_a_workspace_may_hold_is_not_unpacked(tmp_path: Path) -> None:
    for most_bytes, most_files in ((3, 10), (100, 1)):
        with pytest.raises(pod_box.Overfull):
            pod_box.unpack(archive(("a", None), ("b", None)), str(tmp_path), most_bytes, most_files)


def archive(*entries: tuple[str, str | None]) -> io.BytesIO:
    """(name, where a link points; None: a file of two bytes)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w|") as tar:
        for name, target in entries:
            info = tarfile.TarInfo(name)
            if target is None:
                info.size = 2
            else:
                info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info, io.BytesIO(b"xx"))
    file.seek(0)
    return file
