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


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition, looked at on its own."""

    gate: Gate
    value: float | None
    """None: the stage made no such number."""

    @property
    def holds(self) -> bool:
        return self.value is not None and _COMPARE[self.gate.comparison](self.value, self.gate.bound)

    @property
    def short_by(self) -> float | None:
        """How far the number is from the bound where it does not hold."""
        return None if self.value is None or self.holds else abs(self.value - self.gate.bound)


def clauses(text: str, facts: Mapping[str, Mapping[str, float]]) -> list[Clause]:
    """Of a gate, each with its number; none where it cannot be read. `facts` by stage id."""
    return [Clause(gate, facts.get(gate.stage_id, {}).get(gate.fact)) for gate in parse_gate(text) or ()]


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
    found = clauses(text, facts)
    if not found:
        return Verdict(False, f"The gate {text!r} cannot be read; expected <stage>.<fact> <= <number>.")
    lacking = [clause.gate for clause in found if clause.value is None]
    if lacking:
        stage_id, fact = lacking[0].stage_id, lacking[0].fact
        known = ", ".join(sorted(facts.get(stage_id, {}))) or "none"
        return Verdict(
            False, f"The gate {text!r} does not hold: stage {stage_id!r} made no {fact!r} (it has: {known})."
        )
    broken = [clause for clause in found if not clause.holds]
    told = ", ".join(f"{clause.gate.fact} is {clause.value:g}" for clause in broken or found)
    return Verdict(not broken, f"The gate {text!r} {'does not hold' if broken else 'holds'}: {told}.")
