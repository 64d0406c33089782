"""Rewrites as a page to read: source and rewrite side by side, what is wrong marked in both. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_OPEN, _CLOSE = "**⟦", "⟧**"


def sampled(rows: Iterable[Mapping[str, Any]], count: int, *, fate: str | None, seed: int) -> list[Mapping[str, Any]]:
    """`count` of the rows (of one fate, or of all) drawn at random, in their order."""
    fitting = [row for row in rows if fate is None or row["fate"] == fate]
    chosen = random.Random(seed).sample(range(len(fitting)), min(count, len(fitting)))
    return [fitting[i] for i in sorted(chosen)]


def page(rows: Sequence[Mapping[str, Any]], described: Mapping[str, Any]) -> str:
    """Markdown. A rewrite that was given up ends where its first bad part ends; of its source as much is shown."""
    fates = ", ".join(f"{fate} {number}" for fate, number in described["fates"].items())
    head = [
        "# Rewrites",
        f"{len(rows)} of {described['rows']} (teacher: {described['teacher']}, prompts {described.get('prompt_version', '?')}). What became of all: {fates}.",
        f"{_OPEN}marked{_CLOSE}: what a fault points at.",
    ]
    return "\n\n".join([*head, *map(_section, rows)]) + "\n"


def _section(row: Mapping[str, Any]) -> str:
    whole, last = row["source_text"], row["chunks"][-1]["source"]
    source = whole if row["fate"] == "kept" else whole[: whole.rfind(last) + len(last)]
    rest = "" if len(source) >= len(whole) else " …"
    marked = [
        _marked(text, [f[key] for f in row["faults"] if f[key]])
        for text, key in ((source, "source_span"), (row["text"], "text_span"))
    ]
    tries = sum(chunk["tries"] for chunk in row["chunks"])
    lines = [
        f"## {row['name'] or row['document']}: {row['fate']}",
        f"{row['style']} / {row['perspective']}, by {row['generator'] or 'nobody'}; {len(row['chunks'])} parts, {tries} tries; from {row['source']} ({row['licence']}).",
        "| source | rewrite |\n|---|---|\n" + f"| {_cell(marked[0])}{rest} | {_cell(marked[1])} |",
        *("- " + f"`{fault['kind']}` ({fault['layer']}): {_cell(fault['detail'])}" for fault in row["faults"]),
    ]
    return "\n\n".join(lines[:3]) + ("\n\n" + "\n".join(lines[3:]) if row["faults"] else "")


def _marked(text: str, spans: Sequence[Sequence[int]]) -> str:
    """Spans that overlap are marked as one."""
    joined: list[list[int]] = []
    for start, end in sorted((s[0], min(s[1], len(text))) for s in spans):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        elif start < end:
            joined.append([start, end])
    for start, end in reversed(joined):
        text = f"{text[:start]}{_OPEN}{text[start:end]}{_CLOSE}{text[end:]}"
    return text


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")
