"""The page that ends a demo: what was aged, what was learned, what came back, in one file.

`report.html` carries its pictures, style and script inside itself and loads nothing, so it can be
mailed, printed and kept; `report.json` beside it holds the same figures. Photographs are embedded
as JPEG, at most 1600 px long and within a budget of bytes; details stay lossless and unscaled.
"""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from agedphoto.report_curve import curve_panels
from agedphoto.report_numbers import count, duration, figure, number
from agedphoto.report_page import CSS, JS, PAGE, PHOTO
from agedphoto.report_pictures import embed_lossless, embed_photos, find_detail

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


_MAX_PICTURED = 6
_MAX_PAIRS = 16
# Base64 adds a third; with lossless details in colour and pairs the page stays below 8 MB.
_PHOTO_BYTES = 3_000_000
_PAIR_BYTES = 50_000
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
    if value is None or isinstance(value, bool | int):
        return value
    # File names that are not UTF-8 hold surrogates, which no file of text can.
    return str(value).encode("utf-8", "replace").decode()


def _page(
    record: dict[str, Any], restorations: Sequence[Restoration], pairs: Sequence[Pair]
) -> str:
    pictured = restorations[:_MAX_PICTURED]
    # Bytes are shared out by the pixels that can be shown.
    pixels = [min(math.prod(item.clean.shape[:2]), 1600 * 1200) for item in pictured]
    budgets = [_PHOTO_BYTES * n // sum(pixels) for n in pixels]
    unseen = len(restorations) - len(pictured)
    return PAGE.substitute(
        version=escape(str(record["agedphoto"])),
        css=CSS,
        js=JS,
        lead=_lead(record),
        headline=_headline(record),
        photos="".join(map(_photo, range(len(pictured)), pictured, budgets)),
        unseen=f'<p class="note">{unseen} more in the table below.</p>' if unseen else "",
        table=_table(record),
        pairs="".join(_pair(i, pair) for i, pair in enumerate(pairs[:_MAX_PAIRS], 1)),
        curve=curve_panels(record["curve"]),
        speed=_speed(record["speed"]),
        stages=_stages(record["seconds"]),
        details=_details(record),
    )


def _lead(record: dict[str, Any]) -> str:
    training, photos = record["training"], record["photos"]
    parameters = count(training["parameters"])
    seen, name = f"{training['seen_pairs']:,}", escape(str(record["hardware"]["name"]))
    return (
        f"A UNet of {parameters} parameters learned from {seen} aged / clean pairs, made on the "
        f"fly from {_num_photos(photos['train'])} in {duration(record['seconds']['training'])} "
        f"on {name}, and then restored {_num_photos(photos['held_out'])} it had never seen."
    )


def _headline(record: dict[str, Any]) -> str:
    aged, blur, ours = (record[f"psnr_{way}_db"] for way, _ in _WAYS)
    big = (
        f'<p class="big">{figure(aged, 1)}&nbsp;dB → <strong>{figure(ours, 1)}&nbsp;dB</strong></p>'
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
        text = f"{number(psnr_db, 1)} dB" + (f" · {share:.0%}" if share is not None else "")
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
    uris, (shown_width, shown_height), quality = embed_photos(list(kinds.values()), budget)
    top, left, side = find_detail(item.clean, item.aged)

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
        crop = embed_lossless(image[top : top + side, left : left + side])
        details.append(
            f'<figure><img src="{crop}" width="{side}" height="{side}" '
            f'alt="Detail of {name}, {kind}"><figcaption>{kind}, detail</figcaption></figure>'
        )
    reduced = (
        f"reduced by area averaging from {width:,} × {height:,} px"
        if (shown_width, shown_height) != (width, height)
        else "not reduced"
    )
    return PHOTO.substitute(
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
    psnr = [number(_plain(x), 1) for x in (item.psnr_aged_db, item.psnr_restored_db)]
    ssim = [number(_plain(x), 3) for x in (item.ssim_aged, item.ssim_restored)]
    return f"{width:,} × {height:,} px · PSNR {' → '.join(psnr)} dB · SSIM {' → '.join(ssim)}"


def _table(record: dict[str, Any]) -> str:
    groups = list(record["held_out"])
    if len(groups) > 1:
        groups.append({**record, "name": f"mean of {len(groups)}"})
    bodies = []
    for group in groups:
        rows = []
        for way, label in _WAYS:
            sigma = f" (σ&nbsp;{number(group['blur_sigma_px'])}&nbsp;px)" if way == "blur" else ""
            rows.append(
                f'<tr class="{way}"><th scope="row">{label}{sigma}</th>'
                f"<td>{figure(group[f'psnr_{way}_db'], 2)}</td>"
                f"<td>{figure(group[f'ssim_{way}'], 4)}</td></tr>"
            )
        size = f"{group['width']:,} × {group['height']:,} px" if "width" in group else ""
        bodies.append(
            f'<tbody><tr class="name"><th scope="rowgroup">{escape(str(group["name"]))}</th>'
            f'<td colspan="2">{size}</td></tr>{"".join(rows)}</tbody>'
        )
    return "".join(bodies)


def _pair(index: int, pair: Pair) -> str:
    height, width = pair.clean.shape[:2]
    aged, clean = embed_photos([pair.aged, pair.clean], _PAIR_BYTES)[0]
    mask = embed_lossless(np.where(pair.mask.reshape(height, width), np.uint8(255), np.uint8(0)))
    images = "".join(
        f'<img src="{uri}" width="{width}" height="{height}" alt="Pair {index}, {kind}">'
        for kind, uri in (("aged", aged), ("clean", clean), ("mask", mask))
    )
    return f"<li>{images}</li>"


def _speed(speed: dict[str, float | None]) -> str:
    tiles = []
    for key, unit, words in _SPEEDS:
        value = speed[key]
        scaled = 100 * value if value is not None and unit == "%" else value
        tiles.append(f"<div><dt>{words}</dt><dd>{number(scaled)} <small>{unit}</small></dd></div>")
    return "".join(tiles)


def _stages(seconds: dict[str, float | None]) -> str:
    total = seconds["total"]
    rows = [
        (label, (seconds[key] or 0) / total if total else None, duration(seconds[key]))
        for key, label in _STAGES
    ]
    return f'{_bars(rows)}<p class="note">{duration(total)} from first to last.</p>'


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


def _num_photos(names: list[str]) -> str:
    return "one photograph" if len(names) == 1 else f"{len(names)} photographs"
