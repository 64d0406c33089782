"""`abruzzi-stage`: one rank of a built-in stage. The exit code is the stage contract's; the log's last line is a sentence for people.

Codes: see abruzzi.client.stage.exits. An error that nobody foresaw leaves its traceback and code 70, which the contract does not know:
the platform tries again within the stage's budget and quarantines what keeps failing.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
import traceback
from importlib import import_module

from pydantic import ValidationError

from abruzzi.client.stage import Reporter, StageContext, exit_code_of
from abruzzi.contracts.errors import AbruzziError

KINDS = ("corpus", "rephrase", "instruct", "tokenize", "pretrain", "sft", "rl", "evaluate", "synthesize", "redteam")
CLOSE_SECONDS = 10.0
"""How long the last numbers wait for an API that is away; they stay in the spool then."""
CLOSE_STOPPED_SECONDS = 3.0
"""The same when the platform itself is going down."""

_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTUNREACH)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    # A hanging thread of a library must not keep an ended rank alive.
    os._exit(code)


def run() -> int:
    """Exit code of the stage in the environment."""
    try:
        context = StageContext.from_env()
        context.install_signals()
    except (AbruzziError, ValidationError, OSError) as error:
        return _end(error)
    reporter = Reporter.from_context(context)
    failure: BaseException | None = None
    try:
        reporter.heartbeat(0, "setup", message="starting")
        _run_kind(context, reporter)
    except BaseException as error:  # every end is told, SystemExit and a bug of ours too
        failure = error
    reporter.close(deadline_seconds=CLOSE_STOPPED_SECONDS if context.stop_requested.is_set() else CLOSE_SECONDS)
    return _end(failure)


def _run_kind(context: StageContext, reporter: Reporter) -> None:
    kind = context.spec.kind.value
    if kind not in KINDS:
        raise AbruzziError(
            "unknown_kind", f"Stage kind {kind!r} is not built in.", hint=f"Built in: {', '.join(KINDS)}."
        )
    stage = import_module(f"abruzzi_jobs.entrypoints.{kind}")
    # What importing has made stays as long as the process: no collection needs to look at its half a million objects again (0.2 s each time).
    gc.collect()
    gc.freeze()
    stage.run(context, reporter)


def _end(failure: BaseException | None) -> int:
    if failure is None:
        return 0
    told = _as_abruzzi_error(failure)
    code = exit_code_of(told)
    if isinstance(told, AbruzziError):
        logging.error("%s", told)
    elif not isinstance(told, SystemExit):
        traceback.print_exception(told, file=sys.stdout)
        logging.error(
            "The stage program failed with %s: %s. The traceback is above.",
            type(told).__name__, " ".join(str(told).split())[:300] or "no message",
        )  # fmt: skip
    return code


def _as_abruzzi_error(failure: BaseException) -> BaseException:
    """Errors of the system and of validation in our words; others as they are."""
    if isinstance(failure, ValidationError):
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in failure.errors()[:5])
        return AbruzziError(
            "invalid_config",
            f"The stage's spec does not fit this version: {problems}.",
            hint="Validate the recipe with `abruzzi validate`.",
        )
    if isinstance(failure, OSError) and failure.errno in _FULL:
        return AbruzziError(
            "disk_full", f"No room is left on the disk: {failure}.", hint="Free some space, then retry the run."
        )
    if isinstance(failure, ConnectionError | TimeoutError) or (
        isinstance(failure, OSError) and failure.errno in _TRANSIENT
    ):
        return AbruzziError("unreachable", f"{type(failure).__name__}: {failure}.", status=503)
    if isinstance(failure, MemoryError):
        return AbruzziError(
            "does_not_fit", "There is not enough memory for this stage.", hint="Make its batch smaller."
        )
    return failure


if __name__ == "__main__":
    main()
