"""The inner side of a box of namespaces. Run as a script by a bare interpreter (`python -I -S namespaces.py PLAN`): standard library only.

Three processes: this one, outside; its child, process 1 of the box, which builds the file system, gives up all rights and reaps; the program.
The way of bubblewrap (its bubblewrap.c): a fresh tmpfs becomes the root, the old root is bound into it piece by piece and then let go.
Rights: root changes to a user id of this box alone; anybody else gets a user namespace and is an ordinary user in it, too.
What is wrong with the box is told through a pipe that nothing in it holds any more when the program starts: what the program prints or exits with is its own.
"""

import ctypes
import json
import os
import resource
import signal
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SYS_MOUNT_SETATTR = 442  # the same number on every architecture, since Linux 5.12
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 0x1, 0x2, 0x4
BOX_USER = 1000
FIRST_USER_OF_ROOT = 1_000_000  # far above accounts; plus the process id it is this box's own, so that its process limit counts no other's
TMP_BYTES = 256 << 20
SHARED_MEMORY_PAGES = (
    16 << 10
)  # of System V, in the box's own namespace: no limit of a process counts what it has let go of
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/mime.types",
)
DEVICES = ("null", "zero", "full", "random", "urandom")
BOX_FAULT = 125

_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def _checked(what, result):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _mount(source, target, kind=None, flags=0, data=None):
    packed = [None if part is None else os.fsencode(part) for part in (source, target, kind, data)]
    _checked(f"mount {target}", _libc.mount(packed[0], packed[1], packed[2], ctypes.c_ulong(flags), packed[3]))


def _attributes(target, attributes, recursive):
    wanted = _Attributes(set=attributes)
    flags = AT_RECURSIVE if recursive else 0
    done = _libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), flags, ctypes.byref(wanted), ctypes.sizeof(wanted)
    )
    _checked(f"mount_setattr {target}", done)


def _pivot(new, old):
    number = SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"no pivot_root for {os.uname().machine}")
    _checked("pivot_root", _libc.syscall(number, os.fsencode(new), os.fsencode(old)))


def _bind(path, target, writable=False):
    """`path` of the machine (now under /old) at `target` of the new root. What is missing on the machine is left out."""
    source = "/old" + path
    place = "/new" + target
    if os.path.lexists(place) or not os.path.lexists(source):
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), place)
        return
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, place, None, MS_BIND | MS_REC)
    _attributes(place, ATTR_NOSUID | ATTR_NODEV | (0 if writable else ATTR_RDONLY), True)


def _devices():
    os.makedirs("/new/dev/shm")
    for name in DEVICES:
        os.close(os.open(f"/new/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        _mount(f"/old/dev/{name}", f"/new/dev/{name}", None, MS_BIND)
    os.symlink("/proc/self/fd", "/new/dev/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/new/dev/{name}")
    _mount("tmpfs", "/new/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")


def _build_root(plan, user):
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
    os.mkdir("/tmp/old")
    _pivot("/tmp", "/tmp/old")
    os.chdir("/")
    os.mkdir("/new")
    _mount("tmpfs", "/new", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=16m")
    os.mkdir("/new/tmp")
    _mount("tmpfs", "/new/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={TMP_BYTES}")
    for path in (*SYSTEM_FOLDERS, *SYSTEM_FILES):
        _bind(path, path)
    with open("/new/etc/passwd", "w") as accounts:
        accounts.write(f"box:x:{user}:{user}::/workspace:/bin/sh\n")
    with open("/new/etc/group", "w") as groups:
        groups.write(f"box:x:{user}:\n")
    _devices()
    os.mkdir("/new/proc")
    _mount("proc", "/new/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path in sorted(plan["readable"], key=len):
        _bind(path, path)
    _bind(plan["workspace"], "/workspace", writable=True)
    _attributes("/new", ATTR_RDONLY, False)
    os.chdir("/new")
    _pivot(".", ".")
    _checked("umount", _libc.umount2(b".", MNT_DETACH))
    os.chdir("/workspace")


def _bound_shared_memory():
    try:
        with open("/proc/sys/kernel/shmall", "w") as most:
            most.write(str(SHARED_MEMORY_PAGES))
    except OSError:  # a container may keep these files from being written
        pass


def _limit(limits):
    bounds = (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        # Data, not address space: V8 and the JVM reserve tens of GiB that they never touch.
        (resource.RLIMIT_DATA, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_CORE, 0),
    )
    for which, bound in bounds:
        hard = resource.getrlimit(which)[1]
        value = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(which, (value, value))


def _give_up_rights(user, was_root):
    if was_root:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # After the change of user, which would clear it: with the process outside, all in the box ends.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _own(folder, user):
    """Root's workspace belongs to the box's user while the box is there. Links are changed, not followed."""
    os.chown(folder, user, user, follow_symlinks=False)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(parent, name), user, user, follow_symlinks=False)


def _found(program, path):
    """os.execvpe would import a module now, from files that are no longer there."""
    if "/" in program:
        return program
    for folder in path.split(":"):
        if os.access(f"{folder}/{program}", os.X_OK):
            return f"{folder}/{program}"
    return program


def _first_process(plan, user, was_root):
    _build_root(plan, user)
    _bound_shared_memory()
    _limit(plan["limits"])
    _give_up_rights(user, was_root)
    start, may_start = os.pipe()
    program = os.fork()
    if program == 0:
        os.close(may_start)
        # Until the process above, whose files it could open below /proc, has let go of the pipe of faults.
        os.read(start, 1)
        try:
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.execve(_found(plan["argv"][0], plan["environment"]["PATH"]), plan["argv"], plan["environment"])
        except OSError as error:
            os.write(2, f"{plan['argv'][0]}: {error.strerror}\n".encode())
            os._exit(127)
    if (faults := plan.pop("fault_fd")) is not None:
        os.close(faults)
    os.close(may_start)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)  # or the reader of the program's output would wait for this process, too
    while True:
        gone, status = os.wait()
        if gone == program:
            return status


def _exit_code(status):
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _at_fault(plan, error):
    """In the form of OCI runtimes' logs, which runsc writes, too."""
    faults = plan.get("fault_fd")
    told = f"sandbox: {error}" if faults is None else json.dumps({"level": "error", "msg": str(error)})
    os.write(2 if faults is None else faults, f"{told}\n".encode())
    return BOX_FAULT


def main(plan):
    if plan["fault_fd"] is not None:
        os.set_inheritable(plan["fault_fd"], False)
    was_root = os.geteuid() == 0
    user = FIRST_USER_OF_ROOT + os.getpid() if was_root else BOX_USER
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    outer, group = os.geteuid(), os.getegid()
    spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    if was_root:
        _own(plan["workspace"], user)
    _checked("unshare", _libc.unshare(spaces | (0 if was_root else CLONE_NEWUSER)))
    if not was_root:
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {outer} 1"), ("gid_map", f"{user} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    os.umask(0o022)
    null = os.open("/dev/null", os.O_RDWR)  # now: this process shares the mounts that its child is about to change
    first = os.fork()
    if first == 0:
        try:
            status = _first_process(plan, user, was_root)
            os._exit(_exit_code(status))
        except (OSError, ValueError) as error:
            os._exit(_at_fault(plan, error))
    signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGKILL))
    for number in (0, 1):
        os.dup2(null, number)
    return _exit_code(os.waitpid(first, 0)[1])


if __name__ == "__main__":
    the_plan = json.loads(sys.argv[1])
    try:
        sys.exit(main(the_plan))
    except (OSError, ValueError) as error:
        sys.exit(_at_fault(the_plan, error))
