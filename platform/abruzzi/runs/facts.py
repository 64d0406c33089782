"""What gates may look at: the numbers that an artifact carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def numeric_facts(meta: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers only: JSON in Postgres has no NaN, and a gate on one would never hold."""
    return {
        key: float(value)
        for key, value in meta.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
