"""Usage in the SDK."""

from __future__ import annotations

from datetime import date

from abruzzi.client.transport import Transport
from abruzzi.contracts.usage import By, UsageOut


class Usage:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def get(
        self, *, by: By = By.PROJECT, from_day: date | None = None, to_day: date | None = None, pool: str | None = None
    ) -> UsageOut:
        """Both days inclusive, in UTC; by default the last 30. In one pool, or in all."""
        return self._http.get(UsageOut, "usage", **_query(by, from_day, to_day, pool))

    def csv(
        self, *, by: By = By.PROJECT, from_day: date | None = None, to_day: date | None = None, pool: str | None = None
    ) -> str:
        query = {**_query(by, from_day, to_day, pool), "format": "csv"}
        return self._http.request("GET", "usage", params=query).text


def _query(by: By, from_day: date | None, to_day: date | None, pool: str | None) -> dict[str, str]:
    days = {"from": from_day, "to": to_day}
    given = {name: day.isoformat() for name, day in days.items() if day is not None}
    return {"by": by.value, **given, **({"pool": pool} if pool is not None else {})}
