"""The 25 rules of IFEval (arXiv 2311.07911), by their names there. Each: (parameters, answer) → whether it follows.

Written anew after Google's checkers (Apache-2.0), and compared with them, as lm-eval has them, item by item (bench/rule_agreement.py). Languages are told by the
fast detector that the rest of the platform uses, where the owner uses langdetect; the two differ on texts of few words, and langdetect knows no plain `zh`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from abruzzi_jobs.data.curation.language import language_of
from abruzzi_jobs.evals.scorers.sentences import punkt_sentences, runs_of_letters, treebank_tokens

Params = Mapping[str, Any]


def _related(p: Params, relation: str, found: int, wanted: int) -> bool:
    return found < wanted if p.get(relation) == "less than" else found >= wanted


def _keywords(p: Params, text: str) -> bool:
    return all(re.search(keyword, text, re.IGNORECASE) for keyword in p["keywords"])


def _frequency(p: Params, text: str) -> bool:
    return _related(p, "relation", len(re.findall(p["keyword"].strip(), text, re.IGNORECASE)), p["frequency"])


def _forbidden(p: Params, text: str) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in p["forbidden_words"])


def _letters(p: Params, text: str) -> bool:
    return _related(p, "let_relation", text.lower().count(p["letter"].lower()), p["let_frequency"])


def _language(p: Params, text: str) -> bool:
    found, _ = language_of(text)
    return not found or found == p["language"]


def _in_english(text: str) -> bool:
    found, _ = language_of(text.lower())
    return not found or found == "en"


def _paragraphs(p: Params, text: str) -> bool:
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    if not all(parts[1:-1]):
        return False
    return sum(bool(part) for part in parts) == p["num_paragraphs"]


def _first_word(p: Params, text: str) -> bool:
    parts = text.split("\n\n")
    count, nth = sum(bool(part.strip()) for part in parts), p["nth_paragraph"]
    paragraph = parts[nth - 1].strip() if nth <= count else ""
    if not paragraph:
        return False
    word = re.split(r"[.,?!'\"]", paragraph.split()[0].lstrip("'").lstrip('"').lower(), maxsplit=1)[0]
    return count == p["num_paragraphs"] and word == p["first_word"].lower()


def _postscript(p: Params, text: str) -> bool:
    marker = p["postscript_marker"].strip()
    known = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    return re.search(known.get(marker, rf"\s*{marker.lower()}.*$"), text.lower(), re.MULTILINE) is not None


def _bullets(p: Params, text: str) -> bool:
    stars, dashes = (re.findall(e, text, re.MULTILINE) for e in (r"^\s*\*[^\*].*$", r"^\s*-.*$"))
    return len(stars) + len(dashes) == p["num_bullets"]


def _highlights(p: Params, text: str) -> bool:
    single = sum(bool(part.strip("*").strip()) for part in re.findall(r"\*[^\n\*]*\*", text))
    double = sum(bool(part[2:-2].strip()) for part in re.findall(r"\*\*[^\n\*]*\*\*", text))
    return single + double >= p["num_highlights"]


def _sections(p: Params, text: str) -> bool:
    return len(re.split(rf"\s?{p['section_spliter'].strip()}\s?\d+\s?", text)) - 1 >= p["num_sections"]


def _json(p: Params, text: str) -> bool:
    inner = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        inner = inner.removeprefix(fence)
    try:
        json.loads(inner.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(p: Params, text: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(p: Params, text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    if not all(parts[1:-1]):
        return False
    said = [part for part in parts if part]
    return len(said) == 2 and said[0] != said[1]


def _capital_words(p: Params, text: str) -> bool:
    return _related(p, "capital_relation", sum(t.isupper() for t in treebank_tokens(text)), p["capital_frequency"])


def _constrained(p: Params, text: str) -> bool:
    return any(answer in text for answer in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


RULES: dict[str, Callable[[Params, str], bool]] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": lambda p, t: _related(
        p, "relation", len(punkt_sentences(t)), p["num_sentences"]
    ),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda p, t: _related(p, "relation", len(runs_of_letters(t)), p["num_words"]),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda p, t: len(re.findall(r"\[.*?\]", t)) >= p["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda p, t: t.strip().lower().startswith(p["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda p, t: t.strip().strip('"').lower().endswith(p["end_phrase"].strip().lower()),
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda p, t: t.isupper() and _in_english(t),
    "change_case:english_lowercase": lambda p, t: t.islower() and _in_english(t),
    "punctuation:no_comma": lambda p, t: "," not in t,
    "startend:quotation": lambda p, t: len(t.strip()) > 1 and t.strip()[0] == '"' == t.strip()[-1],
}
