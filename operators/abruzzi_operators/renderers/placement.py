"""Where and how the ranks of one attempt run, in words of no scheduler: what a pool and an operator's settings say about a stage.

Nothing in it comes from a recipe but the number of ranks and the image of a `container` stage, which the renderers take from the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abruzzi.contracts.stage import StageSpec


@dataclass(frozen=True, slots=True)
class RankResources:
    """Of one rank; a node's pod gets them times its ranks."""

    cpu_cores: float = 1.0
    memory_bytes: int = 2 << 30
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class PodAdditions:
    """What an operator adds to every pod (ABRUZZI_POD_TEMPLATE): shared file systems, fabric devices, pull secrets. Users never can."""

    volumes: tuple[Mapping[str, Any], ...] = ()
    volume_mounts: tuple[Mapping[str, Any], ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    image_pull_secrets: tuple[str, ...] = ()
    extended_resources: Mapping[str, int] = field(default_factory=dict)
    """Such as {"rdma/hca": 8}: of a node's pod, whatever its ranks."""


@dataclass(frozen=True, slots=True)
class Placement:
    namespace: str
    image: str
    """Of the built-in stages and of `container` stages that name none."""
    api_url: str
    """Where pods reach the API."""
    sandboxes_url: str = ""
    """Where pods reach the service of sandboxes, if there is one."""
    queue: str = ""
    """Kueue LocalQueue; empty: nobody queues."""
    ranks_per_node: int = 8
    resources: RankResources = RankResources()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    required_topology: str = ""
    """Node label of the level that all pods must share, such as a block; empty: no wish."""
    preferred_topology: str = ""
    excluded_nodes: tuple[str, ...] = ()
    """Host names that this attempt avoids where another node will do."""
    lost_node_seconds: int = 30
    """How long a pod may stay on a node that is not ready (Kubernetes' own default is 300)."""
    grace_seconds: int = 65
    """Between SIGTERM and SIGKILL when a pod is deleted by somebody who names no other time; the launcher's own grace is shorter."""
    service_account: str = ""
    image_pull_policy: str = "IfNotPresent"
    additions: PodAdditions = PodAdditions()
    labels: Mapping[str, str] = field(default_factory=dict)

    def nodes(self, world_size: int) -> int:
        return -(-world_size // self.ranks_per_node)

    def ranks_on_a_node(self, world_size: int) -> int:
        """Of every node but the last, which may have fewer."""
        return min(world_size, self.ranks_per_node)

    def asks(self) -> dict[str, Any]:
        """Of one rank and of its nodes, as JSON."""
        one = self.resources
        return {
            "cpus": one.cpu_cores,
            "memory": one.memory_bytes,
            "gpus": one.gpus,
            "ranks_per_node": self.ranks_per_node,
            "labels": dict(self.node_selector),
            "tolerations": [dict(toleration) for toleration in self.tolerations],
        }

    def is_foreign(self, spec: StageSpec) -> bool:
        """A `container` stage with an image of its own: its command runs without our launcher, which the image need not hold."""
        container = spec.config.get("container") or {}
        return bool(container.get("image"))
