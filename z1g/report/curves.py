"""Charts as inline SVG, styled by the page's CSS."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 440, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 36
COLORS = 8
"""Number of line styles `.line0`, `.line1`, … in the page's CSS. Further lines repeat them dashed."""
MAX_POINTS = 160
LABELS, ROW, MAX_LABEL = 150, 22, 17

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line: its name, (x, y) points in order of x, and its color index."""

    name: str
    points: Points
    color: int


def chart(series: Sequence[Series], x_label: str, y_label: str, log_y: bool = False) -> str:
    """An SVG of all lines, or an empty string if there is nothing to draw."""
    usable = [Series(line.name, _usable(line.points, log_y), line.color) for line in series]
    lines = [Series(line.name, thin(line.points), line.color) for line in usable if line.points]
    if not lines:
        return ""
    last_x = max(x for line in usable for x, _ in line.points) or 1
    ys = [y for line in lines for _, y in line.points]
    x_ticks = linear_ticks(0, last_x, 5)
    y_ticks = log_ticks(min(ys), max(ys)) if log_y else linear_ticks(min(ys), max(ys), 5)
    to_x = _scale((0, last_x), (LEFT, WIDTH - RIGHT), log=False)
    to_y = _scale(_limits(ys, y_ticks, log_y), (HEIGHT - BOTTOM, TOP), log=log_y)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} by {escape(x_label)}">']
    parts += [_y_tick(to_y(tick), tick_text(tick)) for tick in y_ticks]
    parts += [_x_tick(to_x(tick), tick_text(tick)) for tick in x_ticks]
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    parts += [_line(line, to_x, to_y) for line in lines]
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Bar:
    """One row of an interval chart: a value, its interval, whether it is emphasized, and a second, hollow marker."""

    label: str
    value: float
    low: float | None
    high: float | None
    strong: bool
    hollow: float | None = None


def intervals(bars: Sequence[Bar], title: str) -> str:
    """An SVG with a dot and whiskers per row and labels at the left, or an empty string if there are no rows."""
    if not bars:
        return ""
    ends = [x for bar in bars for x in (bar.value, bar.low, bar.high, bar.hollow) if x is not None]
    bottom = 8 + ROW * len(bars)
    pad = (max(ends) - min(ends)) * 0.04 or 1.0
    to_x = _scale((min(ends) - pad, max(ends) + pad), (LABELS, WIDTH - RIGHT), log=False)
    parts = [f'<svg viewBox="0 0 {WIDTH} {bottom + 24}" role="img" aria-label="{escape(title)}">']
    for tick in linear_ticks(min(ends), max(ends), 5):
        parts.append(f'<line class="grid" x1="{to_x(tick)}" x2="{to_x(tick)}" y1="4" y2="{bottom}"/>')
        parts.append(f'<text x="{to_x(tick)}" y="{bottom + 16}" text-anchor="middle">{tick_text(tick)}</text>')
    for number, bar in enumerate(bars):
        y = 4 + ROW * number + ROW / 2
        style = "bar strong" if bar.strong else "bar"
        parts.append(
            f'<text class="{style}" x="{LABELS - 10}" y="{y + 4}" text-anchor="end">{escape(shorten(bar.label))}</text>'
        )
        if bar.low is not None and bar.high is not None:
            parts.append(f'<line class="{style}" x1="{to_x(bar.low)}" x2="{to_x(bar.high)}" y1="{y}" y2="{y}"/>')
        if bar.hollow is not None:
            parts.append(f'<circle class="hollow" cx="{to_x(bar.hollow)}" cy="{y}" r="3.5"/>')
        tip = f"<title>{escape(bar.label)}: {tick_text(bar.value)}</title>"
        parts.append(f'<circle class="{style}" cx="{to_x(bar.value)}" cy="{y}" r="4">{tip}</circle>')
    return "\n".join([*parts, "</svg>"])


def shorten(label: str, limit: int = MAX_LABEL) -> str:
    """Shorten a label in its middle, since names of ablations tend to differ at their ends.

    A point of a sweep, `file@lr=1e-3,guidance=2`, loses the name of its file first.
    """
    if len(label) > limit:
        label = label.partition("@")[2] or label
    half = (limit - 1) // 2
    return label if len(label) <= limit else f"{label[:half]}…{label[-half:]}"


def thin(points: Points, limit: int = MAX_POINTS) -> Points:
    """Reduce to at most `limit` points by averaging consecutive points."""
    if len(points) <= limit:
        return points
    edges = [round(i * len(points) / limit) for i in range(limit + 1)]
    runs = [points[a:b] for a, b in pairwise(edges)]
    return [(math.fsum(x for x, _ in run) / len(run), math.fsum(y for _, y in run) / len(run)) for run in runs]


def linear_ticks(low: float, high: float, about: int) -> list[float]:
    """Ticks from `low` to `high`, spaced by 1, 2 or 5 times a power of ten."""
    if high - low < 1e-12 * max(1.0, abs(high)):
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`, and multiples of them if the range is short."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 2)
    spread = math.log10(high / low)
    factors = (1,) if spread > 2 else (1, 2, 5) if spread > 0.5 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    every = max(1, math.ceil(spread / 6)) if spread > 2 else 1
    ticks = [f * 10.0**d for d in decades if d % every == 0 for f in factors]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return inside or [low]


def tick_text(value: float) -> str:
    """Format a tick briefly: 12k, 0.05, 1e-5."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e3:
        return f"{value / 1e3:g}k"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


def _usable(points: Points, log_y: bool) -> Points:
    return [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log_y)]


def _limits(values: list[float], ticks: list[float], log_y: bool) -> tuple[float, float]:
    low, high = min(*values, *ticks), max(*values, *ticks)
    if log_y:
        pad = (high / low) ** 0.05 if high > low else 1.5
        return low / pad, high * pad
    pad = (high - low) * 0.05 or 1.0
    return low - pad, high + pad


def _scale(domain: tuple[float, float], span: tuple[float, float], log: bool) -> Callable[[float], float]:
    a, b = (math.log(domain[0]), math.log(domain[1])) if log else domain

    def place(value: float) -> float:
        position = ((math.log(value) if log else value) - a) / (b - a)
        return round(span[0] + position * (span[1] - span[0]), 1)

    return place


def _y_tick(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>'
    )


def _x_tick(x: float, text: str) -> str:
    base = HEIGHT - BOTTOM
    anchor = "start" if x <= LEFT else "end" if x >= WIDTH - RIGHT - 8 else "middle"
    return (
        f'<line class="grid" x1="{x}" x2="{x}" y1="{base}" y2="{base + 4}"/>'
        f'<text class="tick" x="{x}" y="{base + 16}" text-anchor="{anchor}">{text}</text>'
    )


def _line(line: Series, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> str:
    style = f"line line{line.color % COLORS}{' dashed' if line.color >= COLORS else ''}"
    title = f"<title>{escape(line.name)}</title>"
    places = [(to_x(x), to_y(y)) for x, y in line.points]
    if len(places) == 1:
        x, y = places[0]
        return f'<circle class="{style} dot" cx="{x}" cy="{y}" r="3">{title}</circle>'
    path = " ".join(f"{x},{y}" for x, y in places)
    return f'<polyline class="{style}" points="{path}">{title}</polyline>'
