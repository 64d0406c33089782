"""A trajectory of an rl stage as text: its segments one below the other, each policy version in a colour of its own. On rows of the artifact `rollouts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

_COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")
"""Of policy versions, in turn: neighbours differ."""
Row = dict[str, Any]


def readable(row: Row) -> str:
    """With colours, which `typer.echo` leaves out where nobody sees them."""
    lines = [typer.style(_head(row), bold=True), *_verdict(row)]
    for segment in row["segments"]:
        lines += [typer.style(f"── {_told(segment)}", dim=True), _coloured(segment)]
    return "\n".join(lines) + "\n"


def readable_group(rows: Sequence[Row]) -> str:
    """Members of one group and how they compare, before each is read."""
    rewards = [row["reward"] for row in rows if row["reward"] is not None]
    mean = sum(rewards) / len(rewards) if rewards else None
    lines = [typer.style(f"group {rows[0]['group']}: task {rows[0]['task']}, mean reward {_number(mean)}", bold=True)]
    for row in rows:
        advantage = None if row["reward"] is None or mean is None else row["reward"] - mean
        told = (
            f"reward {_number(row['reward']):>6}  advantage {_number(advantage):>6}  {row['policy_tokens']:>6} tokens"
        )
        lines.append(f"  {row['id']}  {told}  {row['turns']} turns  {row['fate']}")
    return "\n".join(lines) + "\n\n" + "\n".join(readable(row) for row in rows)


def _head(row: Row) -> str:
    versions = ", ".join(map(str, row["versions"])) or "none"
    return (
        f"{row['id']}  {row['environment']} {row['task']} ({row['family']}), iteration {row['iteration']}: "
        f"{row['turns']} turns, {row['policy_tokens']} tokens of policy version {versions}"
    )


def _verdict(row: Row) -> list[str]:
    parts = ", ".join(f"{name} {_number(value)}" for name, value in row["components"].items())
    lines = [f"{row['fate']}, reward {_number(row['reward'])}{f' ({parts})' if parts else ''}"]
    return [*lines, _harmless(row["detail"])] if row["detail"] else lines


def _told(segment: Row) -> str:
    count = f"{segment['tokens']} tokens"
    if segment["source"] != "policy":
        return f"{segment['source']}, {count}"
    drawn = f"temperature {segment['temperature']:g}, mean log-probability {segment['mean_logprob']:.3f}"
    return f"policy, version {segment['policy_version']}, {count}, {drawn}: {segment['ending']}"


def _coloured(segment: Row) -> str:
    text = _harmless(segment["text"])
    if segment["source"] != "policy":
        return text
    return typer.style(text, fg=_COLOURS[segment["policy_version"] % len(_COLOURS)])


def _harmless(text: str) -> str:
    """A policy wrote it: nothing in it may steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
