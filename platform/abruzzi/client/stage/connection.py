"""The platform, as a stage reaches it with its attempt's token."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from abruzzi.client.profile import Profile
from abruzzi.client.stage.context import StageContext
from abruzzi.client.transport import Transport
from abruzzi.contracts.stage import ENV_TOKEN, ENV_URL


@contextmanager
def connected(context: StageContext, *, retry_seconds: float = 120.0) -> Iterator[Transport | None]:
    """None where no platform is named. Requests raise AbruzziError `unreachable` where it does not answer in time."""
    url, token_file = os.environ.get(ENV_URL), os.environ.get(ENV_TOKEN)
    if not url or not token_file:
        yield None
        return
    profile = Profile(_address(context.attempt_dir, url), Path(token_file).read_text().strip(), "the attempt")
    with closing(Transport(profile, retry_seconds=retry_seconds)) as connection:
        yield connection


def _address(attempt_dir: Path, url: str) -> str:
    """Of now: a restarted embedded platform may listen elsewhere, and says so beside the attempt."""
    launch = attempt_dir / "launch.json"
    said = json.loads(launch.read_text()).get("url") if launch.exists() else None
    return str(said or url).rstrip("/")
