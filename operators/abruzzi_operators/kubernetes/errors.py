"""What a call to the apiserver can answer instead of an object. Each keeps the server's own reason and message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from abruzzi.contracts.errors import AbruzziError


class ApiError(AbruzziError):
    """`http_status` is 0 where no answer came, `reason` the apiserver's word (NotFound, Forbidden, …), `details` its `status.details`."""

    kind = "kubernetes_error"
    remedy: str | None = None

    def __init__(
        self,
        message: str,
        *,
        http_status: int = 0,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(self.kind, message, status=500, hint=self.remedy)
        self.http_status = http_status
        self.reason = reason
        self.details = dict(details or {})
        self.retry_after_seconds = retry_after_seconds
        """What the server asked for in Retry-After, where it did."""


class NotFound(ApiError):
    """404: no object of that name."""

    kind = "kubernetes_not_found"


class NotServed(NotFound):
    """404 for the path itself: the cluster does not know this kind (its CRD is missing, or in another version)."""

    kind = "kubernetes_not_served"
    remedy = "Install the operator that brings this kind, or see `abruzzi doctor` for what the cluster serves."


class AlreadyExists(ApiError):
    """409 on create."""

    kind = "kubernetes_already_exists"


class Conflict(ApiError):
    """409 otherwise: a precondition (uid, resourceVersion) does not hold, or another field manager owns a field."""

    kind = "kubernetes_conflict"


class Denied(ApiError):
    """401 or 403: unknown credentials, RBAC, quota, or an admission policy whose reason is Forbidden."""

    kind = "kubernetes_denied"
    remedy = "Give the controller's service account this right (the Helm chart's role has them all), or ask who wrote the policy."


class Invalid(ApiError):
    """400 or 422: the object breaks its schema, has an unknown field, or an admission policy says no."""

    kind = "kubernetes_invalid"


class Expired(ApiError):
    """410: the resource version or continue token is older than the server's history (etcd compaction)."""

    kind = "kubernetes_expired"


class Throttled(ApiError):
    """429 for longer than the call had patience."""

    kind = "kubernetes_throttled"


class Unreachable(ApiError):
    """No answer, a broken one, or 5xx. Whether a write happened is unknown: repeat it by the same name."""

    kind = "kubernetes_unreachable"
    remedy = "Nothing is lost: it is tried again. If it stays, check the apiserver's address and health (`kubectl get --raw /readyz`)."


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 410: Expired, 422: Invalid, 429: Throttled,
}  # fmt: skip


def error_from_status(status: Mapping[str, Any], *, doing: str, retry_after_seconds: float | None = None) -> ApiError:
    """From a `Status` object: the body of a failed call, or the object of an ERROR event. `doing` says which call it was."""
    code, reason, details = int(status.get("code") or 0), status.get("reason") or "", status.get("details") or {}
    error = _BY_STATUS.get(code, Unreachable)
    if code == 409 and reason == "AlreadyExists":
        error = AlreadyExists
    if reason in ("Expired", "Gone"):
        error = Expired
    if retry_after_seconds is None and details.get("retryAfterSeconds"):
        retry_after_seconds = float(details["retryAfterSeconds"])
    message = str(status.get("message") or reason or "no reason given").rstrip(".")
    return error(
        f"{doing}: {message} ({code}{f' {reason}' if reason else ''}).",
        http_status=code,
        reason=reason,
        details=details,
        retry_after_seconds=retry_after_seconds,
    )


def error_from_answer(
    http_status: int, body: bytes, *, doing: str, retry_after_seconds: float | None = None
) -> ApiError:
    """From a failed HTTP answer. A 404 without a Status object means that the path itself is unknown."""
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = body[:300].decode(errors="replace").strip() or "an empty answer"
        error = NotServed if http_status == 404 else _BY_STATUS.get(http_status, Unreachable)
        return error(
            f"{doing}: {text} ({http_status}).", http_status=http_status, retry_after_seconds=retry_after_seconds
        )
    return error_from_status({**status, "code": http_status}, doing=doing, retry_after_seconds=retry_after_seconds)
