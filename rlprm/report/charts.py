"""Curves as SVG: they follow the page's light or dark colours, print, and need no script.

A series has a colour, a line style and a marker of its own, so that no reader needs the colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Series", "line_chart"]

_WIDTH, _HEIGHT = 640.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 16.0, 14.0, 46.0
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 4", "10 3 2 3 2 3")
_MARKERS = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z", "m-3-3h6v6h-6z", "m0-4l4 7h-8z", "m0-4l4 4l-4 4l-4-4z",
    "m0 4l4-7h-8z", "m-4-1h3v-3h2v3h3v2h-3v3h-2v-3h-3z",
)  # fmt: skip
"""Circle, square, triangle, diamond, triangle upside down, cross: paths around the point."""
_MOST = 1e100
"""Numbers from here on, and those that are not finite, are left out."""
_TICKS = 5
_COLOURS = 8


@dataclass(frozen=True)
class Series:
    """One curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    """Lower ends of the band; empty for a curve without."""
    high: Sequence[float] = ()
    is_bound: bool = False
    """Whether the series bounds the others, such as an oracle: drawn in grey."""
    labels: Sequence[str] = ()
    """Text beside each point, for instance the size of a beam; such a series has no line."""
    group: str = ""
    """Series of one group have one colour; each is a group of its own where none is named."""


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    percent: bool = False,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> str:
    """Return a chart and its legend as markup; an empty text if there is no point.

    Args:
        series: in the order of the legend.
        x_label: under the axis.
        y_label: beside the axis.
        log_x: for a logarithmic axis; points at or below 0 are left out.
        percent: shows 0.5 as 50 %.
        y_range: of the axis; by default that of points and bands.
        diagonal: draws the line on which y equals x.
    """
    kept = [s for s in (_finite(s, log_x) for s in series) if s.x]
    if not kept:
        return ""
    xs = [math.log10(x) if log_x else x for s in kept for x in s.x]
    ys = [y for s in kept for y in (*s.y, *s.low, *s.high)]
    x_range = _widened(min(xs), max(xs))
    low, high = y_range or _widened(min(ys), max(ys), margin=0.05)
    plane = _Plane(x_range, (low, high), log_x)
    parts = [_axes(plane, percent), _labels(x_label, y_label)]
    if diagonal:
        ends = max(x_range[0], low), min(x_range[1], high)
        parts.append(_path([(plane.x(e), plane.y(e)) for e in ends], "bound", _DASHES[2]))
    groups = list(dict.fromkeys(s.group or s.name for s in kept if not s.is_bound))
    legend = []
    for index, one in enumerate(kept):
        name = "bound" if one.is_bound else f"c{groups.index(one.group or one.name) % _COLOURS}"
        dash = "" if one.labels else _DASHES[index % len(_DASHES)]
        parts.append(_curve(plane, one, name, dash, _MARKERS[index % len(_MARKERS)], percent))
        legend.append(
            f'<li><svg class="key" viewBox="0 0 28 10" aria-hidden="true">'
            f"{_sample_line(one, name, dash, _MARKERS[index % len(_MARKERS)])}</svg>{escape(one.name)}</li>"
        )
    described = escape(f"{y_label} against {x_label}: {', '.join(s.name for s in kept)}", quote=True)
    return (
        f'<figure class="chart"><svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" '
        f'aria-label="{described}">{"".join(parts)}</svg><ul class="legend">{"".join(legend)}</ul></figure>'
    )


class _Plane:
    """Where a point lies in the picture."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], log_x: bool) -> None:
        self.x_range, self.y_range, self.log_x = x, y, log_x

    def x(self, value: float) -> float:
        """Return the horizontal place of a value on the (logarithmic) axis."""
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical place, within the picture."""
        low, high = self.y_range
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def of(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point."""
        return self.x(math.log10(x) if self.log_x else x), self.y(y)


def _finite(series: Series, log_x: bool) -> Series:
    good = [
        i for i, (x, y) in enumerate(zip(series.x, series.y, strict=True))
        if abs(x) < _MOST and abs(y) < _MOST and (x > 0 or not log_x)
    ]  # fmt: skip
    order = sorted(good, key=lambda i: series.x[i])

    def of(column: Sequence[float]) -> list[float]:
        return [column[i] for i in order] if len(column) == len(series.x) else []

    labels = [series.labels[i] for i in order] if series.labels else ()
    low, high = of(series.low), of(series.high)
    if not all(abs(end) < _MOST for end in (*low, *high)):
        low, high = [], []
    return Series(series.name, of(series.x), of(series.y), low, high, series.is_bound, labels, series.group)


def _widened(low: float, high: float, margin: float = 0.02) -> tuple[float, float]:
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        spread = abs(high) * 0.1 or 0.5
        return low - spread, high + spread
    return low - margin * (high - low), high + margin * (high - low)


def _axes(plane: _Plane, percent: bool) -> str:
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for value in _ticks(*plane.y_range):
        y = plane.y(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT:.0f}" x2="{_WIDTH - _RIGHT:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6:.0f}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_number(100 * value) + ' %' if percent else _number(value)}</text>"
        )
    for value, text in _x_ticks(plane):
        x = plane.x(value)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.0f}" y2="{bottom + 4:.0f}"/>'
            f'<text class="tick" x="{x:.1f}" y="{bottom + 17:.0f}" text-anchor="middle">{text}</text>'
        )
    axis = f'<path class="axis" d="M{_LEFT:.0f} {_TOP:.0f}V{bottom:.0f}H{_WIDTH - _RIGHT:.0f}"/>'
    return "".join(parts) + axis


def _labels(x_label: str, y_label: str) -> str:
    x, y = (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8
    return (
        f'<text class="label" x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="label" transform="translate(13 {(_HEIGHT - _BOTTOM + _TOP) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )


def _curve(plane: _Plane, series: Series, name: str, dash: str, marker: str, percent: bool) -> str:
    points = [plane.of(x, y) for x, y in zip(series.x, series.y, strict=True)]
    parts = []
    if series.low and len(points) > 1 and not series.labels:
        there = [plane.of(x, y) for x, y in zip(series.x, series.low, strict=True)]
        back = [plane.of(x, y) for x, y in zip(series.x, series.high, strict=True)][::-1]
        parts.append(f'<path class="band {name}" d="{_line([*there, *back])}Z"/>')
    elif series.low:
        for x, low, high in zip(series.x, series.low, series.high, strict=True):
            (at, bottom), (_, top) = plane.of(x, low), plane.of(x, high)
            parts.append(f'<path class="line {name}" d="M{at:.1f} {bottom:.1f}V{top:.1f}"/>')
    if not series.labels:
        parts.append(_path(points, name, dash))
    shown = points if len(points) <= 60 else []
    for index, (x, y) in enumerate(shown):
        value = f"{100 * series.y[index]:.1f} %" if percent else _number(series.y[index])
        title = escape(f"{series.name}: {value} at {_number(series.x[index])}")
        parts.append(_dot(x, y, name, marker, f"<title>{title}</title>"))
        if series.labels:
            text, is_right = escape(series.labels[index]), x > _WIDTH - 60
            place = f'x="{x - 6 if is_right else x + 6:.1f}" y="{y + 13:.1f}"'
            anchor = ' text-anchor="end"' if is_right else ""
            parts.append(f'<text class="tick" {place}{anchor}>{text}</text>')
    return "".join(parts)


def _sample_line(series: Series, name: str, dash: str, marker: str) -> str:
    line = "" if series.labels else _path([(1, 5), (27, 5)], name, dash)
    return line + _dot(14, 5, name, marker)


def _dot(x: float, y: float, name: str, marker: str, inside: str = "") -> str:
    return f'<path class="dot {name}" d="M{x:.1f} {y:.1f}{marker}">{inside}</path>'


def _path(points: Sequence[tuple[float, float]], name: str, dash: str) -> str:
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="line {name}" d="{_line(points)}"{style}/>'


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers within a range."""
    raw = (high - low) / _TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _x_ticks(plane: _Plane) -> list[tuple[float, str]]:
    low, high = plane.x_range
    if not plane.log_x:
        ticks = _ticks(low, high)
        whole = [t for t in ticks if abs(t - round(t)) < 1e-9]
        return [(t, _number(t)) for t in (whole if len(whole) > 2 else ticks)]
    if high - low < 2.5:  # budgets: powers of 2 say more than one power of 10
        powers = range(math.floor(low / math.log10(2)), math.ceil(high / math.log10(2)) + 1)
        found = [(p * math.log10(2), _number(2.0**p)) for p in powers]
        inside = [(x, text) for x, text in found if low <= x <= high]
        return inside[:: max(1, len(inside) // 8 + (len(inside) > 8))]
    return [(float(p), _number(10.0**p)) for p in range(math.ceil(low), math.floor(high) + 1)]


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.4g}"
