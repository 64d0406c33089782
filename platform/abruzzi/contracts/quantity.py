"""Quantities as people write them in recipes: "67M" tokens, "4k", "2 GiB", "90s"."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, StrictFloat, StrictInt

_COUNT = re.compile(r"^\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kKMBGT]?)\s*$")
_COUNT_FACTOR = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_BYTES = re.compile(r"^\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*$")
_BYTES_FACTOR = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_DURATION = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|d)\s*$")
_DURATION_FACTOR = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_count(value: Any) -> Any:
    """`"67M"` → 67_000_000; numbers pass through."""
    if not isinstance(value, str):
        return value
    match = _COUNT.match(value)
    if match is None:
        raise ValueError('expected a count such as 4096, "4k", "67M" or "15.5T"')
    product = float(match[1].replace("_", "")) * _COUNT_FACTOR[match[2]]
    if abs(product - round(product)) > 1e-6 * max(1.0, product):
        raise ValueError(f"{value!r} is not a whole number")
    return round(product)


def parse_bytes(value: Any) -> Any:
    """`"2 GiB"` → 2_147_483_648; integers are bytes."""
    if not isinstance(value, str):
        return value
    match = _BYTES.match(value)
    if match is None:
        raise ValueError('expected a size such as "512 MiB" or "2 GB"')
    return round(float(match[1].replace("_", "")) * _BYTES_FACTOR[match[2]])


def parse_duration(value: Any) -> Any:
    """`"90s"` → 90.0; numbers are seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.match(value)
    if match is None:
        raise ValueError('expected a duration such as "90s", "15m" or "2h"')
    return float(match[1]) * _DURATION_FACTOR[match[2]]


Count = Annotated[StrictInt, BeforeValidator(parse_count)]
ByteCount = Annotated[StrictInt, BeforeValidator(parse_bytes)]
Seconds = Annotated[StrictFloat, BeforeValidator(parse_duration)]
