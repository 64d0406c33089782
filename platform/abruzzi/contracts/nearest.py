"""The nearest valid name, for hints. Pure."""

from __future__ import annotations

from difflib import get_close_matches


def nearest(name: str, names: list[str]) -> str:
    """Hint with the nearest valid name, or all of them when none is near."""
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Valid: {', '.join(sorted(names))}." if names else "There are none."
