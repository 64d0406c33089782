"""The comparison as one SVG: ours with a dot a seed and the interval, the published figures beside it. The same figures give the same bytes.

Each panel has a scale of its own: ours and the published figures are never on one axis, because they are not comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from abruzzi_jobs.evals.comparison.arms import MEASURES
from abruzzi_jobs.evals.comparison.table import IS_REPLICA, teachers

_EDGE, _GAP, _TOP, _HEIGHT, _LEGEND = 58, 66, 104, 240, 80
_ARM = 92
"""Width of an arm's place in a panel."""
COLOURS = ("#8a8f98", "#d08a2e", "#2f6fb3", "#5b8f3a", "#8e5ea2", "#b3473f")
_HEADROOM = 1.09
"""For the figure above a bar."""
_STEPS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 25.0, 50.0)


def svg(comparison: Mapping[str, Any], *, title: str, published: str) -> str:
    arms = list(comparison["arms"].values())
    figures = [(f"{MEASURES[m]}, %", [arm[m] for arm in arms]) for m in comparison["items"]]
    if all(arm["reference"] is not None for arm in arms):
        known = [{"value": arm["reference"], "low": None, "high": None, "seeds": []} for arm in arms]
        figures.append((f"published: {published}, %", known))
    panel = _ARM * len(arms)
    width, height = _EDGE * 2 + panel * len(figures) + _GAP * (len(figures) - 1), _TOP + _HEIGHT + _LEGEND
    who = teachers(comparison)
    caption = (
        f"Bars: means over {comparison['seeds']} seeds; lines: 95 % intervals (Student's t); dots: seeds. "
        f"All arms saw {comparison['tokens']:,} tokens. Chance among four: {comparison['chance']:.0f} %."
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        text(24, 28, title, size=17, weight="600"),
        text(24, 48, IS_REPLICA, size=12, colour="#555"),
        *([text(24, 65, f"Rewrites by {who}.", size=12, colour="#a04a00", weight="600")] if who else []),
        *(_panel(_EDGE + (panel + _GAP) * n, panel, name, arms, found) for n, (name, found) in enumerate(figures)),
        text(24, height - 14, caption, size=12, colour="#555"),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _panel(
    left: float, across: float, name: str, arms: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]]
) -> str:
    tops = [max([f["value"], f["high"] or 0.0, *f["seeds"]]) for f in figures]
    step = next((s for s in _STEPS if max(tops) / s <= 6), _STEPS[-1])
    top = step * (int(max(tops) * _HEADROOM / step) + 1)
    parts = [text(left, _TOP - 12, name, weight="600")]
    for number in range(round(top / step) + 1):
        y = _y(number * step, top)
        parts.append(f'<line x1="{left}" x2="{left + across}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e5e8"/>')
        parts.append(text(left - 8, y + 4, f"{number * step:g}", size=11, anchor="end", colour="#666"))
    width = across / len(arms)
    for number, (arm, figure) in enumerate(zip(arms, figures, strict=True)):
        parts += _bar(left + width * number, width, arm["label"], figure, top, COLOURS[number % len(COLOURS)])
    return "\n".join(parts)


def _bar(left: float, width: float, label: str, figure: Mapping[str, Any], top: float, colour: str) -> list[str]:
    middle, bar, value = left + width / 2, width * 0.56, figure["value"]
    y = _y(value, top)
    parts = [
        f'<rect x="{middle - bar / 2:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{_TOP + _HEIGHT - y:.1f}" fill="{colour}" fill-opacity="0.75"/>'
    ]
    highest = y
    if figure["low"] is not None:
        low, high = _y(max(0.0, figure["low"]), top), _y(figure["high"], top)
        parts.append(f'<path d="M{middle:.1f} {low:.1f}V{high:.1f}M{middle - 7:.1f} {low:.1f}h14M{middle - 7:.1f} {high:.1f}h14" stroke="#222" fill="none"/>')  # fmt: skip
        highest = min(highest, high)
    for number, seed in enumerate(figure["seeds"]):
        x = middle + (number - (len(figure["seeds"]) - 1) / 2) * 9
        parts.append(f'<circle cx="{x:.1f}" cy="{_y(seed, top):.1f}" r="3" fill="#fff" stroke="#222"/>')
    parts.append(text(middle, highest - 7, f"{value:.2f}", anchor="middle", weight="600"))
    for number, line in enumerate(_wrapped(label)):
        parts.append(text(middle, _TOP + _HEIGHT + 17 + 15 * number, line, size=12, anchor="middle"))
    return parts


def _wrapped(label: str) -> list[str]:
    """At its comma, where there is one."""
    first, comma, rest = label.partition(", ")
    return [first + ("," if comma else ""), rest] if comma else [label]


def _y(value: float, top: float) -> float:
    return _TOP + _HEIGHT * (1 - value / top)


def text(
    x: float, y: float, words: str, *, size: int = 13, anchor: str = "start", weight: str = "400", colour: str = "#222"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">'
        f"{escape(words)}</text>"
    )
