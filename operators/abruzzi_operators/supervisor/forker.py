"""Imports a program once and forks it as often as it is asked to: `python forker.py MODULE:FUNCTION`.

The slow part of a start (imports) is over before the program's turn comes, and need not be repeated when it was killed. Each line on
standard input starts it; its pid and then its exit code (minus the signal's number) come as lines on standard output. One at a time.
End of input: end. The program's own output goes to standard error, a log; the kernel kills it when the forker is gone.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from abruzzi.kit.process import hide_environment
from abruzzi_operators.supervisor.guarded_exec import die_with


def main(target: str) -> None:
    hide_environment()
    module, _, function = target.partition(":")
    program: Callable[[], int | None] = getattr(importlib.import_module(module), function)
    while sys.stdin.readline():
        forker_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            become(program, module, forker_pid)
        report(pid)
        _, status = os.waitpid(pid, 0)
        report(os.waitstatus_to_exitcode(status))


def become(program: Callable[[], int | None], name: str, forker_pid: int) -> NoReturn:
    die_with(forker_pid, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    sys.argv = [name]
    sys.exit(program())


def report(number: int) -> None:
    os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
