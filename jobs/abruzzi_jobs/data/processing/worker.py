"""A process that makes shards as it is told: `python -m abruzzi_jobs.data.processing.worker FD`.

Orders come in and answers go out over one pipe, as JSON: {"function", "task", "out"} → {"manifest"} or {"error"}. It ends when the other
end is closed, which is also what happens when its parent is killed.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.processing.function import FunctionSpec
from abruzzi_jobs.data.processing.shard import ShardTask, process_shard


def answer_to(order: dict[str, Any]) -> dict[str, Any]:
    told = order["task"]
    task = ShardTask(name=told["name"], parent=Path(told["parent"]), digest=told["digest"])
    try:
        return {"manifest": asdict(process_shard(FunctionSpec(**order["function"]), task, Path(order["out"])))}
    except AbruzziError as error:
        return {"error": {"code": error.code, "message": error.message, "status": error.status, "hint": error.hint}}
    except Exception as error:  # a bug in a function, or the system's: the parent has to say it
        traceback.print_exc()
        message = f"{task.parent}: {type(error).__name__}: {error}."
        return {"error": {"code": "shard_failed", "message": message, "hint": "The traceback is in the stage's log."}}


def serve(pipe: Connection) -> None:
    while True:
        try:
            order = json.loads(pipe.recv_bytes())
            pipe.send_bytes(json.dumps(answer_to(order)).encode())
        except (EOFError, OSError):
            return


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
