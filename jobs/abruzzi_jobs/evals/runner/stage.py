"""The suites of an `evaluate` stage: run one after another, their answers written as rows, their summaries as suites.json.

Over the indices of a job each asks its share of every suite, and says so in the object store when it has; index 0 waits for the others and writes it all.
scores.json holds {suite: {item: score or null}}: what two evaluations are compared by, item by item.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from abruzzi.client.stage import StageContext
from abruzzi.contracts.endpoint import ChatRole, CheckpointEndpoint
from abruzzi.contracts.evaluation import SuiteSummary
from abruzzi.contracts.recipe import EvaluateStage
from abruzzi.plan.placement import INDEXED_JOB
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.chat.stage import stage_roles
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.data.text_shards import read_corpus, read_split
from abruzzi_jobs.evals.runner.contamination import Contamination
from abruzzi_jobs.evals.runner.items import items_of
from abruzzi_jobs.evals.runner.run import Asked, Share, Tell, run_suite, summarize
from abruzzi_jobs.evals.suites.registry import open_suite, reference_of
from abruzzi_jobs.evals.suites.suite import Suite

NOUN = "answers"
SUITES_FILE, SCORES_FILE = "suites.json", "scores.json"
CORPUS = "corpus"
_AHEAD = 4
"""Items under way for each call that the target lets through: while the oldest is scored the others go on."""
_TEXTS_AT_A_TIME = 256
_LOOK_SECONDS = 1.0


def share_of(context: StageContext, stage: EvaluateStage) -> Share:
    """What this rank asks of each suite. Without `framework = "indexed-job"` rank 0 asks all of it."""
    if stage.resources.framework != INDEXED_JOB:
        return Share()
    return Share(index=context.rank, count=context.world_size)


async def run_suites(
    context: StageContext,
    stage: EvaluateStage,
    out: Path,
    *,
    progress: Tell,
    log: Callable[[dict[str, float], int], None],
    commit: Callable[[list[SuiteSummary]], None],
) -> None:
    """Writes into `out`, then calls `commit`, and removes what the next attempt would have gone on from.

    Raises AbruzziError bad_data, unknown_suite, and what an endpoint raises. What is finished is kept for the next attempt.
    """
    suites = _suites(stage)
    summaries: list[SuiteSummary] = []
    async with stage_roles(context, stage.asked_roles(), stage.endpoint, seed=stage.seed) as roles:
        writer, finished = RowShardWriter(out, NOUN), []
        with (out / SCORES_FILE).open("w", encoding="utf-8") as scores:
            scores.write("{")
            for number, suite in enumerate(suites):
                asked = await _asked(context, stage, suite, roles, progress)
                await _others_finished(context, asked, progress)
                finished.append(asked)
                foreign = await foreign_items(context, asked, progress)
                summaries.append(_summary(asked, foreign, writer, scores, is_first=number == 0))
                log(roles.metrics(), sum(summary.items for summary in summaries))
            scores.write("}\n")
        writer.close(suites=[summary.suite for summary in summaries])
        described = [summary.model_dump(mode="json") for summary in summaries]
        (out / SUITES_FILE).write_text(
            json.dumps({"suites": described}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        await roles.write_calls(out)
        commit(summaries)
        for asked in finished:
            asked.discard()
        await roles.discard_calls()


async def run_share(
    context: StageContext, stage: EvaluateStage, *, progress: Tell, log: Callable[[dict[str, float], int], None]
) -> None:
    """The share of an index other than 0, of each suite, into the object store. Raises as run_suites does."""
    share, done = share_of(context, stage), 0
    async with stage_roles(context, stage.asked_roles(), stage.endpoint, seed=stage.seed) as roles:
        for suite in _suites(stage):
            asked = await _asked(context, stage, suite, roles, progress)
            await roles.flush()  # before it is said: index 0 writes all calls, and then removes their log
            await asyncio.to_thread(asked.journals[share.index].finish, context.spec.attempt_id)
            done += share.size(asked.items)
            log(roles.metrics(), done)


def _suites(stage: EvaluateStage) -> list[Suite]:
    return [open_suite(reference, config) for reference, config in stage.suites.items()]


async def _asked(context: StageContext, stage: EvaluateStage, suite: Suite, roles: Roles, progress: Tell) -> Asked:
    return await run_suite(
        suite,
        roles,
        store=context.store,
        prefix=context.spec.output_prefix,
        identity=_identity(context, stage),
        ahead=_AHEAD * roles[ChatRole.TARGET].endpoint.limits.concurrency,
        share=share_of(context, stage),
        answers=lambda: roles.answers,
        tell=progress,
    )


async def _others_finished(context: StageContext, asked: Asked, tell: Tell) -> None:
    """Opens the other indices' journals once this attempt has finished them. `tell` is called while it waits."""
    waiting = dict(enumerate(asked.journals[1:], 1))
    while waiting:
        for index, journal in list(waiting.items()):
            if await asyncio.to_thread(journal.is_finished, context.spec.attempt_id):
                await asyncio.to_thread(journal.open)
                del waiting[index]
        here = len(asked.journals) - len(waiting)
        tell(
            here,
            len(asked.journals),
            f"collecting {here} of {len(asked.journals)} shares of {reference_of(asked.suite)}",
        )
        if waiting:
            await asyncio.sleep(_LOOK_SECONDS)


def facts_of(summaries: list[SuiteSummary]) -> dict[str, float]:
    """`<suite>.<metric>`, and `<metric>` alone where there is one suite: what gates name."""
    found = {
        f"{summary.suite.partition('@')[0]}.{name}": value
        for summary in summaries
        for name, value in summary.facts().items()
    }
    return found | (summaries[0].facts() if len(summaries) == 1 else {})


def target_of(context: StageContext, stage: EvaluateStage) -> dict[str, Any]:
    """Who was evaluated: an endpoint and its model, or the checkpoint that was served, and how its positions were turned where otherwise than trained."""
    name = stage.roles[ChatRole.TARGET].endpoint
    endpoint = stage.endpoint[name]
    found: dict[str, Any] = {"endpoint": name, "kind": endpoint.kind.value, "model": getattr(endpoint, "model", None)}
    if isinstance(endpoint, CheckpointEndpoint):
        served = context.input(f"{name}.checkpoint").manifest
        found |= {
            "digest": served.digest(),
            "run_id": served.run_id,
            "stage_id": served.stage_id,
            "name": served.name,
            "step": served.step,
            "trained_length": served.meta.get("trained_length"),
            "trained_yarn": served.meta.get("yarn"),
        }
        if endpoint.yarn is not None:
            found["yarn"] = endpoint.yarn.said
    return found


def _identity(context: StageContext, stage: EvaluateStage) -> str:
    name = stage.roles[ChatRole.TARGET].endpoint
    served = context.spec.inputs.get(f"{name}.checkpoint")
    return f"{stage.endpoint[name].model_dump_json()} {served.digest if served else ''} {stage.roles[ChatRole.TARGET].model_dump_json()}"


async def foreign_items(context: StageContext, asked: Asked, tell: Tell) -> frozenset[str] | None:
    """Ids of items that share words with the text that the target was trained on; None where nobody knows that text, or the items have no question in
    words. `tell` hears of every few hundred texts, and what it raises ends the search."""
    if CORPUS not in context.spec.inputs:
        return None
    folder = await asyncio.to_thread(lambda: context.input(CORPUS).folder)
    index = await asyncio.to_thread(lambda: Contamination(items_of(asked.suite)))
    if not index.can_tell:
        return None
    total, done = int(read_corpus(folder).get("train_documents") or 0), 0
    remaining = (record.text for record in read_split(folder, "train"))
    while read := await asyncio.to_thread(_look, index, remaining):
        done += read
        tell(done, max(total, done), f"{reference_of(asked.suite)}'s items, looked for in the training text")
    return await asyncio.to_thread(index.found)


def _look(index: Contamination, remaining: Iterator[str]) -> int:
    texts = list(islice(remaining, _TEXTS_AT_A_TIME))
    if texts:
        index.look(texts)
    return len(texts)


def _summary(
    asked: Asked, foreign: frozenset[str] | None, writer: RowShardWriter, scores: TextIO, *, is_first: bool
) -> SuiteSummary:
    scores.write(f"{'' if is_first else ','}\n{json.dumps(reference_of(asked.suite))}: {{")
    comma = ""

    def write_score(item: str, score: float | None) -> None:
        nonlocal comma
        line = (
            f"{comma}\n{json.dumps(item, ensure_ascii=False)}: {json.dumps(None if score is None else round(score, 6))}"
        )
        scores.write(line.encode("utf-8", "replace").decode())
        comma = ","

    summary = summarize(asked, foreign=foreign, take=writer.write, score=write_score)
    scores.write("}")
    return summary
