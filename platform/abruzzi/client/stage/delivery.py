"""HTTP of a stage's telemetry: one connection, no retries of its own, an answer in four words."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from enum import Enum
from pathlib import Path
from typing import Any

import httpx

from abruzzi.contracts.stage import ENV_TOKEN, ENV_URL

logger = logging.getLogger(__name__)

_AWAY_SECONDS = 0.5
"""Between two tries while the API does not answer; doubles up to the longest."""
_LONGEST_AWAY_SECONDS = 2.0


class Answer(Enum):
    TAKEN = "taken"
    LATER = "later"
    """The platform is away or busy: keep it."""
    REFUSED = "refused"
    """For good: keeping it would help nobody."""
    FENCED = "fenced"
    """The platform has given this attempt up. Points it has taken all the same."""


class Delivery:
    """Posts to one attempt's routes. The address is read anew after a failure: a restarted platform may listen elsewhere."""

    def __init__(self, *, attempt_id: str, url: str, token: str, address_file: Path | None = None) -> None:
        self._attempt_id, self._url, self._address_file = attempt_id, url, address_file
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            timeout=httpx.Timeout(10.0, connect=2.0),
            trust_env=False,
        )
        self._away_until = 0.0
        self._pause = _AWAY_SECONDS
        self._jitter = random.Random()  # of its own: the stage's random numbers must not depend on the API's health

    @classmethod
    def from_env(cls, attempt_id: str, attempt_dir: Path) -> Delivery | None:
        """None where no API is named, or no token can be read."""
        url, token_file = os.environ.get(ENV_URL), os.environ.get(ENV_TOKEN)
        if not url or not token_file:
            return None
        try:
            token = Path(token_file).read_text().strip()
        except OSError as error:
            logger.warning("telemetry: no token (%s); curves stay in the spool", error)
            return None
        return cls(attempt_id=attempt_id, url=url, token=token, address_file=attempt_dir / "launch.json")

    def post(self, what: str, body: bytes) -> Answer:
        if time.monotonic() < self._away_until:
            return Answer.LATER
        try:
            answer = self._http.post(f"{self._url.rstrip('/')}/api/v1/attempts/{self._attempt_id}/{what}", content=body)
        except (httpx.HTTPError, httpx.InvalidURL):
            self._read_address()
            return self._later()
        if answer.is_success:
            self._pause = _AWAY_SECONDS
            said = _said(answer)
            if said.get("heartbeat_refused"):
                logger.warning("telemetry: the platform refused the heartbeat: %s", said["heartbeat_refused"])
            return Answer.FENCED if said.get("attempt_ended") else Answer.TAKEN
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            return self._later()
        if answer.status_code == 409 and _said(answer).get("code") == "attempt_ended":
            return Answer.FENCED
        logger.warning("telemetry: the platform refused %s with %d: %s", what, answer.status_code, answer.text[:300])
        return Answer.REFUSED

    def close(self) -> None:
        self._http.close()

    def _later(self) -> Answer:
        self._away_until = time.monotonic() + self._pause * self._jitter.uniform(0.7, 1.3)
        self._pause = min(2 * self._pause, _LONGEST_AWAY_SECONDS)
        return Answer.LATER

    def _read_address(self) -> None:
        if self._address_file is None:
            return
        try:
            self._url = str(json.loads(self._address_file.read_text())["url"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # not the embedded platform, or just being written: the address stays as it was


def _said(answer: httpx.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
