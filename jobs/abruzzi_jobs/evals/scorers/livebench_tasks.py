"""What LiveBench's tasks are scored by (White et al. 2024), written anew after its owner's scorers (Apache-2.0): (truth, question, answer) → share that is right.

Mathematics of AMPS, programs and instructions are scored elsewhere. `tablereformat`, which the owner compares as tables of pandas, has none here.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

from abruzzi_jobs.evals.scorers.mathematics import last_boxed

Scorer = Callable[[str, str, str], float]
_TAGGED = re.compile(r"</?solution>(.*?)</solution>", re.DOTALL)
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_FENCED = re.compile(r"```(?:python)?(.*?)```", re.DOTALL)
_PRINTED = re.compile(r"\\textbf\{\(([A-E])\)\s?\}(.*?)(?:\\qquad|\$)")
_NAMES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_NUMBERS = {name: str(number) for number, name in enumerate(_NAMES)}
_SHAPES = ("tetrahedra", "tetrahedron", "triangle", "square")
_SAID = ("yes", "no", "unknown")
_LONGEST = 100_000


def choice_of_contest(truth: str, question: str, answer: str) -> float:
    """A letter, five times over, in a tag or in a box; or the option's own text at the end."""
    tagged, boxed = _TAGGED.findall(answer), _plain(last_boxed(answer) or "")
    if truth * 4 in answer or boxed.lower() == truth.lower():
        return 1.0
    if tagged and set(tagged[-1].strip().lower()) == {truth.lower()}:
        return 1.0
    text = {letter: said.strip().strip("$~") for letter, said in _PRINTED.findall(question)}.get(truth, "")
    return float(bool(text) and text in answer[-20 - len(text) :])


def number_of_contest(truth: str, question: str, answer: str) -> float:
    return float(truth in answer[-50:])


def contest(truth: str, question: str, answer: str) -> float:
    return (choice_of_contest if truth in ("A", "B", "C", "D", "E") else number_of_contest)(truth, question, answer)


def rearranged_proof(truth: str, question: str, answer: str) -> float:
    """A list of numbers of expressions: what remains of 1 after the edits that it would take."""
    wanted = [int(number) for number in truth.split(",")]
    lines = answer.strip().splitlines() or [""]
    stated = [n for n, line in enumerate(lines) if "answer:" in line.lower()]
    said = lines[stated[-1]].lower().rpartition("answer:")[2] if stated else ""
    if stated and not re.search(r"\d", said) and stated[-1] + 1 < len(lines):
        said = lines[stated[-1] + 1]
    said = said if re.search(r"\d", said) else (last_boxed(answer) or lines[-1])
    found = [int(number) for number in re.findall(r"\d{1,6}", said)]
    return 1 - _edits(found, wanted) / max(len(found), len(wanted))


def web_of_lies(truth: str, question: str, answer: str) -> float:
    """Three words of yes, no and unknown: in a tag, in bold, in a box, or last."""
    for text in (*_TAGGED.findall(answer)[-1:], " ".join(_BOLD.findall(answer)), last_boxed(answer) or "", answer):
        said = [word for word in re.findall(r"[a-z]+", text.lower()[-_LONGEST:]) if word in _SAID]
        if said:
            return float(said[-3:] == re.findall(r"[a-z]+", truth.lower()))
    return 0.0


def zebra(truth: str, question: str, answer: str) -> float:
    """Words in a tag; half of the point for all of them."""
    wanted, found = _words(truth), _solution(answer, truth)
    right = sum(
        want.replace("-", " ") in said.replace("-", " ") for want, said in zip(wanted, found, strict=False) if want
    )
    return (float(right == len(wanted)) + right / len(wanted)) / 2


def old_zebra(truth: str, question: str, answer: str) -> float:
    """One word between three asterisks, else the last."""
    words = re.findall(r"\*\*\*(\w+)\*\*\*", answer) or re.findall(r"\w+", answer[-_LONGEST:]) or [""]
    said = words[-1].lower()
    named = {number: name for name, number in _NUMBERS.items()}
    return float(truth.lower() in (said, named.get(said), f"{said} movies"))


def spatial(truth: str, question: str, answer: str) -> float:
    """Among the last three in bold."""
    truth = truth.strip().lower()
    for said in (word.strip().lower() for word in _BOLD.findall(answer)[-3:]):
        shaped = truth in _SHAPES and truth in said and len(said) < 2 * len(truth) + 5
        if said == truth or _NUMBERS.get(said) == truth or shaped:
            return 1.0
    return 0.0


def connections(truth: str, question: str, answer: str) -> float:
    """Groups of four words: the share of those that are right."""
    wanted = _fours(_words(truth))
    bold = [_words(said) for said in _BOLD.findall(answer.replace("\n", ""))]
    given = [_solution(answer, truth)] if _TAGGED.search(answer) or last_boxed(answer) else bold
    return max((sum(group in wanted for group in _fours(words)) / len(wanted) for words in given), default=0.0)


def plot(truth: str, question: str, answer: str) -> float:
    """Sentences in order, each known by the nearest that there is."""
    answer = answer[-_LONGEST:].rpartition("<PLOT_SUMMARY>")[2]
    wanted, found = ([part.strip() for part in text.split(".") if part.strip()] for text in (truth, answer))
    if not found:
        return 0.0
    order = [found.index(difflib.get_close_matches(one, found, n=1, cutoff=0.0)[0]) for one in wanted]
    return 1 - _edits(list(range(len(wanted))), order) / len(wanted)


def typos(truth: str, question: str, answer: str) -> float:
    """The text without its typos, word by word."""
    said = (_TAGGED.findall(answer) or [answer])[-1]
    return float(" ".join(truth.split()) in " ".join(said.split()))


def column_type(truth: str, question: str, answer: str) -> float:
    boxed = last_boxed(answer)
    said = answer if boxed is None else _plain(boxed)
    return float(_letters(said) == _letters(truth))


def joined_tables(truth: str, question: str, answer: str) -> float:
    """F1 of the pairs of columns that a dictionary names."""
    wanted = _table(truth)
    given = [*_FENCED.findall(answer)[-1:], last_boxed(answer) or "", answer]
    found = next((table for text in given if (table := _table(text))), {})
    right = sum(wanted.get(key) == value for key, value in found.items())
    return round(2 * right / max(1, len(found) + len(wanted)), 2)


SCORERS: dict[str, Scorer] = {
    "math_comp": contest, "olympiad": rearranged_proof, "web_of_lies_v2": web_of_lies, "zebra_puzzle": zebra, "spatial": spatial,
    "connections": connections, "plot_unscrambling": plot, "typos": typos, "cta": column_type, "tablejoin": joined_tables,
}  # fmt: skip
"""By task."""


def _solution(answer: str, truth: str) -> list[str]:
    """The words of the last tag, of several as many as there should be; else of a box, else of a last line with as many."""
    tagged = _TAGGED.findall(answer)
    if tagged:
        words = [word for text in tagged for word in _words(text)]
        return words[-len(_words(truth)) :] if len(tagged) > 1 else words
    boxed = last_boxed(answer)
    if boxed is not None:
        return _words(_plain(boxed))
    line = (answer.strip().splitlines() or [""])[-1]
    return _words(line) if line.count(",") == truth.count(",") else []


def _words(text: str) -> list[str]:
    return [word.strip().lower() for word in text.replace("\n", "").split(",")]


def _fours(words: Sequence[str]) -> list[frozenset[str]]:
    return [frozenset(words[n : n + 4]) for n in range(0, len(words), 4)]


def _plain(boxed: str) -> str:
    return re.sub(r"\\text\{|[}\\]", "", boxed).strip()


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text.lower())


def _table(text: str) -> dict[Any, Any]:
    try:
        found = ast.literal_eval(text.strip()[-_LONGEST:])
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _edits(one: Sequence[int], other: Sequence[int]) -> int:
    """Levenshtein's distance."""
    row = list(range(len(other) + 1))
    for number, mine in enumerate(one, 1):
        before, row[0] = row[0], number
        for place, theirs in enumerate(other, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (mine != theirs))
    return row[-1]
