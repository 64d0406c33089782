"""What a translation must keep: numbers, formulas, the answer; and that it is one. Pure but for the language model of fastText."""

from __future__ import annotations

import re
from collections import Counter

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.data.curation.language import language_of
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind

LAYER = "rules"
TARGET = "en"
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*")
_FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$|\\\[.+?\\\]|\\\(.+?\\\)|\\boxed\{[^{}]*\}", re.DOTALL)
_EQUATION = re.compile(r"[\w()^*/+.-]+(?:\s*[-+*/^]\s*[\w()^.]+)*\s*=\s*[\w()^.-]+(?:\s*[-+*/^]\s*[\w()^.]+)*")
_ANSWER = re.compile(
    r"(?:answer|respuesta|réponse|antwort|risposta|resposta|antwoord|odpowiedź|ответ|答案|答え)\w*\s*(?:is|es|est|ist|è|é)?\s*[:=：]?\s*(\S[^\n]*)",
    re.IGNORECASE,
)
_CHARACTERS = 0.3, 3.0
"""Of the translation to the source's: languages differ in length by less than this."""
_SURE = 0.5
_LONG_ENOUGH = 40
"""Characters from which a language can be told."""


def translation_faults(source: str, text: str, config: FidelityConfig) -> list[Fault]:
    """Numbers as often as in the source, whatever separates their groups; formulas and the final answer letter by letter."""
    faults: list[Fault] = []
    theirs, ours = _numbers(source), _numbers(text)
    for value in sorted((theirs - ours).keys()):
        faults.append(Fault(FaultKind.NUMBER, LAYER, f"{value} is missing", _place(source, value), None))
    for value in sorted((ours - theirs).keys()):
        faults.append(Fault(FaultKind.NUMBER, LAYER, f"{value} is new", None, _place(text, value)))
    there, here = _formulas(source), _formulas(text)
    for formula in sorted((there - here).keys()):
        faults.append(
            Fault(FaultKind.ANSWER, LAYER, f"the formula {formula} is missing", _place(source, formula), None)
        )
    answer, given = _answer(source), _answer(text)
    if answer is not None and answer != given:
        faults.append(Fault(FaultKind.ANSWER, LAYER, f"the answer is {given}, and was {answer}"))
    ratio = len(text) / max(1, len(source))
    if not _CHARACTERS[0] <= ratio <= _CHARACTERS[1]:
        faults.append(Fault(FaultKind.LENGTH, LAYER, f"{len(text)} characters for the source's {len(source)}"))
    prose = _FORMULA.sub(" ", text)
    if len(prose.strip()) >= _LONG_ENOUGH:
        language, sure = language_of(prose)
        if language != TARGET and sure >= _SURE:
            faults.append(Fault(FaultKind.LANGUAGE, LAYER, f"its language is {language!r}"))
    return faults


def _numbers(text: str) -> Counter[str]:
    """1.000,5 and 1,000.5 are the same digits; a decimal comma is a point."""
    return Counter(re.sub(r"[.,]", "", m[0]) for m in _NUMBER.finditer(text))


def _formulas(text: str) -> Counter[str]:
    found = [*_FORMULA.findall(text), *(m for m in _EQUATION.findall(text) if any(c.isdigit() for c in m))]
    return Counter("".join(f.split()) for f in found)


def _answer(text: str) -> str | None:
    """What follows the last word for answer, as digits and letters of its first number or formula."""
    found = _ANSWER.findall(text)
    if not found:
        return None
    value = _FORMULA.search(found[-1]) or re.search(r"-?\d[\d.,/]*", found[-1])
    return None if value is None else re.sub(r"[\s.,]", "", value[0])


def _place(text: str, value: str) -> tuple[int, int] | None:
    at = text.find(value)
    return (at, at + len(value)) if at >= 0 else None
