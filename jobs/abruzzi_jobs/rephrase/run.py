"""A corpus rephrased: many documents under way at a time, taken in their order, so that the same answers make the same bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from abruzzi.contracts.endpoint import ChatRole
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.data.corpus import Progress
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.rephrase.fidelity.verifier import TranslationVerifier, Verifier
from abruzzi_jobs.rephrase.grid import TRANSLATION, Cell, Grid, load_grid
from abruzzi_jobs.rephrase.output import RephrasedCorpus
from abruzzi_jobs.rephrase.plan import Planned, domains_of, planned
from abruzzi_jobs.rephrase.rewriting import Rewrite, rewrite

_AHEAD = 4
"""Documents under way for each call that the endpoint lets through: while the oldest is checked and waited for, the others go on."""
_MOST_AHEAD = 2048
_BEAT_SECONDS = 2.0

Tell = Callable[[dict[str, float], int], None]
"""(metrics, documents done)"""


async def rephrase_corpus(
    corpus: Path,
    out: Path,
    config: RephraseConfig,
    *,
    roles: Roles,
    seed: int,
    progress: Progress,
    tell: Tell = lambda metrics, step: None,
) -> dict[str, Any]:
    """Writes into `out` (an empty folder), and returns what corpus.json says.

    Raises AbruzziError bad_data for a corpus without documents to rewrite, too_many_rejected, and what the roles raise.
    """
    grid = load_grid()
    total = sum(domains_of(corpus, config).values())
    written = RephrasedCorpus(corpus, out, config, grid)
    done = answers = 0

    def say() -> None:
        fates = written.fates
        what = f"{fates[KEPT]} rewrites kept, {fates.total() - fates[KEPT]} rejected, {answers} answers"
        progress(done, total, f"rephrasing: {what}")
        tell(_metrics(written, roles), done)

    async with _Worker(config, grid, roles) as worker:
        for plan, task in worker.all(planned(corpus, config, grid, seed=seed)):
            while task is not None and not (await asyncio.wait({task}, timeout=_BEAT_SECONDS))[0]:
                if _answers(roles) > answers:  # a slow model is no hang as long as it answers
                    answers = _answers(roles)
                    say()
            written.add(plan, task.result() if task is not None else [])
            done += plan.record.domain in config.domains
            answers = _answers(roles)
            say()
    return written.close()


class _Worker:
    def __init__(self, config: RephraseConfig, grid: Grid, roles: Roles) -> None:
        self._config, self._grid, self._roles = config, grid, roles
        judge: ChatBackend | None = None
        if ChatRole.VERIFIER in roles:
            judge = roles[ChatRole.VERIFIER]
        self._verify = Verifier(config.fidelity, judge)
        self._verify_translation = TranslationVerifier(config.fidelity, judge)
        if config.translate_from and ChatRole.TRANSLATOR not in roles:
            raise AbruzziError(
                "no_role",
                "rephrase.translate_from: the recipe gives the role translator to no endpoint.",
                hint="Add translator = … to [stage.roles].",
            )
        self._under_way: deque[tuple[Planned, asyncio.Task[list[Rewrite]] | None]] = deque()
        at_a_time = roles[ChatRole.REPHRASER].endpoint.limits.concurrency
        self._ahead = min(_MOST_AHEAD, _AHEAD * at_a_time)

    async def __aenter__(self) -> _Worker:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends what is under way: what was answered is in the log."""
        tasks = [task for _, task in self._under_way if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def all(self, plans: Iterator[Planned]) -> Iterator[tuple[Planned, asyncio.Task[list[Rewrite]] | None]]:
        """Each with the task that rewrites it, in their order."""
        for plan in plans:
            self._under_way.append((plan, asyncio.create_task(self._document(plan)) if plan.cells else None))
            if len(self._under_way) >= self._ahead:
                yield self._under_way.popleft()
        while self._under_way:
            yield self._under_way.popleft()

    async def _document(self, plan: Planned) -> list[Rewrite]:
        return await asyncio.gather(*(self._rewrite(plan, cell) for cell in plan.cells))

    async def _rewrite(self, plan: Planned, cell: Cell) -> Rewrite:
        is_translation = cell.style == TRANSLATION
        return await rewrite(
            plan.record.text,
            cell,
            grid=self._grid,
            backend=self._roles[ChatRole.TRANSLATOR if is_translation else ChatRole.REPHRASER],
            config=self._config,
            verify=self._verify_translation if is_translation else self._verify,
            language=plan.language,
        )


def _answers(roles: Roles) -> int:
    return sum(roles[name].account.calls + roles[name].account.cache_hits for name in roles)


def _metrics(written: RephrasedCorpus, roles: Roles) -> dict[str, float]:
    fates, documents = written.fates, written.documents
    return {
        **roles.metrics(),
        **{f"rephrase/rewrites/{fate}": float(number) for fate, number in fates.items()},
        **{f"rephrase/documents/{end}": float(number) for end, number in documents.items()},
    }
