"""Keys of endpoints reach the stages that refer to them, and no other."""

from __future__ import annotations

import pytest

from abruzzi.contracts.endpoint import secret_variable
from abruzzi_jobs.chat.keys import ENV_SECRETS
from abruzzi_operators.launcher.environment import SECRETS_FOLDER, for_stage

PLATFORM = {
    "PATH": "/bin",
    "ABRUZZI_DATABASE_URL": "postgresql://…",
    "ABRUZZI_SECRET_TEACHER_KEY": "one",
    "ABRUZZI_SECRET_OTHER": "two",
    "ABRUZZI_SECRETS": "/mounted",
}


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ({}, {"PATH"}),
        ({"a": {"kind": "standin"}, "b": {"kind": "openai", "api_key": None}}, {"PATH"}),
        (
            {"a": {"kind": "openai", "api_key": "secret:teacher-key"}},
            {"PATH", secret_variable("secret:teacher-key"), ENV_SECRETS},
        ),
    ],
)
def test_a_stage_gets_the_keys_that_it_refers_to(endpoint: dict, expected: set[str]) -> None:
    spec = {"config": {"endpoint": endpoint}, "store": {"kind": "directory"}}
    assert set(for_stage(PLATFORM, spec)) == expected
    assert SECRETS_FOLDER == ENV_SECRETS
