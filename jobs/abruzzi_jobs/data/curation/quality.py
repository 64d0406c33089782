"""Quality of prose and code by rules with names. Each rule is cheap, says what it saw, and is switched off by its own limit.

Prose: Gopher's rules (Rae et al. 2021, "Scaling Language Models", appendix A.1) and C4's marks of boilerplate (Raffel et al. 2020,
section 2.2). Code: the rules of the Stack (Kocetkov et al. 2022, appendix).
"""

from __future__ import annotations

import re
from collections import Counter

from abruzzi.contracts.curation import QualityConfig

CODE = "code"
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "*", "-", "‣", "·", "–")
_ELLIPSES = ("...", "…")
_BOILERPLATE = ("lorem ipsum", "enable javascript", "javascript is disabled", "javascript is required")
_GENERATED = re.compile(r"auto-?generated|generated (?:by|from|automatically)|do not edit", re.IGNORECASE)
_HEAD = 500
_NGRAM = 5


def fault(text: str, domain: str, config: QualityConfig) -> str | None:
    """Name of the first rule that the text breaks, None where it breaks none."""
    return _code_fault(text, config) if domain == CODE else _prose_fault(text, config)


def _prose_fault(text: str, config: QualityConfig) -> str | None:
    words = text.split()
    if len(words) < max(1, config.min_words):
        return "few_words"
    if len(words) > config.max_words:
        return "many_words"
    mean = sum(map(len, words)) / len(words)
    if mean < config.min_word_length:
        return "short_words"
    if mean > config.max_word_length:
        return "long_words"
    if (text.count("#") + text.count("…") + text.count("...")) / len(words) > config.max_symbol_ratio:
        return "symbols"
    if sum(any(c.isalpha() for c in w) for w in words) / len(words) < config.min_alphabetic_words:
        return "few_letters"
    lower = text.lower()
    if config.min_stop_words and len(STOP_WORDS.intersection(lower.split())) < config.min_stop_words:
        return "no_stop_words"
    if any(mark in lower for mark in _BOILERPLATE):
        return "boilerplate"
    return _line_fault(text, config) or _repetition_fault(words, config)


def _line_fault(text: str, config: QualityConfig) -> str | None:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if sum(line.startswith(_BULLETS) for line in lines) / len(lines) > config.max_bullet_lines:
        return "bullet_lines"
    if sum(line.endswith(_ELLIPSES) for line in lines) / len(lines) > config.max_ellipsis_lines:
        return "ellipsis_lines"
    if (len(lines) - len(set(lines))) / len(lines) > config.max_duplicate_lines:
        return "duplicate_lines"
    return None


def _repetition_fault(words: list[str], config: QualityConfig) -> str | None:
    """Each character counts once, however many repeated n-grams it is in."""
    if config.max_duplicate_ngrams >= 1 or len(words) < _NGRAM:
        return None
    ngrams = [tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)]
    counts = Counter(ngrams)
    repeated = reached = 0
    for start, ngram in enumerate(ngrams):
        if counts[ngram] > 1:
            repeated += sum(len(w) for w in words[max(start, reached) : start + _NGRAM])
            reached = start + _NGRAM
    return "duplicate_ngrams" if repeated / sum(map(len, words)) > config.max_duplicate_ngrams else None


def _code_fault(text: str, config: QualityConfig) -> str | None:
    lines = text.split("\n")
    if max(map(len, lines)) > config.max_code_line:
        return "long_code_line"
    if len(text) / len(lines) > config.max_code_line_mean:
        return "long_code_lines"
    if sum(c.isalnum() for c in text) / max(1, len(text)) < config.min_code_alphanumeric:
        return "few_letters"
    if _GENERATED.search(text[:_HEAD]):
        return "generated"
    return None
