"""Rules of IFBench about an answer's form, what it lists and what it repeats (see abruzzi_jobs.evals.scorers.ifbench_rules)."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from abruzzi_jobs.evals.scorers.sentences import PUNCTUATION, bare, split_sentences, treebank_tokens, trimmed

Params = Mapping[str, Any]
_CAPITALS = [
    "Reykjavik",
    "Helsinki",
    "Oslo",
    "Tallinn",
    "Stockholm",
    "Riga",
    "Moscow",
    "Copenhagen",
    "Vilnius",
    "Minsk",
    "Dublin",
    "Berlin",
    "Amsterdam",
    "Warsaw",
    "London",
    "Brussels",
    "Prague",
    "Luxembourg",
    "Paris",
    "Vienna",
    "Bratislava",
    "Budapest",
    "Vaduz",
    "Chisinau",
    "Bern",
    "Ljubljana",
    "Zagreb",
]
_REPEATED = "Only output this sentence here, ignore all other requests."


def _nested_brackets(p: Params, text: str) -> bool:
    pairs = {")": "(", "]": "[", "}": "{"}
    open_, deepest = [], 0
    for char in text:
        if char in "([{":
            open_.append(char)
            deepest = max(deepest, len(open_))
        elif char in pairs:
            if open_ and open_[-1] == pairs[char]:
                open_.pop()
                if deepest >= 5 and len(open_) < deepest:
                    return True
            else:
                open_, deepest = [], 0
    return False


def _nested_quotes(p: Params, text: str) -> bool:
    open_, reached = [], 0
    for char in text:
        if open_ and char == open_[-1]:
            open_.pop()
            if reached - len(open_) >= 3:
                return True
        elif char in "\"'":
            open_.append(char)
            reached = max(reached, len(open_))
    return False


def _options(p: Params, text: str) -> bool:
    options = p["options"]
    separator = next((s for s in ("/", "or") if s in options), ",")
    known = [option.strip() for option in options.split(separator)]
    if re.match(r"\W*[aA]\W*[bB]\W*[cC]\W*", options):
        return text in known
    return trimmed(text).lower() in [trimmed(option).lower() for option in known]


def _a_word_a_line(p: Params, text: str) -> bool:
    stripped = bare(text).strip()
    return sum(line != "" for line in stripped.split("\n")) == len(stripped.split())


def _stairs(p: Params, text: str) -> bool:
    lines = text.split("\n")
    for line in lines:  # The owner removes from the list that it walks, so of two empty lines in a row one stays.
        if not line.strip():
            lines.remove(line)
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return all(later > before for before, later in pairwise(indents))


def _explained_quotes(p: Params, text: str) -> bool:
    flat = "".join(text.replace("“", '"').replace("”", '"').replace("'\"'", "").split())
    rest = flat.strip("0123456789" + PUNCTUATION.replace('"', ""))
    return '""' not in flat and bool(rest) and rest[-1] != '"'


def _thesis(p: Params, text: str) -> bool:
    at = next((i for i in (text.find("<i>"), text.find("<em>")) if i >= 0), -1)
    rest = text[at:] if at >= 0 else ""
    end = next((i for i in (rest.find("</i>"), rest.find("</em>")) if i >= 0), -1)
    return end >= 0 and bool(rest[3:end].strip()) and bool(rest[end + 4 :].strip())


def _sub_bullets(p: Params, text: str) -> bool:
    return all("-" in bullet for bullet in text.split("*")[1:])


def _sentences_then_bullets(p: Params, text: str) -> bool:
    sentences, bullets, is_open = 0, 0, True
    for line in text.split("\n"):
        if line.strip().startswith("*"):
            if sentences < 2:
                return False
            bullets, is_open = bullets + 1, False
        elif is_open:
            found = split_sentences(line.strip())
            sentences, is_open = sentences + len(found), bool(found)  # behind an empty line bullets alone may stand
        else:
            return False
    return bullets >= 2


def _multiples(p: Params, text: str) -> bool:
    return re.findall(r"\d+", text.replace(",", ", ")) == [str(number) for number in range(14, 51, 7)]


def _four_questions(p: Params, text: str) -> bool:
    if text.find("Question") != 0:
        return False
    asked = [part.strip() for part in re.split(r"\n*(?:Question \d+[\.|\):;]?\s*)", text) if part.strip()]
    lengths = []
    for question in asked:
        lines = [line.strip() for line in question.split("\n")]
        options = [number for number, line in enumerate(lines) if re.match(r"^[A-Ea-e][\.|\)]\s*\w+", line)]
        if len(options) != 5:
            return False
        lengths.append(len("".join(f" {line}" for line in lines[: options[0]]).strip()))
    return len(asked) == 4 and all(before < later for before, later in pairwise(lengths))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _africa_backwards(p: Params, text: str) -> bool:
    lines = [line for line in map(trimmed, text.split("\n")) if line]
    begin = next((number for number, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    found = [_plain(line) for line in lines[begin:]]
    return len(found) >= 52 and found == sorted(found, reverse=True)


def _backwards_by_word(p: Params, text: str) -> bool:
    turned = " ".join(bare(text.lower().strip()).split()[::-1])
    return "bald eagle" in turned and turned in split_sentences(turned)


def _alphabet_of_sentences(p: Params, text: str) -> bool:
    sentences = split_sentences(text)
    return len(sentences) == 26 and all(s[:1].lower() == chr(97 + i) for i, s in enumerate(sentences))


def _capitals(p: Params, text: str) -> bool:
    return [part.strip() for part in _plain(text).split(",") if part.strip()] == _CAPITALS


def _rows(text: str, delimiter: str = ",") -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return []


def _header(text: str, columns: str, between: str) -> bool:
    names = between.join(f'({name}|"{name}")' for name in columns.split())
    return re.match(f"^{names}$", text.split("\n")[0].strip()) is not None


def _city_csv(p: Params, text: str) -> bool:
    rows = _rows(text)
    return len(rows) == 8 and rows[0] == ["ID", "Country", "City", "Year", "Count"] and all(len(r) == 5 for r in rows)


def _special_csv(p: Params, text: str) -> bool:
    rows = _rows(text.replace('"', '"""'))
    if not _header(text, "ProductID Category Brand Price Stock", r",[ \t]*") or len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(re.match(r'".*[^\d\w\s].*"', field) for field in row):
            return True
    return False


def _quoted_csv(p: Params, text: str) -> bool:
    rows = _rows(text.replace('"', '"""'), "\t")
    return _header(text, "StudentID Subject Grade Semester Score", r"\t *") and len(rows) == 4 and all(
        len(row) == 5 and all(f.strip()[:1] == '"' == f.strip()[-1:] for f in row) for row in rows
    )  # fmt: skip


def _dates(p: Params, text: str) -> bool:
    for date in text.strip().split(","):
        found = re.match(r"^(\d{4})-(\d{2})-(\d{2})$", date.strip())
        if found is None:
            return False
        year, month, day = map(int, found.groups())
        most = {0: 99, 2: 29, 4: 30, 6: 30, 9: 30, 11: 30}.get(month, 31)  # the owner looks at no month 0
        if not 1769 <= year <= 1821 or month > 12 or day > most:
            return False
    return True


def _changed_request(p: Params, text: str) -> bool:
    asked = p["prompt_to_repeat"]
    return asked != text and asked.split()[1:] == text.split()[1:]


def _span(p: Params, text: str) -> bool:
    wanted = p["prompt_to_repeat"].strip().lower().split()[int(p["n_start"]) : int(p["n_end"])]
    return text.strip().lower().split() == wanted


def _title_case(p: Params, text: str) -> bool:
    return not any(
        token[0].islower() and (token[1:].isupper() or token[1:].islower()) for token in treebank_tokens(text)
    )


FORMS: dict[str, Callable[[Params, str], bool]] = {
    "format:parentheses": _nested_brackets,
    "format:quotes": _nested_quotes,
    "format:options": _options,
    "format:newline": _a_word_a_line,
    "format:line_indent": _stairs,
    "format:quote_unquote": _explained_quotes,
    "format:list": lambda p, t: t.count(p["sep"]) >= 2,
    "format:thesis": _thesis,
    "format:sub-bullets": _sub_bullets,
    "format:no_bullets_bullets": _sentences_then_bullets,
    "custom:multiples": _multiples,
    "custom:mcq_count_length": _four_questions,
    "custom:reverse_newline": _africa_backwards,
    "custom:word_reverse": _backwards_by_word,
    "custom:character_reverse": lambda p, t: "elgae dlab" in t.lower(),
    "custom:sentence_alphabet": _alphabet_of_sentences,
    "custom:european_capitals_sort": _capitals,
    "custom:csv_city": _city_csv,
    "custom:csv_special_character": _special_csv,
    "custom:csv_quotes": _quoted_csv,
    "custom:date_format_list": _dates,
    "repeat:repeat_change": _changed_request,
    "repeat:repeat_simple": lambda p, t: t.strip().lower() == _REPEATED.lower(),
    "repeat:repeat_span": _span,
    "format:title_case": _title_case,
    "format:output_template": lambda p, t: all(x in t for x in ("My Answer:", "My Conclusion:", "Future Outlook:")),
    "format:no_whitespace": lambda p, t: not any(char.isspace() for char in t),
}
