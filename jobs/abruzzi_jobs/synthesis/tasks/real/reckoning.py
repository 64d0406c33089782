"""Tasks for calculators, clocks and algebra: their answers are known from here."""

from __future__ import annotations

import datetime
import math
import random
import statistics
import zoneinfo

from abruzzi_jobs.synthesis.tasks.real.draft import Draft, Maker, given

CALCULATOR, TIME, MATH = "mcp-server-calculator", "mcp-server-time", "mcp-server-math"
SYMPY, EVERYTHING = "mcp-sympy", "@modelcontextprotocol/server-everything"
_STEADY = (
    "Africa/Lagos", "Africa/Nairobi", "America/Bogota", "America/Phoenix", "Asia/Dubai", "Asia/Kolkata", "Asia/Singapore", "Asia/Tokyo",
    "Australia/Brisbane", "UTC",
)  # fmt: skip
"""Zones without summer time: what is asked of them does not depend on today's date."""


def _calculate(draw: random.Random) -> Draft:
    a, b, c = draw.randint(2, 40), draw.randint(2, 40), draw.randint(3, 19)
    expression, value = draw.choice(
        [
            (f"({a} + {b}) * {c}", (a + b) * c),
            (f"{a} * {b} - {c}", a * b - c),
            (f"{a} * {b} + {c} * {c}", a * b + c * c),
        ]
    )
    return Draft(
        wishes=[f"calculate {expression}"],
        facts=[given("expression", expression)],
        calls=[(CALCULATOR, "calculate", {"expression": expression})],
        report=f"{expression} = {value}.",
        answers=[("the result", float(value))],
    )


def _bill(draw: random.Random) -> Draft:
    units, price, off = draw.randint(11, 60), draw.randint(12, 95), draw.randint(5, 90)
    thing = draw.choice(("chairs", "lamps", "notebooks", "tickets", "crates of oranges"))
    value = units * price - off
    return Draft(
        wishes=[
            f"work out what I have to pay: {units} {thing} at {price} euros each",
            f"take off a discount of {off} euros and tell me the amount that is left",
        ],
        facts=[given("number", units), given("price", price), given("discount", off)],
        calls=[(CALCULATOR, "calculate", {"expression": f"{units} * {price} - {off}"})],
        report=f"You have to pay {value} euros.",
        answers=[("the amount", float(value))],
    )


def _clock(source: str, hour: int, minute: int, target: str) -> tuple[str, ...]:
    day = datetime.datetime(2026, 1, 15, hour, minute, tzinfo=zoneinfo.ZoneInfo(source))
    there = day.astimezone(zoneinfo.ZoneInfo(target))
    spoken = f"{(there.hour - 1) % 12 + 1}:{there.minute:02d} {'AM' if there.hour < 12 else 'PM'}"
    plain = f"{there.hour}:{there.minute:02d}"
    return tuple(dict.fromkeys((f"{there.hour:02d}:{there.minute:02d}", plain, spoken)))


def _convert(draw: random.Random) -> Draft:
    source, target = draw.sample(_STEADY, 2)
    hour, minute = draw.randint(0, 23), draw.choice((0, 10, 15, 30, 45))
    told, answer = f"{hour:02d}:{minute:02d}", _clock(source, hour, minute, target)
    return Draft(
        wishes=[f"tell me what time it is in {target} when it is {told} in {source}"],
        facts=[given("time", told), given("zone", source), given("other zone", target)],
        calls=[(TIME, "convert_time", {"source_timezone": source, "time": told, "target_timezone": target})],
        report=f"It is {answer[0]} in {target}.",
        answers=[("the time", answer)],
    )


def _meeting(draw: random.Random) -> Draft:
    source, *targets = draw.sample(_STEADY, 3)
    hour, minute = draw.randint(0, 23), draw.choice((0, 30))
    told = f"{hour:02d}:{minute:02d}"
    answers = [_clock(source, hour, minute, target) for target in targets]
    calls = [(TIME, "convert_time", {"source_timezone": source, "time": told, "target_timezone": t}) for t in targets]
    return Draft(
        wishes=[
            f"help me with a meeting at {told} in {source}: tell me what time that is in {targets[0]}",
            f"tell me what time it is then in {targets[1]}",
        ],
        facts=[given("time", told), given("zone", source), *(given(f"zone {n}", t) for n, t in enumerate(targets, 2))],
        calls=calls,
        report=" ".join(f"In {t} it is {answer[0]}." for t, answer in zip(targets, answers, strict=True)),
        answers=[(f"the time in {t}", answer) for t, answer in zip(targets, answers, strict=True)],
    )


def _figures(name: str, said: str) -> Maker:
    def make(draw: random.Random) -> Draft:
        numbers = [draw.randint(2, 90) for _ in range(draw.randint(4, 6))]
        while _of(name, numbers) in numbers or int(_of(name, numbers)) != _of(name, numbers):
            numbers = [draw.randint(2, 90) for _ in range(draw.randint(4, 6))]
        value, listed = _of(name, numbers), ", ".join(map(str, numbers))
        return Draft(
            wishes=[f"tell me the {said} of {listed}"],
            facts=[given("numbers", listed)],
            calls=[(MATH, name, {"numbers": numbers})],
            report=f"The {said} is {value:g}.",
            answers=[(f"the {said}", float(value))],
        )

    return Maker(tools=((MATH, name),), difficulty="simple", make=make)


def _of(name: str, numbers: list[int]) -> float:
    return {"sum": sum, "average": statistics.mean, "median": statistics.median, "range": lambda n: max(n) - min(n)}[
        name
    ](numbers)


def _average_then_product(draw: random.Random) -> Draft:
    numbers = [draw.randint(2, 60) for _ in range(4)]
    numbers[3] += -sum(numbers) % 4
    factor, mean = draw.randint(3, 12), sum(numbers) // 4
    listed = ", ".join(map(str, numbers))
    return Draft(
        wishes=[f"take the average of {listed}", f"multiply it by {factor} and tell me the result"],
        facts=[given("numbers", listed), given("factor", factor)],
        calls=[(MATH, "average", {"numbers": numbers}), (MATH, "product", {"numbers": [mean, factor]})],
        report=f"The average is {mean}, and {factor} times that is {mean * factor}.",
        answers=[("the result", float(mean * factor))],
    )


def _algebra(name: str, said: str) -> Maker:
    def make(draw: random.Random) -> Draft:
        shared = draw.randint(3, 25)
        a, b = shared * draw.randint(4, 30), shared * draw.choice((31, 37, 41, 43, 47, 53, 59))
        value = math.gcd(a, b) if name == "sympy_gcd" else math.lcm(a, b)
        return Draft(
            wishes=[f"find the {said} of {a} and {b}"],
            facts=[given("first number", a), given("second number", b)],
            calls=[(SYMPY, name, {"a": str(a), "b": str(b)})],
            report=f"It is {value}.",
            answers=[(f"the {said}", float(value))],
        )

    return Maker(tools=((SYMPY, name),), difficulty="simple", make=make)


def _next_prime(draw: random.Random) -> Draft:
    number = draw.randint(200, 5000)
    value = next(n for n in range(number + 1, 2 * number) if all(n % d for d in range(2, math.isqrt(n) + 1)))
    return Draft(
        wishes=[f"find the first prime number after {number}"],
        facts=[given("number", number)],
        calls=[(SYMPY, "sympy_nextprime", {"n": str(number)})],
        report=f"It is {value}.",
        answers=[("the prime number", float(value))],
    )


def _sum_of_two(draw: random.Random) -> Draft:
    a, b = draw.randint(20, 900), draw.randint(20, 900)
    return Draft(
        wishes=[f"add {a} and {b} with your tool"],
        facts=[given("first number", a), given("second number", b)],
        calls=[(EVERYTHING, "get-sum", {"a": a, "b": b})],
        report=f"The sum is {a + b}.",
        answers=[("the sum", float(a + b))],
    )


MAKERS = (
    Maker(tools=((CALCULATOR, "calculate"),), difficulty="simple", make=_calculate),
    Maker(tools=((CALCULATOR, "calculate"),), difficulty="moderate", make=_bill),
    Maker(tools=((TIME, "convert_time"),), difficulty="simple", make=_convert),
    Maker(tools=((TIME, "convert_time"),), difficulty="moderate", make=_meeting),
    _figures("sum", "sum"),
    _figures("average", "average"),
    _figures("median", "median"),
    _figures("range", "range (largest minus smallest)"),
    Maker(tools=((MATH, "average"), (MATH, "product")), difficulty="moderate", make=_average_then_product),
    _algebra("sympy_gcd", "greatest common divisor"),
    _algebra("sympy_lcm", "least common multiple"),
    Maker(tools=((SYMPY, "sympy_nextprime"),), difficulty="simple", make=_next_prime),
    Maker(tools=((EVERYTHING, "get-sum"),), difficulty="simple", make=_sum_of_two),
)
