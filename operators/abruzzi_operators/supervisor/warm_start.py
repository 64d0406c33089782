"""Imports a program and waits for a line on standard input before it runs it: `python warm_start.py MODULE:FUNCTION`.

The slow part of a start (imports) is then over before the program's turn comes. End of input instead of a line: end.
"""

import importlib
import os
import sys


def main(target: str) -> None:
    module, _, function = target.partition(":")
    run = getattr(importlib.import_module(module), function)
    if not sys.stdin.readline():
        return
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.argv = [module]
    sys.exit(run())


if __name__ == "__main__":
    # The script's own directory is not a place to import from.
    sys.path.pop(0)
    main(sys.argv[1])
