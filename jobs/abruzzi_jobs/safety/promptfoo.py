"""promptfoo's result files, written and read: its `OutputFile` with `EvaluateSummaryV3` inside (version 0.123, dist/src/index.d.ts). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.redteam import AttackFate, Strategy, attack_row_id
from abruzzi_jobs.chat.request import STANDIN_GENERATOR
from abruzzi_jobs.safety.plugins import by_promptfoo_id, sub_plugins

_STRATEGIES: Mapping[Strategy, str] = {
    Strategy.BASIC: "basic",
    Strategy.BASE64: "base64",
    Strategy.PROMPT_INJECTION: "prompt-injection",
    Strategy.ITERATIVE_JAILBREAK: "jailbreak",
    Strategy.CRESCENDO: "crescendo",
}
_READ_STRATEGIES: Mapping[str, Strategy] = {
    **{name: strategy for strategy, name in _STRATEGIES.items()},
    "jailbreak-templates": Strategy.PROMPT_INJECTION,
    "jailbreak:iterative": Strategy.ITERATIVE_JAILBREAK,
}
_NONE, _ASSERT, _ERROR = 0, 1, 2
"""Its ResultFailureReason."""
_PROMPT_ID = "abruzzi-redteam"
_NOBODY = "none"
"""Its provider has a name; ours of a row that nobody answered has none."""


def to_promptfoo(rows: Iterable[Mapping[str, Any]], *, timestamp: str) -> dict[str, Any]:
    """`timestamp`: ISO 8601. What waits for a person is written as failed, and its reason says so; no verdict is an error there."""
    results = [_result(number, row) for number, row in enumerate(rows)]
    counts = Counter(result["failureReason"] for result in results)
    providers = sorted({result["provider"]["id"] for result in results})
    usage = _usage()
    metrics = {
        "score": float(counts[_NONE]), "testPassCount": counts[_NONE], "testFailCount": counts[_ASSERT], "testErrorCount": counts[_ERROR],
        "assertPassCount": counts[_NONE], "assertFailCount": counts[_ASSERT], "totalLatencyMs": 0, "tokenUsage": usage, "namedScores": {},
        "namedScoresCount": {}, "cost": 0,
    }  # fmt: skip
    prompts = [
        {"raw": "{{prompt}}", "label": "{{prompt}}", "id": _PROMPT_ID, "provider": provider, "metrics": metrics}
        for provider in providers
    ]
    stats = {"successes": counts[_NONE], "failures": counts[_ASSERT], "errors": counts[_ERROR], "tokenUsage": usage}
    return {
        "evalId": None,
        "results": {"version": 3, "timestamp": timestamp, "prompts": prompts, "results": results, "stats": stats},
        "config": {"description": "Abruzzi redteam", "prompts": ["{{prompt}}"], "providers": providers},
        "shareableUrl": None,
        "metadata": {"promptfooVersion": "0.123.1", "exportedAt": timestamp},
    }


def from_promptfoo(document: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(rows of ours, {"plugin/strategy": results of what is not in the grid}). Verdicts are promptfoo's grader's: they stand where the judge's would.

    Raises AbruzziError bad_data for what is no such file."""
    results = _object(_object(document, "the file").get("results"), "results").get("results")
    if not isinstance(results, list):
        raise _no_file("results.results is no list")
    rows: list[dict[str, Any]] = []
    outside: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for result in results:
        metadata = _facts(_object(result, "a result"))
        plugin_id, strategy_id = str(metadata.get("pluginId", "")), str(metadata.get("strategyId") or "basic")
        entry, strategy = by_promptfoo_id().get(plugin_id), _READ_STRATEGIES.get(strategy_id)
        if entry is None or strategy is None:
            outside[f"{plugin_id or 'none'}/{strategy_id}"] += 1
            continue
        language = str(metadata.get("language") or "en")
        place = f"{entry.plugin}/{entry.name}/{strategy}/{language}"
        row_id = attack_row_id(entry.plugin, entry.name, strategy, language, numbers[place])
        numbers[place] += 1
        rows.append(
            {
                **_read(result),
                "id": row_id,
                "plugin": entry.plugin.value,
                "sub_plugin": entry.name,
                "strategy": strategy.value,
                "language": language,
            }
        )
    return rows, dict(sorted(outside.items()))


def _result(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    entry = next(e for e in sub_plugins().values() if (e.plugin.value, e.name) == (row["plugin"], row["sub_plugin"]))
    fate = AttackFate(row["fate"])
    messages: Sequence[Mapping[str, Any]] = row["messages"]
    asked, answer = _decisive(row, fate)
    metadata = {
        "pluginId": entry.promptfoo, "strategyId": _STRATEGIES[Strategy(row["strategy"])], "goal": row["goal"], "language": row["language"],
        "messages": list(messages),
    }  # fmt: skip
    failure = _ERROR if fate is AttackFate.NO_VERDICT else _NONE if fate is AttackFate.PASS else _ASSERT
    said = "; ".join(row["reasons"])
    reason = f"waits for a person: {said}" if fate is AttackFate.REVIEW else said
    result: dict[str, Any] = {
        "id": row["id"],
        "promptIdx": 0,
        "testIdx": number,
        "testCase": {"vars": {"prompt": row["goal"]}, "metadata": metadata},
        "promptId": _PROMPT_ID,
        "provider": {"id": row["generator"] or _NOBODY},
        "prompt": {"raw": asked, "label": "{{prompt}}"},
        "vars": {"prompt": asked},
        "failureReason": failure,
        "success": failure == _NONE,
        "score": float(failure == _NONE),
        "latencyMs": 0,
        "namedScores": {},
        "metadata": metadata,
    }
    if answer is not None:
        result["response"] = {"output": answer}
    if failure == _ERROR:
        return {**result, "error": reason or "no verdict"}
    return {**result, "gradingResult": {"pass": failure == _NONE, "score": float(failure == _NONE), "reason": reason}}


def _decisive(row: Mapping[str, Any], fate: AttackFate) -> tuple[str, str | None]:
    """(what was asked, what was answered) where the row's fate was decided: as in `Played.decisive`, which a conversation may go on after."""
    looked = [attempt for attempt in row.get("attempts", ()) if attempt.get("fate") == fate.value]
    if looked:
        attempt = looked[-1 if fate is AttackFate.PASS else 0]
        return attempt["prompt"], attempt["answer"]
    messages: Sequence[Mapping[str, Any]] = row["messages"]
    asked = next((m["content"] for m in reversed(messages) if m["role"] == "user"), row["goal"])
    return asked, next((m["content"] for m in reversed(messages) if m["role"] == "assistant"), None)


def _read(result: Mapping[str, Any]) -> dict[str, Any]:
    metadata = _facts(result)
    output = _object(result.get("response"), "response").get("output")
    answer = output if isinstance(output, str) else None
    asked = str(_object(result.get("prompt"), "prompt").get("raw") or "")
    grading = _object(result.get("gradingResult"), "gradingResult")
    provider = str(_object(result.get("provider"), "provider").get("id") or "")
    generator = "" if provider == _NOBODY else provider
    is_error = result.get("failureReason") == _ERROR or (answer is None and not grading)
    passed = bool(grading.get("pass", result.get("success")))
    fate = AttackFate.NO_VERDICT if is_error else AttackFate.PASS if passed else AttackFate.FAIL
    messages = metadata.get("messages")
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": asked}]
        messages += [] if answer is None else [{"role": "assistant", "content": answer}]
    return {
        "fate": fate.value, "rules": None, "judge": None if is_error else fate.value, "turns": 0 if answer is None else 1, "attacker_refusals": 0,
        "source": "promptfoo", "licence": "", "generator": generator, "is_llm": generator not in ("", STANDIN_GENERATOR), "generators": {},
        "goal": str(metadata.get("goal") or asked), "messages": messages, "tools": [], "attempts": [],
        "reasons": [str(text) for text in (grading.get("reason"), result.get("error")) if text],
    }  # fmt: skip


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    """Its metadata: of the case, then its own. Raises AbruzziError bad_data."""
    case = _object(result.get("testCase"), "testCase")
    return {**_object(case.get("metadata"), "testCase.metadata"), **_object(result.get("metadata"), "metadata")}


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """Empty where there is none. Raises AbruzziError bad_data."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _no_file(f"{name} is no object")
    return value


def _no_file(why: str) -> AbruzziError:
    return AbruzziError(
        "bad_data",
        f"This is no promptfoo result file ({why}).",
        hint="`promptfoo eval --output results.json` writes one.",
    )


def _usage() -> dict[str, Any]:
    return {"total": 0, "prompt": 0, "completion": 0, "cached": 0, "numRequests": 0}
