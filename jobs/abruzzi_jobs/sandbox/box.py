"""What a box may see and use, and which isolator holds it: a pod where the cluster gives sandboxes, gVisor where `runsc` is installed, Linux namespaces otherwise."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sandbox import SandboxIn
from abruzzi_jobs.sandbox import gvisor, pods

Isolator = Literal["pods", "gvisor", "namespaces"]
_ISOLATORS: tuple[Isolator, ...] = ("pods", "gvisor", "namespaces")
WORKSPACE = "/workspace"
_INNER = Path(__file__).with_name("namespaces.py")
_PROBE_SECONDS = 30.0
_REMEDY = (
    "Untrusted programs are not started without a sandbox. Allow unprivileged user namespaces "
    "(sysctl kernel.unprivileged_userns_clone=1 or user.max_user_namespaces > 0; on Ubuntu 24.04 also "
    "kernel.apparmor_restrict_unprivileged_userns=0), run as root, or install gVisor's runsc; "
    "on a cluster install the chart with sandboxes.enabled (docs/how-to/run-on-kubernetes.md)."
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of each process, except `processes` (threads and processes of the box together) and the last three, which `run` watches over: memory of all
    processes together, and what lies in the workspace. Exceeding memory raises in the program, CPU time kills it, exceeding one of the last three ends the
    box. `reserved_bytes`: address space that the program takes without using it (V8: some 32 GiB); gVisor can bound nothing else."""

    cpu_seconds: int = 60
    memory_bytes: int = 2 << 30
    reserved_bytes: int = 0
    file_bytes: int = 256 << 20
    open_files: int = 512
    processes: int = 128
    together_bytes: int = 8 << 30
    workspace_bytes: int = 4 << 30
    workspace_files: int = 200_000


@dataclass(frozen=True, kw_only=True)
class Box:
    """`workspace` is the one folder that can be written, seen as /workspace (a root's box gives it to a user without rights). `readable` appears
    read-only under its own path; so do the system's programs and libraries. Nothing else of the machine is there: no home, no secret, no socket.

    A pod has copies: its workspace comes back when the program has ended by itself, and of `readable` it is sent what is no part of this interpreter.

    `image`: of such a pod, where the program needs another than the stage's; then it has that image's PATH, and may change a copy of the image's `folder`,
    which ends with it."""

    workspace: Path
    readable: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=dict)
    isolator: Isolator | None = None
    image: str = ""
    folder: str = ""


def python_files(python: Path | None = None) -> tuple[Path, ...]:
    """Folders that an interpreter (this one by default) needs to see: its environment and the installation beneath it."""
    executable = python or Path(sys.executable)
    chain = {executable.parent.parent.absolute()}
    link = executable.absolute()
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / os.readlink(link)))
        chain.add(link.parent.parent)
    chain.add(executable.resolve().parent.parent)
    return tuple(sorted(chain))


def isolators() -> tuple[Isolator, ...]:
    """Those that work here, the stronger first; each was tried once with an empty program, or is there by the operator's word (pods)."""
    return tuple(name for name in _ISOLATORS if not _fault(name))


def start(box: Box, argv: Sequence[str], *, fault_fd: int | None = None) -> list[str]:
    """The command line that runs `argv` in the box, from a thread that outlives it: when its starter ends, all in the box is killed.

    `fault_fd`: a pipe that the command is to inherit, where the isolator says what is wrong with the box (faults.py); the program cannot reach it. Without
    one it stands on standard error.

    Raises AbruzziError `no_sandbox` where no isolator works on this machine, with the reason of each."""
    if not box.workspace.is_dir():
        raise AbruzziError("no_workspace", f"{box.workspace}: a box needs an existing folder to work in.")
    chosen: Isolator | None = "pods" if box.image else box.isolator
    isolator = chosen or next(iter(isolators()), None)
    if isolator is None or (chosen and _fault(chosen)):
        names = (chosen,) if chosen else _ISOLATORS
        reasons = "; ".join(f"{name}: {_fault(name)}" for name in names)
        raise AbruzziError("no_sandbox", f"This machine cannot hold a sandbox ({reasons}).", status=503, hint=_REMEDY)
    return _command(box, isolator, argv, fault_fd)


def _command(box: Box, isolator: Isolator, argv: Sequence[str], fault_fd: int | None = None) -> list[str]:
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": WORKSPACE,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        **box.environment,
    }
    if box.image and "PATH" not in box.environment:
        del environment["PATH"]  # the image's own
    plan = {
        "workspace": str(box.workspace.resolve()),
        "readable": [str(path) for path in dict.fromkeys(p.absolute() for p in box.readable)],
        "limits": asdict(box.limits),
        "environment": environment,
        "argv": list(argv),
        "fault_fd": fault_fd,
    }
    if isolator == "pods":
        has = frozenset(str(path.absolute()) for path in python_files())
        return pods.command(plan, has, SandboxIn(image=box.image, folder=box.folder))
    if isolator == "gvisor":
        return gvisor.command(plan)
    return [sys.executable, "-I", "-S", str(_INNER), json.dumps(plan)]


def _fault(isolator: Isolator) -> str:
    """Empty when it works. That it is not there is not remembered: the PATH may change. Of pods their service knows, which tries each."""
    if isolator == "pods":
        return pods.absent()
    if isolator == "gvisor" and gvisor.runsc() is None:
        return "runsc is not on the PATH"
    if isolator == "namespaces" and not sys.platform.startswith("linux"):
        return f"namespaces are Linux', this is {sys.platform}"
    return _tried(isolator)


@functools.cache
def _tried(isolator: Isolator) -> str:
    with tempfile.TemporaryDirectory(prefix="abruzzi-box-") as folder:
        command = _command(Box(workspace=Path(folder)), isolator, [shutil.which("true") or "/bin/true"])
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
