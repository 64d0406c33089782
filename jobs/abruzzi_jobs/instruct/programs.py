"""Tasks for short Python functions, with examples that a right function passes. Each is drawn with inputs of its own; what it gives for them is computed
by a reference that nobody is shown."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_WORDS = [
    "amber",
    "basil",
    "cedar",
    "delta",
    "ember",
    "flint",
    "grove",
    "haven",
    "ivory",
    "jade",
    "karst",
    "lemon",
    "maple",
    "north",
    "ocean",
    "pearl",
    "quartz",
    "river",
    "stone",
    "tulip",
]


@dataclass(frozen=True, slots=True)
class _Task:
    signature: str
    wanted: str
    reference: Callable[..., Any]
    draw: Callable[[random.Random], tuple[Any, ...]]


def _numbers(rng: random.Random) -> tuple[list[int]]:
    return ([rng.randint(-20, 20) for _ in range(rng.randint(3, 7))],)


def _text(rng: random.Random) -> tuple[str]:
    return (" ".join(rng.sample(_WORDS, rng.randint(2, 5))),)


def _number(rng: random.Random) -> tuple[int]:
    return (rng.randint(2, 400),)


def _two_lists(rng: random.Random) -> tuple[list[int], list[int]]:
    return sorted(_numbers(rng)[0]), sorted(_numbers(rng)[0])


def _text_and_number(rng: random.Random) -> tuple[str, int]:
    return _text(rng)[0], rng.randint(1, 25)


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _runs(text: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for character in text:
        if found and found[-1][0] == character:
            found[-1] = character, found[-1][1] + 1
        else:
            found.append((character, 1))
    return found


def _shifted(text: str, by: int) -> str:
    return "".join(chr((ord(c) - 97 + by) % 26 + 97) if c.isalpha() else c for c in text)


_TASKS = (
    _Task("count_vowels(text)", "the number of vowels (a, e, i, o, u) in a text", lambda t: sum(c in "aeiou" for c in t), _text),
    _Task("second_largest(numbers)", "the second largest of the different numbers in a list, None where there is none",
          lambda n: sorted(set(n))[-2] if len(set(n)) > 1 else None, _numbers),
    _Task("running_total(numbers)", "a list of the sums of the numbers up to each place",
          lambda n: [sum(n[: i + 1]) for i in range(len(n))], _numbers),
    _Task("initials(text)", "the first letters of the words of a text, in capitals, without spaces",
          lambda t: "".join(w[0].upper() for w in t.split()), _text),
    _Task("is_prime(n)", "True where a number is prime, else False", _is_prime, _number),
    _Task("digit_sum(n)", "the sum of the digits of a number", lambda n: sum(map(int, str(n))), _number),
    _Task("merge_sorted(first, second)", "one sorted list of two sorted lists", lambda a, b: sorted(a + b), _two_lists),
    _Task("run_lengths(text)", "a list of pairs (character, how often it stands there in a row)", _runs, _text),
    _Task("shift_letters(text, by)", "a text of small letters with each letter moved on by a number of places in the alphabet, from z to a; spaces stay",
          _shifted, _text_and_number),
    _Task("longest_word(text)", "the longest word of a text, the first where there are several", lambda t: max(t.split(), key=len), _text),
    _Task("to_binary(n)", "the binary digits of a positive number, as a text", lambda n: f"{n:b}", _number),
    _Task("rotate_left(numbers)", "a list with its first element moved to its end", lambda n: n[1:] + n[:1], _numbers),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawn:
    prompt: str
    """Shows the first two examples."""
    examples: tuple[tuple[str, str], ...]
    """(a call, the `repr` of what it gives)."""


NAMES = tuple(task.signature.partition("(")[0] for task in _TASKS)


def drawn(name: str, rng: random.Random, *, examples: int) -> Drawn:
    """Of one of NAMES."""
    chosen = _TASKS[NAMES.index(name)]
    inputs = [chosen.draw(rng) for _ in range(examples)]
    found = tuple((f"{name}({', '.join(map(repr, a))})", repr(chosen.reference(*a))) for a in inputs)
    prompt = f"Write a Python function `{chosen.signature}` that returns {chosen.wanted}. Answer with the function in one code block.\n\n{_doctests(found[:2])}"
    return Drawn(prompt, found)


def task(number: int) -> tuple[str, str]:
    """(prompt, doctests that are run: the two that the prompt shows, and three that it does not)."""
    rng = random.Random(f"instruct\0programs\0{number}")
    made = drawn(NAMES[number % len(NAMES)], rng, examples=5)
    return made.prompt, _doctests(made.examples)


def _doctests(examples: tuple[tuple[str, str], ...]) -> str:
    """They expect nothing where a call gives None."""
    return "\n".join(f">>> {call}\n{'' if result == 'None' else result}" for call, result in examples)
