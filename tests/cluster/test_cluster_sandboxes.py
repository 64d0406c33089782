"""Sandboxes that are pods of a real cluster: the service with the chart's rights, in a namespace with restricted Pod Security, gVisor as runtime class.

What every isolator is asked (tests/unit/abruzzi_jobs/sandbox), asked of these."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.handle import ClusterHandle
from cluster.layout import APISERVER_PORT
from cluster.sandbox_ground import GVISOR, READY, SECONDS, TOKEN, Service, offer_gvisor, open_service
from hostile_boxes import attack, outside, programs

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.environments.evaluating import evaluate
from abruzzi_jobs.sandbox import Box, Finished, Limits, python_files, run, start


@pytest.fixture(scope="module")
def service(cluster: ClusterHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    offer_gvisor(cluster)
    with open_service(cluster, tmp_path_factory.mktemp("service"), GVISOR) as service:
        service.until(lambda said: said["ready"] == READY)
        yield service


@pytest.fixture
def stage(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("ABRUZZI_SANDBOXES_URL", service.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", str(tmp_path / "token"))


def python(folder: Path, code: str, limits: Limits | None = None, **bounds) -> Finished:
    held = Box(workspace=folder, readable=python_files(), limits=limits or Limits(), isolator="pods")
    return run(held, [sys.executable, "-I", "-S", "-c", code], **bounds)


def test_network_files_and_rights_of_the_cluster_are_not_there_and_what_it_uses_is_bounded(
    stage: None, service: Service, tmp_path: Path
) -> None:
    (work := tmp_path / "work").mkdir()
    (work / "in").write_text("4")
    code = f"""
import os, signal, socket
def refused(act):
    try: act()
    except OSError: return True
reached = [not refused(lambda: socket.create_connection(place, 1)) for place in (("192.0.2.1", 80), ({service.cluster.host_address!r}, {APISERVER_PORT}))]
effective = [line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1].strip("0")
print(any(reached), refused(lambda: open("/usr/x", "w")), os.getuid() > 1000, os.path.exists("/var/run/secrets"), effective, "gvisor" in os.uname().release)
open("out", "w").write(open("in").read() * 2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try: bytearray(1 << 30)
except MemoryError: print("memory")
try: open("big", "wb").write(bytes(2 << 20))
except OSError: print("file")
try:
    for _ in range(200):
        if os.fork() == 0: signal.pause()
except OSError: print("processes")
"""
    done = python(work, code, Limits(memory_bytes=512 << 20, processes=24, file_bytes=1 << 20), wall_seconds=SECONDS)
    said = done.stdout.split()
    assert said[:4] == [b"False", b"True", b"True", b"False"], done
    assert said[4:] == [b"True", b"memory", b"file", b"processes"], done
    assert (work / "out").read_text() == "44"


def test_programs_that_reach_for_what_is_outside_get_nothing(stage: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abruzzi_jobs.sandbox.box.isolators", lambda: ("pods",))
    given = evaluate({"given.py": "word = 'so'"}, "from given import word", ["word * 2", "1 / 0"])
    assert (given.values, given.fault) == (("'soso'", None), "1 / 0 raised ZeroDivisionError"), (
        "answers are graded there"
    )
    prelude, found = programs()
    reaching = [program for program in found if not program.lingers and program.kind != "signals"]
    one_of_each = {(program.kind, program.code.partition("\n")[0][:9]): program for program in reaching}
    with outside() as there:
        told = attack(there, prelude, [*one_of_each.values()])
        cut = [program.name for program, value in zip(one_of_each.values(), told.values, strict=True) if value is None]
        assert cut + there.harm(told) == []


def test_what_a_program_says_of_its_pod_is_its_own_and_a_pod_that_somebody_deletes_is_no_result(
    stage: None, service: Service, tmp_path: Path
) -> None:
    (work := tmp_path / "work").mkdir()
    says = "import os, sys; print('sandbox: it failed', file=sys.stderr); {}"
    assert python(work, says.format("sys.exit(125)"), wall_seconds=SECONDS).exit_code == 125
    for ends in ("os.kill(os.getppid(), 9)", "os.kill(1, 15); os.kill(os.getppid(), 9)"):
        done = python(work, says.format(ends), wall_seconds=SECONDS)
        assert (done.ending, done.exit_code) == ("exited", 128 + signal.SIGKILL), ends
    held = Box(workspace=work, isolator="pods")
    program = "import os, signal; print(os.getuid(), flush=True); signal.pause()"
    command = start(held, [sys.executable, "-I", "-S", "-c", program])
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        service.delete_pod(user=int(child.stdout.readline()))
        assert child.stderr.read().startswith(b"sandbox: the connection to its pod was broken off")
        assert child.wait(SECONDS) == 125


def test_a_box_ends_where_its_files_are_too_many_and_no_pod_is_left_when_the_service_is_killed(
    stage: None, service: Service, tmp_path: Path
) -> None:
    (work := tmp_path / "work").mkdir()
    code = "held = []\nwhile True: open(f'{len(held)}', 'wb').write(bytes(1 << 20)); held.append(0)"
    done = python(work, code, Limits(workspace_bytes=8 << 20), wall_seconds=SECONDS)
    assert done.ending == "overfull", done
    before = service.pods()
    service.kill()
    assert before, "the killed one could end none"
    service.start()
    service.until(lambda said: said["ready"] == READY)
    end = time.monotonic() + SECONDS
    while before & service.pods():
        assert time.monotonic() < end, "what its predecessor made is nobody's"
        time.sleep(0.2)
    assert python(work, "print('again')", wall_seconds=SECONDS).stdout == b"again\n"


def test_a_program_in_an_image_that_the_chart_names_may_change_a_copy_of_its_folder_and_nothing_else_of_it(
    stage: None, service: Service, tmp_path: Path
) -> None:
    """The image is one of the node's own; its folder belongs to root."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "in").write_text("4")
    box = Box(workspace=tmp_path / "work", image=service.cluster.python_image(), folder="/usr/share/python3")
    command = """
set -e
cat in > /usr/share/python3/debpython/mine
ls /usr/share/python3/debpython/__init__.py /usr/share/python3/debpython/mine
cp /usr/share/python3/debpython/mine out
if touch /usr/share/more 2>/dev/null; then echo more; fi
test -n "$PATH" && python -c 'import os; print(os.getuid() > 1000, "gvisor" in os.uname().release)'
"""
    done = run(box, ["sh", "-c", command], wall_seconds=SECONDS)
    mine = [f"/usr/share/python3/debpython/{name}" for name in ("__init__.py", "mine")]
    assert done.stdout.decode().split() == [*mine, "True", "True"], done
    assert (tmp_path / "work" / "out").read_text() == "4"
    with pytest.raises(AbruzziError, match=r"docker\.io/other/python:3 is none that stages may name"):
        run(Box(workspace=tmp_path / "work", image="docker.io/other/python:3"), ["true"])


def test_where_pods_reach_the_apiserver_no_untrusted_program_is_run(
    cluster: ClusterHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's own runtime, on a bridge that enforces no NetworkPolicy."""
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("ABRUZZI_TOKEN", str(tmp_path / "token"))
    with open_service(cluster, tmp_path, runtime_class="") as service:
        monkeypatch.setenv("ABRUZZI_SANDBOXES_URL", service.url)
        service.until(lambda said: "reaches" in said["fault"])
        with pytest.raises(AbruzziError, match=f"{cluster.host_address}:{APISERVER_PORT}") as told:
            run(Box(workspace=tmp_path, isolator="pods"), ["true"])
        assert told.value.code == "no_sandbox"
