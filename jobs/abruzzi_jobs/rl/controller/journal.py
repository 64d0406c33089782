"""What the loop has decided and measured, in the object store below the stage's prefix (trajectories are the rollout store's: rl/rollout/store.py).

    journal/it-000012/scored.zst            the outcomes of the iteration's trajectories
    journal/it-000012/00-rollout.json …     every transition, with what it found (counts, checksums)
    journal/it-000012/critic.json           where answers are compared: what its critic was worth, and whether its rewards were given

Every object is written once and whole, and what is there first holds: an attempt that finds its own record written by another (a process that was taken
for dead) goes on with that one.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import zstandard

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Outcome
from abruzzi.store import ObjectStore
from abruzzi_jobs.chat.calls import pack
from abruzzi_jobs.data.text_shards import zstd_lines
from abruzzi_jobs.rl.controller.cycle import Position

FOLDER = "journal/"
"""Below the stage's output prefix."""

logger = logging.getLogger(__name__)


class Journal:
    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._folder = store, f"{prefix}{FOLDER}"

    def score(self, iteration: int, outcomes: Mapping[str, Outcome]) -> Mapping[str, Outcome]:
        """{trajectory: outcome} that holds."""
        rows = ({"id": name, "outcome": outcomes[name].model_dump(mode="json")} for name in sorted(outcomes))
        lines = [json.dumps(row).encode() for row in rows]
        if self._store.put_if_absent(self._key(iteration, "scored.zst"), pack([_head(lines), *lines])):
            return outcomes
        logger.warning("iteration %d was scored by another attempt before: its outcomes hold", iteration + 1)
        return self.outcomes(iteration) or outcomes

    def outcomes(self, iteration: int) -> Mapping[str, Outcome] | None:
        """None where it was not scored, or the record is damaged: then it is removed, and scored again."""
        key = self._key(iteration, "scored.zst")
        if not self._store.exists(key):
            return None
        try:
            head, *lines = zstd_lines(io.BytesIO(self._store.get(key)))
            if head != _head(lines):
                raise ValueError("it is not what its first line says")
            return {row["id"]: Outcome.model_validate(row["outcome"]) for row in map(json.loads, lines)}
        except (zstandard.ZstdError, ValueError, KeyError, AbruzziError) as error:
            logger.warning("%s: damaged (%s); the iteration is scored again", key, error)
            self._store.delete(key)
            return None

    def note(self, position: Position, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """A transition and what it found; what an earlier attempt noted of it stays, and is returned."""
        return self.keep(position.iteration, position.name, facts)

    def keep(self, iteration: int, name: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Facts by a name; those of an earlier attempt stay, and are returned."""
        key = self._key(iteration, f"{name}.json")
        if self._store.put_if_absent(key, json.dumps(facts, sort_keys=True).encode()):
            return facts
        return json.loads(self._store.get(key))

    def kept(self, iteration: int, name: str) -> dict[str, Any] | None:
        key = self._key(iteration, f"{name}.json")
        return json.loads(self._store.get(key)) if self._store.exists(key) else None

    def noted(self, iteration: int) -> dict[str, dict[str, Any]]:
        """{`05-register`: facts}, in order."""
        keys = [key for key in self._store.list(self._key(iteration)) if key.endswith(".json")]
        return {key.rpartition("/")[2].removesuffix(".json"): json.loads(self._store.get(key)) for key in keys}

    def _key(self, iteration: int, name: str = "") -> str:
        return f"{self._folder}it-{iteration:06d}/{name}"


def _head(lines: Iterable[bytes]) -> bytes:
    return json.dumps({"version": 1, "digest": "sha256:" + hashlib.sha256(b"\n".join(lines)).hexdigest()}).encode()
