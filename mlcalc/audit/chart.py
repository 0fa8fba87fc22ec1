"""Small charts as inline SVG, drawn by hand: colours come from the page's CSS, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 32, 44


@dataclass(frozen=True)
class Axis:
    """One axis from `low` to `high`; a logarithmic one needs both above 0."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value stands between the ends, 0 to 1; values beyond them stand at them."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log10(max(entry, 1e-300)) for entry in (value, low, high))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self) -> list[float]:
        """Round values within the ends: decades of a logarithmic axis, else some five of 1, 2 or 5 × 10ⁿ."""
        if self.log:
            low, high = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, math.ceil((high - low) / 6))
            return [10.0**k for k in range(low, high + 1, every)]
        raw = (self.high - self.low) / 5
        scale = 10 ** math.floor(math.log10(raw))
        step = next(m * scale for m in (1, 2, 5, 10) if m * scale >= raw * 0.999)
        return [k * step for k in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Curve:
    """A line, or points with error bars where `errors` is given; `style` is the CSS class that colours it."""

    style: str
    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float] | None = None


@dataclass(frozen=True)
class Rule:
    """A horizontal line with a word on it."""

    y: float
    label: str


def linear_axis(label: str, values: Sequence[float], *, margin: float = 0.06, least: float = 1e-12) -> Axis:
    """An axis around all finite values."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    span = max(high - low, least)
    return Axis(label, low - margin * span, high + margin * span)


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis of whole decades around all finite values above 0."""
    positive = [value for value in values if math.isfinite(value) and value > 0] or [0.1, 1.0]
    low, high = 10.0 ** math.floor(math.log10(min(positive))), 10.0 ** math.ceil(math.log10(max(positive)))
    return Axis(label, low, high if high > low else 10 * low, log=True)


def number(value: float) -> str:
    """A tick's label: plain between 10⁻³ and 10⁴, else a power of ten; a true minus sign."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.10g}".replace("-", "−") if abs(value) >= 1e-3 else ""
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    mantissa = value / 10**exponent
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if abs(mantissa - 1) < 1e-6 else f"{mantissa:.3g}·{power}".replace("-", "−")


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _frame(x: Axis, y: Axis) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = [f'<text class="name" x="{4}" y="16">{escape(y.label)}</text>']
    parts.append(
        f'<text class="name" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x.label)}</text>"
    )
    for tick in y.ticks():
        height = _y(y, tick)
        kind = "zero" if tick == 0 and not y.log else "grid"
        parts.append(f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in x.ticks():
        place = _x(x, tick)
        parts.append(f'<line class="axis" x1="{place:.1f}" x2="{place:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{place:.1f}" y="{bottom + 19}" text-anchor="middle">{number(tick)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    return parts


def _draw(curve: Curve, x: Axis, y: Axis) -> list[str]:
    points = [(a, b) for a, b in zip(curve.x, curve.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if curve.errors is None:
        path = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in points)
        return [f'<polyline class="line {curve.style}" points="{path}"/>']
    parts = []
    for (a, b), error in zip(points, curve.errors, strict=False):
        place = _x(x, a)
        if math.isfinite(error):
            low, high = _y(y, b - error), _y(y, b + error)
            ends = f'x1="{place:.1f}" x2="{place:.1f}" y1="{low:.1f}" y2="{high:.1f}"'
            parts.append(f'<line class="whisker {curve.style}" {ends}/>')
        parts.append(f'<circle class="dot {curve.style}" cx="{place:.1f}" cy="{_y(y, b):.1f}" r="4"/>')
    return parts


def chart(title: str, x: Axis, y: Axis, curves: Sequence[Curve], rules: Sequence[Rule] = ()) -> str:
    """Curves over two axes, as one <svg> element that scales with its container."""
    parts = _frame(x, y)
    for rule in rules:
        height = _y(y, rule.y)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(
            f'<text class="rulename" x="{_WIDTH - _RIGHT - 2}" y="{height - 5:.1f}" text-anchor="end">'
            f"{escape(rule.label)}</text>"
        )
    for curve in curves:
        parts += _draw(curve, x, y)
    return _svg(title, _HEIGHT, parts)


@dataclass(frozen=True)
class Mark:
    """One row of a forest plot: a size with its error."""

    style: str
    name: str
    size: float
    error: float


def forest(title: str, axis: Axis, marks: Sequence[Mark], limits: tuple[float, float]) -> str:
    """Sizes with error bars over three zones, which the two limits part: good, doubtful, bad."""
    row, top, left = 58, 6, 16.0
    bottom = top + row * len(marks)
    right = float(_WIDTH - _RIGHT - 8)

    def place(value: float) -> float:
        return left + axis.place(value) * (right - left)

    edges = [left, *map(place, limits), right]
    parts = [
        f'<rect class="zone {kind}" x="{start:.1f}" y="{top}" width="{max(0.0, stop - start):.1f}" '
        f'height="{bottom - top}"/>'
        for kind, start, stop in zip(("good", "doubtful", "bad"), edges[:-1], edges[1:], strict=True)
    ]
    for k, mark in enumerate(marks):
        name, line = top + row * k + 22, top + row * k + 40
        low, high = place(mark.size - mark.error), place(mark.size + mark.error)
        parts += [
            f'<text class="mark" x="{left + 10}" y="{name}">{escape(mark.name)}</text>',
            f'<line class="whisker {mark.style}" x1="{low:.1f}" x2="{high:.1f}" y1="{line}" y2="{line}"/>',
            f'<circle class="dot {mark.style}" cx="{place(mark.size):.1f}" cy="{line}" r="5.5"/>',
        ]
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for tick in axis.ticks():
        parts.append(
            f'<line class="axis" x1="{place(tick):.1f}" x2="{place(tick):.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
        )
        parts.append(
            f'<text class="tick" x="{place(tick):.1f}" y="{bottom + 19}" text-anchor="middle">{number(tick)}</text>'
        )
    middle = (left + right) / 2
    parts.append(
        f'<text class="name" x="{middle:.0f}" y="{bottom + 38}" text-anchor="middle">{escape(axis.label)}</text>'
    )
    return _svg(title, bottom + 46, parts)


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>\n{body}\n</svg>"
    )
