"""Prompts in, conversations out: many prompts under way at a time, taken in their order, so that the same answers make the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.instruct import InstructConfig, candidate_role
from abruzzi.contracts.stage import StoreConfig
from abruzzi_jobs.chat.in_order import in_order
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.data.corpus import Progress
from abruzzi_jobs.data.curation import evaluation_sets
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.minhash import MinHash
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.data.validation.programs import refuse_without_sandbox
from abruzzi_jobs.instruct.answers import REVIEW, Answer, Answering
from abruzzi_jobs.instruct.prompt import Prompt
from abruzzi_jobs.instruct.prompts import read_prompts

NOUN = "conversations"
TOO_FEW_TO_JUDGE = 20
_AHEAD = 2
"""Prompts under way for each call that an endpoint lets through."""

Tell = Callable[[dict[str, float], int], None]
"""(metrics, prompts done)"""


async def make_conversations(
    out: Path,
    config: InstructConfig,
    *,
    roles: Roles,
    seed: int,
    store: StoreConfig | None,
    progress: Progress,
    tell: Tell = lambda metrics, step: None,
) -> dict[str, Any]:
    """Writes the rows into `out` (an empty folder), and returns what conversations.json says.

    Raises AbruzziError bad_data for sources without prompts, no_sandbox, too_many_rejected, and what the roles raise.
    """
    prompts, counts = read_prompts(config.sources, config.prompts, seed=seed, store=store)
    if config.run_programs and any(prompt.check == "program" for prompt in prompts):
        refuse_without_sandbox()
    index, sets = _foreign(config, store)
    left_out = _left_out(prompts, config, index)
    answering = Answering(config, roles)
    rows: list[dict[str, Any]] = []
    fates: Counter[str] = Counter(left_out.values())
    asked = [prompt for prompt in prompts if prompt.id not in left_out]
    done = 0

    def say() -> None:
        what = f"{fates[KEPT]} kept, {fates[REVIEW]} for people, {fates.total()} in all, {roles.answers} answers"
        progress(done, len(asked), f"answering: {what}")
        tell({**roles.metrics(), **fate_metrics(fates)}, done)

    ahead = _ahead(config, roles)
    async with in_order(asked, answering.answers, ahead=ahead, answers=lambda: roles.answers, beat=say) as found:
        async for prompt, answers in found:
            rows += [_row(prompt, answer) for answer in answers]
            fates.update(answer.fate for answer in answers)
            done += 1
            say()
            _refuse_too_many_rejected(fates, config, at_least=TOO_FEW_TO_JUDGE)
    _leave_out_late(rows, config, index)
    writer = RowShardWriter(out, NOUN)
    for prompt in prompts:
        if prompt.id in left_out:
            writer.write(_untouched(prompt, left_out[prompt.id]))
    for row in rows:
        writer.write(row)
    _refuse_too_many_rejected(writer.fates, config, at_least=1)
    return writer.close(
        prompts={"read": len(prompts), "asked": len(asked), "sources": counts},
        candidates=[candidate.endpoint for candidate in config.candidates],
        down=answering.down,
        by_candidate=_by_candidate(rows),
        verified=_verified(rows),
        evaluation_sets=sets,
        config=config.model_dump(mode="json"),
    )


def fate_metrics(fates: Mapping[str, int]) -> dict[str, float]:
    return {f"instruct/{fate}": float(number) for fate, number in fates.items()}


def _ahead(config: InstructConfig, roles: Roles) -> int:
    widest = max(roles[candidate_role(c.endpoint)].endpoint.limits.concurrency for c in config.candidates)
    return _AHEAD * widest


def _foreign(config: InstructConfig, store: StoreConfig | None) -> tuple[NgramIndex | None, list[dict[str, Any]]]:
    """What must not be learned: the index, and which sets are in it."""
    if config.decontamination is None:
        return None, []
    names = config.decontamination.against or tuple(evaluation_sets.REGISTERED)
    sets = {
        s.name: (evaluation_sets.version(s), list(s.items())) for s in evaluation_sets.chosen(names, (), store=store)
    }
    index = NgramIndex.build(((n, items) for n, (_, items) in sorted(sets.items())), words=config.decontamination.ngram)
    return index, [{"name": n, "version": v, "items": len(items)} for n, (v, items) in sorted(sets.items())]


def _left_out(prompts: Sequence[Prompt], config: InstructConfig, index: NgramIndex | None) -> dict[str, str]:
    """{id: why} of prompts that are not asked at all. Those with a known answer differ in a name or a number alone, and are meant to."""
    found: dict[str, str] = {}
    texts = [prompt.text for prompt in prompts]
    for prompt, foreign in zip(prompts, index.matches(texts) if index else [None] * len(texts), strict=True):
        if foreign is not None:
            found[prompt.id] = "contaminated"
    free = [prompt for prompt in prompts if prompt.check == "none" and prompt.id not in found]
    for i in _repeats([prompt.text for prompt in free], config):
        found[free[i].id] = "duplicate"
    return found


def _repeats(texts: Sequence[str], config: InstructConfig) -> list[int]:
    """Places of texts that repeat one before them."""
    if config.near_dedup is None or len(texts) < 2:
        return []
    near = config.near_dedup
    minhash = MinHash(shingle_words=near.shingle_words, bands=near.bands, rows=near.rows, threshold=near.threshold)
    parents = minhash.components(minhash.signatures(texts))
    return [i for i, parent in enumerate(parents.tolist()) if parent != i]


def _leave_out_late(rows: list[dict[str, Any]], config: InstructConfig, index: NgramIndex | None) -> None:
    """Of what has passed: answers that say what an evaluation set says, or what another conversation says."""
    alive = [row for row in rows if row["fate"] in (KEPT, REVIEW)]
    answers = [row["messages"][-1]["content"] for row in alive]
    for row, foreign in zip(alive, index.matches(answers) if index else [None] * len(alive), strict=True):
        if foreign is not None:
            row["fate"] = "contaminated"
            row["reasons"] = [*row["reasons"], f"shares a run of words with {foreign}"]
    kept = [row for row in alive if row["fate"] == KEPT]
    whole = ["\n".join(message["content"] for message in row["messages"]) for row in kept]
    for i in _repeats(whole, config):
        if kept[i]["right"] is not True:  # a verified answer to another question is no repetition
            kept[i]["fate"] = "duplicate"
            kept[i]["reasons"] = [*kept[i]["reasons"], "says what an earlier conversation says"]


def _row(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    return {
        "id": f"{prompt.id}#{answer.candidate}-{answer.sample}",
        "fate": answer.fate,
        "source": prompt.source,
        "licence": prompt.licence,
        "generator": answer.generator,
        "is_llm": answer.is_llm,
        "messages": [*prompt.messages(), {"role": "assistant", "content": answer.text}],
        "tools": [],
        "domain": prompt.domain,
        "prompt_id": prompt.id,
        "candidate": answer.candidate,
        "score": answer.score,
        "right": answer.right,
        "expected": prompt.answer,
        "judge": answer.judge,
        "reasons": list(answer.reasons),
        "call_ids": list(answer.call_ids),
    }


def _untouched(prompt: Prompt, fate: str) -> dict[str, Any]:
    """A prompt that nobody was asked."""
    empty = Answer(candidate="nobody", sample=0, text="", generator="", is_llm=False, fate=fate)
    return {**_row(prompt, empty), "messages": prompt.messages()}


def _by_candidate(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["candidate"], Counter())[row["fate"]] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(found.items())}


def _verified(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Of the answers whose truth is known, by the candidate that gave them: `<candidate>/right` and `<candidate>/wrong`."""
    words = {True: "right", False: "wrong"}
    return dict(
        sorted(Counter(f"{r['candidate']}/{words[r['right']]}" for r in rows if r["right"] is not None).items())
    )


def _refuse_too_many_rejected(fates: Mapping[str, int], config: InstructConfig, *, at_least: int) -> None:
    total = sum(fates.values())
    rejected = total - sum(fates.get(fate, 0) for fate in (KEPT, REVIEW, "not_best"))
    if total < at_least or rejected <= config.max_rejected * total:
        return
    told = ", ".join(f"{fate} {number}" for fate, number in sorted(fates.items(), key=lambda f: (-f[1], f[0])))
    raise AbruzziError(
        "too_many_rejected",
        f"{rejected} of {total} answers were rejected, more than instruct.max_rejected = {config.max_rejected:g} allows: {told}.",
        hint="Use stronger candidates, or other rules. `max_rejected = 1.0` lets the stage go on; answers are not asked for twice.",
    )
