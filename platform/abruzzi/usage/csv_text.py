"""Usage as CSV: a row a group, a column a unit and cause."""

from __future__ import annotations

import csv
import io

from abruzzi.contracts.usage import HELD, UsageOut, UsageRow

UNITS = ("gpu", "cpu")
COLUMNS = (
    "from_day", "to_day", "by", "key", "name",
    *(f"{unit}_hours_{what}" for unit in UNITS for what in ("held", *(cause.value for cause in HELD), "queue")),
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def usage_csv(usage: UsageOut) -> str:
    """RFC 4180, with a header. A name that a spreadsheet would take for a formula is quoted as text."""
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow(COLUMNS)
    for row in usage.items:
        name = f"'{row.name}" if row.name.startswith(_FORMULA) else row.name
        writer.writerow([usage.from_day, usage.to_day, usage.by.value, row.key, name, *_hours(row)])
    return made.getvalue()


def _hours(row: UsageRow) -> list[str]:
    parts = [row.held, *(getattr(row.causes, cause.value) for cause in HELD), row.queue]
    return [f"{getattr(part, unit):.6f}" for unit in UNITS for part in parts]
