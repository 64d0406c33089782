"""What a server process does about itself at its start."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def hide_environment() -> None:
    """Nobody but root reads this process's environment or memory any more, not even processes of the same user (Linux).

    A stage of the local executor runs as the user of the controller, whose environment holds passwords of the database. Programs that
    this process starts are not concerned: the kernel makes each readable again at exec.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
