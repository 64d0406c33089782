"""PostgreSQL from a wheel's binaries as a child of this process: initdb, start, crash recovery, stop. No root, no system user, no TCP.

Everything lies in one state directory (only the socket moves to a short private one where the path would be too long):

    data/            the cluster; made as `data.new` and renamed, so that a killed initdb leaves nothing half made
    passwords.json   0600; clients log in by SCRAM over the socket
    socket/          0700
    postgres.lock    held while the server is in use
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import LiteralString
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.supervisor.postgres_binaries import (
    choose_identity,
    dedicated_uid,
    find_binaries,
    guarded,
    major_version,
    named_uid,
)

SUPERUSER = "postgres"
ROLES: Mapping[str, LiteralString] = {
    "abruzzi_owner": "LOGIN CREATEDB CREATEROLE",
    "abruzzi_app": "LOGIN",
    "abruzzi_controller": "LOGIN",
}
PORT = 5432
"""Names the socket's file only; nothing listens on TCP."""
MAX_SOCKET_PATH_BYTES = 100
"""The kernel's limit is 107 on Linux and 103 on macOS."""
START_SECONDS = 240.0
"""Crash recovery included, on a machine with much else to do."""
FAST_STOP_SECONDS = 10.0
IMMEDIATE_STOP_SECONDS = 3.0
POLL_SECONDS = 0.01


class EmbeddedPostgres:
    """`start`, `stop` and `dsn` for a server of one's own; `configure`, `initialize`, `command` and `wait_ready` for the supervisor, which owns the process.

    The server is sent SIGINT (fast shutdown) when the thread that started it is gone, so start it from the main thread.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        log_path: Path | None = None,
        passwords: Mapping[str, str] | None = None,
        durable: bool = True,
    ) -> None:
        self.state_dir = state_dir.absolute()
        self.data_dir = self.state_dir / "data"
        self.log_path = log_path or self.state_dir / "postgres.log"
        self._given_passwords = passwords
        self._durable = durable
        self._passwords: dict[str, str] = {}
        self._socket_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_fd: int | None = None
        self._is_new = False

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the server accepts connections. Starting a started server does nothing; a dead one is started again."""
        if self.is_running:
            return
        self.configure()
        self.initialize()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
            )
        try:
            self.wait_ready(self._process.pid, is_alive=lambda: self.is_running)
            self.ensure_roles()
            self._sync_new_cluster()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Fast shutdown, then harder. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            self.stop_process(process)
        self.release()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The postmaster's, while this object runs it."""
        return self._process.pid if self._process is not None and self.is_running else None

    def dsn(self, user: str, dbname: str) -> str:
        """A libpq address with the password in it. Users: `postgres` and the roles in ROLES."""
        if user not in self._passwords:
            known = ", ".join(self._passwords) or "none before start()"
            raise AbruzziError("unknown_role", f"There is no database role {user!r}; known: {known}.", status=500)
        return f"postgresql://{user}:{self._passwords[user]}@/{quote(dbname)}?host={quote(str(self._socket_dir), safe='')}&port={PORT}"

    def attach(self) -> None:
        """For `dsn` of the server that another process runs here. Raises AbruzziError when it was never started."""
        self._passwords = self._load_passwords()
        note = self.state_dir / "socket.path"
        places = [self.state_dir / "socket", *([Path(note.read_text())] if note.exists() else [])]
        self._socket_dir = next((place for place in places if (place / f".s.PGSQL.{PORT}").exists()), None)
        if self._socket_dir is None:
            raise AbruzziError("postgres_start", f"No PostgreSQL runs in {self.state_dir}.", status=409)

    # What the supervisor uses

    def configure(self) -> None:
        """Take the lock and settle passwords, binaries and socket: `dsn` answers from here on, before there is a server."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock()
        self._passwords = self._load_passwords()
        self._binaries = find_binaries()
        self._major = major_version(self._binaries)
        self._identity = choose_identity(self._binaries)
        self._socket_dir = self._choose_socket_dir()

    def initialize(self) -> None:
        """End what a killed server or supervisor left behind; make the cluster at first start. Before every start of the server."""
        assert self._socket_dir is not None, "configure() comes first"
        end_strays(self.data_dir)
        if not self.data_dir.exists():
            self._initdb()
        self._refuse_other_version()
        self._own_by_identity()
        # No postgres lives on this cluster any more (end_strays saw to it), so these files are stale; left in place they make
        # PostgreSQL refuse to start once another program has got the same pid.
        for stale in (self.data_dir / "postmaster.pid", *self._socket_dir.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            "max_connections": "100",
            "shared_buffers": "64MB",
            "max_wal_size": "512MB",
            "checkpoint_timeout": "1min",  # little to replay after a kill: back within two seconds
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "password_encryption": "scram-sha-256",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %u@%d ",
            "logging_collector": "off",
        }
        if sys.platform.startswith("linux"):
            settings["recovery_init_sync_method"] = "syncfs"  # one call instead of one a file: seconds on a busy disk
        if self._major >= 18:
            settings["io_method"] = "sync"  # no worker processes: three fewer on a small machine
        if not self._durable:
            # Still written to the kernel at commit: a killed server loses nothing, only a machine that loses power does.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self.data_dir), *options]
        return guarded(command, identity=self._identity, death_signal=signal.SIGINT)

    def wait_ready(self, pid: int, *, is_alive: Callable[[], bool]) -> None:
        """Block until the postmaster `pid` says in its pid file that it is ready. Raises AbruzziError when it dies or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready(pid):
            dead = not is_alive()
            if dead or time.monotonic() > deadline:
                what = "ended while starting" if dead else f"was not ready after {START_SECONDS:.0f} s"
                raise AbruzziError(
                    "postgres_start",
                    f"PostgreSQL {what}: {self._last_log_line()}",
                    status=500,
                    hint=f"Read {self.log_path}.",
                )
            time.sleep(POLL_SECONDS)

    def is_ready(self, pid: int) -> bool:
        lines = _read_lines(self.data_dir / "postmaster.pid")
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def ensure_roles(self, database: str = "abruzzi") -> None:
        """The three roles with their passwords and the database that abruzzi_owner owns. Idempotent."""
        with psycopg.connect(self.dsn(SUPERUSER, "postgres"), autocommit=True) as connection:
            known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
            for role, attributes in ROLES.items():
                verb: LiteralString = "ALTER" if role in known else "CREATE"
                connection.execute(
                    sql.SQL("{} ROLE {} WITH {} PASSWORD {}").format(
                        sql.SQL(verb), sql.Identifier(role), sql.SQL(attributes), sql.Literal(self._passwords[role])
                    )
                )
            # PostgreSQL 16 and newer: to set a role's password one must administer it.
            for role in ("abruzzi_app", "abruzzi_controller"):
                connection.execute(sql.SQL("GRANT {} TO abruzzi_owner WITH ADMIN OPTION").format(sql.Identifier(role)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(database), sql.Identifier("abruzzi_owner")
                    )
                )

    def checkpoint(self) -> None:
        """Write out what the first start has made, so that a recovery from here on is short. Only a matter of speed: a server that goes
        down meanwhile is no error."""
        self._sync_new_cluster()
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(self.dsn(SUPERUSER, "postgres"), autocommit=True) as connection,
        ):
            connection.execute("CHECKPOINT")

    def _sync_new_cluster(self) -> None:
        """initdb does not wait for the disk; this does, while the platform is starting on top of it."""
        if self._is_new and self._durable:
            os.sync()
        self._is_new = False

    def stop_process(self, process: subprocess.Popen[bytes]) -> None:
        for number, seconds in (
            (signal.SIGINT, FAST_STOP_SECONDS),
            (signal.SIGQUIT, IMMEDIATE_STOP_SECONDS),
            (signal.SIGKILL, None),
        ):
            if process.poll() is None:
                process.send_signal(number)
            try:
                process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        end_strays(self.data_dir)

    def release(self) -> None:
        """Give back the lock and the socket's directory."""
        if self._socket_dir is not None and self._socket_dir.parent != self.state_dir:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._socket_dir = None
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # Inside

    def _lock(self) -> None:
        if self._lock_fd is not None:
            return
        fd = os.open(self.state_dir / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise AbruzziError(
                "postgres_in_use", f"Another process uses the database in {self.state_dir}.", status=409
            ) from error
        self._lock_fd = fd

    def _load_passwords(self) -> dict[str, str]:
        users = (SUPERUSER, *ROLES)
        if self._given_passwords is not None:
            return {user: self._given_passwords[user] for user in users}
        path = self.state_dir / "passwords.json"
        if not path.exists():
            write_private(path, json.dumps({user: secrets.token_urlsafe(24) for user in users}))
        return json.loads(path.read_text())

    def _initdb(self) -> None:
        new = self.data_dir.with_name("data.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        identity = self._identity
        if identity.startswith("uid:"):
            identity = f"uid:{named_uid()}"  # initdb must find its own name; the files change hands afterwards
            os.chown(new, named_uid(), named_uid())
        with tempfile.TemporaryDirectory(dir=self.state_dir) as scratch:
            password_file = Path(scratch) / "password"
            write_private(password_file, self._passwords[SUPERUSER])
            command = [
                *(str(self._binaries / "initdb"), "-D", str(new), "-U", SUPERUSER, f"--pwfile={password_file}"),
                *("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--no-instructions"),
                "--no-sync",
            ]
            environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
            result = subprocess.run(
                guarded(command, identity=identity, death_signal=signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                env=environment,
            )
        with self.log_path.open("a") as log:
            log.write(result.stdout + result.stderr)
        if result.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise AbruzziError(
                "initdb",
                f"initdb ended with code {result.returncode}: {reason}",
                status=500,
                hint=f"Read {self.log_path}.",
            )
        (new / "pg_hba.conf").write_text(
            "# Written by abruzzi: the socket only, with a password.\nlocal all all scram-sha-256\n"
        )
        new.rename(self.data_dir)
        self._is_new = True

    def _refuse_other_version(self) -> None:
        made_by = (self.data_dir / "PG_VERSION").read_text().strip()
        if made_by != str(self._major):
            raise AbruzziError(
                "postgres_version",
                f"The database in {self.data_dir} was made by PostgreSQL {made_by}; the programs here are {self._major}.",
                status=500,
                hint=f"Use PostgreSQL {made_by} again, or choose another --home.",
            )

    def _own_by_identity(self) -> None:
        """As root: the cluster must belong to the uid that the server runs under (in a namespace, that is root)."""
        if os.geteuid() != 0:
            return
        uid = int(self._identity.partition(":")[2]) if self._identity.startswith("uid:") else 0
        if self.data_dir.stat().st_uid == uid and (self.data_dir / "pg_hba.conf").stat().st_uid == uid:
            return
        for directory, _, names in os.walk(self.data_dir):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                os.chown(path, uid, uid, follow_symlinks=False)

    def _choose_socket_dir(self) -> Path:
        """In the state directory where the path is short enough; otherwise a private one, remembered, so that clients find it again."""
        suffix = f"/.s.PGSQL.{PORT}.lock"
        near = self.state_dir / "socket"
        if len(os.fsencode(near)) + len(suffix) <= MAX_SOCKET_PATH_BYTES:
            near.mkdir(mode=0o700, exist_ok=True)
            return self._private(near)
        note = self.state_dir / "socket.path"
        if note.exists() and _is_private(Path(note.read_text())):
            return self._private(Path(note.read_text()))
        base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"
        if not os.access(base, os.W_OK) or len(os.fsencode(base)) > 60:
            base = "/tmp"
        far = Path(tempfile.mkdtemp(prefix="abruzzi-", dir=base))
        write_private(note, str(far))
        return self._private(far)

    def _private(self, directory: Path) -> Path:
        directory.chmod(0o700)
        if self._identity.startswith("uid:"):
            uid = int(self._identity.partition(":")[2])
            os.chown(directory, uid, uid)
        return directory

    def _last_log_line(self) -> str:
        lines = [line for line in _read_lines(self.log_path) if line.strip()]
        return lines[-1].strip() if lines else "no message"


def end_strays(data_dir: Path) -> None:
    """End every postgres process that lives on this cluster: a server whose supervisor was killed, backends whose server was.

    They are told by their working directory, never by name alone. Raises AbruzziError when one survives SIGKILL.
    """
    for number, seconds in ((signal.SIGINT, 3.0), (signal.SIGQUIT, 1.0), (signal.SIGKILL, 5.0)):
        strays = _processes_on(data_dir)
        if not strays:
            return
        server = [p for p in strays if str(p.pid) == "".join(_read_lines(data_dir / "postmaster.pid")[:1]).strip()]
        if not server and number != signal.SIGKILL:
            # Backends without a server end by themselves, or have nothing left to save.
            psutil.wait_procs(strays, timeout=0.1)
            continue
        for process in server if number == signal.SIGINT else strays:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        psutil.wait_procs(strays, timeout=seconds)
    left = _processes_on(data_dir)
    if left:
        raise AbruzziError(
            "postgres_stray", f"Process {left[0].pid} still uses {data_dir} and does not end.", status=500
        )


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, 0600 from the first byte."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def _processes_on(data_dir: Path) -> list[psutil.Process]:
    if not data_dir.exists():
        return []
    where = os.path.realpath(data_dir)
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.name().startswith("postgres")
                and process.cwd() == where
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _is_private(directory: Path) -> bool:
    try:
        status = directory.lstat()
    except OSError:
        return False
    return (
        directory.is_dir()
        and not directory.is_symlink()
        and status.st_mode & 0o077 == 0
        and status.st_uid in (os.geteuid(), dedicated_uid())
    )


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
