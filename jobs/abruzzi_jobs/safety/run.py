"""A grid of attacks in, rows and a matrix out: many prompts under way at a time, taken in their order, so that the same answers make the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abruzzi.contracts.endpoint import ChatRole
from abruzzi.contracts.redteam import AttackFate, RedteamConfig, Strategy, attack_row_id
from abruzzi.contracts.safety_matrix import safety_facts, safety_matrix
from abruzzi_jobs.chat.in_order import in_order
from abruzzi_jobs.chat.request import STANDIN_GENERATOR, ChatBackend
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.data.corpus import Progress
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.safety.attackers import Attempt, Played, Target, crescendo, iterative_jailbreak, single
from abruzzi_jobs.safety.grading import Look, look
from abruzzi_jobs.safety.plugins import sub_plugins
from abruzzi_jobs.safety.printing import matrix_markdown
from abruzzi_jobs.safety.seeds import AttackSeed, read_seeds
from abruzzi_jobs.safety.strategies import transformed

NOUN = "redteam"
_AHEAD = 2
"""Prompts under way for each call that the target's endpoint lets through."""

Tell = Callable[[dict[str, float], int], None]
"""(metrics, prompts done)"""


@dataclass(frozen=True, slots=True)
class Planned:
    id: str
    seed: AttackSeed
    strategy: Strategy


def plan(config: RedteamConfig, *, seed: int) -> tuple[list[Planned], dict[str, int]]:
    """Everything that is asked, in the order of the grid, and {"plugin/sub-plugin/language": seeds} of cells with fewer than they should have.

    Raises what `read_seeds` raises."""
    wanted = config.sub_plugins()
    seeds = read_seeds(config.seeds, wanted, config.languages, prompts=config.prompts, seed=seed)
    work = [
        Planned(attack_row_id(plugin, name, strategy, language, number), attack, strategy)
        for (plugin, name, language), attacks in seeds.items()
        for strategy in config.strategies
        for number, attack in enumerate(attacks)
    ]
    short = {"/".join(cell): len(attacks) for cell, attacks in seeds.items() if len(attacks) < config.prompts}
    return work, short


async def attack(
    out: Path,
    config: RedteamConfig,
    *,
    roles: Roles,
    seed: int,
    progress: Progress,
    tell: Tell = lambda metrics, step: None,
) -> dict[str, Any]:
    """Writes rows, redteam.json and report.md into `out` (an empty folder), and returns what redteam.json says.

    Raises AbruzziError bad_data, missing_package, and what the roles raise."""
    work, short = plan(config, seed=seed)
    rows: list[dict[str, Any]] = []
    fates: Counter[str] = Counter()

    def say() -> None:
        told = ", ".join(f"{fates[fate]} {fate}" for fate in AttackFate)
        progress(len(rows), len(work), f"attacking: {told}, {roles.answers} answers")
        tell({**roles.metrics(), **{f"redteam/{fate}": float(fates[fate]) for fate in AttackFate}}, len(rows))

    async def play(planned: Planned) -> Played:
        return await _play(planned, config, roles, seed=seed)

    ahead = _AHEAD * roles[ChatRole.TARGET].endpoint.limits.concurrency
    async with in_order(work, play, ahead=ahead, answers=lambda: roles.answers, beat=say) as found:
        async for planned, played in found:
            rows.append(_row(planned, played))
            fates[rows[-1]["fate"]] += 1
            say()
    return write(out, rows, config, short=short, seed=seed)


def write(
    out: Path, rows: list[dict[str, Any]], config: RedteamConfig | None, *, short: Mapping[str, int], seed: int | None
) -> dict[str, Any]:
    """The files of the artifact; redteam.json and report.md hold nothing of what was asked and answered."""
    writer = RowShardWriter(out, NOUN)
    for row in rows:
        writer.write(row)
    matrix = safety_matrix(rows)
    (out / "report.md").write_text(matrix_markdown(matrix) + "\n", encoding="utf-8")
    return writer.close(
        matrix=matrix.model_dump(mode="json"),
        facts=safety_facts(matrix),
        short=dict(short),
        sources=dict(sorted(Counter(row["source"] for row in rows).items())),
        attacker_refusals=sum(row["attacker_refusals"] for row in rows),
        config=None if config is None else config.model_dump(mode="json", exclude={"system"}),
        seed=seed,
    )


async def _play(planned: Planned, config: RedteamConfig, roles: Roles, *, seed: int) -> Played:
    entry, goal = sub_plugins()[planned.seed.plugin, planned.seed.sub_plugin], planned.seed.prompt
    judge: ChatBackend | None = None
    if ChatRole.JUDGE in roles:
        judge = roles[ChatRole.JUDGE]

    async def view(answer: str) -> Look:
        return await look(judge, entry, goal, answer)

    target = Target(roles[ChatRole.TARGET], view, config.system)
    match planned.strategy:
        case Strategy.ITERATIVE_JAILBREAK:
            return await iterative_jailbreak(roles[ChatRole.ATTACKER], target, goal, config)
        case Strategy.CRESCENDO:
            return await crescendo(roles[ChatRole.ATTACKER], target, goal, config)
    return await single(target, transformed(planned.strategy, goal, seed=seed))


def _row(planned: Planned, played: Played) -> dict[str, Any]:
    decisive = played.decisive
    found = decisive.look if decisive is not None else None
    fate = found.fate if found is not None else AttackFate.NO_VERDICT
    notes = [attempt.note for attempt in played.attempts if attempt.note]
    who = played.generators
    is_llm = bool(who) and all(llm for _, llm in who.values())
    generator = who.get("target", ("", False))[0]
    return {
        "id": planned.id,
        "fate": fate.value,
        "plugin": planned.seed.plugin.value,
        "sub_plugin": planned.seed.sub_plugin,
        "strategy": planned.strategy.value,
        "language": planned.seed.language,
        "rules": found.rules.value if found else None,
        "judge": found.judge.value if found and found.judge else None,
        "turns": sum(attempt.answer is not None for attempt in played.attempts),
        "attacker_refusals": sum(note == "attacker: refused" for note in notes),
        "source": planned.seed.source,
        "licence": planned.seed.licence,
        "generator": generator if is_llm else (STANDIN_GENERATOR if who else ""),
        "is_llm": is_llm,
        "generators": {role: name for role, (name, _) in sorted(who.items())},
        "goal": planned.seed.prompt,
        "messages": played.messages,
        "tools": [],
        "attempts": [_attempt(attempt) for attempt in played.attempts],
        "reasons": [*(found.reasons if found else ()), *notes],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    found = attempt.look
    return {
        "prompt": attempt.prompt,
        "answer": attempt.answer,
        "fate": found.fate.value if found else None,
        "rules": found.rules.value if found else None,
        "judge": found.judge.value if found and found.judge else None,
        "reasons": list(found.reasons) if found else [],
        "note": attempt.note,
        "taken_back": attempt.is_taken_back,
        "finish_reason": attempt.finish_reason,
        "call_ids": list(attempt.call_ids),
    }


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """Of a folder that `write` has filled, such as a pulled artifact."""
    from abruzzi_jobs.data.row_shards import read_rows

    yield from read_rows(folder, NOUN)
