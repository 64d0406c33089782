"""Text shards encoded as tasks of a Ray cluster: each shard is one task, results come in the order of the shards.

A task gets the packed shard and gives its tokens, so workers need no access to the object store. Which node does which, how often one is done
again after a node is lost, and in which order they end changes nothing in what comes out.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.encoding import Encoded, encode_records
from abruzzi_jobs.data.ray_session import RETRIES, ray_session
from abruzzi_jobs.data.text_shards import read_packed

AHEAD = 2
"""Tasks in flight for each CPU of the cluster: none waits for the driver, and results do not pile up."""


@contextmanager
def ray_cluster() -> Iterator[RayEncoder]:
    """Raises AbruzziError where the image has no Ray."""
    with ray_session() as ray:
        yield RayEncoder(ray)


class RayEncoder:
    """Takes the place of abruzzi_jobs.data.encoding.encode_here."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.nodes: set[str] = set()
        """Ids of the nodes that have encoded something."""

    def __call__(self, tokenizer: Tokenizer, shards: Sequence[Path]) -> Iterator[tuple[Path, list[Encoded]]]:
        ray = self._ray
        task = ray.remote(_encode_shard).options(num_cpus=1, scheduling_strategy="SPREAD", max_retries=RETRIES)
        known = ray.put(tokenizer.to_str())
        window = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[tuple[Path, Any]] = deque()
        for shard in shards:
            if len(waiting) >= window:
                yield self._take(*waiting.popleft())
            waiting.append((shard, task.remote(known, shard.name, shard.read_bytes())))
        while waiting:
            yield self._take(*waiting.popleft())

    def describe(self) -> str:
        alive = sum(node["Alive"] for node in self._ray.nodes())
        return f"encoded on {len(self.nodes)} of {alive} nodes of Ray"

    def _take(self, shard: Path, reference: Any) -> tuple[Path, list[Encoded]]:
        answer = self._ray.get(reference)
        self.nodes.add(answer["node"])
        if "error" in answer:
            raise AbruzziError(**answer["error"])
        ends = np.cumsum(answer["lengths"])[:-1]
        return shard, list(zip(answer["domains"], np.split(answer["tokens"].astype(np.int64), ends), strict=True))


def _encode_shard(tokenizer_json: str, name: str, packed: bytes) -> dict[str, Any]:
    """On a worker. Plain arrays and texts only: an error of ours goes as its parts."""
    import ray

    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # a task has one CPU
    node = ray.get_runtime_context().get_node_id()
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.encode_special_tokens = True
    try:
        found = [one for batch in encode_records(tokenizer, read_packed(io.BytesIO(packed), name)) for one in batch]
    except AbruzziError as error:
        return {"node": node, "error": {"code": error.code, "message": error.message, "hint": error.hint}}
    return {
        "node": node,
        "domains": [domain for domain, _ in found],
        "lengths": np.asarray([len(tokens) for _, tokens in found], dtype=np.int64),
        "tokens": np.concatenate([np.zeros(0, np.uint32), *(tokens.astype(np.uint32) for _, tokens in found)]),
    }
