"""Whether a state changed exactly as it should. New rows have the ids that their order gave them: two orders of the same work are the same work."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from abruzzi.contracts.agent import Change

_ORDERS_AT_MOST = 720
Ids = Mapping[tuple[str, int], int]
References = Mapping[tuple[str, str], str]
"""(entity, field) → the entity that the field refers to."""


def unlike(wanted: Sequence[Change], found: Sequence[Change], references: References) -> list[str]:
    """What differs, in words, nearest naming of new rows first; empty where nothing does."""
    fewest: list[str] | None = None
    for ids in _namings(_made(wanted), _made(found)):
        differing = _difference(Counter(map(_key, _renamed(wanted, ids, references))), Counter(map(_key, found)))
        if not differing:
            return []
        if fewest is None or len(differing) < len(fewest):
            fewest = differing
    return fewest or []


def _made(changes: Iterable[Change]) -> dict[str, list[int]]:
    ids = defaultdict(list)
    for change in changes:
        if change.before is None and change.after is not None:
            ids[change.entity].append(change.id)
    return ids


def _namings(wanted: Mapping[str, list[int]], found: Mapping[str, list[int]]) -> Iterator[Ids]:
    """Every way to pair new rows that should be there with new rows that are; the plain one alone where there would be too many."""
    shared = [entity for entity in wanted if len(found.get(entity, ())) == len(wanted[entity])]
    if math.prod(math.factorial(len(wanted[entity])) for entity in shared) > _ORDERS_AT_MOST:
        yield {}
        return
    for orders in itertools.product(*(itertools.permutations(found[entity]) for entity in shared)):
        yield {
            (entity, old): new
            for entity, order in zip(shared, orders, strict=True)
            for old, new in zip(wanted[entity], order, strict=True)
        }


def _renamed(changes: Sequence[Change], ids: Ids, references: References) -> Iterator[Change]:
    for change in changes:
        number = ids.get((change.entity, change.id), change.id) if change.before is None else change.id
        after = change.after
        if after is not None:
            after = {name: _pointed(change.entity, name, value, ids, references) for name, value in after.items()}
        yield change.model_copy(update={"id": number, "after": after})


def _pointed(entity: str, name: str, value: Any, ids: Ids, references: References) -> Any:
    if name == f"{entity}_id":
        return ids.get((entity, value), value)
    target = references.get((entity, name))
    return value if target is None else ids.get((target, value), value)


def _key(change: Change) -> str:
    return json.dumps([change.entity, change.id, change.before, change.after], sort_keys=True)


def _difference(wanted: Counter[str], found: Counter[str]) -> list[str]:
    missing = [f"missing: {_words(key)}" for key in sorted((wanted - found).elements())]
    return missing + [f"unasked: {_words(key)}" for key in sorted((found - wanted).elements())]


def _words(key: str) -> str:
    entity, number, before, after = json.loads(key)
    if before is None:
        return f"{entity} {number} made with {_pairs(after)}"
    if after is None:
        return f"{entity} {number} deleted"
    return f"{entity} {number} from {_pairs(before)} to {_pairs(after)}"


def _pairs(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in row.items())
