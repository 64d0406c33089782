"""A box held by gVisor: an OCI bundle for `runsc run`, whose kernel in user space answers the program's system calls."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/etc/mime.types")
_USER = 65534
_RUN = """bundle=$1; shift
setsid sh -c 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; umount "$2/state/null-netns"; rm -rf "$2"' sh $$ "$bundle" </dev/null >/dev/null 2>&1 &
exec "$@"
"""


def runsc() -> str | None:
    return shutil.which("runsc")


def command(plan: dict[str, Any]) -> list[str]:
    """The bundle lies in the temporary folder; the command removes it when the program has ended."""
    program = runsc()
    if program is None:
        raise FileNotFoundError("runsc")
    bundle = Path(tempfile.mkdtemp(prefix="abruzzi-gvisor-"))
    root = bundle / "root"
    root.mkdir()
    (bundle / "config.json").write_text(json.dumps(_config(plan, root)))
    if os.geteuid() == 0:
        _own(Path(plan["workspace"]))
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    faults = [] if plan["fault_fd"] is None else [f"--log-fd={plan['fault_fd']}"]
    run = [
        program,
        *rootless,
        *faults,
        f"--root={bundle}/state",
        "--network=none",
        "--ignore-cgroups",
        "--overlay2=none",
    ]
    # sh becomes runsc, so that killing it reaches the sandbox; a session of its own waits for that and removes the bundle.
    return [
        "sh",
        "-c",
        _RUN,
        "sh",
        str(bundle),
        *run,
        "run",
        f"--bundle={bundle}",
        f"abruzzi-{uuid.uuid4().hex[:12]}",
    ]


def _own(workspace: Path) -> None:
    for path in (workspace, *workspace.rglob("*")):
        os.chown(path, _USER, _USER, follow_symlinks=False)


def _bound(source: str, target: str, *, writable: bool = False) -> dict[str, Any]:
    access = "rw" if writable else "ro"
    return {"destination": target, "type": "bind", "source": source, "options": ["rbind", access, "nosuid", "nodev"]}


def _config(plan: dict[str, Any], root: Path) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
    ]
    readable: list[str] = sorted(plan["readable"], key=len)
    for path in (*_SYSTEM_FOLDERS, *_SYSTEM_FILES, *readable):
        place = root / path.lstrip("/")
        if not os.path.lexists(path) or os.path.lexists(place) or _covered(path, mounts):
            continue
        if os.path.islink(path) and path in _SYSTEM_FOLDERS:
            place.symlink_to(os.readlink(path))
            continue
        _place(place, path)
        mounts.append(_bound(path, path))
    for name in ("workspace", "proc", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    mounts.append(_bound(plan["workspace"], "/workspace", writable=True))
    limits = plan["limits"]
    bounds = {
        "RLIMIT_CPU": limits["cpu_seconds"],
        # Its RLIMIT_DATA counts the heap alone, and V8 fails where address space is short, so programs that reserve some say so.
        "RLIMIT_AS": limits["memory_bytes"] + limits["reserved_bytes"],
        "RLIMIT_FSIZE": limits["file_bytes"],
        "RLIMIT_NOFILE": limits["open_files"],
        "RLIMIT_NPROC": limits["processes"],
    }
    user = _USER if os.geteuid() == 0 else 0
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": user, "gid": user},
            "args": plan["argv"],
            "env": [f"{key}={value}" for key, value in plan["environment"].items()],
            "cwd": "/workspace",
            "noNewPrivileges": True,
            "capabilities": {},
            "rlimits": [{"type": name, "hard": bound, "soft": bound} for name, bound in bounds.items()],
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "box",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _covered(path: str, mounts: list[dict[str, Any]]) -> bool:
    return any(
        path == m["destination"] or path.startswith(m["destination"] + "/") for m in mounts if m["type"] == "bind"
    )


def _place(place: Path, path: str) -> None:
    if os.path.isdir(path):
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
