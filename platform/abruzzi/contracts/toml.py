"""Strict reading of recipes: each mistake comes with file, line, column, key and the remedy, all of them at once.

`tomllib` parses (and decides what is valid TOML); tree-sitter only says on which line a key stands.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_origin

import tomlkit
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from abruzzi.contracts.endpoint import ENDPOINT_CLASSES, EndpointKind
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import bind_inputs, made_by, mistakes, nearest
from abruzzi.contracts.positions import KeyPath as Path
from abruzzi.contracts.positions import key_positions
from abruzzi.contracts.recipe import STAGE_CLASSES, CorpusStage, PretrainStage, Recipe, SftStage, TokenizeStage
from abruzzi.contracts.sources import SHIPPED_SOURCES, looks_like_files
from abruzzi.contracts.states import StageKind
from abruzzi.contracts.training import MODEL_PRESETS

_SYNTAX = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RecipeMistake:
    """One mistake. `str()` is the line that people see: file:line:column: key: message hint."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.key}: {self.message.rstrip('.')}. {self.hint}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class RecipeInvalid(AbruzziError):
    """`errors` holds the mistakes as plain dictionaries."""

    def __init__(self, found: list[RecipeMistake]) -> None:
        super().__init__(
            "recipe_invalid",
            "\n".join(str(m) for m in found),
            status=422,
            errors=[m.as_dict() for m in found],
        )
        self.mistakes = found


def load_recipe(text: str, overrides: Mapping[str, str] | None = None, *, file: str = "recipe.toml") -> Recipe:
    """Parse or raise RecipeInvalid with every mistake."""
    recipe, found = parse_recipe(text, overrides, file=file)
    if recipe is None:
        raise RecipeInvalid(found)
    return recipe


def with_overrides(text: str, overrides: Mapping[str, str] | None) -> str:
    """The recipe's text with the overrides written into it, comments kept: what a run keeps as its recipe, so that it can be submitted again.

    `text` and `overrides` must be those of a recipe that `load_recipe` took.
    """
    if not overrides:
        return text
    document = tomlkit.parse(text)
    for key, value in overrides.items():
        _override(document, key, value)
    return tomlkit.dumps(document)


def pool_overrides(text: str, pool: str | None) -> dict[str, str]:
    """Overrides that put every stage into one pool. None for a text that is no TOML: what is wrong with it, `load_recipe` says."""
    try:
        stages = tomllib.loads(text).get("stage") if pool is not None else None
    except tomllib.TOMLDecodeError:
        return {}
    ids = [stage.get("id") for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return {f"stage.{name}.resources.pool": json.dumps(pool) for name in ids if isinstance(name, str)}


def parse_recipe(
    text: str, overrides: Mapping[str, str] | None = None, *, file: str = "recipe.toml"
) -> tuple[Recipe | None, list[RecipeMistake]]:
    """A recipe, or None and the mistakes. `overrides` maps `stage.<id>.<key>…` (or a top-level key) to a TOML value or a bare string."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, [_syntax_mistake(error, text, file)]
    found: list[RecipeMistake] = []
    positions = key_positions(text)
    for key, value in (overrides or {}).items():
        mistake = _override(data, key, value)
        if mistake is not None:
            found.append(mistake)
    if found:
        return None, found
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        found = [_mistake(d, data, positions, file) for d in error.errors() if not _is_echo(d, data)]
    else:
        found = [_at(positions, w.path, data, file, w.message, w.hint) for w in mistakes(recipe)]
        for path, message, hint in _unknown_sources(recipe):
            found.append(_at(positions, path, data, file, message, hint))
        if not found:
            found = [_at(positions, path, data, file, message, hint) for path, message, hint in _size_mistakes(recipe)]
        if not found:
            return recipe, []
    return None, [_blamed(mistake, overrides or {}) for mistake in found]


def _is_echo(detail: ErrorDetails, data: Mapping[str, Any]) -> bool:
    """Pydantic leaves out the stages that are wrong, and where none is left finds too few; each of them has said what is wrong with it."""
    return detail["type"] == "too_short" and detail["loc"] == ("stage",) and bool(data.get("stage"))


def _blamed(mistake: RecipeMistake, overrides: Mapping[str, str]) -> RecipeMistake:
    """A mistake in a value that `--set` gave stands there, not on a line of the file."""
    given = next((key for key in overrides if mistake.key == key or mistake.key.startswith(f"{key}.")), None)
    return mistake if given is None else replace(mistake, file="--set", line=0, column=0)


def _syntax_mistake(error: tomllib.TOMLDecodeError, text: str, file: str) -> RecipeMistake:
    match = _SYNTAX.match(str(error))
    message, line, column = (match[1], match[2], match[3]) if match else (str(error), None, None)
    row = int(line) if line else text.count("\n") + 1
    content = text.splitlines()[row - 1] if row <= len(text.splitlines()) else ""
    key = content.split("=")[0].strip() or "(end of file)"
    return RecipeMistake(
        file,
        row,
        int(column) if column else 1,
        key,
        f"not TOML: {message[:1].lower()}{message[1:]}",
        "Strings need quotes; lists need commas.",
    )


def _at(
    positions: dict[Path, tuple[int, int]], path: Path, data: Mapping[str, Any], file: str, message: str, hint: str
) -> RecipeMistake:
    """Place a mistake at the deepest part of its path that stands in the file."""
    for length in range(len(path), 0, -1):
        if path[:length] in positions:
            line, column = positions[path[:length]]
            return RecipeMistake(file, line, column, _readable(path, data), message, hint)
    return RecipeMistake(file, 1, 1, _readable(path, data), message, hint)


def _readable(path: Path, data: Mapping[str, Any]) -> str:
    """`stage.pretrain.model.hidden_size` rather than `stage[2].model.hidden_size`."""
    if len(path) >= 2 and path[0] == "stage" and isinstance(path[1], int):
        stages = data.get("stage")
        stage = stages[path[1]] if isinstance(stages, list) and path[1] < len(stages) else {}
        name = stage.get("id") if isinstance(stage, dict) else None
        path = ("stage", name if isinstance(name, str) else f"#{path[1] + 1}", *path[2:])
    return ".".join(str(p) for p in path) or "(recipe)"


def _override(data: dict[str, Any], key: str, value: str) -> RecipeMistake | None:
    """Apply one `--set`. Only shape is checked here; the value is validated with the whole recipe."""
    parts = key.split(".")
    target: Any = data
    if parts[0] == "stage":
        stages = [s for s in data.get("stage", []) if isinstance(s, dict)]
        names = [str(s.get("id")) for s in stages]
        if len(parts) < 3 or parts[1] not in names:
            wanted = parts[1] if len(parts) > 1 else ""
            return RecipeMistake(
                "--set",
                0,
                0,
                key,
                f"no stage is called {wanted!r}",
                nearest(wanted, names) + " Form: stage.<id>.<key>=<value>.",
            )
        target, parts = stages[names.index(parts[1])], parts[2:]
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            return RecipeMistake("--set", 0, 0, key, f"{part!r} is a value, not a table", "Set the key itself.")
    try:
        target[parts[-1]] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        target[parts[-1]] = value
    return None


def _mistake(
    detail: ErrorDetails, data: Mapping[str, Any], positions: dict[Path, tuple[int, int]], file: str
) -> RecipeMistake:
    path = _without_tag(detail["loc"])
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, "kind")
    message, hint = _explain(detail, path, data)
    if detail["type"] == "value_error" and (match := re.match(r"^([a-z_.0-9]+): (.*)$", message, re.DOTALL)):
        path, message = (*path, *(int(p) if p.isdigit() else p for p in match[1].split("."))), match[2]
    return _at(positions, path, data, file, message, hint)


def _without_tag(location: tuple[int | str, ...]) -> Path:
    """Pydantic puts the discriminator's value into the path of a union: ("stage", 1, "pretrain", "model")."""
    path = tuple(location[:-1] if location[-1:] == ("[key]",) else location)
    if len(path) > 2 and path[0] == "stage" and path[2] in set(StageKind):
        path = (*path[:2], *path[3:])
    at = _endpoint_at(path)
    if at and len(path) > at and path[at] in set(EndpointKind):
        path = (*path[:at], *path[at + 1 :])
    return path


def _endpoint_at(path: Path) -> int:
    """Length of the part of a path that leads to an endpoint's table; 0 where it leads to none."""
    if len(path) >= 2 and path[0] == "endpoint":
        return 2
    return 4 if len(path) >= 4 and path[0] == "stage" and path[2] == "endpoint" else 0


def _explain(detail: ErrorDetails, path: Path, data: Mapping[str, Any]) -> tuple[str, str]:
    kind, given, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {path[-1]!r}", nearest(str(path[-1]), _fields_at(path[:-1], data))
    if kind == "missing":
        return f"{path[-1]!r} is missing", f"Add {path[-1]} = …"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        wanted = given.get("kind", "") if isinstance(given, dict) else ""
        noun, kinds = ("endpoint", EndpointKind) if _endpoint_at(path) else ("stage", StageKind)
        return (f"no {noun} kind is called {wanted!r}" if wanted else "'kind' is missing"), nearest(
            str(wanted), [str(k) for k in kinds]
        )
    if kind in ("literal_error", "enum"):
        options = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"{given!r} is not allowed", nearest(
            str(given), options
        ) if options else f"Expected {context.get('expected')}."
    if kind == "string_pattern_mismatch":
        return (
            f"{given!r} does not fit",
            f"Expected the form {context.get('pattern')}: small letters, digits and '-'; 16 characters at most for a stage id, 40 for a name.",
        )
    if kind == "value_error":
        message = str(context.get("error", detail["msg"]))
        hint = (
            nearest(str(given.get("preset")), list(MODEL_PRESETS))
            if "preset:" in message and isinstance(given, dict)
            else "Change one of the two."
            if "but" in message
            else "Correct the value."
        )
        return message, hint
    if kind == "too_short" and path == ("stage",):
        return "there is no stage", "Begin each stage with [[stage]], in double brackets."
    if path == ("stage",):
        return "stages are an array of tables", "Begin each stage with [[stage]], in double brackets."
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]} (got {given!r})", "Correct the value."


def _fields_at(path: Path, data: Mapping[str, Any]) -> list[str]:
    """Names that are valid in the table at `path`."""
    at = _endpoint_at(path)
    if at:
        table = _value_at(path[:at], data)
        model = ENDPOINT_CLASSES.get(str(table.get("kind"))) if isinstance(table, dict) else None  # type: ignore[arg-type]
        return list(model.model_fields) if model else []
    if not path or path[0] != "stage":
        return list(Recipe.model_fields)
    stages = data.get("stage")
    stage = stages[path[1]] if isinstance(stages, list) and len(path) > 1 and isinstance(path[1], int) else {}
    model: type[BaseModel] | None = STAGE_CLASSES.get(str(stage.get("kind"))) if isinstance(stage, dict) else None  # type: ignore[arg-type]
    is_name = False
    for part in path[2:]:
        if model is None or isinstance(part, int):
            continue
        if is_name:  # of an entry of a table of tables, such as roles.judge
            is_name = False
            continue
        field = model.model_fields.get(str(part))
        is_name = get_origin(field.annotation if field else None) is dict
        model = next((t for t in _model_types(field.annotation if field else None)), None)
    return list(model.model_fields) if model else []


def _value_at(path: Path, data: Any) -> Any:
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)  # type: ignore[arg-type]
        else:
            data = data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None
    return data


def _model_types(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _model_types(argument)


def _unknown_sources(recipe: Recipe) -> Iterator[tuple[Path, str, str]]:
    for index, stage in enumerate(recipe.stage):
        for source in stage.data.sources if isinstance(stage, CorpusStage) else ():
            if source not in SHIPPED_SOURCES and not looks_like_files(source):
                hint = f"{nearest(source, list(SHIPPED_SOURCES))} Own files are given by path, such as ./texts/*.jsonl."
                yield ("stage", index, "data", "sources"), f"no source is called {source!r}", hint
        if isinstance(stage, SftStage):
            for key, sources in (("sources", stage.data.sources), ("preferences", stage.data.preferences)):
                for source in sources:
                    if not looks_like_files(source):
                        hint = "Own conversations are given by path, such as ./chats/*.jsonl."
                        yield ("stage", index, "data", key), f"{source!r} is no path of files", hint


def _size_mistakes(recipe: Recipe) -> Iterator[tuple[Path, str, str]]:
    """Sizes that only disagree across stages."""
    for index, stage in enumerate(recipe.stage):
        if isinstance(stage, SftStage):
            yield from _length_mistakes(recipe, stage, index)
        if not isinstance(stage, PretrainStage):
            continue
        binding = bind_inputs(recipe, stage).get("dataset")
        maker = made_by(recipe, binding)
        if isinstance(maker, TokenizeStage) and maker.tokenizer.vocab_size > stage.model.vocab_size:
            yield (
                ("stage", index, "model", "vocab_size"),
                f"the model knows {stage.model.vocab_size} tokens, but stage {maker.id!r} makes a vocabulary of {maker.tokenizer.vocab_size}",
                f"Set model.vocab_size = {maker.tokenizer.vocab_size}, or make the tokenizer smaller.",
            )


def _length_mistakes(recipe: Recipe, stage: SftStage, index: int) -> Iterator[tuple[Path, str, str]]:
    binding = bind_inputs(recipe, stage).get("checkpoint")
    maker = made_by(recipe, binding)
    if isinstance(maker, PretrainStage) and stage.batch.sequence_length > maker.model.max_position:
        yield (
            ("stage", index, "batch", "sequence_length"),
            f"{stage.batch.sequence_length} is longer than the {maker.model.max_position} positions of the model of stage {maker.id!r}",
            f"Set it to {maker.model.max_position} at most, or raise model.max_position there.",
        )
