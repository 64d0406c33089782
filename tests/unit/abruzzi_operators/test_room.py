"""How many ranks of an elastic stage have a place on the cluster's nodes: an estimate, from what nodes offer and who of ours is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from abruzzi_operators.executors.room import room, room_of
from abruzzi_operators.renderers import Placement, RankResources
from abruzzi_operators.renderers.names import ANNOTATION_ROOM

H800 = {"pool": "h800"}
MINE, OTHER = "run0000000-train-1", "run0000001-train-1"


def asks(ranks_per_node: int = 8, **fields: Any) -> dict[str, Any]:
    values = {"resources": RankResources(4.0, 32 << 30, 1), "node_selector": H800, **fields}
    placement = Placement("stages", "image", "http://api", ranks_per_node=ranks_per_node, **values)
    return json.loads(json.dumps(placement.asks()))


def node(name: str, *, gpus: int = 8, cpu: str = "64", labels: Any = H800, taints: Any = ()) -> dict[str, Any]:
    offered = {"cpu": cpu, "memory": "1Ti", "nvidia.com/gpu": str(gpus)}
    metadata = {"name": name, "labels": dict(labels)}
    return {"metadata": metadata, "spec": {"taints": list(taints)}, "status": {"allocatable": offered}}


TAINT = {"key": "abruzzi.io/quarantine", "effect": "NoSchedule", "value": "sick"}


@pytest.mark.parametrize(
    ("nodes", "placed", "ranks"),
    [
        ([node("a"), node("b")], {}, 16),
        ([node("a"), node("b")], {"a": {MINE: range(8)}}, 16),
        ([node("a"), node("b")], {"a": {OTHER: range(8)}}, 8),
        ([node("a"), node("b")], {"a": {OTHER: [0]}}, 8),  # a pod is of eight ranks
        ([node("a"), node("b", gpus=7)], {}, 8),
        ([node("a"), node("b", cpu="15500m")], {}, 8),
        ([node("a"), node("b", labels={})], {}, 8),
        ([node("a"), node("b", taints=[TAINT])], {}, 8),
        ([node("a"), node("b", taints=[{**TAINT, "effect": "PreferNoSchedule"}])], {}, 16),
        ([], {}, 0),
    ],
)
def test_whole_pods_on_nodes_of_the_pool_that_take_them(nodes: Any, placed: Any, ranks: int) -> None:
    assert room(asks(), nodes, placed, MINE) == ranks


@pytest.mark.parametrize(
    ("toleration", "ranks"),
    [
        ({"key": TAINT["key"], "operator": "Exists"}, 8),
        ({"key": TAINT["key"], "operator": "Equal", "value": "sick"}, 8),
        ({"key": TAINT["key"], "operator": "Equal", "value": "well"}, 0),
        ({"key": TAINT["key"], "operator": "Exists", "effect": "NoExecute"}, 0),
        ({"key": "another", "operator": "Exists"}, 0),
    ],
)
def test_a_taint_that_the_pool_tolerates_keeps_nothing_out(toleration: dict[str, str], ranks: int) -> None:
    assert room(asks(tolerations=(toleration,)), [node("a", taints=[TAINT])], {}, MINE) == ranks


def test_several_pods_of_a_rank_share_a_node() -> None:
    assert room(asks(1, resources=RankResources(0.5, 1 << 30, 0)), [node("a", cpu="2")], {"a": {OTHER: [0]}}, MINE) == 3


def test_nothing_is_said_of_stages_that_are_not_elastic_or_while_nobody_looks_after_nodes() -> None:
    elastic = {"metadata": {"annotations": {ANNOTATION_ROOM: json.dumps(asks())}}}
    assert room_of(MINE, elastic, lambda: [node("a")], dict) == 8
    assert room_of(MINE, elastic, lambda: None, dict) is None
    assert room_of(MINE, {"metadata": {}}, lambda: [node("a")], dict) is None
    assert room_of(MINE, None, lambda: [node("a")], dict) is None
