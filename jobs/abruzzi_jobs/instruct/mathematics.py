"""Problems whose results sympy knows: drawn from a number, so that the same number is the same problem."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from abruzzi.contracts.errors import AbruzziError

Problem = tuple[str, str]
"""(question, result)."""
_FORM = "Show your steps briefly, then write the result on a last line of the form `Answer: …`."


def problem(number: int) -> Problem:
    """Raises AbruzziError missing_package without sympy."""
    return drawn(KINDS[number % len(KINDS)], random.Random(f"instruct\0mathematics\0{number}"))


def drawn(kind: str, rng: random.Random) -> Problem:
    """Of one of KINDS. Raises AbruzziError missing_package without sympy."""
    text, result = _KINDS[kind](rng)
    return f"{text} {_FORM}", result


def _arithmetic(rng: random.Random) -> Problem:
    a, b, c = rng.randint(12, 99), rng.randint(3, 19), rng.randint(2, 60)
    return f"What is {a} * {b} - {c}?", str(a * b - c)


def _fractions(rng: random.Random) -> Problem:
    from fractions import Fraction

    a, b = Fraction(rng.randint(1, 9), rng.randint(2, 12)), Fraction(rng.randint(1, 9), rng.randint(2, 12))
    return f"Add the fractions {a} and {b}, and give the sum as a fraction in lowest terms.", str(a + b)


def _equation(rng: random.Random) -> Problem:
    a, x, b = rng.randint(2, 12), rng.randint(-15, 15), rng.randint(-30, 30)
    side = f"{a}x + {b}" if b >= 0 else f"{a}x - {-b}"
    return f"Solve {side} = {a * x + b} for x.", str(x)


def _divisor(rng: random.Random) -> Problem:
    common = rng.randint(2, 24)
    a, b = common * rng.randint(2, 30), common * rng.randint(2, 30)
    return f"What is the greatest common divisor of {a} and {b}?", str(_sympy().gcd(a, b))


def _derivative(rng: random.Random) -> Problem:
    sympy = _sympy()
    x: Any = sympy.Symbol("x")
    term = rng.randint(2, 9) * x ** rng.randint(2, 5) + rng.randint(-9, 9) * x + rng.randint(-9, 9)
    return f"Differentiate {_plain(term)} with respect to x.", _plain(sympy.diff(term, x))


def _roots(rng: random.Random) -> Problem:
    sympy = _sympy()
    x: Any = sympy.Symbol("x")
    low, high = sorted(rng.sample(range(-9, 10), 2))
    term = sympy.expand((x - low) * (x - high))
    return f"What is the larger solution of {_plain(term)} = 0?", str(high)


def _per_cent(rng: random.Random) -> Problem:
    share, whole = rng.choice((5, 10, 15, 20, 25, 40, 60, 75)), 20 * rng.randint(2, 60)
    return f"What is {share} % of {whole}?", str(_sympy().Rational(share * whole, 100))


def _plain(term: object) -> str:
    """As people write it: 6x^2 + 1."""
    return str(term).replace("**", "^").replace("*", "")


def _sympy():
    try:
        import sympy
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            "instruct.sources: mathematics needs the package sympy, which is not installed here.",
            hint="Install abruzzi-jobs[corpus], or take mathematics out of the recipe.",
        ) from error
    return sympy


_KINDS: dict[str, Callable[[random.Random], Problem]] = {
    "arithmetic": _arithmetic, "fractions": _fractions, "equation": _equation, "divisor": _divisor, "derivative": _derivative, "roots": _roots,
    "per_cent": _per_cent,
}  # fmt: skip
KINDS = tuple(_KINDS)
