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


def new_secret() -> str:
    """256 random bits in 43 characters."""
    return secrets.token_urlsafe(32)


def new_token() -> str:
    """`abruzzi_<id>_<secret>`: what people and machines show to the API."""
    return f"abruzzi_{new_id(12)}_{new_secret()}"
