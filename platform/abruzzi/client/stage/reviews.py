"""What people said of the rows of an input. A stage asks once and keeps the answer: later attempts must see the same."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

from abruzzi.client.profile import Profile
from abruzzi.client.stage.context import StageContext
from abruzzi.client.transport import Transport
from abruzzi.contracts.dataset import ReviewOut
from abruzzi.contracts.stage import ENV_TOKEN, ENV_URL


def read_reviews(context: StageContext, input_name: str, *, retry_seconds: float = 120.0) -> list[ReviewOut]:
    """Of all rows of an input, in the order of their ids. None where no platform is named.

    Raises AbruzziError `unreachable` where the platform does not answer in time: what people rejected must not slip in.
    """
    url, token_file = os.environ.get(ENV_URL), os.environ.get(ENV_TOKEN)
    if not url or not token_file:
        return []
    profile = Profile(_address(context.attempt_dir, url), Path(token_file).read_text().strip(), "the attempt")
    path = f"attempts/{context.spec.attempt_id}/reviews"
    with closing(Transport(profile, retry_seconds=retry_seconds)) as connection:
        return list(connection.pages(ReviewOut, path, digest=context.spec.inputs[input_name].digest))


def _address(attempt_dir: Path, url: str) -> str:
    """Of now: a restarted embedded platform may listen elsewhere, and says so beside the attempt."""
    launch = attempt_dir / "launch.json"
    said = json.loads(launch.read_text()).get("url") if launch.exists() else None
    return str(said or url).rstrip("/")
