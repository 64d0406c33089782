"""Becomes another program that dies with its parent and, started by root, that is not root in its own eyes.

A script of the standard library only (`python -I -S guarded_exec.py PARENT_PID SIGNAL IDENTITY -- COMMAND…`), because it runs
between fork and exec of every child of the supervisor. IDENTITY is one of

    same               keep the user
    namespace:UID      a user namespace that shows root as UID: PostgreSQL refuses to run as uid 0, and every file that root
                       can reach stays reachable, so that nothing outside the state directory has to be opened to others
    uid:UID            where namespaces are forbidden: become UID, and keep the one capability that reaches the program's
                       own files when they lie below a directory of root's
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CLONE_NEWUSER = 0x10000000
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    parent_pid, signal_number, identity = int(arguments[0]), int(arguments[1]), arguments[2]
    command = arguments[arguments.index("--") + 1 :]
    if identity != "same":
        mode, _, uid = identity.partition(":")
        {"namespace": enter_namespace, "uid": become}[mode](int(uid))
    # Last, because the kernel clears it whenever credentials change.
    die_with(parent_pid, signal_number)
    os.execv(command[0], command)


def enter_namespace(uid: int) -> None:
    group = os.getegid()
    _checked(_libc().unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} 0 1")
    _write("/proc/self/gid_map", f"{uid} {group} 1")


def become(uid: int) -> None:
    libc = _libc()
    # Capabilities stay across setuid, and access(2), by which PostgreSQL checks its own files, counts them.
    _checked(libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "prctl(PR_SET_SECUREBITS)")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    mask = 1 << CAP_DAC_OVERRIDE
    # effective, permitted, inheritable; then the same for the upper 32 capabilities
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    _checked(libc.capset(header, sets), "capset")
    _checked(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0), "prctl(PR_CAP_AMBIENT)")


def die_with(parent_pid: int, signal_number: int) -> None:
    """The kernel sends `signal_number` when the parent is gone, however it went (Linux; elsewhere the next start clears away)."""
    if not sys.platform.startswith("linux") or signal_number == 0:
        return
    _checked(_libc().prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:  # it died before the request was made
        os.kill(os.getpid(), signal.SIGKILL)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
