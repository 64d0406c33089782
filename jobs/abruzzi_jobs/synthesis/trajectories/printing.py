"""A trajectory as a page to read (Markdown): who wanted what, each turn and call, the world before and after, the verdicts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from abruzzi_jobs.data.row_choice import drawn, rows_at

_ANSWER_AT_MOST = 1200
_MARK = {True: "✓", False: "✗", None: "?"}
Row = dict[str, Any]


def show(
    where: Annotated[
        str, typer.Argument(metavar="FOLDER|ARTIFACT", help="A pulled `trajectories` artifact, or the id of one.")
    ],
    row: Annotated[list[str] | None, typer.Option(help="The row of this id. Repeatable.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many rows, drawn at random, where none is named.")] = 1,
    seed: Annotated[int, typer.Option(help="Which rows are drawn.")] = 0,
    fate: Annotated[str | None, typer.Option(help="Only rows with this fate: kept, or why they were not.")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder for one page a row (ID.md), instead of the terminal.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Print trajectories readable, as Markdown."""
    chosen = drawn(rows_at(where, "trajectories"), ids=row or (), sample=sample, seed=seed, fate=fate)
    pages = [(one["id"], markdown(one)) for one in chosen]
    if as_json:
        sys.stdout.write(json.dumps(chosen, indent=1, ensure_ascii=False) + "\n")
    elif to is None:
        sys.stdout.write("\n\n---\n\n".join(page for _, page in pages))
    if to is None:
        return
    to.mkdir(parents=True, exist_ok=True)
    for name, page in pages:
        (to / f"{name}.md").write_text(page)
        if not as_json:
            sys.stdout.write(f"{to / name}.md\n")


def markdown(row: Row) -> str:
    """Texts of the trajectory stand in code blocks, or with their marks escaped: nothing in it becomes a heading or a link of the page."""
    parts = [*_head(row), *_turns(row), *_world(row), *_verdicts(row)]
    return "\n".join(parts) + "\n"


def _head(row: Row) -> list[str]:
    task, agent = row["task"], row["agent"]
    persona = task["persona"]
    made = ", ".join(f"{name}: {who}" for name, who in row.get("generators", {}).items())
    kind = "real tools" if task["ground"]["kind"] == "real" else task["ground"]["source"].removeprefix("synthetic:")
    stand_in = "" if row["is_llm"] else " **No language model: the rule-based stand-in played the agent.**"
    lines = [
        f"# {_plain(row['id'])}: {_plain(row['fate'])}, score {row['score']:.2f}",
        "",
        f"A {task['difficulty']} task ({kind}{', which cannot be done' if task.get('is_impossible') else ''}). Played by {_plain(made)}.{stand_in}",
        "",
        f"- **User** {_plain(persona['name'])}, {_plain(persona['style'])}. Wants: {_plain(persona['hidden_goal'])}",
    ]
    secrets = [fact for fact in task.get("facts", ()) if fact["told"] != "first"]
    lines += [
        f"- **Told {'when asked' if fact['told'] == 'asked' else 'later'}** {_plain(fact['text'])}" for fact in secrets
    ]
    tools = ", ".join(f"`{tool['name']}`" for tool in agent["tools"])
    lines += [f"- **Agent** {_plain(agent['system_prompt'])}", f"- **Tools** ({len(agent['tools'])}) {tools}", ""]
    return lines


def _turns(row: Row) -> list[str]:
    lines = ["## Conversation", ""]
    calls = iter(row["calls"])
    for message in row["messages"]:
        role, text = message["role"], str(message.get("content") or "")
        if role in ("user", "assistant") and text:
            lines += [f"**{'User' if role == 'user' else 'Agent'}**", "", _quoted(text), ""]
        for call in message.get("tool_calls") or ():
            function = call["function"]
            lines += [f"**Agent calls** `{_code(function['name'])}`", "", _block(function["arguments"], "json"), ""]
        if role == "tool":
            record = next(calls, None)
            lines += [f"**Tool answers**{_noted(record)}", "", _block(_short(text)), ""]
    lines += [f"Ended by: {_plain(row['ended_by'])}." if row.get("ended_by") else "", ""]
    return lines


def _noted(record: Row | None) -> str:
    if record is None:
        return ""
    notes = [] if record["ok"] else ["refused"]
    if record.get("fault"):
        notes.append(f"injected fault: {record['fault']}")
    if record.get("is_real"):
        notes.append("run for real")
    return f" ({', '.join(notes)})" if notes else ""


def _world(row: Row) -> list[str]:
    world = row.get("world")
    if not world:
        probes = [f"- `{_code(p['clause'])}`: {_plain(_short(str(p['answer'])))}" for p in row.get("probes", ())]
        return ["## Asked of the tools afterwards", "", *probes, ""] if probes else []
    lines = ["## World before and after", ""]
    changed = [(name, *_changed(name, world["before"], world["after"])) for name in world["after"]]
    rows = [(name, before, after) for name, before, after in changed if before or after]
    if not rows:
        return [*lines, f"Nothing changed (`{_digest(world['digest_after'])}`).", ""]
    lines += [f"`{_digest(world['digest_before'])}` → `{_digest(world['digest_after'])}`; the rows that changed:", ""]
    for name, before, after in rows:
        for when, found in (("before", before), ("after", after)):
            lines += [f"*{_plain(name)}, {when}*", "", *(_table(found) if found else ["(no row)"]), ""]
    return lines


def _digest(text: str) -> str:
    return text.removeprefix("sha256:")[:12]


def _changed(name: str, before: dict[str, list[Row]], after: dict[str, list[Row]]) -> tuple[list[Row], list[Row]]:
    old, new = before[name], after[name]
    return [row for row in old if row not in new], [row for row in new if row not in old]


def _table(rows: Sequence[Row]) -> list[str]:
    names = list(rows[0])
    head = [f"| {' | '.join(map(_cell, names))} |", f"|{'---|' * len(names)}"]
    return head + [f"| {' | '.join(_cell(row[name]) for name in names)} |" for row in rows]


def _verdicts(row: Row) -> list[str]:
    clauses = {clause["id"]: clause for clause in row["task"]["rubric"]}
    lines = ["## Rubric", "", "| | clause | kind | by | why |", "|---|---|---|---|---|"]
    for verdict in row["verdicts"]:
        clause = clauses.get(verdict["clause"], {"text": verdict["clause"], "kind": "?", "mandatory": False})
        kind = clause["kind"] if clause["mandatory"] else f"{clause['kind']}, not mandatory"
        cells = [_MARK[verdict["passed"]], clause["text"], kind, verdict["by"], verdict["why"]]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return lines


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(str(text).split()))


def _cell(value: Any) -> str:
    return _plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _code(text: str) -> str:
    return text.replace("`", "'")


def _quoted(text: str) -> str:
    return "\n".join(f"> {_plain(line)}" for line in _short(text).splitlines() or [""])


def _block(text: str, language: str = "") -> str:
    """Fenced by more backquotes than occur in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _short(text: str) -> str:
    half = _ANSWER_AT_MOST // 2
    if len(text) <= _ANSWER_AT_MOST:
        return text
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters …]\n{text[-half:]}"
