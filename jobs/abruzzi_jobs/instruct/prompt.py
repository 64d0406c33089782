"""What is asked, with what is known about the right answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Check = Literal["none", "words", "mathematics", "program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    id: str
    """`<source>/<name>`, or file and line."""
    text: str
    source: str
    licence: str
    domain: str
    system: str = ""
    check: Check = "none"
    answer: str = ""
    """words: what the answer must name. mathematics: the result. program: doctests that it must pass."""
    rivals: tuple[str, ...] = ()
    """words: answers to other questions of the kind; one that names these as well has not chosen."""
    given: str = ""
    """An answer that came with the prompt (an instruction set's own): one more candidate."""
    given_generator: str = ""
    given_is_llm: bool = False

    def messages(self) -> list[dict[str, str]]:
        asked = [{"role": "user", "content": self.text}]
        return [{"role": "system", "content": self.system}, *asked] if self.system else asked
