"""The oracle test of a suite: its gold answers score 1, its perturbed ones 0."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from abruzzi.contracts.evaluation import Item, Verdict
from abruzzi_jobs.evals.suites.suite import Suite, Transcript


def verdict(suite: Suite, item: Item, answer: str) -> Verdict:
    return asyncio.run(suite.score(item, Transcript(messages=(), answer=answer), {}))


def wrong(suite: Suite, items: Iterable[Item]) -> list[str]:
    """Ids whose gold answer does not score 1, or whose perturbed answer does not score 0."""
    found = []
    for item in items:
        gold, perturbed = suite.gold_answer(item), suite.perturbed_answer(item)
        assert gold is not None, item.id
        assert perturbed is not None, item.id
        if verdict(suite, item, gold).score != 1.0 or verdict(suite, item, perturbed).score != 0.0:
            found.append(item.id)
    return found
