"""From signals to a state for each node. Pure: no clock, no I/O; the same signals give the same verdict.

What a verdict may rest on, from the strongest:
  - a word of somebody who knows (the node's object is gone, out-of-service, shut down): lost at once;
  - Kubernetes' own verdict `Unknown`, which it gives after 40 s and more without its kubelet: lost, unless a rank on it was heard just now;
  - silence that we ourselves measured: of its lease, and of the ranks on it where these used to speak. Only in time during which we listened
    (listening.py), and never of many nodes at once: then something between them and us is to blame, and everybody waits;
  - a fault of its card or kernel, or a kubelet that says NotReady: what runs there saves and goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from abruzzi.contracts.node import LEMON_SCORE, FaultKind, NodeState, lemon_score
from abruzzi.contracts.states import Cause
from abruzzi.engine.view import Leave
from abruzzi.nodes.records import NodeMemory, Quarantine
from abruzzi_operators.executors.node_words import NodeWord
from abruzzi_operators.nodes.signals import TAINT_DRAIN, TAINT_QUARANTINE, Report

LOST_SECONDS = 16.0
"""Of a lease that used to be renewed every 10 s, when the ranks on its node have fallen silent, too."""
LOST_ALONE_SECONDS = 40.0
"""Of a lease alone, where no rank was there to be heard: a lease's own duration."""
SILENT_BEATS = 2.0
SILENT_SECONDS = 1.0
"""Ranks have fallen silent when nothing came for twice what they usually take, and a second for the way."""
TALKATIVE_SECONDS = 5.0
"""Ranks that take longer from word to word are no witnesses."""
HEARD_SECONDS = 10.0
"""A word of a rank so young says that its node lives, whatever Kubernetes thinks."""
NOT_READY_SECONDS = 10.0
"""How long a kubelet that answers may say NotReady: it does so for a moment whenever it is restarted."""
QUARANTINE_SECONDS = 600.0
"""After the last sign of its fault."""
MOST_SILENT = 0.2
"""If more of the nodes than this (and more than one), or all there are, look dead by silence or to Kubernetes, nobody is called lost for it."""


@dataclass(frozen=True, slots=True)
class Witness:
    """The ranks of the platform on a node, as far as they speak."""

    silent_seconds: float
    """Since the last word that came, or since we began to wait for one."""
    usual_seconds: float | None
    """From word to word; None: they never spoke regularly."""
    said_seconds_ago: float | None
    """By the time that the newest word bears; None: there is none."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Of one node, now. Seconds are such during which we listened."""

    report: Report | None
    """None: there is no such node any more."""
    lease_age: float | None
    """Since its lease was renewed as we saw it; None: it has none."""
    not_ready_seconds: float = 0.0
    """Since we first saw it say anything but Ready."""
    witness: Witness | None = None
    has_attempts: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    state: NodeState
    reason: str
    word: NodeWord
    """For the executor."""
    fault: tuple[FaultKind, str] | None = None
    """What is wrong right now; an episode of it counts once."""
    marks: frozenset[str] = frozenset()
    """Our taints that it should have."""
    quarantine: Quarantine | None = None


def judge(
    signals: Mapping[str, Signals], memory: Mapping[str, NodeMemory], now: datetime, *, holds_off: bool = False
) -> dict[str, Verdict]:
    """By name. `holds_off`: we do not hear anything at all, so that silence means nothing."""
    silent = {name: said for name, one in signals.items() if (said := _silence(one)) is not None}
    down = len(silent) + sum(_is_long_not_ready(one) for name, one in signals.items() if name not in silent)
    blame = None
    if holds_off:
        blame = "the apiserver has not been heard for long enough"
    elif down > max(1, int(MOST_SILENT * len(signals))) or down == len(signals):
        blame = f"{down} of {len(signals)} nodes are so at once"
    return {name: _verdict(name, one, memory.get(name), silent.get(name), blame, now) for name, one in signals.items()}


def _verdict(
    name: str, signals: Signals, memory: NodeMemory | None, silence: str | None, blame: str | None, now: datetime
) -> Verdict:
    found = _fault(name, signals, silence, blame)
    fault = None if found is None or _is_expected(signals, memory) else found
    quarantine = _quarantine(fault, memory, now)
    marks = frozenset(
        ({TAINT_QUARANTINE} if quarantine is not None else set())
        | ({TAINT_DRAIN} if memory is not None and memory.drain is not None else set())
    )
    if found is not None and found[0] is FaultKind.LOST:
        return Verdict(NodeState.LOST, found[1], NodeWord(lost=found[1]), fault, marks, quarantine)
    well = signals.report is not None and signals.report.ready == "True" and silence is None and blame is None
    word = NodeWord(leave=_leave(name, signals, memory, fault), is_well=well)
    if memory is not None and memory.drain is not None:
        state = NodeState.DRAINING if signals.has_attempts else NodeState.DRAINED
        return Verdict(state, f"{memory.drain.by} drains it: {memory.drain.reason}", word, fault, marks, quarantine)
    if quarantine is not None:
        return Verdict(NodeState.QUARANTINED, _why_quarantined(quarantine, memory, now), word, fault, marks, quarantine)
    doubt = _doubt(signals, silence, blame)
    state = NodeState.SUSPECT if doubt else NodeState.READY
    if not doubt and signals.report is not None and signals.report.cordoned and not signals.report.marks:
        doubt = "Cordoned by somebody: nothing new is placed there."
    return Verdict(state, doubt, word, fault, marks, quarantine)


def _silence(signals: Signals) -> str | None:
    """A sentence when the node looks dead without anybody who knows having said so."""
    report, witness = signals.report, signals.witness
    if report is None or report.dead is not None:
        return None
    heard = witness is not None and witness.said_seconds_ago is not None and witness.said_seconds_ago < HEARD_SECONDS
    if report.ready == "Unknown":
        return None if heard else f"Kubernetes does not hear its kubelet: {report.ready_message or 'no reason given'}"
    age = signals.lease_age
    if age is None or age < LOST_SECONDS:
        return None
    talkative = witness is not None and witness.usual_seconds is not None and witness.usual_seconds <= TALKATIVE_SECONDS
    if talkative:
        assert witness is not None
        assert witness.usual_seconds is not None
        patience = SILENT_BEATS * witness.usual_seconds + SILENT_SECONDS
        if witness.silent_seconds >= patience:
            return f"Its lease is {age:.0f} s old, and its ranks have said nothing for {witness.silent_seconds:.0f} s"
    if age >= LOST_ALONE_SECONDS and not heard:
        return f"Its lease is {age:.0f} s old"
    return None


def _fault(name: str, signals: Signals, silence: str | None, blame: str | None) -> tuple[FaultKind, str] | None:
    report = signals.report
    if report is None:
        return (FaultKind.LOST, f"Node {name} was removed from the cluster.")
    if report.dead is not None:
        return (FaultKind.LOST, f"Node {name} {report.dead}.")
    if silence is not None and blame is None:
        return (FaultKind.LOST, f"Node {name} does not answer: {silence.rstrip('.')}.")
    if report.sick:
        return report.sick[0]
    if _is_long_not_ready(signals) and blame is None:
        return (FaultKind.NOT_READY, f"Its kubelet says NotReady: {report.ready_message}")
    return None


def _is_long_not_ready(signals: Signals) -> bool:
    report = signals.report
    return report is not None and report.ready == "False" and signals.not_ready_seconds >= NOT_READY_SECONDS


def _is_expected(signals: Signals, memory: NodeMemory | None) -> bool:
    """It goes because somebody wants it to: no fault of the node's."""
    if memory is not None and memory.drain is not None:
        return True
    return not signals.has_attempts if signals.report is None else signals.report.leaving is not None


def _quarantine(fault: tuple[FaultKind, str] | None, memory: NodeMemory | None, now: datetime) -> Quarantine | None:
    """As long as the fault is seen, some time after that, and for a lemon until somebody returns it."""
    known = memory.quarantine if memory is not None else None
    if fault is not None:
        return Quarantine(fault[1], known.since if known else now, now)
    if known is None or memory is None:
        return None
    is_over = now - known.seen_at >= timedelta(seconds=QUARANTINE_SECONDS)
    return None if is_over and not is_lemon(memory, now) else known


def is_lemon(memory: NodeMemory, now: datetime) -> bool:
    return lemon_score(memory.faults, now=now, forgiven_at=memory.forgiven_at) >= LEMON_SCORE


def _leave(name: str, signals: Signals, memory: NodeMemory | None, fault: tuple[FaultKind, str] | None) -> Leave | None:
    """Only once nothing new is placed there: else it would come back to where it left."""
    report = signals.report
    if report is None:
        return None
    if fault is not None and TAINT_QUARANTINE in report.marks:
        return Leave(Cause.NODE, f"Node {name} has a fault: {fault[1].rstrip('.')}.", name)
    if memory is not None and memory.drain is not None and TAINT_DRAIN in report.marks:
        return Leave(Cause.PREEMPTION, f"Node {name} is being drained: {memory.drain.reason}.", name)
    if report.leaving is not None:
        return Leave(Cause.PREEMPTION, f"Node {name} will be taken away: {report.leaving}.", name)
    return None


def _why_quarantined(quarantine: Quarantine, memory: NodeMemory | None, now: datetime) -> str:
    if memory is not None and is_lemon(memory, now):
        score = lemon_score(memory.faults, now=now, forgiven_at=memory.forgiven_at)
        return f"A lemon (score {score:.1f}), until somebody returns it; the last fault: {quarantine.reason}"
    return quarantine.reason


def _doubt(signals: Signals, silence: str | None, blame: str | None) -> str:
    report = signals.report
    assert report is not None
    if silence is not None:
        return f"{silence}; but {blame}, so nothing is moved."
    said = list(report.doubts)
    if report.leaving is not None:
        said.insert(0, f"{report.leaving}")
    if report.ready != "True":
        said.insert(0, f"Ready is {report.ready}: {report.ready_message}")
    elif signals.lease_age is not None and signals.lease_age >= LOST_SECONDS:
        said.insert(0, f"its lease is {signals.lease_age:.0f} s old")
    if not said:
        return ""
    sentence = "; ".join(said)
    return f"{sentence[0].upper()}{sentence[1:]}."
