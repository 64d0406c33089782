"""Ranks as witnesses that their node lives: they speak over HTTP, on another way than its kubelet."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from abruzzi_operators.nodes.judge import Witness
from abruzzi_operators.nodes.listening import PAUSE_SECONDS


@dataclass(frozen=True, slots=True)
class Beat:
    """The newest word of a rank, as Postgres has it."""

    at: float
    """Unix seconds, by the rank's clock if that is near ours."""
    step: int
    usual_seconds: float | None
    """From word to word in its present phase; None: not known."""


Beats = Mapping[str, Mapping[int, Beat]]
"""{attempt: {rank: its newest word}}"""


class Witnesses:
    """Remembers when a word changed, by our own clock: the ranks' clocks may be wrong."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[Beat, float]] = {}
        self._listened_at = -math.inf
        self._since = -math.inf

    def hear(self, beats: Beats, *, at: float) -> None:
        """Every second, as long as somebody is suspected; a longer pause begins anew."""
        if at - self._listened_at > PAUSE_SECONDS:
            self._since = at
        self._listened_at = at
        for attempt, ranks in beats.items():
            for rank, beat in ranks.items():
                known = self._known.get((attempt, rank))
                if known is None or known[0] != beat:
                    self._known[attempt, rank] = (beat, at)

    def forget_all_but(self, attempts: Collection[str]) -> None:
        self._known = {key: value for key, value in self._known.items() if key[0] in attempts}

    def of(
        self, there: Mapping[str, Collection[int]], *, now: float, wall: float, heard_since: float | None
    ) -> Witness | None:
        """Of the ranks on one node; None: none of them ever spoke. The one that spoke last counts, and the one that speaks most often.

        `wall` is Unix time; `heard_since`, too: since when the API has been there to hear them. While it is not, their silence says nothing.
        """
        found = [
            known for attempt, ranks in there.items() for rank in ranks if (known := self._known.get((attempt, rank)))
        ]
        if not found:
            return None
        usual = [beat.usual_seconds for beat, _ in found if beat.usual_seconds is not None]
        silent = now - max(self._since, *(heard for _, heard in found))
        return Witness(
            silent_seconds=silent if heard_since is None else min(silent, max(0.0, wall - heard_since)),
            usual_seconds=min(usual, default=None) if heard_since is not None else None,
            said_seconds_ago=max(0.0, wall - max(beat.at for beat, _ in found)),
        )
