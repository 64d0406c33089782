"""Needle in a haystack: a pair of words at each depth of texts of each length, asked for at the end (data/needles.py).

Lengths are in words, since a suite does not know its target's tokens; each row says how many tokens its prompt had.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from pydantic import Field, StrictFloat, StrictInt, ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi.contracts.training import Strict
from abruzzi_jobs.data.needles import NAMES, haystack
from abruzzi_jobs.evals.suites.suite import Helpers, QuestionSuite, Transcript

_CELL = re.compile(r"^(\d+) words, (\d+) %$")


class NeedleOptions(Strict):
    lengths: tuple[StrictInt, ...] = Field(default=(500, 1000, 2000, 4000, 8000, 16000), min_length=1)
    """Words of a text."""
    depths: tuple[StrictFloat, ...] = Field(default=(0.0, 0.25, 0.5, 0.75, 1.0), min_length=1)
    """Where the pair is, as a share of the text before it."""
    items: StrictInt = Field(default=5, gt=0)
    """Texts of each length and depth."""
    distractors: StrictInt = Field(default=3, ge=0, lt=len(NAMES))
    """Pairs that are not asked for: whoever names any pair at hand is right in one of so many and one."""
    seed: StrictInt = 0


class Needle(QuestionSuite):
    name = "needle"
    summary = "A pair of words hidden in texts of growing length and asked for at the end, at five depths: 150 texts of 500 to 16 000 words, or as options say."
    licence = "Apache-2.0"
    source = "ours: generated; after the passkey of arXiv 2305.16300 and the keys among distractors of arXiv 2404.06654"
    defaults = SuiteSettings(max_tokens=16)

    def __init__(self, settings: SuiteSettings) -> None:
        """Raises AbruzziError `bad_options`."""
        super().__init__(settings)
        try:
            self._options = NeedleOptions.model_validate(_tuples(settings.options))
        except ValidationError as error:
            first = error.errors()[0]
            raise AbruzziError(
                "bad_options",
                f"suite {self.name}: {'.'.join(map(str, ('options', *first['loc'])))}: {first['msg']}.",
                hint="Its options are lengths (in words), depths (0 to 1), items, distractors and seed.",
            ) from error

    def items(self) -> Iterator[Item]:
        """Lengths ascend, so that a first look with `max_items` is at the short ones. Raises AbruzziError `bad_options`."""
        options = self._options
        for length in sorted(set(options.lengths)):
            for depth in sorted(set(options.depths)):
                for number in range(options.items):
                    name = f"{length}-{depth:g}-{number}"
                    yield self._item(name, length, depth)

    def _item(self, name: str, length: int, depth: float) -> Item:
        try:
            found = haystack(
                f"{self._options.seed} {name}", words=length, depth=depth, distractors=self._options.distractors
            )
        except ValueError as error:
            raise AbruzziError(
                "bad_options", f"suite {self.name}: {error}.", hint="Take longer texts or fewer distractors."
            ) from error
        return Item(
            id=name,
            prompt=found.text,
            gold=found.value,
            subtask=cell_name(length, depth),
            meta={"others": found.others},
        )

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        """1 where the first sentence of the answer names the right word, and none of the other pairs'."""
        said = re.split(r"[.\n]", transcript.answer.strip(), maxsplit=1)[0]
        named = set(re.findall(r"[a-z]+", said.lower()))
        others = sorted(named & set(item.meta["others"]))
        if item.gold in named and not others:
            return Verdict(score=1.0)
        return Verdict(score=0.0, reason=f"It names {', '.join(others)}." if others else "It does not name the word.")

    def gold_answer(self, item: Item) -> str | None:
        return f"{item.gold}."

    def perturbed_answer(self, item: Item) -> str | None:
        """Another pair's word where there is one."""
        return f"{next(iter(item.meta['others']), item.gold[::-1])}."


def cell_name(length: int, depth: float) -> str:
    """The subtask of a length and a depth."""
    return f"{length} words, {round(100 * depth)} %"


def heat_map(rows: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the rows `answers` of a stage: lengths in words and (median) tokens, depths in percent, and the share that was right, [depth][length]."""
    scores: dict[tuple[int, int], list[float]] = {}
    tokens: dict[int, list[int]] = {}
    for row in rows:
        cell = _CELL.match(row["subtask"])
        if cell is None or row["score"] is None:
            continue
        length, depth = int(cell[1]), int(cell[2])
        scores.setdefault((depth, length), []).append(row["score"])
        tokens.setdefault(length, []).append(row["prompt_tokens"])
    lengths, depths = sorted(tokens), sorted({depth for depth, _ in scores})
    return {
        "words": lengths,
        "tokens": [round(median(tokens[length])) for length in lengths],
        "depths": depths,
        "right": [[_mean(scores.get((depth, length))) for length in lengths] for depth in depths],
        "texts_a_cell": min(map(len, scores.values()), default=0),
    }


def _mean(values: list[float] | None) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of TOML are JSON's; whole numbers may stand for depths."""
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    if isinstance(found.get("depths"), tuple):
        found["depths"] = tuple(float(depth) if isinstance(depth, int) else depth for depth in found["depths"])
    return found
