"""Every error has its exit code in the stage contract."""

from __future__ import annotations

import pytest

from abruzzi.client.stage.exits import SOFTWARE, Preempted, exit_code_of
from abruzzi.contracts.errors import AbruzziError, NotFound


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AbruzziError("bad_data", "x"), 65),
        (AbruzziError("corrupt_artifact", "x", status=409), 65),
        (AbruzziError("divergence", "x"), 76),
        (AbruzziError("store_error", "x", status=502), 75),
        (AbruzziError("disk_full", "x"), 64),
        (AbruzziError("invalid_config", "x"), 64),
        (NotFound("object", "k"), 64),
        (Preempted("x"), 143),
        (AbruzziError("preempted", "x"), 143),
        (SystemExit(143), 143),
        (SystemExit(None), 0),
        (KeyboardInterrupt(), 143),
        (ZeroDivisionError(), SOFTWARE),
    ],
)
def test_the_code_says_what_to_do_next(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code
