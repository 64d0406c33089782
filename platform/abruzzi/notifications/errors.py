"""What can go wrong with a notification."""

from __future__ import annotations

from abruzzi.contracts.errors import AbruzziError


class BadTarget(AbruzziError):
    """The address of a subscription cannot be used."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__("bad_target", message, status=422, hint=hint)


class NotDelivered(Exception):
    """A try failed; the message says how."""
