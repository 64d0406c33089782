"""ETags: a resource's version, as `"3"`. Changes that name it (If-Match) are refused when the resource has moved on."""

from __future__ import annotations

from abruzzi.contracts.errors import AbruzziError


def expected_version(if_match: str | None) -> int | None:
    """None: whatever the version. Raises AbruzziError `bad_etag`."""
    if if_match is None or if_match == "*":
        return None
    digits = if_match.removeprefix("W/").strip('"')
    if not digits.isascii() or not digits.isdigit():
        raise AbruzziError(
            "bad_etag",
            f"If-Match: {if_match!r} is no ETag.",
            status=422,
            hint='Use the ETag header of the GET, such as "3".',
        )
    return int(digits[:9])
