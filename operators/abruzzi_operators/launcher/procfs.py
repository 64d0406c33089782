"""Who a process is, so that a pid is never mistaken for another process of the same number, and what the kernel says about memory kills.

Standard library only: the shim imports it.
"""

from __future__ import annotations

import os
import sys


def boot_id() -> str:
    """Changes with every start of the machine (or, in a container without it, is constant)."""
    text = _read("/proc/sys/kernel/random/boot_id")
    if text:
        return text.strip()
    if sys.platform == "darwin":
        import subprocess

        return subprocess.run(
            ["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False
        ).stdout.strip()
    return "unknown"


def start_time(pid: int) -> str | None:
    """When the process started, in the kernel's own unit; None when it does not exist or is a zombie.

    (pid, start time, boot id) identifies a process for ever.
    """
    text = _read(f"/proc/{pid}/stat")
    if text:
        # Field 2 is the name in parentheses and may contain anything; the state is field 3 and the start time field 22.
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    if os.path.isdir("/proc/self"):
        return None
    import subprocess

    result = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = result.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def identity(pid: int) -> dict[str, object]:
    return {"pid": pid, "start_time": start_time(pid), "boot_id": boot_id()}


def is_same_process(recorded: dict[str, object]) -> bool:
    """True when the process that `identity` described still runs."""
    if recorded.get("boot_id") != boot_id():
        return False
    started = start_time(int(str(recorded["pid"])))
    return started is not None and started == recorded.get("start_time")


def catches_signal(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal (Linux; elsewhere: no)."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def descendants(pid: int) -> list[int]:
    """Every living process below `pid`, parents first (Linux)."""
    children: dict[int, list[int]] = {}
    for process in _processes():
        fields = _read(f"/proc/{process}/stat").rpartition(")")[2].split()
        if fields and fields[0] not in ("Z", "X"):
            children.setdefault(int(fields[1]), []).append(process)
    found: list[int] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def session_members(session: int) -> list[int]:
    """Every living process of the session (Linux)."""
    found = []
    for pid in _processes():
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if fields and fields[0] not in ("Z", "X") and int(fields[3]) == session:
            found.append(pid)
    return found


def started_with(marks: dict[str, str]) -> list[int]:
    """Every living process whose environment, as it was started with, holds all `marks`: also one that has made a session of its own (Linux)."""
    wanted = {f"{name}={value}" for name, value in marks.items()}
    return [
        pid
        for pid in _processes()
        if wanted <= set(_read(f"/proc/{pid}/environ").split("\0")) and start_time(pid) is not None
    ]


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc/self") else []


def memory_kills() -> int | None:
    """How many processes of this process's memory cgroup the kernel has killed for memory so far; None where nothing counts them.

    cgroup v2's `memory.events`, else v1's `memory.oom_control`, else (no cgroup of its own) the machine's /proc/vmstat.
    """
    for path, key in (*_memory_cgroup_files(), ("/proc/vmstat", "oom_kill")):
        for line in _read(path).splitlines():
            name, _, value = line.partition(" ")
            if name == key and value.strip().isdigit():
                return int(value)
    return None


def _memory_cgroup_files() -> list[tuple[str, str]]:
    files = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        # Inside a container the path may be that of the host while the mount shows the own group at its root.
        if controllers == "":
            files += [
                (f"{root}{path}/memory.events", "oom_kill") for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
            ]
            files.append(("/sys/fs/cgroup/memory.events", "oom_kill"))
        elif "memory" in controllers.split(","):
            files += [(f"/sys/fs/cgroup/memory{where}/memory.oom_control", "oom_kill") for where in (path, "")]
    return files


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
