"""Where the platform is and who is asking: flag, then environment, then the embedded platform's home, then the saved profile."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from abruzzi.contracts.errors import AbruzziError


@dataclass(frozen=True, slots=True)
class Profile:
    url: str
    token: str
    source: str
    """For people: where it was found."""

    def __repr__(self) -> str:
        return f"Profile(url={self.url!r}, token=***, source={self.source!r})"


def home() -> Path:
    """State of the embedded platform: $ABRUZZI_HOME, else ~/.abruzzi."""
    return Path(os.environ.get("ABRUZZI_HOME") or Path.home() / ".abruzzi")


def profile_file() -> Path:
    return Path(platformdirs.user_config_dir("abruzzi")) / "profile.toml"


def resolve_profile(url: str | None = None, token: str | None = None) -> Profile:
    """Raises AbruzziError `not_configured` that says how to start or name a platform."""
    url = url or os.environ.get("ABRUZZI_URL")
    token = token or _token_from_environment()
    if url and token:
        return Profile(url.rstrip("/"), token, "flag or environment")
    embedded = _embedded()
    if embedded and (url is None or url.rstrip("/") == embedded.url):
        return Profile(embedded.url, token or embedded.token, embedded.source)
    saved = _saved()
    if saved and (url is None or url.rstrip("/") == saved.url):
        return Profile(saved.url, token or saved.token, saved.source)
    if url:
        raise AbruzziError(
            "no_token", f"No token for {url}.", status=401, hint="Set ABRUZZI_TOKEN or run `abruzzi login`."
        )
    raise AbruzziError(
        "not_configured",
        "No platform is known.",
        hint="Start one here with `abruzzi up`, or name one with `abruzzi login URL` or ABRUZZI_URL and ABRUZZI_TOKEN.",
    )


def save_profile(url: str, token: str) -> Path:
    """Remember a platform; the file is readable by its owner only."""
    path = profile_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"url = {json.dumps(url)}\ntoken = {json.dumps(token)}\n")
    path.chmod(0o600)
    return path


def _token_from_environment() -> str | None:
    """ABRUZZI_TOKEN is a token, or (in a stage) the path of a file that holds one."""
    value = os.environ.get("ABRUZZI_TOKEN")
    if value and value.startswith(("/", "./")):
        return Path(value).read_text().strip()
    return value


def _embedded() -> Profile | None:
    folder = home()
    try:
        state = json.loads((folder / "up.json").read_text())
        return Profile(str(state["url"]).rstrip("/"), (folder / "token").read_text().strip(), f"abruzzi up in {folder}")
    except (FileNotFoundError, NotADirectoryError, PermissionError, KeyError, json.JSONDecodeError):
        return None


def _saved() -> Profile | None:
    try:
        state = tomllib.loads(profile_file().read_text())
        return Profile(str(state["url"]).rstrip("/"), str(state["token"]), str(profile_file()))
    except (FileNotFoundError, PermissionError, KeyError, tomllib.TOMLDecodeError):
        return None
