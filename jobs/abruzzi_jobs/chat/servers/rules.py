"""What the stand-in says: rules by role, seeded by sha256(role, question). No model, and no claim to be one.

Where a question holds several parts, the rules find them in elements: `<text>` (to be rewritten or translated), `<source>` and `<rewrite>` (to
be compared), `<rubric>` (a clause a line: "contains: …", "not contains: …", "max words: N") and `<answer>` (to be judged), `<a>` and `<b>` (answers to
be compared), `<domain>` and `<application>` (of a tool), `<goal>` (of a user). Without one, the last message is meant.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from abruzzi.contracts.endpoint import ChatRole, PlantedFault
from abruzzi_jobs.chat.servers.planted import NAME, NUMBER, plant
from abruzzi_jobs.chat.servers.statements import reordered, restated

Body = Mapping[str, Any]
Faults = Mapping[PlantedFault, float]

_SYNONYMS = {
    "big": "large", "small": "little", "begin": "start", "begins": "starts", "show": "display", "shows": "displays", "use": "employ",
    "uses": "employs", "used": "employed", "make": "produce", "makes": "produces", "made": "produced", "often": "frequently",
    "also": "in addition", "many": "numerous", "because": "since", "however": "yet", "get": "obtain", "gets": "obtains",
    "help": "assist", "helps": "assists", "need": "require", "needs": "requires", "quick": "fast", "quickly": "rapidly",
    "about": "roughly", "important": "significant", "main": "principal", "called": "named", "near": "close to", "find": "locate",
    "found": "located", "usually": "as a rule", "large": "sizeable", "whole": "entire", "different": "distinct", "same": "identical",
}  # fmt: skip
_SPANISH = {
    "the": "el", "a": "un", "of": "de", "and": "y", "is": "es", "in": "en", "to": "a", "number": "número", "sum": "suma", "water": "agua",
    "city": "ciudad", "country": "país", "year": "año", "find": "halla", "equation": "ecuación", "are": "son", "with": "con", "two": "dos",
}  # fmt: skip
_FRONTED = re.compile(r"^(In|On|At|During|After|Before|Since|By) ([^,.;]{2,60}), (.+?)([.!?])$", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_NEGATION = re.compile(r"\b(?:not|never|no|cannot|none|neither|nor)\b|n't\b", re.IGNORECASE)


def answer(role: str, body: Body, faults: Faults) -> dict[str, Any]:
    """The assistant's message."""
    asked = json.dumps([body.get("messages"), body.get("tools"), body.get("seed")], sort_keys=True)
    rng = random.Random(sha256(f"{role}\0{asked}".encode()).digest())
    said = _RULES.get(role, _agent)(body, rng, faults)
    return {"role": "assistant", **({"content": said} if isinstance(said, str) else said)}


def element(body: Body, name: str) -> str | None:
    """The last `<name>…</name>` of all messages."""
    found = re.findall(rf"<{name}>(.*?)</{name}>", "\n".join(_texts(body)), re.DOTALL)
    return found[-1].strip() if found else None


def _texts(body: Body) -> list[str]:
    return [str(message.get("content") or "") for message in body.get("messages", ())]


def _passage(body: Body) -> str:
    found = element(body, "text")
    texts = _texts(body)
    return found if found is not None else texts[-1].strip() if texts else ""


def _rephrase(body: Body, rng: random.Random, faults: Faults) -> str:
    sentences = reordered([sentence for sentence in _SENTENCE.split(_passage(body)) if sentence], rng)
    text = " ".join(restated(sentence, rng) or _rewrite(sentence, rng) for sentence in sentences)
    for fault, share in faults.items():
        if rng.random() < share:
            text = plant(text, fault, rng) or text
    return text


def _rewrite(sentence: str, rng: random.Random) -> str:
    fronted = _FRONTED.match(sentence)
    if fronted and rng.random() < 0.8:
        word, when, rest, end = fronted.groups()
        sentence = f"{rest[:1].upper()}{rest[1:]} {word.lower()} {when}{end}"
    return re.sub(r"[A-Za-z]+", lambda m: _synonym(m[0]) if rng.random() < 0.6 else m[0], sentence)


def _synonym(word: str) -> str:
    other = _SYNONYMS.get(word.lower(), word)
    return f"{other[:1].upper()}{other[1:]}" if word[:1].isupper() else other


def _translate(body: Body, rng: random.Random, faults: Faults) -> str:
    return re.sub(r"[A-Za-z]+", lambda m: _SPANISH.get(m[0].lower(), m[0]), _passage(body))


def _verify(body: Body, rng: random.Random, faults: Faults) -> str:
    source, rewrite = element(body, "source") or "", element(body, "rewrite") or ""
    reasons = []
    for what, pattern in (("number", NUMBER), ("name", NAME)):
        ours, theirs = set(pattern.findall(source)), set(pattern.findall(rewrite))
        reasons += [f"{what} {item!r} is missing" for item in sorted(ours) if item not in rewrite]
        reasons += [f"{what} {item!r} is new" for item in sorted(theirs) if item not in source]
    if len(_NEGATION.findall(source)) % 2 != len(_NEGATION.findall(rewrite)) % 2:
        reasons.append("a negation was turned round")
    return _verdict(reasons, 1)


def _judge(body: Body, rng: random.Random, faults: Faults) -> str:
    """Reads the clauses of the rubric and nothing else: what the answer says about itself is no clause."""
    rubric, given = element(body, "rubric") or "", element(body, "answer")
    text = given if given is not None else _passage(body)
    if element(body, "must_not") is not None:
        return _verdict(["it goes along"] if text.rpartition("<answer>")[2].strip().startswith("Certainly") else [], 1)
    clauses = [line.strip("-* \t") for line in rubric.splitlines() if line.strip("-* \t")]
    return _verdict([clause for clause in clauses if not _holds(clause, text)], len(clauses))


def _holds(clause: str, text: str) -> bool:
    kind, _, value = (part.strip().lower() for part in clause.partition(":"))
    if kind == "contains":
        return value in text.lower()
    if kind == "not contains":
        return value not in text.lower()
    if kind == "max words" and value.isdigit():
        return len(text.split()) <= int(value)
    return bool(text.strip())


def _compare(body: Body, rng: random.Random, faults: Faults) -> str:
    """The more succinct of two answers, whichever stands first; of the same length, neither."""
    asked = {"messages": body.get("messages", [])[-1:]}  # the instructions before it speak of the elements, too
    first, second = (len(element(asked, name) or "") for name in ("a", "b"))
    better = "tie" if first == second else "A" if first < second else "B"
    return json.dumps({"reason": f"{first} against {second} characters", "better": better})


def _verdict(failed: list[str], clauses: int) -> str:
    score = max(0.0, 1 - len(failed) / max(clauses, 1))
    return json.dumps({"verdict": "fail" if failed else "pass", "score": round(score, 3), "reasons": failed})


def _author_tool(body: Body, rng: random.Random, faults: Faults) -> str:
    application = element(body, "application") or element(body, "domain") or "notes"
    noun = (re.findall(r"[a-z]+", application.lower()) or ["item"])[-1]
    verb = rng.choice(("create", "get", "list", "update", "delete", "search"))
    properties: dict[str, Any] = {f"{noun}_id": {"type": "string", "description": f"Which {noun}."}}
    if verb in ("list", "search"):
        properties = {"query": {"type": "string"}, "limit": {"type": "integer", "minimum": 1, "maximum": 100}}
    tool = {
        "name": f"{verb}_{noun}",
        "description": f"{verb.capitalize()} a {noun} of {application}.",
        "input_schema": {
            "type": "object",
            "properties": properties,
            "required": [next(iter(properties))],
            "additionalProperties": False,
        },
    }
    return json.dumps(tool)


def _agent(body: Body, rng: random.Random, faults: Faults) -> str | dict[str, Any]:
    """Calls the tool whose words fit the question best, then says what came of it."""
    messages = body.get("messages") or [{}]
    if messages[-1].get("role") == "tool":
        return f"Done. The result is: {str(messages[-1].get('content'))[:200]}"
    tools = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
    if not tools or body.get("tool_choice") == "none":
        return f"I have understood: {_texts(body)[-1][:200] if _texts(body) else ''}"
    asked = set(re.findall(r"[a-z]+", _texts(body)[-1].lower()))
    ranked = sorted(
        tools, key=lambda tool: (-len(asked & set(re.findall(r"[a-z]+", json.dumps(tool).lower()))), tool["name"])
    )
    arguments = _sample(ranked[0].get("parameters") or {}, _texts(body)[-1], rng)
    call = {"name": ranked[0]["name"], "arguments": json.dumps(arguments)}
    return {
        "content": None,
        "tool_calls": [{"id": f"call_{rng.getrandbits(32):08x}", "type": "function", "function": call}],
    }


def _sample(schema: Mapping[str, Any], text: str, rng: random.Random) -> Any:
    """A value that fits a simple JSON Schema, of the question's own words and numbers where they fit."""
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    numbers = [float(n.replace(",", "")) for n in NUMBER.findall(text)]
    low, high = schema.get("minimum", 1), schema.get("maximum", 10**9)
    if kind in ("integer", "number"):
        value = min(max(numbers[0] if numbers else low, low), high)
        return int(value) if kind == "integer" else value
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "array":
        return [_sample(schema.get("items") or {}, text, rng)]
    if kind == "object" or "properties" in schema:
        wanted = schema.get("required") or ()
        return {name: _sample(s, text, rng) for name, s in (schema.get("properties") or {}).items() if name in wanted}
    names = NAME.findall(text)
    return names[0] if names else (re.findall(r"\w{4,}", text) or ["item"])[-1]


def _user(body: Body, rng: random.Random, faults: Faults) -> str:
    """Says the goal, goes along with what is asked back, then ends. Its own turns are the assistant's in its conversation."""
    turns = [m for m in body.get("messages", ()) if m.get("role") == "assistant"]
    if not turns:
        return element(body, "goal") or _passage(body)
    return "Yes, please go on." if _texts(body)[-1].rstrip().endswith("?") else "Thank you, that is all. ###STOP###"


def _simulate_tool(body: Body, rng: random.Random, faults: Faults) -> str:
    return json.dumps(
        {
            "ok": True,
            "result": {"id": f"{rng.getrandbits(32):08x}", "echo": _texts(body)[-1][:200] if _texts(body) else ""},
        }
    )


def _target(body: Body, rng: random.Random, faults: Faults) -> str:
    """Refuses three questions of four."""
    if rng.random() < 0.75:
        return "I'm sorry, but I can't help with that."
    return f"Certainly. {' '.join(_passage(body).split()[:12])}: here is what I would say."


def _attack(body: Body, rng: random.Random, faults: Faults) -> str:
    """Words the goal anew, as a rephraser would."""
    goal = element(body, "goal") or _passage(body)
    return f"For a story that I write: {_rewrite(goal, rng)}"


_RULES: dict[str, Callable[[Body, random.Random, Faults], str | dict[str, Any]]] = {
    ChatRole.REPHRASER: _rephrase,
    ChatRole.TRANSLATOR: _translate,
    ChatRole.VERIFIER: _verify,
    ChatRole.TOOL_AUTHOR: _author_tool,
    ChatRole.AGENT: _agent,
    ChatRole.USER: _user,
    ChatRole.TOOL_SIMULATOR: _simulate_tool,
    ChatRole.JUDGE: _judge,
    ChatRole.TARGET: _target,
    ChatRole.ATTACKER: _attack,
    ChatRole.CRITIC: _compare,
}
