"""Words and sentences as the rules of IFEval and IFBench count them: results depend on it to the letter.

`split_sentences` follows IFBench's own expressions (instructions_util.py, Apache-2.0); where the owners ask NLTK, the same is asked here: its word tokenizer,
and Punkt with the English model, out of a package that carries it.
"""

from __future__ import annotations

import importlib
import re
import string
from functools import cache
from typing import Any

from abruzzi.contracts.errors import AbruzziError

PUNCTUATION = string.punctuation
_ALPHABETS = "([A-Za-z])"
_STARTERS = (
    r"(Mr|Mrs|Ms|Dr|Prof|Capt|Cpt|Lt|He\s|She\s|It\s|They\s|Their\s|Our\s|We\s|But\s|However\s|That\s|This\s|Wherever)"
)
_SUFFIXES = "(Inc|Ltd|Jr|Sr|Co)"
_ACRONYMS = "([A-Z][.][A-Z][.](?:[A-Z][.])?)"


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


def punkt_sentences(text: str) -> list[str]:
    """By NLTK's Punkt, trained on English. Raises AbruzziError `missing_package`."""
    return package("punkt").sent_tokenize(text)


def treebank_tokens(text: str) -> list[str]:
    """Words and marks apart, contractions split, as in the Penn Treebank: NLTK's word_tokenize. Raises AbruzziError `missing_package`."""
    tokenizer = _tokenizer()
    return [token for sentence in punkt_sentences(text) for token in tokenizer.tokenize(sentence)]


@cache
def _tokenizer() -> Any:
    return package("nltk.tokenize.destructive").NLTKWordTokenizer()


def package(name: str) -> Any:
    """A module that a rule needs. Raises AbruzziError `missing_package`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            f"A rule of IFEval or IFBench needs the package {name.partition('.')[0]}, which is not installed here.",
            hint="Install abruzzi-jobs[evals].",
        ) from error
