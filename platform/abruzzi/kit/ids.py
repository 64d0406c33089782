"""Ids: lower-case Crockford base 32, without look-alikes, so that people can read them aloud."""

from __future__ import annotations

import secrets

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
RUN_ID_LENGTH = 10


def new_id(length: int = 16) -> str:
    """5 bits a letter. The first is a letter: an id is a valid name everywhere."""
    return secrets.choice(ALPHABET[10:]) + "".join(secrets.choice(ALPHABET) for _ in range(length - 1))


def new_run_id() -> str:
    return new_id(RUN_ID_LENGTH)
