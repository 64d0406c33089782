"""One question to each endpoint of a recipe."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from abruzzi.contracts.endpoint import ChatRole, CheckpointEndpoint, EndpointBase, RoleConfig
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.recipe import AskingStage, Recipe
from abruzzi.contracts.toml import load_recipe
from abruzzi_jobs.chat.embeddings import EmbeddingRequest, Embeddings
from abruzzi_jobs.chat.request import ChatRequest
from abruzzi_jobs.chat.roles import open_roles

_TRIES = 2
_EXCERPT = 60


def check_recipe(
    path: Path,
    assignments: Sequence[str],
    *,
    only: Sequence[str],
    folders: Mapping[str, Path | None],
    question: str,
    max_tokens: int,
    as_json: bool,
) -> bool:
    """Whether all answered; prints what came of it. Raises AbruzziError for a bad recipe or an unknown name."""
    recipe = load_recipe(read_recipe(path), overrides(assignments), file=str(path))
    found, embedders = endpoints_in(recipe), embedders_in(recipe)
    for name in only:
        if name not in found:
            raise AbruzziError(
                "no_endpoint", f"{path}: no endpoint is called {name!r}.", hint=nearest(name, list(found))
            )
    chosen = {name: endpoint for name, endpoint in found.items() if not only or name in only}
    asked = ChatRequest(messages=[{"role": "user", "content": question}], max_tokens=max_tokens)
    results = [
        asyncio.run(_ask(name, endpoint, folders, asked, embeds=name in embedders)) for name, endpoint in chosen.items()
    ]
    if as_json:
        sys.stdout.write(json.dumps({"recipe": str(path), "endpoints": results}, indent=2, ensure_ascii=False) + "\n")
    else:
        _print(path, results)
    return all(result["error"] is None for result in results)


def endpoints_in(recipe: Recipe) -> dict[str, EndpointBase]:
    """All, also those of single stages."""
    found: dict[str, EndpointBase] = dict(recipe.endpoint)
    for stage in recipe.stage:
        if isinstance(stage, AskingStage):
            found |= stage.endpoint
    return found


def embedders_in(recipe: Recipe) -> set[str]:
    """Names of endpoints that play no role but the embedder's: they are asked for vectors."""
    roles = [role for stage in recipe.stage if isinstance(stage, AskingStage) for role in stage.asked_roles().items()]
    chatting = {config.endpoint for name, config in roles if name != ChatRole.EMBEDDER}
    return {config.endpoint for name, config in roles if name == ChatRole.EMBEDDER} - chatting


async def _ask(
    name: str, endpoint: EndpointBase, folders: Mapping[str, Path | None], request: ChatRequest, *, embeds: bool
) -> dict[str, Any]:
    result: dict[str, Any] = {"endpoint": name, "kind": endpoint.kind.value, "error": None, "hint": None}
    if isinstance(endpoint, CheckpointEndpoint) and None in folders.values():
        made = f"{endpoint.checkpoint} and {endpoint.tokenizer}"
        hint = f"`abruzzi artifacts pull` {made} of a run, then give both folders: --checkpoint DIR --tokenizer DIR."
        return result | {"error": "It serves what the recipe's own stages make.", "hint": hint}
    config = {ChatRole.USER: RoleConfig(endpoint=name)}
    limited = endpoint.model_copy(update={"max_tries": min(_TRIES, endpoint.max_tries)})
    served = {f"{name}.{key}": folder for key, folder in folders.items() if folder is not None}
    began = time.monotonic()
    try:
        async with open_roles(config, {name: limited}, folders=served) as roles:
            started = time.monotonic() - began
            if embeds:
                vectors = await roles["user"].embed(EmbeddingRequest(texts=[str(request.messages[0]["content"])]))
                return result | _embedded(vectors, started)
            answer = await roles["user"].complete(request)
    except AbruzziError as error:
        return result | {"error": error.message, "hint": error.hint}
    return result | {
        "model": answer.model,
        "is_llm": answer.is_llm,
        "start_seconds": round(started, 3),
        "seconds": round(answer.seconds, 3),
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "is_estimated": answer.usage.is_estimated,
        "text": answer.text,
    }


def _embedded(found: Embeddings, started: float) -> dict[str, Any]:
    return {
        "model": found.model,
        "is_llm": found.is_llm,
        "start_seconds": round(started, 3),
        "seconds": round(found.seconds, 3),
        "prompt_tokens": found.usage.prompt_tokens,
        "completion_tokens": 0,
        "is_estimated": found.usage.is_estimated,
        "text": f"(a vector of {found.vectors_ND.shape[1]} numbers)",
    }


def _print(path: Path, results: list[dict[str, Any]]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if not results:
        console.print(f"{escape(str(path))} has no endpoints: it asks no language model.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("endpoint", "kind", "model", "answer", "tokens", "started", "it said"):
        table.add_column(column)
    for result in results:
        if result["error"] is not None:
            table.add_row(
                escape(result["endpoint"]), result["kind"], "–", "[red]✗[/]", "–", "–", escape(result["error"])
            )
            continue
        said = " ".join(result["text"].split())
        about = "about " if result["is_estimated"] else ""
        table.add_row(
            escape(result["endpoint"]),
            result["kind"],
            escape(result["model"]) + ("" if result["is_llm"] else " [yellow](rules, no model)[/]"),
            f"[green]✓[/] {result['seconds']:.2f} s",
            f"{about}{result['prompt_tokens']} + {result['completion_tokens']}",
            f"{result['start_seconds']:.1f} s",
            escape(said[:_EXCERPT] + ("…" if len(said) > _EXCERPT else "")),
        )
    console.print(table)
    for result in results:
        if result["hint"]:
            console.print(f"[dim]{escape(result['endpoint'])}: {escape(result['hint'])}[/]", soft_wrap=True)


def read_recipe(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise AbruzziError(
            "no_recipe", f"{path}: {error.strerror}.", hint="Recipes that ship: recipes/*.toml."
        ) from error


def overrides(assignments: Sequence[str]) -> dict[str, str]:
    pairs = [assignment.partition("=") for assignment in assignments]
    for key, equals, _ in pairs:
        if not equals or not key.strip():
            raise AbruzziError("usage", f"--set {key!r} is not KEY=VALUE.")
    return {key.strip(): value.strip() for key, _, value in pairs}
