"""The page that ends a demo: what was aged, what was learned, what came back, in one file.

`report.html` carries its pictures, style and script inside itself and loads nothing, so it can be
mailed, printed and kept; `report.json` beside it holds the same figures. Photographs are embedded
as JPEG, at most 1600 px long and within a budget of bytes; details stay lossless and unscaled.
Long for a module because the page itself, its style and its script are here, as constants.
"""

import base64
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["Pair", "Restoration", "write_report"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Restoration:
    """One held-out photograph on its way: all uint8, (H, W) gray or (H, W, 3) RGB, same size."""

    name: str
    clean: np.ndarray
    aged: np.ndarray
    restored: np.ndarray
    psnr_aged_db: float
    psnr_blur_db: float
    psnr_restored_db: float
    ssim_aged: float
    ssim_blur: float
    ssim_restored: float

    def __post_init__(self):
        _check_alike(self.name, clean=self.clean, aged=self.aged, restored=self.restored)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One training pair: uint8 (h, w) or (h, w, 3), aged and clean, with the damage mask (bool)."""

    aged: np.ndarray
    clean: np.ndarray
    mask: np.ndarray

    def __post_init__(self):
        _check_alike("pair", clean=self.clean, aged=self.aged)


def write_report(
    out: Path,
    record: dict[str, Any],
    restorations: Sequence[Restoration],
    pairs: Sequence[Pair],
) -> Path:
    """Write report.html and report.json into folder `out`; return the path of the html.

    Both are complete before either takes its name: a failure leaves an earlier report as it was.

    Args:
        out: made if it does not exist.
        record: every figure of the page; numbers that are not finite become null.
        restorations: the first 6 are pictured, the table lists all that `record` names.
        pairs: the first 16 are pictured.
    """
    plain = _plain(record)
    texts = {
        "report.json": json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "report.html": _page(plain, restorations, pairs),
    }
    out.mkdir(parents=True, exist_ok=True)
    staged = {name: out / f".{name}.{os.getpid()}.tmp" for name in texts}
    try:
        for name, text in texts.items():
            staged[name].write_text(text, encoding="utf-8")
        for name, path in staged.items():
            os.replace(path, out / name)  # noqa: PTH105
    finally:
        for path in staged.values():
            path.unlink(missing_ok=True)
    return out / "report.html"


# Three prints of 352 px and two gaps of 16 px fill the page, so a detail of 176 px is shown at 2:1.
_DETAIL_PX = 176
_MAX_PICTURED = 6
_MAX_PAIRS = 16
# Base64 adds a third; with lossless details in colour and pairs the page stays below 8 MB.
_PHOTO_BYTES = 3_000_000
_PAIR_BYTES = 50_000
# Long side and JPEG quality, from what is wanted to what is still worth showing.
_ENCODINGS = [(1600, 92), (1600, 86), (1280, 86), (1280, 78), (960, 78), (640, 70), (200, 70)]
_WAYS = [("aged", "do nothing"), ("blur", "best Gaussian blur"), ("restored", "restored")]
_SPEEDS = [
    ("shard_photos_per_s", "photos/s", "packed into shards"),
    ("decode_photos_per_s", "photos/s", "decoded from shards"),
    ("ageing_pairs_per_s", "pairs/s", "aged"),
    ("train_pairs_per_s", "pairs/s", "trained on"),
    ("data_wait_share", "%", "of training spent waiting for data"),
    ("restore_megapixels_per_s", "MP/s", "restored"),
]
_STAGES = [
    ("shards", "packing shards"),
    ("textures", "drawing textures"),
    ("training", "training"),
    ("restoring", "restoring"),
]


def _check_alike(name: str, **images: np.ndarray) -> None:
    clean = images["clean"]
    if clean.ndim not in (2, 3) or (clean.ndim == 3 and clean.shape[2] != 3):
        raise ValueError(f"{name}: clean must be (H, W) or (H, W, 3), got {clean.shape}")
    for kind, image in images.items():
        if image.dtype != np.uint8:
            raise ValueError(f"{name}: {kind} must be uint8, got {image.dtype}; scale it to 0..255")
        if image.shape != clean.shape:
            raise ValueError(f"{name}: {kind} is {image.shape} but clean is {clean.shape}")


def _plain(value: Any) -> Any:
    """The value in JSON's own types, null for whatever is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _page(
    record: dict[str, Any], restorations: Sequence[Restoration], pairs: Sequence[Pair]
) -> str:
    pictured = restorations[:_MAX_PICTURED]
    # Bytes are shared out by the pixels that can be shown.
    pixels = [min(math.prod(item.clean.shape[:2]), 1600 * 1200) for item in pictured]
    budgets = [_PHOTO_BYTES * n // sum(pixels) for n in pixels]
    unseen = len(restorations) - len(pictured)
    return _PAGE.substitute(
        version=escape(str(record["agedphoto"])),
        css=_CSS,
        js=_JS,
        lead=_lead(record),
        headline=_headline(record),
        photos="".join(map(_photo, range(len(pictured)), pictured, budgets)),
        unseen=f'<p class="note">{unseen} more in the table below.</p>' if unseen else "",
        table=_table(record),
        pairs="".join(_pair(i, pair) for i, pair in enumerate(pairs[:_MAX_PAIRS], 1)),
        curve=_curve(record["curve"]),
        speed=_speed(record["speed"]),
        stages=_stages(record["seconds"]),
        details=_details(record),
    )


def _lead(record: dict[str, Any]) -> str:
    training, photos = record["training"], record["photos"]
    parameters = _count(training["parameters"])
    seen, name = f"{training['seen_pairs']:,}", escape(str(record["hardware"]["name"]))
    return (
        f"A UNet of {parameters} parameters learned from {seen} aged / clean pairs, made on the "
        f"fly from {_num_photos(photos['train'])} in {_duration(record['seconds']['training'])} "
        f"on {name}, and then restored {_num_photos(photos['held_out'])} it had never seen."
    )


def _headline(record: dict[str, Any]) -> str:
    aged, blur, ours = (record[f"psnr_{way}_db"] for way, _ in _WAYS)
    big = (
        f'<p class="big">{_figure(aged, 1)}&nbsp;dB → '
        f"<strong>{_figure(ours, 1)}&nbsp;dB</strong></p>"
    )
    if aged is None or blur is None or ours is None:
        return big
    gain, lead = ours - aged, ours - blur
    lost = f"What still differs from the clean photograph has {10 ** (abs(gain) / 10):.1f} times"
    words = (
        f"Restoring raises PSNR by {gain:.1f}&nbsp;dB. {lost} less power than before."
        if gain > 0
        else f"Restoring did not help here. {lost} the power it had: train longer."
    )
    words += f" For comparison, the best of five Gaussian blurs reaches {blur:.1f}&nbsp;dB; "
    words += (
        f"the network is {lead:.1f}&nbsp;dB ahead of it."
        if lead > 0
        else f"the network is {abs(lead):.1f}&nbsp;dB behind it: train longer."
    )
    held_out = record["held_out"]
    mean = f"Means of {len(held_out)} held-out photographs. " if len(held_out) > 1 else ""
    return (
        f'{big}<div class="two"><p>{words}</p><div>{_remaining(record)}<p class="note">{mean}'
        "Bars: error power left (mean squared error, from PSNR), doing nothing = 100%. "
        "The damage is synthetic: only so is there a clean original to measure against.</p>"
        "</div></div>"
    )


def _remaining(figures: dict[str, Any]) -> str:
    """Bars of the error power left by each way, as a share of what doing nothing leaves."""
    aged = figures["psnr_aged_db"]
    rows = []
    for way, label in _WAYS:
        psnr_db = figures[f"psnr_{way}_db"]
        share = None if None in (aged, psnr_db) else 10 ** ((aged - psnr_db) / 10)
        text = f"{_number(psnr_db, 1)} dB" + (f" · {share:.0%}" if share is not None else "")
        rows.append((label, share, text))
    return _bars(rows)


def _bars(rows: Iterable[tuple[str, float | None, str]]) -> str:
    """Labelled bars; each row is what it is, its share in [0, 1] and the same in words."""
    lines = (
        f"<li><span>{escape(label)}</span><b>{escape(text)}</b>"
        f'<i style="width:{width:.1%}"></i></li>'
        for label, share, text in rows
        for width in [min(1.0, max(0.0, share or 0.0))]
    )
    return f'<ul class="bars">{"".join(lines)}</ul>'


def _photo(index: int, item: Restoration, budget: int) -> str:
    name = escape(item.name)
    height, width = item.clean.shape[:2]
    kinds = {"clean": item.clean, "aged": item.aged, "restored": item.restored}
    uris, (shown_width, shown_height), quality = _embed(list(kinds.values()), budget)
    top, left, side = _detail_box(item.clean, item.aged)

    where = (
        f'<span class="where" style="left:{left / width:.2%};top:{top / height:.2%};'
        f'width:{side / width:.2%};height:{side / height:.2%}"></span>'
    )
    prints, details = [], []
    for (kind, image), uri in zip(kinds.items(), uris, strict=True):
        prints.append(
            f'<figure><div class="print"><img id="photo{index}-{kind}" src="{uri}" '
            f'width="{shown_width}" height="{shown_height}" alt="{name}, {kind}">{where}</div>'
            f"<figcaption>{kind}</figcaption></figure>"
        )
        crop = _webp(image[top : top + side, left : left + side])
        details.append(
            f'<figure><img src="{crop}" width="{side}" height="{side}" '
            f'alt="Detail of {name}, {kind}"><figcaption>{kind}, detail</figcaption></figure>'
        )
    reduced = (
        f"reduced by area averaging from {width:,} × {height:,} px"
        if (shown_width, shown_height) != (width, height)
        else "not reduced"
    )
    return _PHOTO.substitute(
        index=index,
        name=name,
        facts=_facts(item),
        ratio=f"{shown_width / shown_height:.4f}",
        # Beyond twice its pixels a photograph only looks soft.
        max_px=2 * shown_width,
        prints="".join(prints),
        details="".join(details),
        caption=(
            f"Whole photographs: {shown_width:,} × {shown_height:,} px, {reduced}, JPEG at quality "
            f"{quality}. Details: the outlined {side} × {side} px at full resolution, lossless, "
            "enlarged without smoothing."
        ),
    )


def _facts(item: Restoration) -> str:
    height, width = item.clean.shape[:2]
    psnr = [_number(_plain(x), 1) for x in (item.psnr_aged_db, item.psnr_restored_db)]
    ssim = [_number(_plain(x), 3) for x in (item.ssim_aged, item.ssim_restored)]
    return f"{width:,} × {height:,} px · PSNR {' → '.join(psnr)} dB · SSIM {' → '.join(ssim)}"


def _embed(images: list[np.ndarray], budget: int) -> tuple[list[str], tuple[int, int], int]:
    """Data URIs of all images within `budget` bytes if possible, their (width, height), quality."""
    uris, size, quality = [], (0, 0), 0
    for long_side_px, quality in _ENCODINGS:
        height, width = images[0].shape[:2]
        scale = min(1.0, long_side_px / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        # BOX is the mean over the covered area: grain shrinks as it would on paper, unsharpened.
        small = (Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in images)
        uris = [_data_uri(x, "JPEG", quality=quality, subsampling=0) for x in small]
        if sum(map(len, uris)) * 3 // 4 <= budget:
            break
    return uris, size, quality


def _webp(image: np.ndarray) -> str:
    return _data_uri(Image.fromarray(image), "WEBP", lossless=True)


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _detail_box(clean: np.ndarray, aged: np.ndarray) -> tuple[int, int, int]:
    """Top, left and side of the square that has most of both: texture, and damage upon it."""
    clean, aged = (x.reshape(*x.shape[:2], -1).mean(2, dtype=np.float32) for x in (clean, aged))
    side = min(_DETAIL_PX, *clean.shape)
    step = max(1, side // 4)
    down, right = (np.diff(clean, axis=a, append=clean.take([-1], a)) for a in (0, 1))
    texture = np.abs(down) + np.abs(right)
    error = np.abs(aged - clean)
    # Above three medians it is no longer grain but a speck or a scratch.
    damage = np.maximum(error - 3 * np.median(error), 0)

    def windows(x: np.ndarray) -> np.ndarray:
        h, w = x.shape[0] // step, x.shape[1] // step
        blocks = x[: h * step, : w * step].reshape(h, step, w, step).mean((1, 3))
        return np.lib.stride_tricks.sliding_window_view(blocks, (side // step,) * 2).mean((2, 3))

    score = np.sqrt(windows(texture)) * (windows(damage) + damage.mean() + 1)
    row, column = np.unravel_index(score.argmax(), score.shape)
    return int(row) * step, int(column) * step, side


def _table(record: dict[str, Any]) -> str:
    groups = list(record["held_out"])
    if len(groups) > 1:
        groups.append({**record, "name": f"mean of {len(groups)}"})
    bodies = []
    for group in groups:
        rows = []
        for way, label in _WAYS:
            sigma = f" (σ&nbsp;{_number(group['blur_sigma_px'])}&nbsp;px)" if way == "blur" else ""
            rows.append(
                f'<tr class="{way}"><th scope="row">{label}{sigma}</th>'
                f"<td>{_figure(group[f'psnr_{way}_db'], 2)}</td>"
                f"<td>{_figure(group[f'ssim_{way}'], 4)}</td></tr>"
            )
        size = f"{group['width']:,} × {group['height']:,} px" if "width" in group else ""
        bodies.append(
            f'<tbody><tr class="name"><th scope="rowgroup">{escape(str(group["name"]))}</th>'
            f'<td colspan="2">{size}</td></tr>{"".join(rows)}</tbody>'
        )
    return "".join(bodies)


def _pair(index: int, pair: Pair) -> str:
    height, width = pair.clean.shape[:2]
    aged, clean = _embed([pair.aged, pair.clean], _PAIR_BYTES)[0]
    mask = _webp(np.where(pair.mask.reshape(height, width), np.uint8(255), np.uint8(0)))
    images = "".join(
        f'<img src="{uri}" width="{width}" height="{height}" alt="Pair {index}, {kind}">'
        for kind, uri in (("aged", aged), ("clean", clean), ("mask", mask))
    )
    return f"<li>{images}</li>"


def _curve(curve: list[dict[str, Any]]) -> str:
    loss = [(p["seen"], p["loss"]) for p in curve if p["loss"] is not None and p["loss"] > 0]
    psnr = [(p["seen"], p["psnr_db"]) for p in curve if p["psnr_db"] is not None]
    panels = _panel(loss, "Training loss (log scale)", log=True, end="{:.3g}")
    panels += _panel(psnr, "PSNR on validation pairs (dB)", log=False, end="{:.2f} dB")
    if not curve:
        return "<p>Training was too short to draw a curve.</p>"
    last = curve[-1]
    return (
        f'<div class="two curves">{panels}</div><p class="note">From {curve[0]["seen"]:,} pairs '
        f"after {_duration(curve[0]['seconds'])} to {last['seen']:,} pairs after "
        f"{_duration(last['seconds'])}. Validation is on a fixed set of pairs.</p>"
    )


def _panel(points: list[tuple[float, float]], title: str, *, log: bool, end: str) -> str:
    """One curve as SVG, 420 × 270 units, x from zero."""
    if not points:
        return ""
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
            f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{_count(tick)}</text>'
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
        f'<svg viewBox="0 0 420 270" role="img" aria-label="{title} over training pairs seen">'
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


def _speed(speed: dict[str, float | None]) -> str:
    tiles = []
    for key, unit, words in _SPEEDS:
        value = speed[key]
        scaled = 100 * value if value is not None and unit == "%" else value
        tiles.append(f"<div><dt>{words}</dt><dd>{_number(scaled)} <small>{unit}</small></dd></div>")
    return "".join(tiles)


def _stages(seconds: dict[str, float | None]) -> str:
    total = seconds["total"]
    rows = [
        (label, (seconds[key] or 0) / total if total else None, _duration(seconds[key]))
        for key, label in _STAGES
    ]
    return f'{_bars(rows)}<p class="note">{_duration(total)} from first to last.</p>'


def _details(record: dict[str, Any]) -> str:
    photos = record["photos"]
    photo_rows = {
        "source": photos["source"],
        "trained on": photos["train"],
        "held out": photos["held_out"],
        "left out": [f"{item['name']} ({item['reason']})" for item in photos["left_out"]],
    }
    sections = {
        "Photographs": photo_rows,
        "Training": record["training"],
        "Configuration": record["config"],
        "Hardware": record["hardware"],
        "Versions": {"agedphoto": record["agedphoto"], **record["versions"]},
    }
    return "".join(
        f"<details><summary>{title}</summary><dl>{_rows(values)}</dl></details>"
        for title, values in sections.items()
    )


def _rows(values: dict[str, Any], prefix: str = "") -> str:
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows.append(_rows(value, f"{prefix}{key}."))
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        text = "–" if value is None or text == "" else text
        rows.append(f"<div><dt>{escape(prefix + key)}</dt><dd>{escape(text)}</dd></div>")
    return "".join(rows)


def _figure(value: float | None, digits: int) -> str:
    """A rounded number for the eye that carries the exact one."""
    return "–" if value is None else f'<data value="{value!r}">{value:.{digits}f}</data>'


def _number(value: float | None, digits: int | None = None) -> str:
    """With `digits` decimals, or else with the three digits that count."""
    if value is None:
        return "–"
    if digits is None:
        return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
    return f"{value:,.{digits}f}"


def _count(value: float) -> str:
    scale, unit = (1e6, " M") if value >= 1e6 else (1e3, " k") if value >= 1e4 else (1, "")
    return f"{value / scale:.3g}{unit}" if unit else f"{value:,.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None or seconds < 120:
        return f"{_number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def _num_photos(names: list[str]) -> str:
    return "one photograph" if len(names) == 1 else f"{len(names)} photographs"


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>agedphoto demo: aged on purpose, then restored</title>
<link rel="icon" href="data:,">
<style>$css</style>
</head>
<body>
<header>
<p class="brand">agedphoto <span>demo, $version</span></p>
<h1>Aged on purpose, then&nbsp;restored</h1>
<p class="lead">$lead</p>
</header>
<main>
<section aria-label="Result" class="result">$headline</section>
<section aria-label="Photographs">$photos$unseen</section>
<section>
<h2>In numbers</h2>
<div class="two">
<table>
<thead><tr><th scope="col">Photograph</th><th scope="col">PSNR, dB</th><th scope="col">SSIM</th>
</tr></thead>
$table
</table>
<p class="note">PSNR and SSIM compare with the clean photograph; higher is better, and 3&nbsp;dB
halves the error power. “Do nothing” is the aged photograph itself. The Gaussian blur is the best
of five widths, picked with the clean photograph at hand, which gives it an advantage.</p>
</div>
</section>
<section>
<h2>What it learned from</h2>
<ul class="strip">$pairs</ul>
<p class="note">Training pairs. From top to bottom: aged, clean, and where dust, scratches and other
marks lie.</p>
</section>
<section>
<h2>How it learned</h2>
$curve
</section>
<section>
<h2>How fast</h2>
<dl class="tiles">$speed</dl>
$stages
</section>
<section>
<h2>How it was made</h2>
$details
</section>
</main>
<footer>The same figures, for machines, are in report.json. This page loads nothing from elsewhere.
</footer>
<script>$js</script>
</body>
</html>
""")

_PHOTO = Template("""
<article>
<h2>$name</h2>
<p class="facts">$facts</p>
<div class="compare" hidden data-aged="photo$index-aged" data-restored="photo$index-restored"
 style="--ratio:$ratio;--max:${max_px}px">
<div class="frame">
<span class="tag left" aria-hidden="true">aged</span>
<span class="tag right" aria-hidden="true">restored</span>
<input type="range" min="0" max="100" value="50"
 aria-label="Aged to the left, restored to the right">
<span class="handle" aria-hidden="true"></span>
</div>
</div>
<div class="prints">$prints</div>
<div class="prints details">$details</div>
<p class="note">$caption</p>
</article>
""")

_CSS = """
:root { --paper:#f6f3ee; --ink:#211e1a; --soft:#6a6259; --line:#d9d2c7; --lamp:#a8361a;
  --bar:#b9afa2; --mat:#e6e0d6; --mono:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
  --serif:ui-serif,"Iowan Old Style","Palatino Linotype",Palatino,"Noto Serif",Georgia,serif; }
@media (prefers-color-scheme: dark) { :root { --paper:#131110; --ink:#e8e2d8; --soft:#a0968a;
  --line:#332e29; --lamp:#f0714c; --bar:#5c534a; --mat:#0a0908; } }
* { box-sizing:border-box; }
[hidden] { display:none !important; }
html { -webkit-text-size-adjust:100%; text-size-adjust:100%; }
body { margin:0 auto; padding:0 19px 4rem; max-width:1126px; background:var(--paper);
  color:var(--ink); font:17px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
  overflow-wrap:anywhere; }
header { padding:3.5rem 0 2.5rem; }
.brand { margin:0 0 2.5rem; font-weight:600; letter-spacing:.02em; }
.brand span, .note, .facts, figcaption, dt, footer { color:var(--soft); font-weight:400; }
h1, h2, .big { font-family:var(--serif); font-weight:500; line-height:1.12; text-wrap:balance; }
h1 { margin:0 0 1.2rem; font-size:clamp(2.3rem,6.2vw,4.1rem); letter-spacing:-.02em; }
h2 { margin:0 0 1.4rem; font-size:1.75rem; letter-spacing:-.01em; }
.lead { margin:0; max-width:44em; font-size:1.15rem; text-wrap:pretty; }
.note, .facts, figcaption, footer { font-size:.85rem; line-height:1.5; }
.note { max-width:72em; text-wrap:pretty; margin:1rem 0 0; }
section, article { padding-bottom:4.5rem; }
article:last-of-type { padding-bottom:0; }
section + section, .result { border-top:1px solid var(--line); padding-top:2.5rem; }
.two { display:grid; gap:1.5rem 3.5rem; grid-template-columns:repeat(2,minmax(0,1fr)); }
.two > p { margin-top:0; }
.result .two > p { font-size:1.1rem; text-wrap:pretty; }
.big { margin:0 0 1.6rem; font-size:clamp(2.1rem,6.5vw,3.9rem); color:var(--soft);
  font-variant-numeric:lining-nums; }
.big strong { color:var(--lamp); font-weight:500; white-space:nowrap; }
.bars { list-style:none; margin:0; padding:0; font-variant-numeric:tabular-nums; }
.bars li { display:grid; grid-template-columns:1fr auto; gap:0 1rem; margin-bottom:.8rem; }
.bars b { font-weight:400; color:var(--soft); }
.bars i { grid-column:1/-1; height:6px; min-width:2px; margin-top:.25rem; background:var(--bar); }
.result li:last-child i { background:var(--lamp); } .result li:last-child b { color:inherit; }
article h2 { margin-bottom:.3rem; }
.facts { margin:0 0 1.4rem; font-variant-numeric:tabular-nums; }
.compare { padding:16px; background:var(--mat); }
.frame { --at:50%; position:relative; margin:0 auto; aspect-ratio:var(--ratio);
  width:min(100%, var(--max), 82vh * var(--ratio)); overflow:hidden; cursor:ew-resize;
  touch-action:pan-y; user-select:none; -webkit-user-select:none; }
.frame img { position:absolute; inset:0; width:100%; height:100%; pointer-events:none; }
.frame .over { clip-path:inset(0 0 0 var(--at)); }
.frame input { position:absolute; inset:0; width:100%; height:100%; margin:0; opacity:0;
  pointer-events:none; }
.handle { position:absolute; top:0; bottom:0; left:var(--at); width:2px; margin-left:-1px;
  background:#fff; box-shadow:0 0 6px #0008; pointer-events:none; }
.handle::after { content:"‹ ›"; position:absolute; top:50%; left:50%; width:44px; height:44px;
  margin:-22px; border-radius:50%; background:#fff; color:#211e1a; text-align:center;
  font:600 20px/40px system-ui,sans-serif; box-shadow:0 1px 8px #0007; }
input:focus-visible + .handle::after { outline:3px solid var(--lamp); outline-offset:3px; }
.tag { position:absolute; z-index:1; bottom:12px; padding:.1rem .6rem; border-radius:2px;
  background:#000a; color:#fff; font-size:.85rem; pointer-events:none; }
.tag.left { left:12px; } .tag.right { right:12px; }
.prints { display:grid; gap:16px; grid-template-columns:repeat(3,minmax(0,1fr)); margin-top:16px; }
.prints.details { margin-top:1.25rem; }
figure { margin:0; } figcaption { margin-top:.4rem; }
.print { position:relative; }
.prints img { display:block; width:100%; height:auto; }
.details img { image-rendering:pixelated; }
.where { position:absolute; border:1.5px solid #fff; outline:1px solid #0009; }
table { width:100%; border-collapse:collapse; font-variant-numeric:tabular-nums;
  align-self:start; }
th, td { padding:.32rem 0 .32rem 1rem; text-align:right; font-weight:400; white-space:nowrap; }
th:first-child { padding-left:0; text-align:left; white-space:normal; }
thead th, .name td { color:var(--soft); font-size:.85rem; }
.name th, .name td { border-top:1px solid var(--line); padding-top:.7rem; }
.name th { font-weight:600; }
tbody tr:last-child > * { padding-bottom:.9rem; color:var(--lamp); font-weight:600; }
.strip { list-style:none; margin:0; padding:0; display:grid; gap:16px 8px;
  grid-template-columns:repeat(auto-fill,minmax(120px,1fr)); }
.strip li { display:grid; gap:3px; padding:6px; background:#0b0a09; }
.strip img { display:block; width:100%; height:auto; }
svg { display:block; width:100%; height:auto; overflow:visible; }
svg text { font-size:12px; fill:var(--soft); font-variant-numeric:tabular-nums; }
svg .title, svg .end { fill:var(--ink); font-size:13px; font-weight:600; }
.grid, .axis, .tick { stroke:var(--line); fill:none; } .axis, .tick { stroke:var(--bar); }
.line { fill:none; stroke:var(--lamp); stroke-width:1.75; stroke-linejoin:round; }
.dot { fill:var(--lamp); }
.tiles { display:grid; gap:1.6rem 1.5rem; margin:0 0 2.5rem;
  grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); }
.tiles div { display:flex; flex-direction:column-reverse; justify-content:flex-end; }
.tiles dt { font-size:.85rem; line-height:1.35; }
.tiles dd { margin:0; font:500 1.9rem/1.2 var(--serif); font-variant-numeric:lining-nums; }
.tiles small { font:400 .9rem system-ui,sans-serif; color:var(--soft); }
details { border-bottom:1px solid var(--line); }
summary { padding:.75rem 0; cursor:pointer; font-weight:600; }
details dl { margin:0 0 1.2rem; font:.83rem/1.6 var(--mono); }
details div { display:grid; grid-template-columns:minmax(9rem,17rem) minmax(0,1fr); gap:1rem; }
details dd { margin:0; }
footer { border-top:1px solid var(--line); padding-top:1.5rem; }
@media (max-width:700px) {
  body { font-size:16px; } header { padding-top:2rem; } .brand { margin-bottom:1.8rem; }
  .lead { font-size:1.05rem; } .compare { padding:0; }
  .two { grid-template-columns:minmax(0,1fr); }
  .prints { grid-template-columns:repeat(2,minmax(0,1fr)); gap:12px; }
  .prints > :first-child, .details > figure { grid-column:1/-1; }
  .strip { grid-template-columns:repeat(4,1fr); gap:6px; } .strip li { padding:3px; }
  details div { grid-template-columns:minmax(0,1fr); gap:0; margin-bottom:.5rem; }
}
"""

_JS = """
for (const box of document.querySelectorAll(".compare")) {
  const frame = box.querySelector(".frame"), range = box.querySelector("input");
  // The pictures are in the page once; the slider borrows them.
  const borrow = (id, name) => {
    const copy = document.getElementById(id).cloneNode();
    copy.removeAttribute("id");
    copy.className = name;
    return copy;
  };
  frame.prepend(borrow(box.dataset.aged, "under"), borrow(box.dataset.restored, "over"));
  const show = (at) => {
    frame.style.setProperty("--at", at + "%");
    range.setAttribute("aria-valuetext", Math.round(at) + "% aged");
  };
  const follow = (event) => {
    const { left, width } = frame.getBoundingClientRect();
    const at = Math.min(100, Math.max(0, 100 * (event.clientX - left) / width));
    range.value = at;
    show(at);
  };
  frame.addEventListener("pointerdown", (event) => {
    frame.setPointerCapture(event.pointerId);
    follow(event);
  });
  frame.addEventListener("pointermove", (event) => {
    if (frame.hasPointerCapture(event.pointerId)) follow(event);
  });
  // A click on the picture would take the focus from the arrow keys.
  frame.addEventListener("mousedown", (event) => {
    event.preventDefault();
    range.focus({ preventScroll: true });
  });
  range.addEventListener("input", () => show(Number(range.value)));
  box.hidden = false;
  show(50);
}
"""
