"""Whose turn it is on a machine whose processors not all stages can have at once. Pure.

In the order in which they came. A stage that does not fit keeps those behind it waiting, so that a large one is not passed over for ever; one that
is larger than the machine runs when nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SLACK = 1e-6
"""Shares of processors are fractions, and their sums are not exact."""
_NAMED = 3
"""Holders that a reason names; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Of an attempt that has not ended."""

    attempt_id: str
    stage: str
    """What people call it."""
    project_id: str
    cpus: float
    since: float
    """Unix seconds when it was created."""
    holds: bool
    """It has had its turn."""
    threads: int | None = None
    """CPUs a rank, where its recipe says so."""


def next_in(claims: Sequence[Claim], cpus: float) -> list[Claim]:
    """Those whose turn it is now, in their order."""
    used = sum(claim.cpus for claim in claims if claim.holds)
    is_empty = not any(claim.holds for claim in claims)
    found = []
    for claim in _waiting(claims):
        if used + claim.cpus > cpus + _SLACK and not is_empty:
            break
        found.append(claim)
        used, is_empty = used + claim.cpus, False
    return found


def free_for(mine: Claim, claims: Sequence[Claim], cpus: float) -> float:
    """CPUs that would be its stage's if it asked anew. Whoever waits ahead comes first; a stage that runs would ask behind all that wait."""
    others = (claim for claim in claims if claim.attempt_id != mine.attempt_id)
    return cpus - sum(c.cpus for c in others if c.holds or mine.holds or _order(c) < _order(mine))


def wait_reason(mine: Claim, claims: Sequence[Claim], cpus: float) -> str:
    """Why `mine` does not run yet, with numbers. Stages of other projects are counted and not named."""
    holders = sorted((claim for claim in claims if claim.holds), key=_order)
    used = sum(claim.cpus for claim in holders)
    ours = [claim.stage for claim in holders if claim.project_id == mine.project_id]
    foreign = len(holders) - len(ours)
    named = ours[:_NAMED]
    if len(ours) > _NAMED:
        named.append(_count(len(ours) - _NAMED, "other"))
    if foreign:
        named.append(f"{_count(foreign, 'stage')} of other projects")
    by = f" by {_listed(named)}" if named else ""
    ahead = sum(_order(claim) < _order(mine) for claim in _waiting(claims))
    turn = f", and {ahead} {'is' if ahead == 1 else 'are'} ahead of it" if ahead else ""
    return f"It waits for processors: {used:.3g} of {cpus:.3g} are in use{by}. It asks for {mine.cpus:.3g}{turn}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _waiting(claims: Sequence[Claim]) -> list[Claim]:
    return sorted((claim for claim in claims if not claim.holds), key=_order)


def _order(claim: Claim) -> tuple[float, str]:
    return claim.since, claim.attempt_id


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
