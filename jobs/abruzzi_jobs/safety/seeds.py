"""What is asked: prompts by sub-plugin and language, out of the shipped canaries, packages of others, or own files. Each names its licence."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.nearest import nearest
from abruzzi.contracts.redteam import SHIPPED_SEEDS, SUB_PLUGINS, Plugin
from abruzzi_jobs.safety.packages import PACKAGES, read_package
from abruzzi_jobs.safety.plugins import sub_plugins

MAX_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class AttackSeed:
    plugin: Plugin
    sub_plugin: str
    language: str
    prompt: str
    source: str
    licence: str


Cell = tuple[Plugin, str, str]
"""(plugin, sub-plugin, language)"""


def read_seeds(
    sources: Sequence[str], wanted: Sequence[tuple[Plugin, str]], languages: Sequence[str], *, prompts: int, seed: int
) -> dict[Cell, list[AttackSeed]]:
    """At most `prompts` of each cell, those of the first sources first; of a package or a file they are drawn by `seed`. A prompt stands once in
    a cell. Raises AbruzziError bad_data for files that cannot be read (with file and line) and where no cell has a seed, missing_package."""
    found: dict[Cell, list[AttackSeed]] = {
        (plugin, name, language): [] for plugin, name in wanted for language in languages
    }
    for source in sources:
        of_source: dict[Cell, list[AttackSeed]] = defaultdict(list)
        for attack in _read(source):
            of_source[attack.plugin, attack.sub_plugin, attack.language].append(attack)
        for cell, attacks in found.items():
            drawn = of_source.get(cell, [])
            if source != SHIPPED_SEEDS:
                drawn = sorted(drawn, key=_place(seed))
            known = {attack.prompt for attack in attacks}
            for attack in drawn:
                if len(attacks) < prompts and attack.prompt not in known:
                    attacks.append(attack)
                    known.add(attack.prompt)
    if not any(found.values()):
        raise AbruzziError(
            "bad_data",
            f"No seed of {', '.join(sources)} belongs to the plugins and languages of the recipe.",
            hint=f"Take other redteam.seeds, plugins or languages; {SHIPPED_SEEDS!r} are in English and cover all plugins.",
        )
    return found


def _place(seed: int) -> Callable[[AttackSeed], bytes]:
    return lambda attack: hashlib.sha256(f"{seed}\0{attack.prompt}".encode("utf-8", "replace")).digest()


def _read(source: str) -> Iterator[AttackSeed]:
    name, _, place = source.partition(":")
    if source == SHIPPED_SEEDS:
        for entry in sub_plugins().values():
            for canary in entry.canaries:
                yield AttackSeed(entry.plugin, entry.name, "en", canary, SHIPPED_SEEDS, "Apache-2.0")
    elif name in PACKAGES:
        for plugin, sub_plugin, prompt, licence in read_package(name, place or None):
            yield AttackSeed(plugin, sub_plugin, "en", prompt, name, licence)
    else:
        paths = sorted(glob.glob(source, recursive=True))
        if not paths:
            known = [SHIPPED_SEEDS, *PACKAGES]
            raise AbruzziError(
                "bad_data",
                f"redteam.seeds: {source!r} is no file and none of {', '.join(known)}.",
                hint=f"{nearest(source, known)} Own files: .jsonl, a line {_FORM}",
            )
        for path in paths:
            yield from _read_file(Path(path))


_FORM = '{"prompt": "…", "plugin": "criminal/drugs", "language": "en", "licence": "…"}'


def _read_file(path: Path) -> Iterator[AttackSeed]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AbruzziError("bad_data", f"{path}: {error}.", hint=f"Seeds are .jsonl, a line {_FORM}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _seed_of(json.loads(line), str(path))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                said = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
                raise AbruzziError("bad_data", f"{path}, line {number}: {said}.", hint=f"Expected {_FORM}") from error


def _seed_of(found: Any, source: str) -> AttackSeed:
    """Messages never repeat the prompt."""
    if not isinstance(found, dict):
        raise TypeError("no JSON object")
    plugin, _, name = str(found["plugin"]).partition("/")
    names = SUB_PLUGINS.get(plugin, ())  # type: ignore[call-overload]
    if name not in names:
        raise ValueError(f"{found['plugin']!r} is no plugin and sub-plugin. {nearest(name, list(names))}")
    prompt, language, licence = found["prompt"], found.get("language", "en"), found.get("licence", "")
    if not (isinstance(prompt, str) and prompt.strip() and len(prompt) <= MAX_CHARACTERS):
        raise ValueError(f"prompt: a text of 1 to {MAX_CHARACTERS:,} characters is expected")
    if not isinstance(language, str) or not isinstance(licence, str):
        raise TypeError("language and licence are texts")
    return AttackSeed(Plugin(plugin), name, language, prompt, source, licence)
