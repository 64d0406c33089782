"""The prompt grid: styles × perspectives, as data with a version and a hash. Pure but for reading its own file."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rephrase import RephraseConfig, RephrasePerspective, RephraseStyle
from abruzzi_jobs.data import own_files

TRANSLATION = "translation"
OWN = own_files.DOMAIN
_GRID_FILE = "grid.toml"
_LANGUAGES = {
    "cs": "Czech", "de": "German", "es": "Spanish", "fr": "French", "it": "Italian", "ja": "Japanese", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "zh": "Chinese",
}  # fmt: skip
_CLOSING = re.compile(r"<(/?)(text|source|rewrite)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Cell:
    """One way to write. `sample` tells rewrites of the same cell apart."""

    style: str
    perspective: str
    sample: int = 0


@dataclass(frozen=True)
class Grid:
    data: dict[str, Any]
    version: str
    """`1-<12 hex digits of the file's SHA-256>`: a prompt that was changed never passes for the old one."""

    def cells(self, config: RephraseConfig, *, domain: str) -> list[Cell]:
        """All that the recipe allows for a domain, styles first so that neighbours differ in style. Raises AbruzziError where there is none."""
        known = self.data["styles"]
        is_own = domain == OWN and bool(
            config.styles
        )  # whoever names a style for files of his own knows what is in them
        asked = config.styles or tuple(RephraseStyle)
        styles = [s for s in asked if is_own or domain in known[s.value]["domains"]]
        found = [Cell(s.value, p.value) for p in config.perspectives or tuple(RephrasePerspective) for s in styles]
        if not found:
            fitting = [name for name, style in known.items() if domain in style["domains"]]
            raise AbruzziError(
                "invalid_config",
                f"rephrase.styles: none of them is for texts of the domain {domain!r}.",
                hint=f"For {domain} there are {', '.join(fitting)}; or take {domain} out of rephrase.domains."
                if fitting
                else f"No style is for {domain}: take it out of rephrase.domains.",
            )
        return found

    def messages(self, cell: Cell, text: str, *, outline: str, before: Sequence[str]) -> list[dict[str, str]]:
        """Of the question that asks for one part."""
        style, perspective = self.data["styles"][cell.style], self.data["perspectives"][cell.perspective]
        system = self.data["system"]["rephrase"].format(style=style["prompt"], perspective=perspective["prompt"])
        user = self.data["user"]
        parts = [
            *([user["outline"].format(outline=as_data(outline))] if outline else []),
            *([user["before"].format(before=as_data("\n".join(before)))] if before else []),
            user["part"].format(text=as_data(text)),
        ]
        return _messages(system, parts)

    def translation(self, text: str, *, language: str, before: Sequence[str]) -> list[dict[str, str]]:
        system = self.data["system"]["translate"].format(language=_LANGUAGES.get(language, language))
        user = self.data["user"]
        parts = [
            *([user["before"].format(before=as_data("\n".join(before)))] if before else []),
            user["translated"].format(text=as_data(text)),
        ]
        return _messages(system, parts)


@cache
def load_grid() -> Grid:
    content = (files("abruzzi_jobs.rephrase") / "prompts" / _GRID_FILE).read_bytes()
    data = tomllib.loads(content.decode())
    return Grid(data, f"{data['version']}-{hashlib.sha256(content).hexdigest()[:12]}")


def cells_of(cells: Sequence[Cell], count: int, *, document: str, seed: int) -> list[Cell]:
    """`count` of them for a document: different ones first, in an order that depends on the document and the seed alone."""

    def place(cell: Cell) -> bytes:
        return hashlib.sha256(f"{seed}\0{document}\0{cell.style}\0{cell.perspective}".encode()).digest()

    order = sorted(cells, key=place)
    return [Cell(order[n % len(order)].style, order[n % len(order)].perspective, n // len(order)) for n in range(count)]


def as_data(text: str) -> str:
    """A text that cannot close the element that it stands in, and so stays material."""
    return _CLOSING.sub(r"<\1 \2", text)


def _messages(system: str, parts: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(parts)}]
