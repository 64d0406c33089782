"""What an answer must be whatever it says, and whether it is right where that is known. Pure, but for programs, which run in a sandbox."""

from __future__ import annotations

import ast
import re

from abruzzi.contracts.instruct import AnswerRulesConfig
from abruzzi_jobs.data.curation.language import language_of
from abruzzi_jobs.data.validation.mathematics import answers_agree, wrong_equations
from abruzzi_jobs.data.validation.programs import examine, parsed
from abruzzi_jobs.instruct.prompt import Prompt

_REFUSAL = re.compile(
    r"^\W*(?:i(?:'m| am) (?:so |very )?sorry|sorry\b|i apologi[sz]e|unfortunately,? i|as an? (?:ai|artificial|language)|"
    r"i (?:can(?:no|')t|am (?:not able|unable)|won't|will not|do not have|don't have) )",
    re.IGNORECASE,
)
_REFUSAL_CHARACTERS = 400
"""Longer answers that begin with an excuse go on to answer."""
_MARKERS = re.compile(
    r"<\|[a-z_]{2,40}\|>|\[/?INST\]|</?s>|<<SYS>>|^(?:User:|Human:|Assistant:)\s|"
    r"^###\s*(?:Instruction|Input|Response|System|User|Human|Assistant)\s*:",
    re.MULTILINE,
)
"""Of chat templates: the model went on with somebody else's turn. Other headings are headings."""
_CODE = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.DOTALL)
_STATED = re.compile(r"answer\s*(?:is|:|=)\s*(.+)", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
_PROSE_WORDS = 8
_MIN_CONFIDENCE = 0.6
_RUN = 4


def faults_of(text: str, finish_reason: str, config: AnswerRulesConfig) -> list[str]:
    """Words for what is wrong with its form, the worst first."""
    stripped = text.strip()
    found = []
    if len(stripped) < config.min_characters:
        return ["too_short" if stripped else "empty"]
    if _MARKERS.search(text):
        found.append("markers")
    if finish_reason == "length" and config.cut_answers == "reject":
        found.append("cut")
    if config.refusals == "reject" and is_refusal(stripped):
        found.append("refusal")
    if len(stripped) > config.max_characters:
        found.append("too_long")
    if repetition(stripped) > config.max_repetition:
        found.append("repetition")
    if config.languages and _other_language(stripped, config.languages):
        found.append("language")
    return found


def is_refusal(text: str) -> bool:
    return len(text.strip()) <= _REFUSAL_CHARACTERS and _REFUSAL.match(text.strip()) is not None


def repetition(text: str) -> float:
    """Share of its runs of four words that stood in it before; 0 for short texts."""
    words = text.lower().split()
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def is_right(prompt: Prompt, text: str, *, run_programs: bool = True) -> tuple[bool | None, str]:
    """(whether it is, why not); None where nobody can tell. Raises AbruzziError `no_sandbox`, `missing_package`."""
    if prompt.check == "words":
        return _names(text, prompt)
    if prompt.check == "mathematics":
        return _result(text, prompt.answer)
    if prompt.check == "program" and run_programs:
        return _passes(text, prompt.answer)
    return None, ""


def _names(text: str, prompt: Prompt) -> tuple[bool, str]:
    if not _says(text, prompt.answer):
        return False, f"does not say {prompt.answer!r}"
    rival = next((r for r in prompt.rivals if r not in prompt.answer and r not in prompt.text and _says(text, r)), None)
    return rival is None, f"says {rival!r} as well" if rival else ""


def _says(text: str, words: str) -> bool:
    """Codes as they are written (`In` is no indium in a sentence that begins with it), longer words in any case."""
    flags = re.IGNORECASE if len(words) > 3 else 0
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, flags) is not None


def _result(text: str, expected: str) -> tuple[bool, str]:
    wrong = wrong_equations(text)
    if wrong:
        return False, f"states {wrong[0]!r}"
    stated = _BOXED.findall(text) or _STATED.findall(text)
    last = next((line for line in reversed(text.strip().splitlines()) if line.strip()), "")
    found = (stated[-1] if stated else last).strip().strip("*").rstrip(".").strip()
    found = re.sub(r"^[a-z]\s*=\s*", "", found.strip("$ "))
    if answers_agree(f"${expected}$", f"${found}$"):
        return True, ""
    return False, f"the result is {expected}, not {found[:60]!r}"


def _passes(text: str, examples: str) -> tuple[bool | None, str]:
    blocks = _CODE.findall(text)
    program = str(max(blocks, key=len)) if blocks else text
    tree = parsed(program)
    if tree is None:
        return False, "the program does not compile"
    verdict = examine(f'"""\n{examples}\n"""\n{ast.unparse(_Quiet().visit(tree))}')
    if verdict == "passed":
        return True, ""
    return (None, "") if verdict == "not_runnable" else (False, f"its examples: {verdict}")


class _Quiet(ast.NodeTransformer):
    """Without examples of its own, and without prints, which would pass for results."""

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        match node.value:
            case ast.Constant(str()) | ast.Call(ast.Name("print")):
                return ast.Pass()
        return node


def _other_language(text: str, allowed: tuple[str, ...]) -> bool:
    prose = _CODE.sub(" ", text)
    if len(re.findall(r"[^\W\d_]{2,}", prose)) < _PROSE_WORDS:
        return False
    language, confidence = language_of(prose)
    return bool(language) and language not in allowed and confidence >= _MIN_CONFIDENCE
