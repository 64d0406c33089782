"""How an attempt ended, from how its ranks ended. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from abruzzi.contracts.states import ExitCode

DELIBERATE: tuple[int, ...] = (ExitCode.USER_ERROR, ExitCode.BAD_DATA, ExitCode.DIVERGENCE)
"""A stage says these on purpose, so one rank's word stands for the attempt whenever it comes; most significant first."""


@dataclass(frozen=True, slots=True)
class RankExit:
    rank: int
    code: int
    """128 + signal when a signal ended it."""
    signal: int = 0
    out_of_memory: bool = False
    """The kernel's counter grew and the rank was killed by SIGKILL."""
    by_launcher: bool = False
    """It ended after the launcher had begun to stop it: a consequence, not the cause."""
    node_lost: bool = False
    ended_at: float = 0.0


def significance(code: int) -> tuple[int, int]:
    """Order among codes, smallest first: 64, 65, 76, 75, codes that the contract does not know, 137, 143, 0."""
    order = [*DELIBERATE, int(ExitCode.TRY_AGAIN)]
    last = [int(ExitCode.KILLED), int(ExitCode.PREEMPTED), int(ExitCode.OK)]
    if code in order:
        return order.index(code), code
    if code in last:
        return len(order) + 1 + last.index(code), code
    return len(order), code


def exit_code(exits: Sequence[RankExit]) -> int:
    """The attempt's code: a deliberate one of any rank; else the most significant of the ranks that ended by themselves and not well;
    else (all others were stopped) the most significant of all."""
    deliberate = [e.code for e in exits if e.code in DELIBERATE]
    own = [e.code for e in exits if not e.by_launcher and e.code != ExitCode.OK]
    return min(deliberate or own or [e.code for e in exits], key=significance)


def summary(exits: Sequence[RankExit], *, started_at: float, ended_at: float, stop_requested: bool) -> dict[str, Any]:
    """Content of outcome.json."""
    code = exit_code(exits)
    return {
        "exit_code": code,
        "out_of_memory": any(e.out_of_memory for e in exits),
        "node_lost": any(e.node_lost for e in exits),
        "reason": reason(exits, code),
        "failed_rank": failed_rank(exits, code),
        "stop_requested": stop_requested,
        "started_at": started_at,
        "ended_at": ended_at,
        "ranks": [asdict(e) for e in exits],
    }


def failed_rank(exits: Sequence[RankExit], code: int) -> int | None:
    """Whose log says why: the one that the attempt's code is from; None when all is well."""
    return None if code == ExitCode.OK else _culprit(exits, code).rank


def _culprit(exits: Sequence[RankExit], code: int) -> RankExit:
    return next((e for e in exits if e.out_of_memory), None) or next(
        (e for e in sorted(exits, key=lambda e: (e.by_launcher, e.ended_at)) if e.code == code), exits[0]
    )


def reason(exits: Sequence[RankExit], code: int) -> str | None:
    """One sentence for people; None when all is well."""
    if code == ExitCode.OK:
        return None
    culprit = _culprit(exits, code)
    who = f"rank {culprit.rank}" if len(exits) > 1 else "the process"
    if culprit.node_lost:
        return "The machine was restarted while the attempt ran."
    if culprit.out_of_memory:
        return f"The kernel killed {who} for memory."
    if code == ExitCode.PREEMPTED:
        return "Asked to stop; it saved and ended."
    if culprit.signal:
        by = " after the grace period" if culprit.by_launcher else ""
        return f"Signal {culprit.signal} ended {who}{by}."
    return f"{who[0].upper()}{who[1:]} ended with code {code}; the end of its log says why."


# What a pod leaves behind: its termination message, of which the kubelet keeps 4096 bytes

MESSAGE_BYTES = 4096
_FIELDS = ("rank", "code", "signal", "out_of_memory", "by_launcher", "node_lost", "ended_at")


def to_message(outcome: dict[str, Any]) -> str:
    """The outcome of one node's ranks. Where they are too many, the most significant ones are told."""
    kept = sorted(outcome["ranks"], key=lambda rank: (rank["by_launcher"], significance(rank["code"])))
    while True:
        ranks = [[int(r[f]) if isinstance(r[f], bool) else r[f] for f in _FIELDS] for r in kept]
        text = json.dumps({"abruzzi": 1, "ranks": ranks, "stopped": outcome["stop_requested"]}, separators=(",", ":"))
        if len(text.encode()) <= MESSAGE_BYTES:
            return text
        kept = kept[: len(kept) // 2]


def from_message(text: str) -> list[RankExit] | None:
    """None when no launcher of ours wrote it."""
    try:
        content = json.loads(text)
        if content["abruzzi"] != 1:
            return None
        made = []
        for rank, code, number, out_of_memory, by_launcher, node_lost, ended_at in content["ranks"]:
            flags = (bool(out_of_memory), bool(by_launcher), bool(node_lost))
            made.append(RankExit(int(rank), int(code), int(number), *flags, float(ended_at)))
        return made
    except (ValueError, KeyError, TypeError):
        return None
