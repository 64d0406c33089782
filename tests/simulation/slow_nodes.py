"""Many slow nodes in virtual time: leases that come late, ranks that stammer, controllers that are stopped, an apiserver and an API that go away.

Drives what decides (Listening, Witnesses, judge) as the node controller does; one seed is one history. Used by test_slow_nodes.py and by
bench/node_death.py.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from abruzzi_operators.controller.cluster import FLUSH_SECONDS
from abruzzi_operators.nodes.controller import LOOK_SECONDS, SUSPECT_SECONDS
from abruzzi_operators.nodes.judge import Signals, judge
from abruzzi_operators.nodes.listening import Listening
from abruzzi_operators.nodes.signals import Report
from abruzzi_operators.nodes.witnesses import Beat, Witnesses

RENEW_SECONDS = 10.0
MOST_LATE_SECONDS = 28.0
"""A slow kubelet's renewal comes up to so much later than it should: just below the duration of a lease."""
START = datetime(2026, 11, 26, tzinfo=UTC)


@dataclass(slots=True)
class SlowNode:
    name: str
    late_share: float
    """Of its renewals come late."""
    step_seconds: float | None
    """Of its ranks; None: it has none that speak."""
    renews_at: float = 0.0
    renewed: int = 0
    beats_at: float = 0.0
    steps: int = 0
    beat_at: float = 0.0
    died_at: float | None = None


@dataclass(slots=True)
class Result:
    lost: dict[str, float] = field(default_factory=dict)
    """{node: when it was called lost}"""
    looks: int = 0
    paused_seconds: float = 0.0
    apiserver_away_seconds: float = 0.0
    api_away_seconds: float = 0.0
    late_renewals: int = 0
    oldest_lease: float = 0.0


class SlowNodes:
    def __init__(self, seed: int, *, nodes: int = 1000, seconds: float = 900.0, deaths: int = 0) -> None:
        self._rng = rng = random.Random(seed)
        self._seconds = seconds
        self.nodes = [
            SlowNode(
                f"n{index:04d}",
                late_share=rng.choice((0.02, 0.1, 0.5)),
                step_seconds=rng.choice((None, 1.0, 1.5, 2.5, 4.0, 30.0)),
                renews_at=rng.uniform(0, RENEW_SECONDS),
                beats_at=rng.uniform(0, 2),
            )
            for index in range(nodes)
        ]
        self._pauses = self._times(2, 5.0, 90.0)
        self._apiserver_away = self._times(2, 5.0, 60.0)
        self._api_away = self._times(2, 5.0, 120.0)
        self.result = Result()
        for node in rng.sample(self.nodes, deaths):
            node.died_at = rng.uniform(60.0, seconds - 90.0)

    def run(self) -> Result:
        now = 0.0
        listening, witnesses = Listening(now), Witnesses()
        heard_since: float | None = 0.0
        while now < self._seconds:
            pause = next((end for begin, end in self._pauses if begin <= now < end), None)
            if pause is not None:
                self.result.paused_seconds += pause - now
                self._live_until(pause)
                now = pause
                # The first look comes before anything that lies in the socket has been read.
                self._look(listening, witnesses, now, heard_since, reads=False)
            now += LOOK_SECONDS * self._rng.uniform(0.9, 1.6)
            self._live_until(now)
            api_away = self._is_in(self._api_away, now)
            heard_since = None if api_away else (heard_since if heard_since is not None else now)
            self.result.api_away_seconds += LOOK_SECONDS if api_away else 0.0
            self._look(listening, witnesses, now, heard_since, reads=True)
        return self.result

    def _look(
        self, listening: Listening, witnesses: Witnesses, now: float, heard_since: float | None, *, reads: bool
    ) -> None:
        self.result.looks += 1
        hears = not self._is_in(self._apiserver_away, now)
        self.result.apiserver_away_seconds += 0.0 if hears else LOOK_SECONDS
        listening.look(now, hears=hears)
        if hears and reads:
            listening.renewals({node.name: str(node.renewed) for node in self.nodes}, now)
        suspects = {
            node.name: node
            for node in self.nodes
            if node.step_seconds is not None and (listening.lease_age(node.name) or 0.0) >= SUSPECT_SECONDS
        }
        if suspects and reads:
            # `usual` is the longest of its last steps, as Postgres keeps them.
            beats = {
                name: {0: Beat(now - 0.0 if node.beat_at > now else node.beat_at, node.steps, _usual(node))}
                for name, node in suspects.items()
            }
            witnesses.hear(beats, at=now)
        witnesses.forget_all_but(suspects)
        signals = {}
        for node in self.nodes:
            age = listening.lease_age(node.name)
            self.result.oldest_lease = max(self.result.oldest_lease, age or 0.0)
            witness = None
            if node.name in suspects:
                witness = witnesses.of({node.name: (0,)}, now=now, wall=now, heard_since=heard_since)
            signals[node.name] = Signals(Report(), age, witness=witness, has_attempts=node.step_seconds is not None)
        verdicts = judge(signals, {}, START + timedelta(seconds=now), holds_off=listening.holds_off)
        for name, verdict in verdicts.items():
            if verdict.word.lost is not None:
                self.result.lost.setdefault(name, now)

    def _live_until(self, now: float) -> None:
        rng = self._rng
        for node in self.nodes:
            while node.renews_at <= now and (node.died_at is None or node.renews_at < node.died_at):
                away = next((end for begin, end in self._apiserver_away if begin <= node.renews_at < end), None)
                if away is not None:
                    node.renews_at = away + rng.uniform(0.0, 15.0)  # it tries again, with a delay of its own
                    continue
                node.renewed += 1
                late = rng.uniform(0.0, MOST_LATE_SECONDS) if rng.random() < node.late_share else 0.0
                self.result.late_renewals += late > 0
                node.renews_at += RENEW_SECONDS * rng.uniform(0.96, 1.04) + late
            if node.step_seconds is None:
                continue
            while node.beats_at <= now and (node.died_at is None or node.beats_at < node.died_at):
                if not self._is_in(self._api_away, node.beats_at):
                    node.steps, node.beat_at = node.steps + 1, node.beats_at
                node.beats_at += max(FLUSH_SECONDS, node.step_seconds * rng.uniform(0.6, 2.0))

    def _times(self, count: int, least: float, most: float) -> list[tuple[float, float]]:
        found = []
        for index in range(count):
            share = self._seconds / count
            begin = index * share + self._rng.uniform(0.1, 0.5) * share
            found.append((begin, begin + min(self._rng.uniform(least, most), 0.4 * share)))
        return found

    @staticmethod
    def _is_in(times: list[tuple[float, float]], now: float) -> bool:
        return any(begin <= now < end for begin, end in times)


def _usual(node: SlowNode) -> float | None:
    return None if node.step_seconds is None else max(FLUSH_SECONDS, 1.5 * node.step_seconds)
