"""Gates: `<stage>.<fact> <= <number>`, one or several joined by `and`, over the numbers that stages' artifacts carry."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_GATE = re.compile(
    r"^\s*([a-z0-9][a-z0-9-]*)\.([A-Za-z_][A-Za-z0-9_./-]*)\s*(<=|>=|<|>|==)\s*(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*$"
)
_AND = re.compile(r"\s+and\s+")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Gate:
    stage_id: str
    fact: str
    comparison: str
    bound: float


@dataclass(frozen=True, slots=True)
class Verdict:
    holds: bool
    sentence: str


def parse_gate(text: str) -> tuple[Gate, ...] | None:
    """All of its conditions. None when the text is no gate."""
    found = tuple(_parse(part) for part in _AND.split(text.strip()))
    return None if None in found else tuple(gate for gate in found if gate is not None)


def _parse(text: str) -> Gate | None:
    match = _GATE.match(text)
    if match is None:
        return None
    try:
        return Gate(match[1], match[2], match[3], float(match[4]))
    except ValueError:
        return None


def judge(text: str, facts: Mapping[str, Mapping[str, float]]) -> Verdict:
    """`facts` by stage id. A fact that is not there does not hold: a gate never opens by accident."""
    gates = parse_gate(text)
    if gates is None:
        return Verdict(False, f"The gate {text!r} cannot be read; expected <stage>.<fact> <= <number>.")
    lacking = [gate for gate in gates if gate.fact not in facts.get(gate.stage_id, {})]
    if lacking:
        stage_id, fact = lacking[0].stage_id, lacking[0].fact
        known = ", ".join(sorted(facts.get(stage_id, {}))) or "none"
        return Verdict(
            False, f"The gate {text!r} does not hold: stage {stage_id!r} made no {fact!r} (it has: {known})."
        )
    values = [(gate, facts[gate.stage_id][gate.fact]) for gate in gates]
    broken = [(gate, value) for gate, value in values if not _COMPARE[gate.comparison](value, gate.bound)]
    told = ", ".join(f"{gate.fact} is {value:g}" for gate, value in broken or values)
    return Verdict(not broken, f"The gate {text!r} {'does not hold' if broken else 'holds'}: {told}.")
