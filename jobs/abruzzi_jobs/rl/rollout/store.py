"""What rollouts survive a kill by: objects below the stage's prefix, one folder an iteration.

    rollouts/00000012/ended/g0000031-2.json.zst     a trajectory that has ended, written when it ends; gone once the iteration is
    rollouts/00000012/held.json.zst                 groups under way where the iteration was interrupted (SIGTERM), with the segments so far
    rollouts/00000012/iteration.json.zst            written once, at its end: the groups handed out, those under way, what was dropped

So an iteration that is played again finds what had ended, hands out the same groups when it was over, and plays no trajectory twice that had an end. What
was under way at a kill goes on from where it last stood; its draws are by position, so it comes to the same tokens. After a rollback to other weights, take
another prefix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TypeVar

import zstandard
from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Frozen, Task
from abruzzi.store import ObjectStore
from abruzzi_jobs.rl.rollout.played import Played, PlayedGroup

FOLDER = "rollouts/"
_ITERATION, _HELD, _ENDED = "iteration.json.zst", "held.json.zst", "ended/"
_F = TypeVar("_F", bound=Frozen)

logger = logging.getLogger(__name__)


class HeldGroup(Frozen):
    """Under way, or whole and not handed out yet. Members that were never played are not in it."""

    id: str
    number: int
    task: Task
    born: int | None
    """Policy version of its first token."""
    members: dict[int, Played]


class Kept(Frozen):
    """Of one iteration."""

    next_number: int
    """Of the next group that is drawn."""
    held: tuple[HeldGroup, ...]
    handed: tuple[PlayedGroup, ...] | None = None
    """None: it was interrupted."""
    dropped: tuple[Played, ...] = ()


class RolloutStore:
    """Blocking. `prefix` ends with a slash."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self._objects, self._prefix = objects, f"{prefix}{FOLDER}"

    def ended(self, version: int, played: Played) -> None:
        """A trajectory's end; of two processes that write the same one, the first."""
        name = f"{_ENDED}{played.trajectory.group}-{played.trajectory.member}.json.zst"
        self._objects.put_if_absent(self._key(version, name), _packed(played))

    def interrupted(self, version: int, kept: Kept) -> None:
        self._objects.put(self._key(version, _HELD), _packed(kept))

    def finished(self, version: int, kept: Kept) -> None:
        """Raises AbruzziError `conflict` where another process has finished this iteration meanwhile."""
        if not self._objects.put_if_absent(self._key(version, _ITERATION), _packed(kept)):
            raise AbruzziError(
                "conflict",
                f"Another process has finished the rollouts of iteration {version}.",
                status=409,
                hint="Only one attempt of a stage may run; the newer one goes on.",
            )
        self._objects.delete(self._key(version, _HELD))
        for key in list(self._objects.list(self._key(version, _ENDED))):
            self._objects.delete(key)

    def is_begun(self, version: int) -> bool:
        """Whether anything of this iteration is here."""
        return next(iter(self._objects.list(self._key(version, ""))), None) is not None

    def iteration(self, version: int) -> Kept | None:
        """As it ended. Raises AbruzziError `bad_data` where that is damaged."""
        return self._read(version, _ITERATION)

    def before(self, version: int) -> Kept | None:
        """From where this iteration goes on: as it was interrupted, or as the last one before it ended."""
        kept = self._read(version, _HELD)
        earlier = [number for number in self.iterations() if number < version]
        return kept if kept is not None or not earlier else self.iteration(earlier[-1])

    def ended_in(self, version: int) -> dict[str, Played]:
        """By trajectory. A damaged one is removed: it is played again."""
        found: dict[str, Played] = {}
        for key in list(self._objects.list(self._key(version, _ENDED))):
            try:
                played = _unpacked(self._objects.get(key), Played)
            except (zstandard.ZstdError, ValidationError) as error:
                logger.warning("%s: damaged (%s); its trajectory is played again", key, error)
                self._objects.delete(key)
                continue
            found[played.trajectory.id] = played
        return found

    def iterations(self) -> list[int]:
        """That have ended, in order."""
        depth = self._prefix.count("/")
        parts = (key.split("/") for key in self._objects.list(self._prefix))
        return sorted(int(part[depth]) for part in parts if part[depth + 1 :] == [_ITERATION])

    def played(self) -> Iterator[tuple[int, Played]]:
        """(iteration, trajectory) of all that ended, trained on or dropped."""
        for version in self.iterations():
            kept = self.iteration(version)
            assert kept is not None
            for group in kept.handed or ():
                yield from ((version, played) for played in group.members)
            yield from ((version, played) for played in kept.dropped)

    def forget(self) -> None:
        """All, once the stage's artifacts are committed."""
        for key in list(self._objects.list(self._prefix)):
            self._objects.delete(key)

    def _key(self, version: int, name: str) -> str:
        return f"{self._prefix}{version:08d}/{name}"

    def _read(self, version: int, name: str) -> Kept | None:
        key = self._key(version, name)
        if not self._objects.exists(key):
            return None
        try:
            return _unpacked(self._objects.get(key), Kept)
        except (zstandard.ZstdError, ValidationError) as error:
            raise AbruzziError(
                "bad_data",
                f"{key}: damaged ({error}).",
                hint="Delete it: the iteration is played again from the one before.",
            ) from error


def _packed(one: Frozen) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(one.model_dump_json().encode())


def _unpacked(content: bytes, kind: type[_F]) -> _F:
    return kind.model_validate_json(zstandard.ZstdDecompressor().decompress(content))
