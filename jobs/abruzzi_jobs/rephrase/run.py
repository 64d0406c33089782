"""A corpus rephrased: many documents under way at a time, taken in their order, so that the same answers make the same bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from abruzzi.contracts.endpoint import ChatRole
from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi_jobs.chat.embeddings import Embedder
from abruzzi_jobs.chat.failures import BudgetReached
from abruzzi_jobs.chat.in_order import in_order
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.data.corpus import Progress
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.rephrase.fidelity.verifier import TranslationVerifier, Verifier
from abruzzi_jobs.rephrase.grid import TRANSLATION, Cell, Grid, load_grid
from abruzzi_jobs.rephrase.output import UNASKED, RephrasedCorpus
from abruzzi_jobs.rephrase.plan import Planned, domains_of, planned
from abruzzi_jobs.rephrase.rewriting import Rewrite, rewrite

logger = logging.getLogger(__name__)

_AHEAD = 4
"""Documents under way for each call that the endpoint lets through: while the oldest is checked and waited for, the others go on."""

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

    Where a role's budget is used up, documents that it was not enough for are not asked about, and what is done is written all the same.

    Raises AbruzziError bad_data for a corpus without documents to rewrite, too_many_rejected, and what the roles raise; BudgetReached where the
    budget was not enough for one rewrite.
    """
    grid = load_grid()
    total = sum(domains_of(corpus, config).values())
    written = RephrasedCorpus(corpus, out, config, grid)
    worker = _Worker(config, grid, roles)
    done = 0

    def say() -> None:
        fates = written.fates
        what = f"{fates[KEPT]} rewrites kept, {fates.total() - fates[KEPT]} rejected, {roles.answers} answers"
        progress(done, total, f"rephrasing: {what}")
        tell(_metrics(written, roles), done)

    plans = planned(corpus, config, grid, seed=seed)
    async with in_order(plans, worker.rewrites, ahead=worker.ahead, answers=lambda: roles.answers, beat=say) as found:
        async for plan, rewrites in found:
            if plan.cells and not rewrites:
                written.leave(plan)
            else:
                written.add(plan, rewrites)
            done += plan.record.domain in config.domains
            say()
    if worker.reached is not None:
        if not written.fates:
            raise worker.reached
        logger.warning("%s %d documents stay as they were.", worker.reached.message, written.documents[UNASKED])
    return written.close(budget=worker.reached.message if worker.reached else None)


class _Worker:
    def __init__(self, config: RephraseConfig, grid: Grid, roles: Roles) -> None:
        self._config, self._grid, self._roles = config, grid, roles
        judge: ChatBackend | None = None
        if ChatRole.VERIFIER in roles:
            judge = roles[ChatRole.VERIFIER]
        embedder: Embedder | None = None
        if ChatRole.EMBEDDER in roles:
            embedder = roles[ChatRole.EMBEDDER]
        self._verify = Verifier(config.fidelity, judge, embedder)
        self._verify_translation = TranslationVerifier(config.fidelity, judge)
        self.reached: BudgetReached | None = None
        """A budget that was used up."""
        self.ahead = _AHEAD * roles[ChatRole.REPHRASER].endpoint.limits.concurrency

    async def rewrites(self, plan: Planned) -> list[Rewrite]:
        """Those that the budget was enough for."""
        made = await asyncio.gather(*(self._rewrite(plan, cell) for cell in plan.cells), return_exceptions=True)
        done: list[Rewrite] = []
        for one in made:
            if isinstance(one, BudgetReached):
                self.reached = self.reached or one
            elif isinstance(one, BaseException):
                raise one
            else:
                done.append(one)
        return done

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


def _metrics(written: RephrasedCorpus, roles: Roles) -> dict[str, float]:
    fates, documents = written.fates, written.documents
    return {
        **roles.metrics(),
        **{f"rephrase/rewrites/{fate}": float(number) for fate, number in fates.items()},
        **{f"rephrase/documents/{end}": float(number) for end, number in documents.items()},
    }
