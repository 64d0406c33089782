"""Since when silence means something. Ages count from when we listened: not while the watch was broken, not while this process was stopped.

All seconds are of one steady clock of this process (`ticks`); what the nodes' own clocks say is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PAUSE_SECONDS = 6.0
"""Two looks that lie further apart than this: we were stopped, or starved, and what came meanwhile is still to be read."""
REJOIN_SECONDS = 20.0
"""After the apiserver was away: kubelets that could not speak either come back with delays of their own."""


class Listening:
    def __init__(self, now: float) -> None:
        self._renewed: dict[str, tuple[str, float]] = {}
        """{node: (renewTime as the lease has it, when we saw it first)}"""
        self._not_ready: dict[str, float] = {}
        self._looked_at = now
        self._deaf = True
        self._since = now

    @property
    def holds_off(self) -> bool:
        """Nothing is heard at the moment, or has been for too short a time."""
        return self._deaf or self._looked_at < self._since

    def look(self, now: float, *, hears: bool) -> None:
        """Before each look. `hears`: the watches follow."""
        if self._deaf or not hears:
            self._since = now + REJOIN_SECONDS
        elif now - self._looked_at > PAUSE_SECONDS:
            self._since = max(self._since, now)
        self._looked_at, self._deaf = now, not hears

    def renewals(self, leases: Mapping[str, str], now: float) -> None:
        """{node: renewTime}. A value that differs from the last is a sign of life now, whatever it says."""
        for name, value in leases.items():
            known = self._renewed.get(name)
            if known is None or known[0] != value:
                self._renewed[name] = (value, now)
        for name in self._renewed.keys() - leases.keys():
            del self._renewed[name]

    def renewal_of(self, name: str, value: str, now: float) -> None:
        """Of one lease, as the apiserver itself has told."""
        self._renewed[name] = (value, now)

    def readiness(self, not_ready: Iterable[str], now: float) -> None:
        """Names of the nodes that do not say Ready."""
        names = set(not_ready)
        self._not_ready = {name: self._not_ready.get(name, now) for name in names}

    def lease_age(self, name: str) -> float | None:
        known = self._renewed.get(name)
        return None if known is None else self._age(known[1])

    def not_ready_seconds(self, name: str) -> float:
        began = self._not_ready.get(name)
        return 0.0 if began is None else self._age(began)

    def renewal(self, name: str) -> str | None:
        known = self._renewed.get(name)
        return known[0] if known is not None else None

    def heard_seconds_ago(self, name: str) -> float | None:
        """Without regard to whether we listened: for people."""
        known = self._renewed.get(name)
        return None if known is None else self._looked_at - known[1]

    def _age(self, began: float) -> float:
        return max(0.0, self._looked_at - max(began, self._since))
