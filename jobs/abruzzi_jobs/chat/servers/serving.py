"""The child's side of a server in a child process (child.py is the parent's).

They talk over the child's standard input and one pipe: the first line in is JSON with the key and the settings, the one line out is JSON with
the port, or with what is wrong. Standard input stays open for as long as the parent lives: its end, however the parent ended, is the child's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from abruzzi.contracts.errors import AbruzziError

ENV_PIPE = "ABRUZZI_CHILD_PIPE"


def serve_parent(start: Callable[[dict[str, Any]], int]) -> NoReturn:
    """`start` gets key and settings, starts a server in threads of its own and returns its port. Ends with the parent."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the stage is asked to stop, and still wants its answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = int(os.environ.pop(ENV_PIPE))
    settings = json.loads(sys.stdin.buffer.readline())
    # From now on: the parent may end while the weights are being read.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        said: dict[str, Any] = {"port": start(settings)}
    except AbruzziError as error:
        said = {"code": error.code, "error": error.message, "hint": error.hint}
    os.write(pipe, json.dumps(said).encode() + b"\n")
    os.close(pipe)
    if "error" in said:
        os._exit(1)
    threading.Event().wait()
    raise AssertionError("unreachable")


def _end_with_parent() -> NoReturn:
    sys.stdin.buffer.read()
    os._exit(0)
