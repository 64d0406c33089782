"""The markers of the chat template, which are data (markers.toml), and the tokenizer that knows them."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.tokenizer import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, load_tokenizer
from abruzzi_jobs.sft.declarations import Style

TEMPLATE_FILE = "chat_template.json"
_MARKERS = Path(__file__).with_name("markers.toml")


@dataclass(frozen=True, slots=True)
class Markers:
    """A message is `system`, `user` or `assistant`, its role's name, `middle`, its content, `end`."""

    system: str
    user: str
    assistant: str
    middle: str
    end: str
    section_begin: str
    section_end: str
    call_begin: str
    argument_begin: str
    call_end: str

    def names(self) -> tuple[str, ...]:
        return tuple(asdict(self).values())


@cache
def marker_sets() -> dict[str, Markers]:
    return {name: Markers(**table) for name, table in tomllib.loads(_MARKERS.read_text(encoding="utf-8")).items()}


def with_markers(tokenizer: Tokenizer, markers: Markers) -> Tokenizer:
    """A tokenizer with the vocabulary of `tokenizer` and, after it, those markers that it does not know. Text that spells a marker stays text."""
    extended = Tokenizer.from_str(tokenizer.to_str())
    unknown = [name for name in markers.names() if tokenizer.token_to_id(name) is None]
    extended.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in unknown])
    extended.encode_special_tokens = True
    return extended


def write_chat_tokenizer(source: Path, out: Path, markers: Markers, declarations: Style = "typescript") -> Tokenizer:
    """The tokenizer of the folder `source` with the markers, and the template's description beside it, into `out`. The same input gives the same bytes.

    `declarations`: how a model that was tuned with it is told of its tools."""
    tokenizer = with_markers(load_tokenizer(source), markers)
    tokenizer.save(str(out / TOKENIZER_FILE))
    settings = json.loads((source / TOKENIZER_CONFIG_FILE).read_text(encoding="utf-8"))
    settings["additional_special_tokens"] = sorted({*settings.get("additional_special_tokens", ()), *markers.names()})
    (out / TOKENIZER_CONFIG_FILE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    described = {"version": 1, "markers": asdict(markers), "declarations": declarations}
    (out / TEMPLATE_FILE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return load_tokenizer(out)


def read_markers(folder: Path) -> tuple[Markers, Style] | None:
    """With the style of declarations, of a tokenizer's folder; None where it belongs to no fine-tuned model. Raises AbruzziError bad_data where the description is damaged."""
    path = folder / TEMPLATE_FILE
    if not path.exists():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        found = described["markers"]
        style: Style = "json" if described.get("declarations") == "json" else "typescript"
        return Markers(**{field.name: str(found[field.name]) for field in fields(Markers)}), style
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AbruzziError(
            "bad_data", f"{path}: no description of a chat template ({error}).", hint="Run the sft stage again."
        ) from error
