"""Words and sentences as the rules of IFEval and IFBench count them.

The splitting of sentences follows Google's IFEval (instructions_util.py, Apache-2.0), which IFBench took over: results depend on it to the letter.
"""

from __future__ import annotations

import re
import string

PUNCTUATION = string.punctuation
_ALPHABETS = "([A-Za-z])"
_STARTERS = (
    r"(Mr|Mrs|Ms|Dr|Prof|Capt|Cpt|Lt|He\s|She\s|It\s|They\s|Their\s|Our\s|We\s|But\s|However\s|That\s|This\s|Wherever)"
)
_SUFFIXES = "(Inc|Ltd|Jr|Sr|Co)"
_ACRONYMS = "([A-Z][.][A-Z][.](?:[A-Z][.])?)"
_CONTRACTION = re.compile(r"(?i)^(.+)(n't|'s|'re|'ve|'ll|'d|'m)$")
_TOKENS = re.compile(r"\.{2,}|[\w.]+(?:[-'’/&][\w]+)*\.?|[^\w\s]")


def split_sentences(text: str) -> list[str]:
    text = f" {text}  ".replace("\n", " ")
    text = re.sub(r"(Mr|St|Mrs|Ms|Dr)[.]", r"\1<prd>", text)
    text = re.sub(r"[.](com|net|org|io|gov|edu|me)", r"<prd>\1", text)
    text = re.sub(r"([0-9])[.]([0-9])", r"\1<prd>\2", text)
    text = re.sub(r"\.{2,}", lambda dots: "<prd>" * len(dots[0]) + "<stop>", text)
    text = text.replace("Ph.D.", "Ph<prd>D<prd>")
    text = re.sub(rf"\s{_ALPHABETS}[.] ", r" \1<prd> ", text)
    text = re.sub(f"{_ACRONYMS} {_STARTERS}", r"\1<stop> \2", text)
    text = re.sub(f"{_ALPHABETS}[.]{_ALPHABETS}[.]{_ALPHABETS}[.]", r"\1<prd>\2<prd>\3<prd>", text)
    text = re.sub(f"{_ALPHABETS}[.]{_ALPHABETS}[.]", r"\1<prd>\2<prd>", text)
    text = re.sub(f" {_SUFFIXES}[.] {_STARTERS}", r" \1<stop> \2", text)
    text = re.sub(f" {_SUFFIXES}[.]", r" \1<prd>", text)
    text = re.sub(f" {_ALPHABETS}[.]", r" \1<prd>", text)
    for inside, outside in ((".”", "”."), ('."', '".'), ('!"', '"!'), ('?"', '"?')):
        text = text.replace(inside, outside)
    for mark in ".?!":
        text = text.replace(mark, f"{mark}<stop>")
    found = [sentence.strip() for sentence in text.replace("<prd>", ".").split("<stop>")]
    return found[:-1] if found and not found[-1] else found


def runs_of_letters(text: str) -> list[str]:
    """Words for the rules that count them: runs of word characters."""
    return re.findall(r"\w+", text)


def bare(text: str) -> str:
    """Without ASCII punctuation."""
    return text.translate(str.maketrans("", "", PUNCTUATION))


def trimmed(word: str) -> str:
    """Without ASCII punctuation and blanks around it."""
    return word.strip(PUNCTUATION + " ")


def treebank_tokens(text: str) -> list[str]:
    """Words and marks apart, contractions split, as in the Penn Treebank (NLTK's word_tokenize, for plain English)."""
    tokens: list[str] = []
    found = _TOKENS.findall(text)
    for number, token in enumerate(found):
        if re.fullmatch(r"\.{2,}", token) or len(token) == 1:
            tokens.append(token)
            continue
        ends = token.endswith(".") and (number == len(found) - 1 or "." not in token[:-1])
        word = token[:-1] if ends else token
        split = _CONTRACTION.match(word)
        tokens += [split[1], split[2]] if split else [word]
        tokens += ["."] if ends else []
    return [token for token in tokens if token]
