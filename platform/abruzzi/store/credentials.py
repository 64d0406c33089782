"""Credentials of an S3 store: an attempt's on a cluster from a file, everybody else's from the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

from minio.credentials import Credentials, Provider, StaticProvider

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import ENV_STORE_CREDENTIALS


class FileProvider(Provider):
    """Reads {"access_key", "secret_key", "session_token", "expires_at"} again whenever the file was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at_mtime_ns = -1
        self._credentials: Credentials | None = None

    def retrieve(self) -> Credentials:
        """Raises AbruzziError `no_credentials` while there is no readable file."""
        try:
            changed_at = self._path.stat().st_mtime_ns
            if self._credentials is None or changed_at != self._read_at_mtime_ns:
                self._credentials = from_json(self._path.read_text())
                self._read_at_mtime_ns = changed_at
        except (OSError, ValueError, KeyError) as error:
            if self._credentials is None:  # once there were some: the file is just being replaced
                raise AbruzziError(
                    "no_credentials",
                    f"{self._path} holds no credentials of the object store ({type(error).__name__}).",
                    hint="The platform writes it; the controller's log says why it could not.",
                    status=503,
                ) from error
        assert self._credentials is not None
        return self._credentials


def credentials_provider() -> Provider:
    """Raises AbruzziError `no_credentials` when the environment names none."""
    path = os.environ.get(ENV_STORE_CREDENTIALS)
    if path:
        return FileProvider(Path(path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if not os.environ.get(name):
            raise AbruzziError(
                "no_credentials", f"{name} is not set.", hint="S3 credentials come from the environment."
            )
    return StaticProvider(
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], os.environ.get("AWS_SESSION_TOKEN")
    )


def from_json(text: str) -> Credentials:
    """Raises ValueError, KeyError. Without expiry: the file alone says when they change, so nothing is refused before its time."""
    content = json.loads(text)
    return Credentials(content["access_key"], content["secret_key"], content["session_token"])
