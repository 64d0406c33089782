"""A study of losses as one SVG: loss against FLOPs, and differences from the first arm. The same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from abruzzi_jobs.evals.comparison.picture import COLOURS, text
from abruzzi_jobs.evals.comparison.table import IS_REPLICA

_WIDTH, _EDGE, _GAP, _TOP, _HEIGHT = 960, 62, 84, 128, 270
_PANEL = (_WIDTH - 2 * _EDGE - _GAP) / 2


def curves_svg(comparison: Mapping[str, Any], *, title: str) -> str:
    arms = list(comparison["arms"].values())
    height = _TOP + _HEIGHT + 70
    losses = [[(p["flops"], p) for p in arm["points"]] for arm in arms]
    seeds = comparison["seeds"]
    caption = f"Dots: seeds; lines: means over {seeds} {'seeds' if seeds > 1 else 'seed'}; bars: 95 % intervals (Student's t), of differences seed by seed."
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#222">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        text(24, 28, title, size=17, weight="600"),
        text(24, 48, IS_REPLICA, size=12, colour="#555"),
        *_legend([arm["label"] for arm in arms]),
        *_panel(_EDGE, "held-out loss, nats a token", losses, dots=True),
        *_panel(
            _EDGE + _PANEL + _GAP, f"loss, % from that of: {arms[0]['label']}", _from_first(comparison), dots=False
        ),
        text(24, _TOP + _HEIGHT + 58, caption, size=12, colour="#555"),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _legend(labels: Sequence[str]) -> list[str]:
    parts, x = [], 24.0
    for number, label in enumerate(labels):
        parts.append(f'<rect x="{x:.1f}" y="66" width="14" height="4" fill="{_colour(number)}"/>')
        parts.append(text(x + 20, 73, label, size=12))
        x += 44 + 6.6 * len(label)
    return parts


def _from_first(comparison: Mapping[str, Any]) -> list[list[tuple[float, Mapping[str, Any]]]]:
    first, *others = comparison["arms"]
    found = {(e["of"], e["tokens"]): e for e in comparison["differences"] if e["over"] == first}
    nothing = {"value": 0.0, "low": None, "high": None}
    return [
        [(p["flops"], nothing if arm == first else found[arm, p["tokens"]]) for p in comparison["arms"][arm]["points"]]
        for arm in (first, *others)
    ]


def _panel(
    left: float, name: str, curves: Sequence[Sequence[tuple[float, Mapping[str, Any]]]], *, dots: bool
) -> list[str]:
    flops = [x for curve in curves for x, _ in curve]
    values = [v for curve in curves for _, e in curve for v in _heights(e, dots=dots)]
    low, high, step = _scale(min(values), max(values))
    x_of = _x_scale(left, min(flops), max(flops))

    def y_of(value: float) -> float:
        return _TOP + _HEIGHT * (1 - (value - low) / (high - low))

    parts = [text(left, _TOP - 14, name, weight="600")]
    for number in range(round((high - low) / step) + 1):
        value, y = low + number * step, y_of(low + number * step)
        is_zero = not dots and abs(value) < step / 1000
        parts.append(f'<line x1="{left:.1f}" x2="{left + _PANEL:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{"#8a8f98" if is_zero else "#e3e5e8"}"/>')  # fmt: skip
        parts.append(text(left - 8, y + 4, f"{value:.{_decimals(step)}f}", size=11, anchor="end", colour="#666"))
    for tick in _ticks(min(flops), max(flops)):
        parts.append(text(x_of(tick), _TOP + _HEIGHT + 17, _power(tick), size=11, anchor="middle", colour="#666"))
    parts.append(text(left + _PANEL / 2, _TOP + _HEIGHT + 34, "training FLOPs, forward and backward", size=11, anchor="middle", colour="#666"))  # fmt: skip
    for number, curve in enumerate(curves):
        aside = (number - (len(curves) - 1) / 2) * 4  # side by side: equal budgets lie on each other
        parts += _curve([(x_of(x) + aside, e) for x, e in curve], y_of, _colour(number), dots=dots)
    return parts


def _curve(
    points: Sequence[tuple[float, Mapping[str, Any]]], y_of: Callable[[float], float], colour: str, *, dots: bool
) -> list[str]:
    path = " ".join(f"{x:.1f},{y_of(e['value']):.1f}" for x, e in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>']
    for x, e in points:
        if e["low"] is not None:
            top, bottom = y_of(e["high"]), y_of(e["low"])
            parts.append(f'<path d="M{x:.1f} {bottom:.1f}V{top:.1f}M{x - 4:.1f} {bottom:.1f}h8M{x - 4:.1f} {top:.1f}h8" stroke="{colour}" fill="none"/>')  # fmt: skip
        for value in _seeds(e) if dots else ():
            parts.append(f'<circle cx="{x:.1f}" cy="{y_of(value):.1f}" r="2.2" fill="#fff" stroke="{colour}"/>')
        if not dots:
            parts.append(f'<circle cx="{x:.1f}" cy="{y_of(e["value"]):.1f}" r="3" fill="{colour}"/>')
    return parts


def _seeds(entry: Mapping[str, Any]) -> list[float]:
    return list(entry["seeds"].values())


def _heights(entry: Mapping[str, Any], *, dots: bool) -> list[float]:
    ends = [] if entry["low"] is None else [entry["low"], entry["high"]]
    return [entry["value"], *ends, *(_seeds(entry) if dots else ())]


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Round ends around the values, and the step between grid lines: four to eight of them."""
    room = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(room / 5))
    step = next(size * f for f in (1, 2, 5, 10) if room / (size * f) <= 6)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step)))


def _x_scale(left: float, low: float, high: float) -> Callable[[float], float]:
    """Logarithmic, with room at both ends."""
    span = math.log(high / low) or 1.0
    return lambda flops: left + _PANEL * (0.07 + 0.86 * (math.log(flops / low) / span if high > low else 0.5))


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten inside the range, and its ends where there is none."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [f * 10.0**p for p in powers for f in (1, 2, 5) if low * 0.999 <= f * 10.0**p <= high * 1.001]
    return found if len(found) > 1 else [low, high] if high > low else [low]


def _power(value: float) -> str:
    exponent = math.floor(math.log10(value) + 1e-9)
    return f"{value / 10.0**exponent:.2g}e{exponent}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
