"""Which exit code of the contract an error becomes (design section 6). Pure."""

from __future__ import annotations

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ExitCode

SOFTWARE = 70
"""An error that nobody foresaw, with its traceback in the log. The contract does not know the code (cause `unknown`), so the platform tries
again within the stage's budget and quarantines what keeps failing: a bug costs a few attempts, a fault of the machine costs none of the work."""

_BY_CODE = {
    "preempted": ExitCode.PREEMPTED,
    "divergence": ExitCode.DIVERGENCE,
    "bad_data": ExitCode.BAD_DATA,
    "corrupt_artifact": ExitCode.BAD_DATA,
    "corrupt_manifest": ExitCode.BAD_DATA,
    "disk_full": ExitCode.USER_ERROR,
}
"""Every other code by its status: 500 and above is a service that was away (75), the rest is for a person to mend (64), as is a full disk:
trying again without one would fill it again."""


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
    if error.code in _BY_CODE:
        return int(_BY_CODE[error.code])
    return int(ExitCode.TRY_AGAIN if error.status >= 500 else ExitCode.USER_ERROR)
