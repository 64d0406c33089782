"""Gates: `<stage>.<fact> <= <number>`, over the numbers that a stage's artifacts carry."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_GATE = re.compile(
    r"^\s*([a-z0-9][a-z0-9-]*)\.([A-Za-z_][A-Za-z0-9_./-]*)\s*(<=|>=|<|>|==)\s*(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*$"
)
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


def parse_gate(text: str) -> Gate | None:
    """None when the text is no gate."""
    match = _GATE.match(text)
    if match is None:
        return None
    try:
        return Gate(match[1], match[2], match[3], float(match[4]))
    except ValueError:
        return None


def judge(text: str, facts: Mapping[str, Mapping[str, float]]) -> Verdict:
    """`facts` by stage id. A fact that is not there does not hold: a gate never opens by accident."""
    gate = parse_gate(text)
    if gate is None:
        return Verdict(False, f"The gate {text!r} cannot be read; expected <stage>.<fact> <= <number>.")
    value = facts.get(gate.stage_id, {}).get(gate.fact)
    if value is None:
        known = ", ".join(sorted(facts.get(gate.stage_id, {}))) or "none"
        return Verdict(
            False, f"The gate {text!r} does not hold: stage {gate.stage_id!r} made no {gate.fact!r} (it has: {known})."
        )
    holds = _COMPARE[gate.comparison](value, gate.bound)
    return Verdict(holds, f"The gate {text!r} {'holds' if holds else 'does not hold'}: {gate.fact} is {value:g}.")
