"""Results of mathematical answers: the last one that is boxed, stated or written, compared as a mathematical object."""

from __future__ import annotations

import re

from abruzzi_jobs.data.validation.mathematics import answers_agree

_STATED = re.compile(r"answer\s*(?:is|:|=)\s*(.+)", re.IGNORECASE)
_LONGEST = 400
"""Characters of a result; what is longer is none, and no parser is to be held up by it."""


def is_right(gold: str, text: str) -> tuple[bool, str]:
    """(whether it is, why not). In the main thread: math-verify ends what takes too long by a signal."""
    found = stated_result(text)
    if not found:
        return False, "no result is stated"
    if len(found) > _LONGEST:
        return False, f"the result has {len(found)} characters"
    if _plain(gold) == _plain(found) or answers_agree(f"${gold}$", f"${found}$"):
        return True, ""
    return False, f"the result is {gold}, not {found[:60]}"


def stated_result(text: str) -> str:
    """Of the last box, else behind the last `answer is`, else the last line."""
    boxed = last_boxed(text)
    if boxed is not None:
        return _bare(boxed)
    stated = _STATED.findall(text[-20_000:])
    if stated:
        return _bare(stated[-1])
    return _bare(next((line for line in reversed(text.strip().splitlines()) if line.strip()), ""))


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` or `\fbox{…}`, whose braces may hold others; None without one that is closed."""
    at = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if at < 0:
        return None
    begin = text.index("{", at) + 1
    depth = 1
    for number, char in enumerate(text[begin:], begin):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return text[begin:number]
    return None


def _bare(result: str) -> str:
    return re.sub(r"^[a-z]\s*=\s*", "", result.strip().strip("*").strip().rstrip(".").strip("$ "))


def _plain(result: str) -> str:
    """For results that are no mathematics, such as \\text{Evelyn}."""
    unwrapped = re.sub(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}", r"\1", result)
    return re.sub(r"\\left|\\right|\\[,;!]|[\s$]", "", unwrapped).replace("\\dfrac", "\\frac").casefold()
