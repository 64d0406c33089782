"""Fixtures that every suite shares. Each xdist worker has a PostgreSQL of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from abruzzi_operators.supervisor.postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running server. `ABRUZZI_TEST_POSTGRES_BIN=/usr/lib/postgresql/15/bin` chooses other binaries than the wheel's.

    Commits survive a killed server; only fsync is off.
    """
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server
