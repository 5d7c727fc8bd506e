"""The curves of a training, as SVG."""

import math
from typing import Any

from agedphoto.report_numbers import count, duration


def curve_panels(curve: list[dict[str, Any]]) -> str:
    """Return loss and validation score over the pairs seen, side by side, for a page."""
    panels = "".join(curve_svgs(curve))
    if not curve:
        return "<p>Training was too short to draw a curve.</p>"
    last = curve[-1]
    return (
        f'<div class="two curves">{panels}</div><p class="note">From {curve[0]["seen"]:,} pairs '
        f"after {duration(curve[0]['seconds'])} to {last['seen']:,} pairs after "
        f"{duration(last['seconds'])}. Validation is on a fixed set of pairs.</p>"
    )


def curve_svgs(curve: list[dict[str, Any]]) -> list[str]:
    """Return a drawing, 420 x 270 units, for each of loss and validation score that there is."""
    drawn = []
    for name, title, log, end in (
        ("loss", "Training loss (log scale)", True, "{:.3g}"),
        ("psnr_db", "PSNR on validation pairs (dB)", False, "{:.2f} dB"),
        ("cross_entropy", "Cross-entropy of colours on validation pairs (nats)", False, "{:.3f}"),
    ):
        values = [(p["seen"], p[name]) for p in curve if p.get(name) is not None]
        points = [(seen, value) for seen, value in values if value > 0 or not log]
        if points:
            drawn.append(_panel(points, title, log=log, end=end))
    return drawn


def _panel(points: list[tuple[float, float]], title: str, *, log: bool, end: str) -> str:
    """One curve as SVG, 420 × 270 units, x from zero."""
    left, right, top, bottom = 50, 404, 34, 226
    values = [math.log10(y) if log else y for _, y in points]
    margin = max(0.06 * (max(values) - min(values)), 0.02)
    low, high = min(values) - margin, max(values) + margin
    x_max = max(x for x, _ in points) or 1

    def at(x: float, value: float) -> tuple[float, float]:
        return (
            left + (right - left) * x / x_max,
            bottom - (bottom - top) * (value - low) / (high - low),
        )

    parts = []
    ticks = _log_ticks(10**low, 10**high) if log else _ticks(low, high)
    for tick in ticks:
        y = at(0, math.log10(tick) if log else tick)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(0, x_max):
        x = at(tick, low)[0]
        parts.append(f'<path class="tick" d="M{x:.1f} {bottom}v5"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{count(tick)}</text>'
        )
    places = [at(x, value) for (x, _), value in zip(points, values, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = places if len(places) <= 24 else places[-1:]
    parts.append(f'<polyline class="line" points="{line}"/>')
    parts.extend(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots)
    # Above a falling curve, below a rising one.
    x, y = places[-1][0], places[-1][1] + (-10 if log else 20)
    parts.append(
        f'<text class="end" x="{x:.1f}" y="{y:.1f}" text-anchor="end">'
        f"{end.format(points[-1][1])}</text>"
    )
    return (
        f'<svg viewBox="0 0 420 270" width="420" height="270" role="img" '
        f'aria-label="{title} over training pairs seen">'
        f'<text class="title" x="0" y="15">{title}</text>{"".join(parts)}'
        f'<path class="axis" d="M{left} {bottom}H{right}"/>'
        f'<text x="{right}" y="264" text-anchor="end">training pairs seen</text></svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers within [low, high]."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= 7)
    return [
        float(f"{k * step:.6g}") for k in range(math.ceil(low / step), math.floor(high / step) + 1)
    ]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1,), (1, 3), (1, 2, 5)):
        ticks = [m * 10.0**e for e in decades for m in mantissas if low <= m * 10.0**e <= high]
        if len(ticks) >= 3:
            return ticks
    return _ticks(low, high)
