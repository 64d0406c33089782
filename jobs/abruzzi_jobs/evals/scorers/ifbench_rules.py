"""The rules of IFBench's test set (arXiv 2507.02833), by their names there. Each: (parameters, answer) → whether it follows.

Written anew after the owner's checkers (Allen Institute for AI, Apache-2.0), and compared with them item by item (bench/rule_agreement.py). What the
owner's code raises at (an answer without words) does not follow here. `words:start_verb` reads words by other means, see abruzzi_jobs.evals.scorers.verbs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from abruzzi_jobs.evals.scorers.ifbench_forms import FORMS
from abruzzi_jobs.evals.scorers.sentences import (
    PUNCTUATION,
    bare,
    package,
    runs_of_letters,
    split_sentences,
    treebank_tokens,
    trimmed,
)
from abruzzi_jobs.evals.scorers.verbs import begins_with_verb

Params = Mapping[str, Any]
_PERSONAL = frozenset(
    [
        "i",
        "me",
        "my",
        "myself",
        "we",
        "our",
        "ours",
        "ourselves",
        "you",
        "your",
        "yours",
        "yourself",
        "yourselves",
        "he",
        "him",
        "his",
        "himself",
        "she",
        "her",
        "hers",
        "herself",
        "it",
        "its",
        "itself",
        "they",
        "them",
        "their",
        "theirs",
        "themselves",
    ]
)
STOP_WORDS = _PERSONAL | frozenset(
    [
        "what",
        "which",
        "who",
        "whom",
        "this",
        "that",
        "these",
        "those",
        "am",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "have",
        "has",
        "had",
        "having",
        "do",
        "does",
        "did",
        "doing",
        "a",
        "an",
        "the",
        "and",
        "but",
        "if",
        "or",
        "because",
        "as",
        "until",
        "while",
        "of",
        "at",
        "by",
        "for",
        "with",
        "about",
        "against",
        "between",
        "into",
        "through",
        "during",
        "before",
        "after",
        "above",
        "below",
        "to",
        "from",
        "up",
        "down",
        "in",
        "out",
        "on",
        "off",
        "over",
        "under",
        "again",
        "further",
        "then",
        "once",
        "here",
        "there",
        "when",
        "where",
        "why",
        "how",
        "all",
        "any",
        "both",
        "each",
        "few",
        "more",
        "most",
        "other",
        "some",
        "such",
        "no",
        "nor",
        "not",
        "only",
        "own",
        "same",
        "so",
        "than",
        "too",
        "very",
        "s",
        "t",
        "can",
        "will",
        "just",
        "don",
        "should",
        "now",
        "d",
        "ll",
        "m",
        "o",
        "re",
        "ve",
        "y",
        "ain",
        "aren",
        "couldn",
        "didn",
        "doesn",
        "hadn",
        "hasn",
        "haven",
        "isn",
        "ma",
        "mightn",
        "mustn",
        "needn",
        "shan",
        "shouldn",
        "wasn",
        "weren",
        "won",
        "wouldn",
    ]
)
"""NLTK's English ones, as runs of letters can be."""
_CONJUNCTIONS = frozenset(["and", "but", "for", "nor", "or", "so", "yet"])
_PRONOUNS = _PERSONAL | {"mine", "us"}
_NAMES = [
    "Emma",
    "Liam",
    "Sophia",
    "Jackson",
    "Olivia",
    "Noah",
    "Ava",
    "Lucas",
    "Isabella",
    "Mason",
    "Mia",
    "Ethan",
    "Charlotte",
    "Alexander",
    "Amelia",
    "Benjamin",
    "Harper",
    "Leo",
    "Zoe",
    "Daniel",
    "Chloe",
    "Samuel",
    "Lily",
    "Matthew",
    "Grace",
    "Owen",
    "Abigail",
    "Gabriel",
    "Ella",
    "Jacob",
    "Scarlett",
    "Nathan",
    "Victoria",
    "Elijah",
    "Layla",
    "Nicholas",
    "Audrey",
    "David",
    "Hannah",
    "Christopher",
    "Penelope",
    "Thomas",
    "Nora",
    "Andrew",
    "Aria",
    "Joseph",
    "Claire",
    "Ryan",
    "Stella",
    "Jonathan",
]
_PRIMES = frozenset((2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97))
_CONSONANTS = frozenset("bcdfghjklmnpqrstvwxyz")


def _words(text: str) -> list[str]:
    return bare(text).split()


def _unique_words(p: Params, text: str) -> bool:
    return len({trimmed(word) for word in text.lower().split()}) >= p["N"]


def _stop_words(p: Params, text: str) -> bool:
    words = runs_of_letters(text)
    return bool(words) and 100 * sum(word.lower() in STOP_WORDS for word in words) / len(words) <= p["percentage"]


def _endings(text: str) -> Counter[str]:
    return Counter(sentence[-1:] for sentence in split_sentences(text))


def _conjunctions(p: Params, text: str) -> bool:
    # Distinct as they are written: "And" and "and," count apiece, as with the owner.
    return len({word for word in text.split() if trimmed(word).lower() in _CONJUNCTIONS}) >= p["small_n"]


def _overlap(p: Params, text: str) -> bool:
    """Trigrams of characters: the owner hands NLTK a text, not a list of words."""
    found, reference = ({t[i : i + 3] for i in range(len(t) - 2)} for t in (text, p["reference_text"] or ""))
    return bool(found) and abs(100 * len(found & reference) / len(found) - p["percentage"]) <= 2


def _alphabet(p: Params, text: str) -> bool:
    letters = [word[0].lower() for word in _words(text)]
    return bool(letters) and all("a" <= letter <= "z" for letter in letters) and all(
        (ord(later) - ord(letter)) % 26 == 1 for letter, later in pairwise(letters)
    )  # fmt: skip


def _vowels(p: Params, text: str) -> bool:
    return "\n" not in text.strip() and len(set("aeiou") & set(text.lower())) <= 3


def _clusters(p: Params, text: str) -> bool:
    return all(any({a, b} <= _CONSONANTS for a, b in pairwise(word)) for word in text.lower().split())


def _alliteration(p: Params, text: str) -> bool:
    before = -1
    for sentence in split_sentences(text):
        first = [word[0] for word in (w.lstrip(PUNCTUATION + " ") for w in sentence.lower().split()) if word]
        length, in_run = 0, False
        for a, b in pairwise(first):
            length += (1 if in_run else 2) if a == b else 0
            in_run = a == b
        if length <= before:
            return False
        before = length
    return True


def _palindromes(p: Params, text: str) -> bool:
    return sum(len(word) >= 5 and word == word[::-1] for word in _words(text.lower())) >= 10


def _all_marks(p: Params, text: str) -> bool:
    if not any(mark in text for mark in ("!?", "?!", "‽")):
        return False
    rest = text.replace("?!", "", 1)
    rest = text.replace("!?", "", 1) if rest == text else rest
    return set(".,!?;:") <= set(rest)


def _emoji_ends(p: Params, text: str) -> bool:
    is_emoji = package("emoji").is_emoji
    sentences = [bare(sentence).strip() for sentence in split_sentences(text)]
    for number, sentence in enumerate(sentences):
        if not sentence:
            return False
        if is_emoji(sentence[-1]) or is_emoji(sentence[-2:][0]):
            continue
        after = sentences[number + 1] if number + 1 < len(sentences) else ""
        if not after or not is_emoji(after[0]):
            return False
    return True


def _three_equal_sentences(p: Params, text: str) -> bool:
    lengths = [len(sentence) for sentence in split_sentences(text)]
    return len(lengths) == 3 and len(set(lengths)) == 1


def _japanese(p: Params, text: str) -> bool:
    every = int(p["N"])
    chosen = [trimmed(word) for number, word in enumerate(text.split(), 1) if number % every == 0]
    return all(re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", word) for word in chosen if word and not word.isdigit())


def _few_repeats(p: Params, text: str) -> bool:
    return all(count <= p["small_n"] for count in Counter(_words(text.lower())).values())


def _keyword_in_sentence(p: Params, text: str) -> bool:
    sentences, at = split_sentences(text), int(p["N"])
    return len(sentences) >= at and p["word"].lower() in sentences[at - 1].lower()


def _pronouns(p: Params, text: str) -> bool:
    return sum(word in _PRONOUNS for word in _words(text.replace("/", " ").lower())) >= p["N"]


def _syllables(p: Params, text: str) -> bool:
    count = package("syllapy").count
    odd = [count(word) % 2 for word in _words(text.lower())]
    return all(a != b for a, b in pairwise(odd))


def _last_is_first(p: Params, text: str) -> bool:
    parts = [(s.rstrip(PUNCTUATION + " ").split(), s.lstrip(PUNCTUATION + " ").split()) for s in split_sentences(text)]
    return all(a[0] and b[1] and a[0][-1].lower() == b[1][0].lower() for a, b in pairwise(parts))


def _paragraph_ends_as_it_begins(p: Params, text: str) -> bool:
    paragraphs = [part.strip().lower() for part in text.split("\n")]
    words = [trimmed(part).split() for part in paragraphs if part]
    return all(found and found[0] == found[-1] for found in words)


def _growing_sentences(p: Params, text: str) -> bool:
    lengths = [len(_words(sentence)) for sentence in split_sentences(text)]
    return bool(lengths) and all(later == before + p["small_n"] for before, later in pairwise(lengths))


def _no_alliteration(p: Params, text: str) -> bool:
    return all(a[0] != b[0] for a, b in pairwise(_words(text.lower())))


def _keywords(p: Params, text: str) -> bool:
    return all(text.lower().count(p[f"keyword{n}"].lower()) == times for n, times in enumerate((1, 2, 3, 5, 7), 1))


def _keyword_at(p: Params, text: str) -> bool:
    sentences, n, m = split_sentences(text), int(p["n"]), int(p["m"])
    tokens = treebank_tokens(sentences[n - 1]) if len(sentences) >= n else []
    return len(tokens) >= m and tokens[m - 1] == p["keyword"].strip()


def _second_and_second_last(p: Params, text: str) -> bool:
    tokens = treebank_tokens(text)
    return len(tokens) >= 2 and tokens[1] == tokens[-2] == p["keyword"]


RULES: dict[str, Callable[[Params, str], bool]] = {
    **FORMS,
    "count:word_count_range": lambda p, t: p["min_words"] <= len(runs_of_letters(t)) <= p["max_words"],
    "count:unique_word_count": _unique_words,
    "ratio:stop_words": _stop_words,
    "ratio:sentence_type": lambda p, t: _endings(t)["."] == 2 * _endings(t)["?"],
    "ratio:sentence_balance": lambda p, t: _endings(t)["."] == _endings(t)["?"] == _endings(t)["!"],
    "count:conjunctions": _conjunctions,
    "count:person_names": lambda p, t: sum(name in t for name in _NAMES) >= p["N"],
    "ratio:overlap": _overlap,
    "count:numbers": lambda p, t: len(re.findall(r"\d+", bare(t))) == p["N"],
    "words:alphabet": _alphabet,
    "words:vowel": _vowels,
    "words:consonants": _clusters,
    "sentence:alliteration_increment": _alliteration,
    "words:palindrome": _palindromes,
    "count:punctuation": _all_marks,
    "words:prime_lengths": lambda p, t: all(len(word) in _PRIMES for word in _words(t)),
    "format:emoji": _emoji_ends,
    "ratio:sentence_words": _three_equal_sentences,
    "count:words_japanese": _japanese,
    "words:start_verb": lambda p, t: begins_with_verb(treebank_tokens(t), STOP_WORDS),
    "words:repeats": _few_repeats,
    "sentence:keyword": _keyword_in_sentence,
    "count:pronouns": _pronouns,
    "words:odd_even_syllables": _syllables,
    "words:last_first": _last_is_first,
    "words:paragraph_last_first": _paragraph_ends_as_it_begins,
    "sentence:increment": _growing_sentences,
    "words:no_consecutive": _no_alliteration,
    "count:keywords_multiple": _keywords,
    "words:keywords_specific_position": _keyword_at,
    "words:words_position": _second_and_second_last,
}
