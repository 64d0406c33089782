"""Which items stand in the training text, and where nobody can say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from evals_target import Sums

from abruzzi.client.stage import StageContext
from abruzzi.contracts.evaluation import Item, SuiteConfig
from abruzzi_jobs.evals.runner import stage
from abruzzi_jobs.evals.runner.contamination import Contamination
from abruzzi_jobs.evals.runner.run import Asked
from abruzzi_jobs.evals.suites.registry import open_suite

SEEN = "Find the area of a triangle with a base of 10 units and height of 5 units."
CATEGORIES = {
    "bfcl": {"categories": ["simple"]},
    "bfcl-turns": {"categories": ["base"]},
    "tau2": {"domains": ["airline"]},
}


@pytest.mark.parametrize("name", CATEGORIES)
def test_suites_of_conversations_can_be_looked_for(name: str) -> None:
    items = list(open_suite(name, SuiteConfig(options=CATEGORIES[name])).items())
    assert [item.id for item in items if not item.prompt.strip()] == []
    index = Contamination(items)
    index.look([f"An exercise. {items[0].prompt} And so on."])
    assert items[0].id in index.found()


def test_what_the_user_says_is_what_is_looked_for() -> None:
    items = list(open_suite("bfcl", SuiteConfig(options=CATEGORIES["bfcl"])).items())
    assert items[0].prompt == SEEN
    index = Contamination(items)
    index.look(["Nothing of the kind."])
    assert index.found() == frozenset()
    index.look([f"He wrote: {SEEN}"])
    assert index.found() == {"simple_0"}


def searched(monkeypatch: pytest.MonkeyPatch, items: list[Item], texts: list[str]) -> tuple[Any, list[Any]]:
    class Suite(Sums):
        def items(self) -> Any:
            yield from items

    told: list[Any] = []
    monkeypatch.setattr(stage, "read_corpus", lambda folder: {"train_documents": len(texts)})
    monkeypatch.setattr(stage, "read_split", lambda folder, split: iter(SimpleNamespace(text=text) for text in texts))
    context = SimpleNamespace(
        spec=SimpleNamespace(inputs={"corpus": None}), input=lambda name: SimpleNamespace(folder=Path())
    )
    asked = SimpleNamespace(suite=Suite(Sums.defaults))
    found = asyncio.run(
        stage.foreign_items(cast(StageContext, context), cast(Asked, asked), lambda *said: told.append(said))
    )
    return found, told


def test_the_search_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*["Something else."] * 299, SEEN]
    found, told = searched(monkeypatch, [Item(id="a", prompt=SEEN), Item(id="b", prompt="2 + 2 =")], texts)
    assert found == {"a"}
    assert [said[:2] for said in told] == [(256, 300), (300, 300)]


def test_of_items_without_words_nobody_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert searched(monkeypatch, [Item(id="a"), Item(id="b", prompt=" ")], [SEEN]) == (None, [])
