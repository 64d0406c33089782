"""Which exit code of the contract an error becomes (design section 6). Pure."""

from __future__ import annotations

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ExitCode

SOFTWARE = 70
"""An error that nobody foresaw, with its traceback in the log. The contract does not know the code (cause `unknown`), so the platform tries
again within the stage's budget and quarantines what keeps failing: a bug costs a few attempts, a fault of the machine costs none of the work."""

_BAD_DATA = frozenset({"bad_data", "corrupt_artifact", "corrupt_manifest"})
_USER = frozenset({"disk_full", "no_credentials", "recipe_invalid", "does_not_fit"})
"""`disk_full` too: trying again without a person would fill the disk again."""


class Preempted(AbruzziError):
    """Asked to stop, and everything that matters is saved."""

    def __init__(self, message: str) -> None:
        super().__init__("preempted", message, status=409)


def exit_code_of(error: BaseException) -> int:
    """Of the stage process that this error ends."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(ExitCode.OK if error.code is None else SOFTWARE)
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.PREEMPTED)
    if not isinstance(error, AbruzziError):
        return SOFTWARE
    if isinstance(error, Preempted):
        return int(ExitCode.PREEMPTED)
    if error.code == "divergence":
        return int(ExitCode.DIVERGENCE)
    if error.code in _BAD_DATA:
        return int(ExitCode.BAD_DATA)
    if error.code in _USER:
        return int(ExitCode.USER_ERROR)
    return int(ExitCode.TRY_AGAIN if error.status >= 500 else ExitCode.USER_ERROR)
