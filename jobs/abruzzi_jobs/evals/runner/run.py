"""A suite, run: many items at a time, finished in the suite's order, gone on with where an earlier attempt was cut off.

Its items may be shared out: index i of n asks every n-th one from the i-th on and keeps a journal of its own; the journals, taken in turn, are the suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSummary
from abruzzi.store import ObjectStore
from abruzzi_jobs.chat.in_order import in_order
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.evals.runner.answers import Answering
from abruzzi_jobs.evals.runner.items import items_of, look_through
from abruzzi_jobs.evals.runner.journal import JOURNAL_FOLDER, Journal, Rows
from abruzzi_jobs.evals.runner.tally import Tally
from abruzzi_jobs.evals.suites.registry import reference_of
from abruzzi_jobs.evals.suites.suite import Suite

Tell = Callable[[int, int, str], None]
"""(items finished, items in all, message); what it raises ends the suite, and what is finished is kept."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of a suite's items: those whose place is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"index {self.index} of {self.count}")

    def of(self, suite: Suite) -> Iterator[tuple[int, Item]]:
        """(place within the share, item)."""
        return enumerate(islice(items_of(suite), self.index, None, self.count))

    def size(self, items: int) -> int:
        return len(range(self.index, items, self.count))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A suite whose items are finished: those of the shares whose journals are here, all of them where every index's is."""

    suite: Suite
    journals: tuple[Journal, ...]
    """By index."""
    items: int
    """Of the whole suite."""

    @property
    def failed(self) -> int:
        """Items that the infrastructure failed."""
        return sum(len(journal.again) for journal in self.journals)

    def entries(self) -> Iterator[tuple[int, Rows]]:
        """(place, rows) of each item, once, in the suite's order. Raises AbruzziError `bad_data` where a share is not whole, to be tried again."""
        shares = [journal.entries() for journal in self.journals]
        for place in range(self.items):
            index = place % len(shares)
            found = next(shares[index], None)
            if found is None or found[0] != place // len(shares):
                raise AbruzziError(
                    "bad_data",
                    f"Suite {reference_of(self.suite)}: the answers to item {place + 1}, of index {index}, are not in the store.",
                    status=503,
                    hint="The next attempt asks for what is missing.",
                )
            yield place, found[1]

    def discard(self) -> None:
        """Once the rows are committed as an artifact."""
        for journal in self.journals:
            journal.discard()


async def run_suite(
    suite: Suite,
    roles: Mapping[str, ChatBackend],
    *,
    store: ObjectStore,
    prefix: str,
    identity: str = "",
    ahead: int,
    share: Share = Share(),
    answers: Callable[[], int] = lambda: 0,
    tell: Tell = lambda done, total, message: None,
) -> Asked:
    """Asks what earlier attempts have not finished of `share`, `ahead` items at a time, then once more what the infrastructure failed.

    `prefix`: of the stage's outputs. `identity`: of the target; with another one all is asked anew. What comes back has journals of all indices; those of
    others are to be opened once they are finished.
    Raises AbruzziError bad_data for malformed items before anybody is asked; what ends the target (EndpointUnavailable, BudgetReached, Preempted):
    finished items are in the journal.
    """
    looked = await asyncio.to_thread(look_through, suite)
    name = reference_of(suite)
    folder = sha256(f"{looked.digest} {identity}".encode()).hexdigest()[:16]
    kept = f"{prefix}{JOURNAL_FOLDER}{name.replace('@', '-')}-{folder}/"
    journals = [Journal(store, kept)]
    if share.count > 1:
        journals = [Journal(store, f"{kept}{index}-of-{share.count}/") for index in range(share.count)]
    journal, total = journals[share.index], share.size(looked.number)
    await asyncio.to_thread(journal.open)
    answering = Answering(suite, roles)
    told = f"{name}: {total} items" + (f" of index {share.index}" if share.count > 1 else "")

    def beat() -> None:
        tell(journal.done, total, told)

    async def work(numbered: tuple[int, Item]) -> Rows:
        return await answering.rows(numbered[1])

    async def ask(numbered: Iterator[tuple[int, Item]]) -> None:
        async with in_order(numbered, work, ahead=ahead, answers=answers, beat=beat) as found:
            async for (place, _), rows in found:
                await journal.add(place, rows)
                beat()

    first = journal.done
    lacking = frozenset(journal.again)
    try:
        await ask((place, item) for place, item in share.of(suite) if place >= first or place in lacking)
        if failed := frozenset(journal.again):
            await ask((place, item) for place, item in share.of(suite) if place in failed)
    finally:
        await journal.flush()
    return Asked(suite=suite, journals=tuple(journals), items=looked.number)


def summarize(
    asked: Asked,
    *,
    foreign: frozenset[str] | None,
    take: Callable[[dict[str, Any]], None],
    score: Callable[[str, float | None], None],
) -> SuiteSummary:
    """What it came to. `foreign`: ids of items that the target may have been trained on; None where nobody can know. `take` gets every row, `score`
    each item's. Raises AbruzziError `no_scores` where the infrastructure failed every single one."""
    tally = Tally(reference_of(asked.suite), asked.suite.settings)
    reason = ""
    for _, rows in asked.entries():
        is_foreign = foreign is not None and rows[0]["item"] in foreign
        for row in rows:
            take({**row, "contaminated": is_foreign if foreign is not None else None})
            reason = reason or row["reason"]
        score(rows[0]["item"], tally.add(rows, contaminated=is_foreign))
    summary = tally.summary(knows_training_text=foreign is not None, left_out=asked.suite.left_out)
    if asked.failed == asked.items:
        raise AbruzziError(
            "no_scores",
            f"Suite {summary.suite}: none of {summary.items} items could be scored: {reason or 'no reason was given'}",
            status=503,
            hint="Finished items are kept; the next attempt asks the others again.",
        )
    return summary
