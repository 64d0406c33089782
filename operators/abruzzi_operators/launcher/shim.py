"""Parent of one rank: starts it in a session of its own and writes down how it ended. It outlives the launcher.

    python -I -S shim.py RANK_DIR WORK_DIR -- COMMAND…

    shim.json    who the shim is; created once, so that a rank is started at most once in an attempt
    rank.json    who the rank is
    output.log   what the rank prints
    exit.json    {"code", "signal", "out_of_memory", "ended_at"}: written last, whole or not at all

SIGTERM is passed on to the rank's process group. SIGUSR2 kills it. When the shim itself is killed the kernel kills the rank,
because nobody could tell its exit code any more. What the rank leaves running is killed when the rank ends.
Standard library only, so that it starts fast and stays small.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import NoReturn

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from abruzzi_operators.launcher.procfs import descendants, identity, memory_kills

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_PTRACER = 0x59616D61
PR_SET_PTRACER_ANY = 2**64 - 1
CANNOT_START = 64
"""A command that does not exist is the recipe's mistake."""
OUT_OF_MEMORY_SCORE = 500
"""Under memory pressure of the whole machine the kernel ends a rank before the database."""


def main(arguments: list[str]) -> int:
    rank_dir, work_dir = arguments[0], arguments[1]
    command = arguments[arguments.index("--") + 1 :]
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGCHLD, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    if not create_once(os.path.join(rank_dir, "shim.json"), identity(os.getpid())):
        return 0  # another shim has started this rank
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    kills_before = memory_kills()
    rank_pid = start(command, rank_dir, work_dir)
    write_whole(os.path.join(rank_dir, "rank.json"), identity(rank_pid))
    status = wait(rank_pid, signals)
    kill_left_overs(rank_pid)
    code, number = os.waitstatus_to_exitcode(status), 0
    if code < 0:
        code, number = 128 - code, -code
    kills_after = memory_kills()
    grew = kills_before is not None and kills_after is not None and kills_after > kills_before
    outcome = {
        "code": code,
        "signal": number,
        "out_of_memory": number == signal.SIGKILL and grew,
        "ended_at": time.time(),
    }
    write_whole(os.path.join(rank_dir, "exit.json"), outcome)
    return 0


def start(command: list[str], rank_dir: str, work_dir: str) -> int:
    """The rank's pid. Its output goes straight to the file, so that no pipe can break."""
    log = os.open(os.path.join(rank_dir, "output.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    shim_pid = os.getpid()
    pid = os.fork()
    if pid:
        os.close(log)
        os.close(nothing)
        return pid
    become_rank(command, work_dir, shim_pid=shim_pid, nothing=nothing, log=log)


def become_rank(command: list[str], work_dir: str, *, shim_pid: int, nothing: int, log: int) -> NoReturn:
    """In the child, between fork and exec."""
    try:
        os.setsid()
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY)  # py-spy may look into a rank that hangs
        if os.getppid() != shim_pid:
            os._exit(137)
        _raise_memory_score()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir(work_dir)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"abruzzi: cannot start {command[0]!r}: {error.strerror}.\n".encode())
    except BaseException:
        os._exit(CANNOT_START)
    os._exit(CANNOT_START)


def wait(rank_pid: int, signals: tuple[int, ...]) -> int:
    """Passes signals on until the rank has ended; its wait status. Orphans of the rank are reaped on the way."""
    while True:
        number = signal.sigwait(signals)
        if number == signal.SIGCHLD:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == rank_pid:
                    return status
                if pid == 0:
                    break
        elif number in (signal.SIGTERM, signal.SIGINT):
            _kill_group(rank_pid, signal.SIGTERM)
        elif number == signal.SIGUSR2:
            _kill_group(rank_pid, signal.SIGKILL)


def kill_left_overs(rank_pid: int) -> None:
    _kill_group(rank_pid, signal.SIGKILL)
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def create_once(path: str, content: Mapping[str, object]) -> bool:
    """False when the file exists. It is never seen half written."""
    scratch = f"{path}.{os.getpid()}"
    _write_synced(scratch, content)
    try:
        os.link(scratch, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(scratch)
    return True


def write_whole(path: str, content: Mapping[str, object]) -> None:
    scratch = f"{path}.{os.getpid()}"
    _write_synced(scratch, content)
    os.replace(scratch, path)


def _write_synced(path: str, content: Mapping[str, object]) -> None:
    with open(path, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def _kill_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        # Either the child has not reached setsid yet, or everything in the group has gone.
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
    except PermissionError:
        return


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _raise_memory_score() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(OUT_OF_MEMORY_SCORE))
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
