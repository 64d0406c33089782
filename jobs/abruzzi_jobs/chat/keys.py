"""The key that a recipe refers to as "secret:NAME": an environment variable, or a file of a mounted secret. It goes into one HTTP header and
nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from abruzzi.contracts.endpoint import secret_name, secret_variable
from abruzzi.contracts.errors import AbruzziError

ENV_SECRETS = "ABRUZZI_SECRETS"
"""Folder of mounted secrets, a file each."""
SECRETS_FOLDER = "/etc/abruzzi/secrets"


def read_key(reference: str, environment: Mapping[str, str] = os.environ) -> str:
    """Raises AbruzziError `no_key`, naming the places that were looked at."""
    variable = secret_variable(reference)
    file = Path(environment.get(ENV_SECRETS, SECRETS_FOLDER)) / secret_name(reference)
    key = environment.get(variable, "")
    if not key:
        try:
            key = file.read_text(encoding="utf-8")
        except OSError:
            key = ""
    key = key.strip()
    if not key:
        raise AbruzziError(
            "no_key",
            f"There is no key for {reference!r}: neither the variable {variable} nor the file {file}.",
            hint=f"Start the platform with {variable} set (on a cluster: in the pods' environment), or mount the secret there.",
        )
    if not key.isprintable() or " " in key:
        raise AbruzziError("bad_key", f"The key for {reference!r} is more than one word.", hint=f"Look at {variable}.")
    return key
