"""The tool `calculate` of tau2-bench's airline and retail, without its owner's `eval`: what a model wrote is never Python to us."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

LONGEST = 500
"""Characters of an expression. Without powers nothing that is so short takes long."""
_ALLOWED = frozenset("0123456789+-*/(). ")
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.UAdd: operator.pos, ast.USub: operator.neg,
}  # fmt: skip


def calculate(expression: str) -> str:
    """In the owner's words: rounded to two places. Raises what the owner's raises (ValueError, SyntaxError, ZeroDivisionError, OverflowError), and
    ValueError for powers, which the tool does not offer."""
    if not all(char in _ALLOWED for char in expression):
        raise ValueError("Invalid characters in expression")
    if len(expression) > LONGEST:
        raise ValueError(f"The expression is longer than {LONGEST} characters")
    return str(round(float(_value(ast.parse(expression.lstrip(), "<string>", mode="eval").body)), 2))


def _value(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand))
    raise ValueError("Invalid expression: it may have numbers, +, -, *, / and parentheses")
