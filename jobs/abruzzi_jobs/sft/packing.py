"""Conversations into rows of one length: the longest first, each into the fullest row that still has room (best-fit decreasing). Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of indices, each of at most `capacity` tokens in all. Raises ValueError for a length above it."""
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = defaultdict(list)
    rooms = 0
    """Bit r is set where a row with room for exactly r tokens is open."""
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if not 0 < length <= capacity:
            raise ValueError(f"length {length} of conversation {index}: not between 1 and {capacity}")
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        open_rows[room - length].append(row)
        rooms |= 1 << (room - length)
    return rows
