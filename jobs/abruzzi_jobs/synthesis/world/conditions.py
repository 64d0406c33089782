"""Evaluates the conditions of a tool in a world."""

from __future__ import annotations

from typing import Any

from abruzzi.contracts.tool import Condition, Term
from abruzzi_jobs.synthesis.world.tables import Tables

ABSENT = object()
Before = dict[Term, Any]


def remembered(conditions: tuple[Condition, ...], arguments: dict[str, Any], tables: Tables) -> Before:
    """Values that postconditions need from ahead of the call."""
    terms = {term for c in conditions for term in (c.left, c.right) if term and term.kind in ("before", "count_before")}
    return {term: _now(term, arguments, tables) for term in terms}


def holds(condition: Condition, arguments: dict[str, Any], tables: Tables, before: Before | None = None) -> bool:
    left = condition.left
    if condition.relation == "exists":
        if left.argument not in arguments:
            return True
        return tables.row(left.entity or "", arguments[left.argument]) is not None
    value = _value(left, arguments, tables, before)
    if condition.relation == "in":
        return value is ABSENT or value in condition.values
    other = ABSENT if condition.right is None else _value(condition.right, arguments, tables, before)
    if value is ABSENT or other is ABSENT:
        return True
    if value is None or other is None:
        return condition.relation == "!=" if value is not other else condition.relation == "="
    return _compare(condition.relation, value, other)


def _compare(relation: str, left: Any, right: Any) -> bool:
    if relation == "=":
        return left == right
    if relation == "!=":
        return left != right
    return left <= right if relation == "<=" else left >= right


def _value(term: Term, arguments: dict[str, Any], tables: Tables, before: Before | None) -> Any:
    found = before[term] if before is not None and term in before else _now(term, arguments, tables)
    if found is ABSENT or found is None:
        return found
    for name, sign in ((term.plus, 1), (term.minus, -1)):
        if name is not None:
            if name not in arguments:
                return ABSENT
            found += sign * arguments[name]
    return found


def _now(term: Term, arguments: dict[str, Any], tables: Tables) -> Any:
    if term.kind == "constant":
        return term.value
    if term.kind == "argument":
        return arguments.get(term.argument or "", ABSENT)
    if term.kind in ("count", "count_before"):
        if term.field is None:
            chosen = None
        elif term.argument in arguments:
            chosen = {term.field: arguments[term.argument]}
        else:
            return ABSENT
        return tables.count(term.entity or "", chosen) + (term.value if isinstance(term.value, int) else 0)
    if term.argument not in arguments:
        return ABSENT
    row = tables.row(term.entity or "", arguments[term.argument])
    return None if row is None else row[term.field or ""]
