"""Slow is not dead: no attempt is moved off a node that lives, whatever is late; and one that dies is noticed all the same."""

from __future__ import annotations

import statistics

import pytest
from simulation.slow_nodes import SlowNodes


@pytest.mark.parametrize("seed", range(3))
def test_no_slow_node_is_called_lost(seed: int) -> None:
    result = SlowNodes(seed, nodes=200, seconds=400.0).run()
    assert result.lost == {}
    assert result.late_renewals > 500
    assert result.paused_seconds > 10
    assert result.apiserver_away_seconds > 5
    assert result.oldest_lease > 20


def test_nodes_that_die_among_slow_ones_are_noticed_within_the_time_of_a_lease() -> None:
    world = SlowNodes(7, nodes=200, seconds=600.0, deaths=12)
    world._pauses, world._apiserver_away, world._api_away = [], [], []
    lost = world.run().lost
    dead = {node.name: node for node in world.nodes if node.died_at is not None}
    assert set(lost) == set(dead)
    waited = {name: lost[name] - node.died_at for name, node in dead.items() if node.died_at is not None}
    talkative = [waited[name] for name, node in dead.items() if node.step_seconds is not None and node.step_seconds < 2]
    assert max(waited.values()) < 45
    assert statistics.median(talkative) < 19, waited
