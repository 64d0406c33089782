"""PostgreSQL as a child: crashes, strays, versions, sockets, roles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres, _processes_on, end_strays
from abruzzi_operators.supervisor.postgres_binaries import (
    choose_identity,
    dedicated_uid,
    find_binaries,
    guarded,
    named_uid,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    yield postgres
    postgres.stop()


def write_row(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn("abruzzi_owner", "abruzzi")) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (id int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def count_rows(postgres: EmbeddedPostgres) -> int:
    with psycopg.connect(postgres.dsn("abruzzi_owner", "abruzzi")) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert row is not None
        return row[0]


def test_a_killed_server_starts_again_with_every_committed_row(server: EmbeddedPostgres) -> None:
    server.start()
    write_row(server)
    idle = psycopg.connect(server.dsn("abruzzi_owner", "abruzzi"))  # its backend outlives the postmaster for a moment
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert server._process is not None
    server._process.wait(240)
    server.start()
    assert count_rows(server) == 1
    idle.close()


def test_a_stale_pid_file_that_names_a_living_process_does_not_stop_the_start(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    pid_file = server.data_dir / "postmaster.pid"
    pid_file.write_text(f"{os.getppid()}\n{server.data_dir}\n1\n5432\n/nowhere\n\n  1 1\nready   \n")
    server.start()
    assert server.is_running


def test_nothing_is_left_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    state_dir = tmp_path / "postgres"
    script = (
        "import os, pathlib, signal, sys\n"
        "from abruzzi_operators.supervisor.postgres import EmbeddedPostgres\n"
        "EmbeddedPostgres(pathlib.Path(sys.argv[1]), durable=False).start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    owner = subprocess.run([sys.executable, "-c", script, str(state_dir)], check=False)
    assert owner.returncode == -signal.SIGKILL
    # A new owner takes over at once, whether or not the old server has finished going down.
    with EmbeddedPostgres(state_dir, durable=False) as server:
        write_row(server)
        assert count_rows(server) == 1
    assert _processes_on(state_dir / "data") == []


def test_a_second_owner_is_refused(server: EmbeddedPostgres) -> None:
    server.start()
    with pytest.raises(AbruzziError, match="Another process uses the database"):
        EmbeddedPostgres(server.state_dir).start()


def test_a_killed_initdb_leaves_nothing_that_stops_the_next_start(server: EmbeddedPostgres) -> None:
    half = server.state_dir / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server.start()
    assert server.is_running
    assert not half.exists()


def test_a_cluster_of_another_version_is_refused_with_its_version(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (server.data_dir / "PG_VERSION").write_text("9\n")
    with pytest.raises(AbruzziError, match="made by PostgreSQL 9"):
        server.start()


def test_a_long_path_gets_a_short_private_socket_that_goes_with_the_server(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with EmbeddedPostgres(deep, durable=False) as server:
        socket_dir = server._socket_dir
        assert socket_dir is not None
        assert len(os.fsencode(socket_dir)) < 80
        assert socket_dir.stat().st_mode & 0o777 == 0o700
        write_row(server)
    assert not socket_dir.exists()


def test_the_server_is_reached_by_its_socket_only_and_with_a_password(server: EmbeddedPostgres) -> None:
    server.start()
    process = psutil.Process(server.pid)
    assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    without = server.dsn("abruzzi_app", "abruzzi").replace(server._passwords["abruzzi_app"], "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(without)


def namespaces_are_refused() -> bool:
    """By seccomp, AppArmor or the sysctl, as in many containers."""
    command = guarded([sys.executable, "-c", ""], identity=f"namespace:{named_uid()}", death_signal=0)
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down; run as root to see it")
@pytest.mark.parametrize("identity", ["namespace", "uid"])
def test_root_steps_down_and_opens_no_directory_to_others(
    identity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if namespaces_are_refused():
        monkeypatch.delenv("ABRUZZI_TEST_POSTGRES_IDENTITY", raising=False)
        assert choose_identity(find_binaries()) == f"uid:{dedicated_uid()}"
        with EmbeddedPostgres(tmp_path / "closed" / "postgres", durable=False) as server:
            write_row(server)
            assert count_rows(server) == 1
        return
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("ABRUZZI_TEST_POSTGRES_IDENTITY", identity)
    with EmbeddedPostgres(closed / "postgres", durable=False) as server:
        write_row(server)
        assert count_rows(server) == 1
    assert closed.stat().st_mode & 0o777 == 0o700
    # The other way of stepping down takes the same cluster over.
    monkeypatch.setenv("ABRUZZI_TEST_POSTGRES_IDENTITY", {"namespace": "uid", "uid": "namespace"}[identity])
    with EmbeddedPostgres(closed / "postgres", durable=False) as server:
        assert count_rows(server) == 1


def test_strays_are_told_by_their_cluster_and_not_by_their_name(
    server: EmbeddedPostgres, postgres: EmbeddedPostgres
) -> None:
    server.start()
    end_strays(server.data_dir)
    assert _processes_on(server.data_dir) == []
    assert postgres.is_running
