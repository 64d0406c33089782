"""The clauses that a program decides. What is said in a conversation is data here: nothing of it can change what is looked at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from abruzzi.contracts.agent import (
    AnswerClause,
    CallClause,
    CallRecord,
    Change,
    DiffClause,
    NoErrorClause,
    ProbeClause,
    StateClause,
    Task,
    Verdict,
)
from abruzzi_jobs.synthesis.judge.episode import Episode, told
from abruzzi_jobs.synthesis.judge.matching import References, unlike
from abruzzi_jobs.synthesis.world import Snapshot, difference

_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_SAID_AT_MOST = 300


def checks(task: Task, episode: Episode) -> list[Verdict]:
    """One verdict for every clause but the judge's, in the rubric's order."""
    verdicts = []
    for clause in task.rubric:
        if clause.kind != "judge":
            faults = _CHECKS[clause.kind](clause, episode)
            by = "state" if clause.kind in ("state", "diff") else "check"
            why = "; ".join(faults)[:_SAID_AT_MOST] if faults else "as asked"
            verdicts.append(Verdict(clause=clause.id, passed=not faults, by=by, why=why))
    return verdicts


def _state(clause: StateClause, episode: Episode) -> list[str]:
    if episode.after is None:
        return ["there is no world to look at"]
    rows = [row for row in episode.after.get(clause.entity, ()) if _has(row, clause.where)]
    if clause.count is None and not rows:
        return [f"no {clause.entity} has {_said(clause.where)}"]
    if clause.count is not None and len(rows) != clause.count:
        return [f"{len(rows)} rows of {clause.entity} have {_said(clause.where)}, not {clause.count}"]
    return [
        f"{name} of {clause.entity} {row.get(f'{clause.entity}_id')} is {row.get(name)!r}, not {value!r}"
        for row in rows
        for name, value in clause.values.items()
        if not _has(row, {name: value})
    ]


def _has(row: dict[str, Any], values: dict[str, Any]) -> bool:
    return all(name in row and row[name] == value for name, value in values.items())


def _said(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in values.items()) or "anything"


def _diff(clause: DiffClause, episode: Episode) -> list[str]:
    if episode.before is None or episode.after is None:
        return ["there is no world to look at"]
    found = [Change(**change) for change in difference(episode.before, episode.after)]
    return unlike(clause.changes, found, _references(episode.after))


def _references(snapshot: Snapshot) -> References:
    """A field called <entity>_id refers to that entity: so the applications' generator and author name references."""
    known = {f"{entity}_id": entity for entity in snapshot}
    return {
        (entity, name): known[name]
        for entity, rows in snapshot.items()
        for name in (rows[0] if rows else ())
        if name in known and known[name] != entity
    }


def _call(clause: CallClause, episode: Episode) -> list[str]:
    counted = [n for n, call in enumerate(episode.calls) if (call.ok or clause.tried) and _matches(clause, call)]
    name = clause.tool or "a tool"
    if len(counted) < clause.at_least:
        return [f"{name} was called so {len(counted)} times, not {clause.at_least}"]
    if clause.at_most is not None and len(counted) > clause.at_most:
        return [f"{name} was called so {len(counted)} times, more than {clause.at_most}"]
    if clause.after is not None and counted:
        earlier = [call for call in episode.calls[: counted[0]] if call.ok and call.tool == clause.after]
        if not earlier:
            return [f"{name} was called before {clause.after}"]
    return []


def _matches(clause: CallClause, call: CallRecord) -> bool:
    if clause.tool is not None and clause.tool != call.tool:
        return False
    return all(
        name in call.arguments and _like(value, call.arguments[name]) for name, value in clause.arguments.items()
    )


def _like(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, str) and isinstance(given, str):
        return _plain(wanted) == _plain(given)
    if isinstance(wanted, dict) and isinstance(given, dict):
        return wanted.keys() <= given.keys() and all(_like(value, given[name]) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(_like(a, b) for a, b in zip(wanted, given, strict=True))
    return (type(wanted) is not bool and type(given) is not bool and wanted == given) or wanted is given


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def _answer(clause: AnswerClause, episode: Episode) -> list[str]:
    text = told(episode.messages)
    faults = [f"the answer does not say {part!r}" for part in clause.contains if not says(text, part)]
    if clause.any_of and not any(says(text, part) for part in clause.any_of):
        faults.append(f"the answer says none of: {', '.join(clause.any_of)}")
    faults += [f"the answer says {part!r}" for part in clause.excludes if says(text, part)]
    if clause.number is not None and not any(abs(n - clause.number) <= clause.tolerance for n in numbers(text)):
        faults.append(f"the answer does not give the number {clause.number:g}")
    return faults


def says(text: str, part: str) -> bool:
    """Whole words, whatever their case and the blanks between them."""
    words = r"\s+".join(map(re.escape, part.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text.replace("\u2019", "'"), re.IGNORECASE) is not None


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "").replace("\u2212", "-")) for found in _NUMBER.findall(text)]


def _no_error(clause: NoErrorClause, episode: Episode) -> list[str]:
    failed = [call.tool for call in episode.calls if not call.ok and call.fault is None]
    if len(failed) > clause.at_most:
        return [f"{len(failed)} calls failed, more than {clause.at_most}: {', '.join(failed)}"]
    return []


def _probe(clause: ProbeClause, episode: Episode) -> list[str]:
    answer = next((probe for probe in episode.probes if probe.clause == clause.id), None)
    if answer is None or not answer.ok:
        return [f"{clause.call.tool.name} could not be asked afterwards"]
    faults = [f"{clause.call.tool.name} does not say {part!r}" for part in clause.contains if part not in answer.answer]
    return faults + [f"{clause.call.tool.name} says {part!r}" for part in clause.excludes if part in answer.answer]


_CHECKS: dict[str, Callable[[Any, Episode], list[str]]] = {
    "state": _state,
    "diff": _diff,
    "call": _call,
    "answer": _answer,
    "no_error": _no_error,
    "probe": _probe,
}
