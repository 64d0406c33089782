"""The one error type that crosses boundaries. Its code is stable and documented; its message names the place and its hint the remedy."""

from __future__ import annotations

from typing import Any


class AbruzziError(Exception):
    """`code` is snake_case and stable, `status` the HTTP status that it becomes at the edge, `hint` what to do about it."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 400,
        hint: str | None = None,
        errors: list[dict[str, Any]] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.hint = hint
        self.errors = errors or []
        self.facts = facts

    @property
    def parts(self) -> dict[str, Any]:
        """For another process: AbruzziError(**parts) tells a person the same. JSON, without the facts."""
        return {
            "code": self.code,
            "message": self.message,
            "status": self.status,
            "hint": self.hint,
            "errors": self.errors,
        }

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class NotFound(AbruzziError):
    def __init__(self, what: str, identifier: str, *, hint: str | None = None) -> None:
        super().__init__("not_found", f"There is no {what} {identifier!r} here.", status=404, hint=hint)


class Conflict(AbruzziError):
    def __init__(self, message: str, *, code: str = "conflict", hint: str | None = None, **facts: Any) -> None:
        super().__init__(code, message, status=409, hint=hint, **facts)
