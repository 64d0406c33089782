"""A suite's items, looked at once before anybody is asked: a mistake on the last line costs no answer."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256
from itertools import islice

import numpy as np
from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item
from abruzzi_jobs.evals.suites.registry import reference_of
from abruzzi_jobs.evals.suites.suite import Suite


@dataclass(frozen=True, slots=True)
class Looked:
    number: int
    digest: str
    """Of all items in their order, and of the suite's version and settings: hex."""


def items_of(suite: Suite) -> Iterator[Item]:
    """Those that its settings ask for. Raises AbruzziError bad_data where one is malformed."""
    place = 0
    try:
        for item in islice(suite.items(), suite.settings.max_items):
            place += 1
            yield item
    except ValidationError as error:
        first = error.errors()[0]
        raise AbruzziError(
            "bad_data",
            f"Suite {reference_of(suite)}, item {place + 1}: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            hint="Mend its file; nobody was asked.",
        ) from error


def look_through(suite: Suite) -> Looked:
    """Eight bytes an item are held. Raises AbruzziError bad_data for a suite without items, with two of one id, or with one that is malformed."""
    ids = array("Q")
    digest = sha256(f"{reference_of(suite)} {suite.settings.model_dump_json()}".encode())
    for item in items_of(suite):
        ids.append(_short(item.id))
        digest.update(item.model_dump_json().encode("utf-8", "replace"))
    if not ids:
        raise AbruzziError(
            "bad_data", f"Suite {reference_of(suite)} has no items.", hint="Look at its path and its options."
        )
    ascending = np.sort(np.frombuffer(ids, np.uint64))
    twice = ascending[1:][ascending[1:] == ascending[:-1]]
    if len(twice):
        _refuse_duplicate(suite, set(twice.tolist()))
    return Looked(len(ids), digest.hexdigest())


def _refuse_duplicate(suite: Suite, suspects: set[int]) -> None:
    places: dict[str, int] = {}
    for place, item in enumerate(items_of(suite), 1):
        if _short(item.id) in suspects and (first := places.setdefault(item.id, place)) != place:
            raise AbruzziError(
                "bad_data",
                f"Suite {reference_of(suite)}: items {first} and {place} have the same id {item.id!r}.",
                hint="Each item needs an id of its own; nobody was asked.",
            )


def _short(item_id: str) -> int:
    return int.from_bytes(blake2b(item_id.encode("utf-8", "replace"), digest_size=8).digest(), "little")
