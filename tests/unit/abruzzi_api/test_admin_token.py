"""The first administrator's token comes from the environment."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from abruzzi.kit.clock import SystemClock
from abruzzi_api import app


async def test_a_token_that_is_none_is_named_in_the_log_instead_of_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def transaction(*_: Any):
        yield None

    monkeypatch.setattr(app, "transaction", transaction)
    settings = SimpleNamespace(admin_token=SecretStr("letmein"))
    state = SimpleNamespace(settings=settings, sessions=None, clock=SystemClock())
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(app._bootstrap(SimpleNamespace(state=state)), 240)  # type: ignore[arg-type]
    assert "ABRUZZI_ADMIN_TOKEN is no token" in caplog.text
    assert "letmein" not in caplog.text
