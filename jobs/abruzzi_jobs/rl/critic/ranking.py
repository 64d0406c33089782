"""From comparisons to one number an answer, and what is wrong with the comparisons. Pure.

A pair is asked in both orders; a verdict that turns with the order is a tie, and counted (reference/rl.md 7.7).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

_PRIOR = 0.5
"""Of Bradley–Terry: half a win and half a loss against an answer of strength 1, so that no strength is infinite."""
_ROUNDS, _CLOSE = 500, 1e-10


@dataclass(frozen=True, slots=True)
class Compared:
    """One pair, `first` < `second` by their places in the group."""

    first: int
    second: int
    winner: int | None
    """None: a tie."""
    is_asked: bool = False
    """Of a critic; else the answers are the same, or code has decided."""
    turned: bool = False
    """The verdict changed with the order."""


def pairs_of(count: int, *, opponents: int | None, seed: str) -> list[tuple[int, int]]:
    """All unordered pairs, or so many that each answer meets `opponents` others (one more where that cannot be): a ring in an order of the seed."""
    if opponents is None or opponents >= count - 1:
        return list(combinations(range(count), 2))
    order = sorted(range(count), key=lambda place: hashlib.sha256(f"{seed}/{place}".encode()).digest())
    found = set()
    for step in range(1, math.ceil(opponents / 2) + 1):
        for place in range(count):
            found.add(tuple(sorted((order[place], order[(place + step) % count]))))
    return sorted((a, b) for a, b in found)


def win_rates(count: int, compared: Iterable[Compared]) -> list[float]:
    """Of each answer, over the pairs it was in; a tie is half a win. 0.5 for one that was in none."""
    wins, games = [0.0] * count, [0] * count
    for pair in compared:
        for place in (pair.first, pair.second):
            games[place] += 1
            wins[place] += 0.5 if pair.winner is None else float(pair.winner == place)
    return [won / played if played else 0.5 for won, played in zip(wins, games, strict=True)]


def bradley_terry(count: int, compared: Sequence[Compared]) -> list[float]:
    """s / (1 + s), s the strength by which i beats j with probability s_i / (s_i + s_j): minorisation–maximisation (Hunter 2004). A tie is half a win."""
    wins_K = np.full(count, _PRIOR)
    games_KK = np.zeros((count, count))
    for pair in compared:
        games_KK[pair.first, pair.second] += 1
        games_KK[pair.second, pair.first] += 1
        for place in (pair.first, pair.second):
            wins_K[place] += 0.5 if pair.winner is None else float(pair.winner == place)
    strength_K = np.ones(count)
    for _ in range(_ROUNDS):
        weight_K = (games_KK / (strength_K[:, None] + strength_K[None, :])).sum(1) + 2 * _PRIOR / (strength_K + 1)
        new_K = wins_K / weight_K
        moved = float(np.abs(np.log(new_K) - np.log(strength_K)).max())
        strength_K = new_K
        if moved < _CLOSE:
            break
    return (strength_K / (1 + strength_K)).tolist()


def cycles(count: int, compared: Iterable[Compared]) -> tuple[int, int]:
    """(intransitive triples, triples whose three pairs were all decided)."""
    beats = {(p.first, p.second): p.winner == p.first for p in compared if p.winner is not None}

    def wins(a: int, b: int) -> bool:
        return beats[a, b] if a < b else not beats[b, a]

    turned = decided = 0
    for a, b, c in combinations(range(count), 3):
        if {(a, b), (b, c), (a, c)} <= beats.keys():
            decided += 1
            turned += wins(a, b) == wins(b, c) == wins(c, a)
    return turned, decided
