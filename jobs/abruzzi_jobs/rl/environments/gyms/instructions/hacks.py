"""The layer against answers that pass for what they are not (paper 3.2.1): that claim to comply, talk to the judge, or repeat what they were told. Pure."""

from __future__ import annotations

import re

from abruzzi_jobs.instruct.rules import repetition
from abruzzi_jobs.rephrase.fidelity.judge import speaks_to_a_judge

_CLAIM = re.compile(
    r"\b(?:as (?:you )?(?:requested|asked|instructed|required|specified)|per your (?:request|instructions?)|"
    r"(?:this|the|my) (?:answer|response|text|reply) (?:contains?|has|have|uses?|follows?|meets?|satisf\w+|complies|fulfil\w*|is exactly)|"
    r"(?:i|i've|i have|we) (?:have )?(?:followed|used|written|included|avoided|met|fulfilled|complied|made sure)|"
    r"word count|exactly \d+ (?:words|sentences|paragraphs|bullet points)|all (?:the )?(?:instructions|constraints|requirements|rules) (?:are|were|have been))\b",
    re.IGNORECASE,
)
_REPETITION = 0.5
_ECHO_RUN = 8


def hacks_of(prompt: str, text: str, *, follows: bool) -> list[str]:
    """Words for what is wrong. A claim alone is bad manners; with a broken rule it is a lie."""
    found = []
    if not follows and _CLAIM.search(text):
        found.append("claims_compliance")
    if speaks_to_a_judge(text):
        found.append("speaks_to_the_judge")
    if repetition(text) > _REPETITION:
        found.append("repetition")
    if _echoes(prompt, text):
        found.append("echo")
    return found


def _echoes(prompt: str, text: str) -> bool:
    """Whether a run of the prompt's words stands in the answer: keywords are satisfied by quoting the instruction."""
    said = f" {' '.join(text.lower().split())} "
    asked = prompt.lower().split()
    return any(f" {' '.join(asked[i : i + _ECHO_RUN])} " in said for i in range(len(asked) - _ECHO_RUN + 1))
