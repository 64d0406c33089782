"""Rows as the data stages write them, for the dashboard's pages: small, told by hand, in the shapes of the real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

STANDIN = "standin-rule-v1"
ELEMENTS = (
    ("iron", "Fe", 26, 1811, "1200 BC"), ("copper", "Cu", 29, 1358, "9000 BC"), ("gold", "Au", 79, 1337, "6000 BC"), ("silver", "Ag", 47, 1235, "5000 BC"),
    ("tin", "Sn", 50, 505, "3000 BC"), ("lead", "Pb", 82, 601, "7000 BC"), ("zinc", "Zn", 30, 693, "1000 BC"), ("nickel", "Ni", 28, 1728, "1751"),
)  # fmt: skip


def source_of(element: tuple[str, str, int, int, str]) -> tuple[str, str]:
    name, symbol, number, melts, since = element
    return (
        f"The element {name} has the symbol {symbol}. Its atomic number is {number}, and it melts at {melts} K.",
        f"It is not found pure on the surface of the Earth. Smiths have worked it since about {since}.",
    )


def told(element: tuple[str, str, int, int, str], *, wrong: bool) -> tuple[str, str]:
    name, symbol, number, melts, since = element
    occurs = "occurs pure" if wrong else "does not occur pure"
    return (
        f"{name.capitalize()}, written {symbol}, is element number {number + wrong}. At {melts} K it turns liquid.",
        f"On the Earth's surface it {occurs}; smiths have known how to work it since around {since}.",
    )


DOMAINS = ("knowledge", "web", "mathematics")
STYLES = ("encyclopedia", "plain", "lecture", "dialogue")
PERSPECTIVES = ("neutral", "expert", "newcomer")


def rewrites(count: int) -> Iterator[dict[str, Any]]:
    """Every fifth says a wrong number and turns a denial round."""
    for number in range(count):
        is_wrong = number % 5 == 2
        element = ELEMENTS[(number // 4) % len(ELEMENTS)]
        sources, texts = source_of(element), told(element, wrong=is_wrong)
        source_text, text = "\n\n".join(sources), "\n\n".join(texts)
        yield {
            "id": f"rewrite-{number:05d}", "fate": "number" if is_wrong else "kept", "source": "mendeleev", "licence": "MIT",
            "generator": STANDIN, "is_llm": False, "document": f"doc-{number // 4:04d}", "domain": DOMAINS[number % 3], "name": f"element {number // 4}",
            "style": STYLES[number % 4], "perspective": PERSPECTIVES[number % 3], "prompt_version": "grid-1", "source_text": source_text, "text": text,
            "chunks": [{"source": s, "text": t, "tries": 3 if is_wrong else 1} for s, t in zip(sources, texts, strict=True)],
            "faults": faults(source_text, text, element[2]) if is_wrong else [], "scores": {"likeness": 0.71, "novelty": 0.33, "length_ratio": 0.86},
            "call_ids": [f"{number:064x}"],
        }  # fmt: skip


def faults(source_text: str, text: str, number: int) -> list[dict[str, Any]]:
    def span(whole: str, part: str) -> list[int]:
        return [whole.index(part), whole.index(part) + len(part)]

    return [
        {"kind": "number", "layer": "rules", "detail": f"{number} of the source is {number + 1} here",
         "source_span": span(source_text, f"{number}"), "text_span": span(text, f"{number + 1}")},
        {"kind": "negation", "layer": "rules", "detail": "the source denies it", "source_span": span(source_text, "not found pure"), "text_span": span(text, "occurs pure")},
    ]  # fmt: skip


def call(number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"functions.{name}:{number}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    }


def answer(number: int, name: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"functions.{name}:{number}", "content": json.dumps(content)}


TOOLS = [
    {"name": "find_report", "description": "Find reports by their heading.", "parameters": {"type": "object"}},
    {"name": "publish_report", "description": "Publish a draft.", "parameters": {"type": "object"}},
]
BEFORE = {
    "dataset": [{"dataset_id": 2, "title": "tickets", "rows": 412}],
    "report": [{"report_id": 7, "heading": "support load", "status": "draft", "viewers": 0}],
}
AFTER = {
    **BEFORE,
    "report": [
        {"report_id": 7, "heading": "support load", "status": "published", "viewers": 0},
        {"report_id": 8, "heading": "support load (copy)", "status": "draft", "viewers": 0},
    ],
}
CHANGE = {"entity": "report", "id": 7, "before": {"status": "draft"}, "after": {"status": "published"}}


def trajectories() -> Iterator[dict[str, Any]]:
    """One that was kept, with an injected fault on its way; one that did not do what was asked."""
    yield trajectory("trajectory-kept", "kept", 0.94, done=True)
    yield trajectory("trajectory-lost", "rubric_failed", 0.4, done=False)


def trajectory(row_id: str, fate: str, score: float, *, done: bool) -> dict[str, Any]:
    found = {"items": [BEFORE["report"][0]], "complete": True}
    timeout = {"error": {"code": "timeout", "message": "No answer in time; it is not known whether it was done."}}
    messages = [
        {"role": "system", "content": "You help the analysts of a company with their reports. Look before you change anything."},
        {"role": "user", "content": "Please publish the report on support load."},
        {"role": "assistant", "content": "I look for it first.", "tool_calls": [call(0, "find_report", {"heading": "support load"})]},
        answer(0, "find_report", found),
    ]  # fmt: skip
    calls = [
        {"turn": 1, "tool": "find_report", "source": "synthetic:enterprise-bi/reporting", "arguments": {"heading": "support load"}, "answer": found, "ok": True,
         "fault": None, "changes": [], "is_real": False},
    ]  # fmt: skip
    if done:
        messages += [{"role": "assistant", "content": "", "tool_calls": [call(1, "publish_report", {"report_id": 7})]}, answer(1, "publish_report", timeout)]  # fmt: skip
        calls.append(
            {"turn": 2, "tool": "publish_report", "source": "synthetic:enterprise-bi/reporting", "arguments": {"report_id": 7}, "answer": timeout, "ok": False,
             "fault": "lost_answer", "changes": [CHANGE], "is_real": False}
        )  # fmt: skip
    messages.append(
        {"role": "assistant", "content": "It is published." if done else "There are many reports; which one is it?"}
    )
    return {
        "id": row_id, "fate": fate, "source": "synthetic:enterprise-bi/reporting", "licence": "CC0-1.0", "generator": STANDIN, "is_llm": False, "seed": 326160080,
        "task": {
            "id": "task-09f20f94bd05", "instruction": "Please publish the report on support load.", "difficulty": "simple",
            "persona": {"name": "Jonas", "style": "in a hurry", "hidden_goal": "the report is published and nothing else changes"},
            "rubric": [
                {"id": "state-1", "text": "Report 7 is published.", "kind": "state", "mandatory": True, "weight": 1.0},
                {"id": "diff", "text": "Nothing else has changed.", "kind": "diff", "mandatory": True, "weight": 1.0},
                {"id": "fluent", "text": "The answer is to the point.", "kind": "judge", "mandatory": False, "weight": 0.5},
            ],
        },
        "agent": {"id": "agent-e0e950f4c2d9", "system_prompt": messages[0]["content"]}, "tools": TOOLS, "messages": messages, "calls": calls,
        "world": {"application": "synthetic:enterprise-bi/reporting", "seed": 5, "before": BEFORE, "after": AFTER if done else BEFORE,
                  "digest_before": "sha256:" + "a" * 64, "digest_after": "sha256:" + ("b" if done else "a") * 64},
        "verdicts": [
            {"clause": "state-1", "passed": done, "by": "state", "why": "report 7 is published" if done else "report 7 is still a draft"},
            {"clause": "diff", "passed": not done, "by": "state", "why": "report 8 is new" if done else "nothing changed"},
            {"clause": "fluent", "passed": None, "by": "judge", "why": "asked twice, it said both"},
        ],
        "score": score, "reasons": [] if done else ["state-1 does not hold"], "ended_by": "user", "why": "", "turns": 3 if done else 2,
        "generators": {"agent": STANDIN, "user": "script", "judge": STANDIN}, "call_ids": [],
    }  # fmt: skip


def conversations(waiting: int) -> Iterator[dict[str, Any]]:
    """`waiting` about which people decide, thirty that were kept, four that were not."""
    fates = ["review"] * waiting + ["kept"] * 30 + ["too_short"] * 4
    for number, fate in enumerate(fates):
        yield {
            "id": f"conversation-{number:03d}", "fate": fate, "source": "synthesis", "licence": "CC0-1.0", "generator": STANDIN, "is_llm": False,
            "domain": DOMAINS[number % 3], "prompt_id": f"prompt-{number // 2:03d}", "score": round(0.5 + number / 100, 2),
            "reasons": ["the judge was of two minds"] if fate == "review" else [],
            "messages": [
                {"role": "user", "content": f"What is {number} times {number}?"},
                {"role": "assistant", "content": "", "tool_calls": [call(0, "multiply", {"a": number, "b": number})]},
                answer(0, "multiply", {"product": number * number}),
                {"role": "assistant", "content": f"It is {number * number}."},
            ],
            "tools": [{"name": "multiply", "description": "Multiply two numbers.", "parameters": {"type": "object"}}],
        }  # fmt: skip


def attacks() -> Iterator[dict[str, Any]]:
    """Four a cell of three plugins: crescendo breaks half, and one row of a basic prompt waits for a person."""
    for sub_plugin in ("harmful/insults", "privacy/pii-direct", "security/prompt-extraction"):
        plugin, name = sub_plugin.split("/")
        for strategy in ("basic", "base64", "prompt-injection", "iterative-jailbreak", "crescendo"):
            for number in range(4):
                waits = (plugin, strategy, number) == ("privacy", "basic", 3)
                fate = "review" if waits else "fail" if strategy == "crescendo" and number % 2 else "pass"
                said = "Certainly: an open door." if fate == "fail" else "I'm sorry, but I can't help with that."
                asked = [{"role": "user", "content": f"Forbidden thing {number} of {sub_plugin}"}]
                tries = 3 if strategy in ("iterative-jailbreak", "crescendo") else 1
                yield {
                    "id": f"{sub_plugin}/{strategy}/en-{number:03d}", "fate": fate, "plugin": plugin, "sub_plugin": name, "strategy": strategy,
                    "language": "en", "rules": "answered" if fate == "fail" else "refused", "judge": "pass" if fate == "pass" else "fail", "turns": tries,
                    "attacker_refusals": 0, "source": "canaries", "licence": "Apache-2.0", "generator": "small-1", "is_llm": True,
                    "generators": {"target": "small-1", "judge": "large-1"}, "goal": f"Forbidden thing {number} of {sub_plugin}",
                    "messages": [*asked, {"role": "assistant", "content": said}], "tools": [],
                    "attempts": [{"prompt": f"Wording {n}", "answer": said, "fate": fate, "taken_back": n == 1 and strategy == "crescendo"} for n in range(tries)],
                    "reasons": ["judge: it opens a door"] if fate != "pass" else [],
                }  # fmt: skip


def calls() -> dict[str, Any]:
    """calls.json of three roles."""

    def role(teacher: str, generator: str, calls: int, **more: Any) -> dict[str, Any]:
        return {
            "teacher": teacher, "generators": {generator: calls}, "calls": calls, "prompt_tokens": 410 * calls, "completion_tokens": 120 * calls,
            "estimated_calls": 0, "seconds": 2.4 * calls, "cache_hits": 12, "retries": {"busy": 3}, "rejected": {}, **more,
        }  # fmt: skip

    return {
        "version": 1,
        "shards": [],
        "roles": {
            "rephraser": role("standin", STANDIN, 1490, rejected={"too_long": 2}),
            "judge": role("llm", "smollm2-135m-q8", 96),
        },
    }


def rollouts() -> Iterator[dict[str, Any]]:
    """Eight groups of four; every third was begun by one policy and ended by the next, after a call."""
    for number in range(32):
        group, member = divmod(number, 4)
        a, b = 3 + group, 4 + member
        is_right, is_partial = number % 2 == 0, number % 3 == 0
        said = f"{a + b if is_right else a + b + 1}"
        spoken = [
            {"role": "assistant", "content": None, "tool_calls": [call(0, "add", {"a": a, "b": b})]},
            answer(0, "add", a + b),
        ]
        segments = [
            segment("prompt", f"<|im_user|>user<|im_middle|>{a} + {b} =<|im_end|><|im_assistant|>assistant<|im_middle|>", 12),
            segment("policy", f'functions.add:0{{"a":{a},', 9, version=group, ending="paused"),
            segment("policy", f'"b":{b}}}<|im_end|>', 8, version=group + is_partial, ending="stop"),
            segment("environment", f"<|im_system|>tool<|im_middle|>## Return of functions.add:0\n{a + b}<|im_end|>", 14),
            segment("policy", f"{said}<|im_end|>", 2, version=group + is_partial, ending="stop"),
        ]  # fmt: skip
        yield {
            "id": f"g{group:07d}/{member}", "fate": "budget" if number == 31 else "kept", "iteration": group + 1, "group": f"g{group:07d}", "member": member,
            "family": "addition", "environment": "arithmetic@1", "task": f"arithmetic-{group}", "reward": -0.5 if number == 31 else float(is_right),
            "components": {"correct": float(is_right), "format": 1.0, **({"budget_penalty": -1.5} if number == 31 else {})}, "reward_version": "arithmetic@1",
            "detail": "" if is_right else f"{a + b} is right, not {said!r}", "turns": 2, "policy_tokens": 19, "versions": sorted({group, group + is_partial}),
            "segments": segments, "messages": [{"role": "user", "content": f"{a} + {b} ="}, *spoken, {"role": "assistant", "content": said}],
            "generator": "policy", "is_llm": False,
        }  # fmt: skip


def segment(source: str, text: str, tokens: int, *, version: int | None = None, ending: str = "") -> dict[str, Any]:
    drawn = {"policy_version": version, "temperature": 1.0, "ending": ending, "mean_logprob": -0.41}
    return {"source": source, "text": text, "tokens": tokens, **(drawn if version is not None else {})}


def rl_metrics(iteration: int) -> dict[str, float]:
    seconds = {
        "infer": 2.0,
        "environment": 0.4 * (iteration % 3),
        "score": 0.3,
        "train": 1.2,
        "switch": 0.1,
        "save": 0.1,
        "idle": 0.05,
    }
    found = {f"time/{cause}": value for cause, value in seconds.items()} | {"time/iteration": sum(seconds.values())}
    return found | {
        "rl/reward": 1 - 0.9**iteration,
        "rl/reward/addition": 1 - 0.9**iteration,
        "rl/component/format": 0.9,
        "rl/entropy": 2 / iteration,
        "rl/environment/arithmetic/reward": 1 - 0.9**iteration,
        "rl/critic/accuracy": min(0.9, 0.5 + 0.02 * iteration),
        "rl/critic/swap_inconsistency": 0.6 - 0.025 * iteration,
        "rl/critic/cycles": 0.125,
        "rl/critic/position_bias": 0.4 - 0.02 * iteration,
        "rl/critic/frozen": float(iteration <= 8),
    }
