"""Reads servers.toml."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from abruzzi.contracts.errors import AbruzziError

_FOLDER = Path(__file__).parent
LOCKS = _FOLDER / "locks"


class ProbeCall(BaseModel):
    """`expects` occurs in the text of the answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str
    arguments: dict[str, Any]
    expects: str


class Server(BaseModel):
    """A tool server: how its environment is made and how it is started. `locks` are requirement files with hashes (python) or one folder with
    package.json and package-lock.json (node), below LOCKS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    runtime: Literal["python", "node"]
    locks: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str] = {}
    prepare: dict[str, str] = {}
    call: ProbeCall | None = None
    stateless: bool = False
    """What it answers depends on nothing that an earlier call did: one process may serve one conversation after the other."""
    deterministic: tuple[str, ...] = ()
    """Tools whose answers depend on the workspace and the calls before alone (not on clock, chance or process), "*" for all."""

    @property
    def lock_files(self) -> tuple[Path, ...]:
        if self.runtime == "node":
            return (LOCKS / self.locks[0] / "package.json", LOCKS / self.locks[0] / "package-lock.json")
        return tuple(LOCKS / name for name in self.locks)

    @property
    def lock_digest(self) -> str:
        """Of all that is installed: every file of every package is in it by its hash."""
        digest = hashlib.sha256()
        for path in self.lock_files:
            digest.update(path.read_bytes())
        return "sha256:" + digest.hexdigest()

    @property
    def version(self) -> str:
        if self.runtime == "node":
            packages = json.loads(self.lock_files[1].read_text())["packages"]
            return packages[f"node_modules/{self.name}"]["version"]
        found = re.search(rf"^{re.escape(self.name)}==([^\s;]+)", self.lock_files[-1].read_text(), re.MULTILINE)
        if found is None:
            raise AbruzziError("bad_lock", f"{self.lock_files[-1]}: {self.name} is not in it.")
        return found[1]

    @property
    def slug(self) -> str:
        """A folder's name."""
        return re.sub(r"[^a-z0-9.-]+", "-", self.name.lower()).strip("-")


@functools.cache
def shipped() -> dict[str, Server]:
    entries = tomllib.loads((_FOLDER / "servers.toml").read_text())["server"]
    return {entry["name"]: Server.model_validate(entry) for entry in entries}
