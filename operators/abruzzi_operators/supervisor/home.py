"""One directory holds the state of the embedded platform; one supervisor at a time holds the directory."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any, BinaryIO

from abruzzi.contracts.errors import AbruzziError
from abruzzi.kit.ids import new_token
from abruzzi_operators.supervisor.postgres import ROLES, SUPERUSER, write_private

MAX_LOG_BYTES = 16 << 20
"""A log that is longer at the start of the platform becomes `<name>.1`."""


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.up_json = self.path / "up.json"
        self.attempts = self.path / "attempts"
        self.logs = self.path / "logs"
        self._lock_fd: int | None = None

    def take(self) -> None:
        """Create the directory and lock it. Raises AbruzziError that names who holds it."""
        try:
            for directory in (self.path, self.logs, self.attempts):
                private_directory(directory)
            for log in self.logs.iterdir():
                log.chmod(0o600)
            descriptor = os.open(self.path / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise AbruzziError(
                "home", f"{error.filename} cannot be written.", hint="Name another directory with --home."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace")
            os.close(descriptor)
            raise _in_use(self.path, holder) from error
        self._lock_fd = descriptor
        self.up_json.unlink(missing_ok=True)  # of a supervisor that was killed

    def announce(self, url: str) -> None:
        """In the lock file, for whoever finds the directory taken."""
        assert self._lock_fd is not None
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)

    def release(self) -> None:
        self.up_json.unlink(missing_ok=True)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def write_up(self, *, url: str, started_at: float, children: dict[str, int]) -> None:
        """up.json: where the platform is, once it answers. `children`: pids, for people and tests."""
        content = {"pid": os.getpid(), "url": url, "started_at": started_at, "children": children}
        write_private(self.up_json, json.dumps(content))

    def token(self) -> str:
        """The administrator's, made at first start."""
        path = self.path / "token"
        if not path.exists():
            write_private(path, new_token() + "\n")
        return path.read_text().strip()

    def secrets(self) -> dict[str, Any]:
        """secrets.json: {"database_passwords": {role: password}, "signing_key"}, made at first start."""
        path = self.path / "secrets.json"
        if not path.exists():
            passwords = {role: secrets.token_urlsafe(24) for role in (SUPERUSER, *ROLES)}
            write_private(path, json.dumps({"database_passwords": passwords, "signing_key": secrets.token_urlsafe(32)}))
        return json.loads(path.read_text())

    def last_port(self) -> int | None:
        """Where the platform was last: attempts that outlived it still knock there."""
        try:
            return int((self.path / "port").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def remember_port(self, port: int) -> None:
        write_private(self.path / "port", str(port))

    def log(self, name: str) -> Path:
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        open_private_log(path).close()
        return path


def read_up(home: Path) -> dict[str, Any] | None:
    """Content of up.json, of a platform that runs or of one that was killed."""
    try:
        return json.loads((home / "up.json").read_text())
    except (FileNotFoundError, ValueError):
        return None


def private_directory(path: Path) -> None:
    """For its owner alone. One that is there already is closed to others, unless it holds other things than a platform's state
    (`--home /tmp`): what lies in such a one is private by itself."""
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise AbruzziError("home", f"{path} is not a directory.", hint="Name another one with --home.") from None
        found = path.stat()
        names = set(os.listdir(path))
        ours = not names or "up.lock" in names or path.parent.joinpath("up.lock").exists()
        if ours and found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
            path.chmod(0o700)


def open_private_log(path: Path) -> BinaryIO:
    """For appending; 0600, also where an earlier version left it open to others."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")


def _in_use(path: Path, holder: str) -> AbruzziError:
    try:
        known = json.loads(holder)
        who = f"process {known['pid']}, {known['url']}"
    except (ValueError, KeyError):
        who = "it is just starting"
    return AbruzziError(
        "home_in_use",
        f"A platform runs in {path} already ({who}).",
        status=409,
        hint="Use that one, stop it with Ctrl-C or SIGTERM, or start another with --home DIR.",
    )
