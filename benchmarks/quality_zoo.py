"""The tables of MODEL_ZOO.md, out of what `benchmarks/quality.py` measured."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agedphoto.synth import Mode

MODELS: tuple[Mode, ...] = ("grayscale", "lab", "rgb", "color")
WORN = "mixed_wear"
"""The recipe whose photos, restored, `lab` colours."""
NOT_YET = "not measured yet"
MARKED = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- /measured -->)", re.DOTALL)


def newest_record(folder: Path) -> Path | None:
    """Return the newest record for MODEL_ZOO.md in a folder; None if there is none."""
    paths = [path for path in folder.glob("quality_*.json") if not path.stem.endswith("_quick")]
    return max(paths, key=lambda path: (path.stem.rpartition("_")[2], path.name), default=None)


def read_record(path: Path) -> dict[str, Any]:
    """Read what was measured.

    Raises:
        ValueError: If it is something else, or was measured with --quick.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        what, schema, quick = record["what"], record["schema"], record["quick"]
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"write_zoo must be a file that benchmarks/quality.py wrote, got {path}: {error!r}"
        ) from error
    if (what, schema) != ("quality", 1):
        raise ValueError(
            f"write_zoo must be a record of quality of schema 1, got {what} of schema {schema}: "
            f"{path}"
        )
    if quick:
        raise ValueError(f"write_zoo must be measured in full, got one of --quick: {path}")
    return record


def fill(text: str, tables: dict[str, str]) -> str:
    """Put tables between their markers.

    Raises:
        ValueError: If a marker names no table, or a table has no marker.
    """
    names = [found[2] for found in MARKED.finditer(text)]
    if sorted(names) != sorted(tables):
        raise ValueError(
            f"markers must be those of the tables, each once: {', '.join(sorted(tables))}; got "
            f"{', '.join(sorted(names))}"
        )
    return MARKED.sub(lambda found: f"{found[1]}{tables[found[2]]}\n{found[3]}", text)


def sections(record: dict[str, Any] | None, file_name: str) -> dict[str, str]:
    """Return the tables of MODEL_ZOO.md by the names of their markers.

    Args:
        record: What was measured; None if nothing was.
        file_name: Of the record, to point to it.
    """
    record = record or {"models": {}, "results": [], "beside": {}, "seed_project": None}
    made: dict[str, Iterator[str]] = {"about": _about(record, file_name)}
    made |= {f"card-{name}": _card(record, name) for name in MODELS}
    made |= {
        "noise": _noise(record, ("grayscale", "rgb")),
        "noise-color": _noise(record, ("color",)),
    }
    made |= {
        f"recipes-{name}": _recipe_table(record, name) for name in ("grayscale", "rgb", "color")
    }
    made |= {
        "seed": _seed_table(record),
        "masks": _mask_table(record),
        "identity": _identity_table(record),
        "colors": _color_table(record),
    }
    return {name: "\n".join(lines) or NOT_YET for name, lines in made.items()}


def _about(record: dict[str, Any], file_name: str) -> Iterator[str]:
    if not record["models"]:
        return
    photos, machine = record["photos"], record["hardware"]
    counted = [
        f"{photos[name]['photos']} {title}"
        + (f" of at most {crop} px a side" if (crop := photos[name]["crop_px"]) else "")
        for name, title in (("kodak", "photos of Kodak"), ("held_out", "held-out photos"))
        if name in photos
    ]
    yield (
        f"Measured on {record.get('date')} at commit {record.get('commit')}, on {machine['name']} "
        f"({machine['device']}), torch {record['versions']['torch']}, on {' and '.join(counted)}: "
        f"[{file_name}](benchmarks/results/{file_name})."
    )
    if record["not_measured"]:
        yield ""
        yield from (f"Not measured: {reason}." for reason in record["not_measured"])


def _card(record: dict[str, Any], name: Mode) -> Iterator[str]:
    if name not in record["models"]:
        return
    model = record["models"][name]
    trained = model["trained"]
    yield from _head("", f"`{name}`")
    yield _line("size", f"{model['bytes'] / 1e6:.1f} MB, {model['parameters']:,} parameters")
    yield _line("sha256", f"`{model['sha256']}`")
    if all(trained.values()):
        yield _line(
            "trained",
            f"preset `{trained['preset']}`, recipe `{trained['recipe']}`, "
            f"{trained['seen_pairs']:,} pairs out of {trained['photos']:,} photos, "
            f"on {trained['device']}",
        )
    if model["restored_by"] != name:
        by = model["restored_by"]
        yield _line("restores", f"by the network of `{by}`" if by else "nothing; it colours only")
    for row in rows_with(record["results"], model=name, kind="awgn", sigma=25.0):
        beside = "".join(f", {p['name']} {_db(p['mean'])}" for p in row["beside"])
        yield _line("noise of sigma 25, Kodak", f"{_db(row['mean'])} dB{beside}")
    for row in rows_with(record["results"], model=name, kind="identity", photos="kodak"):
        if model["restored_by"] == name:
            yield _line("clean in, clean out, Kodak", f"{_db(row['mean'])} dB")
        if name in ("lab", "rgb"):
            yield _line(
                "colours of clean gray, Kodak",
                f"ab-PSNR {_number(row['pooled'], 'ab_gain_db', '+.2f')} dB over all gray, "
                f"colourfulness {_number(row['mean'], 'colorfulness', '.1f')} of "
                f"{_number(row['mean'], 'clean_colorfulness', '.1f')}",
            )


def _noise(record: dict[str, Any], names: Sequence[Mode]) -> Iterator[str]:
    rows = [row for name in names for row in rows_with(record["results"], model=name, kind="awgn")]
    if not rows:
        return
    sigmas = sorted({row["sigma"] for row in rows})
    lines: dict[str, dict[float, str]] = {"noisy": {}}
    for row in rows:
        lines["noisy"][row["sigma"]] = _quality(row["mean"], "aged_")
        for peer in row["beside"]:
            lines.setdefault(f"{peer['name']}, told sigma", {})[row["sigma"]] = _quality(
                peer["mean"]
            )
    for row in rows:
        lines.setdefault(f"`{row['model']}`, blind", {})[row["sigma"]] = _quality(row["mean"])
    yield from _head("PSNR in dB / SSIM", *(f"sigma {sigma:g}" for sigma in sigmas))
    for title, cells in lines.items():
        yield _line(title, *(cells.get(sigma, "") for sigma in sigmas))
    for name, about in record["beside"].items():
        if any(peer["name"] == name for row in rows for peer in row["beside"]):
            yield f"\n{name}: {about}."


def _recipe_table(record: dict[str, Any], name: Mode) -> Iterator[str]:
    rows = [
        row
        for row in rows_with(record["results"], model=name, kind="recipe")
        if row["textures"] in (None, "held-out")
    ]
    if not rows:
        return
    yield from _head(
        "recipe", "aged dB", "restored dB", "gain", "SSIM aged", "restored", "hidden",
        "gain where hidden", "gain elsewhere",
    )  # fmt: skip
    for row in rows:
        yield _line(f"`{row['recipe']}`", *_gains(row))


def _mask_table(record: dict[str, Any]) -> Iterator[str]:
    rows = [
        row
        for row in rows_with(record["results"], kind="recipe")
        if row["textures"] not in (None, "held-out")
    ]
    if not rows:
        return
    yield from _head(
        "model", "masks", "laid by", "aged dB", "restored dB", "gain", "SSIM aged", "restored",
        "hidden", "gain where hidden", "gain elsewhere",
    )  # fmt: skip
    for row in rows:
        by = "a recipe of nothing else" if row["recipe"] == "masks alone" else f"`{row['recipe']}`"
        yield _line(f"`{row['model']}`", row["textures"].replace("_", " "), by, *_gains(row))


def _gains(row: dict[str, Any]) -> list[str]:
    pooled, mean = row["pooled"], row["mean"]
    return [
        _db(pooled, "aged_"),
        _db(pooled),
        _number(pooled, "gain_db", "+.2f"),
        _number(mean, "aged_ssim", ".3f"),
        _number(mean, "ssim", ".3f"),
        _number(pooled, "hidden_share", ".1%"),
        _number(pooled, "inside_gain_db", "+.2f"),
        _number(pooled, "outside_gain_db", "+.2f"),
    ]


def _seed_table(record: dict[str, Any]) -> Iterator[str]:
    found = record["seed_project"]
    if found is None:
        return
    yield from _head("recipe `seed`, gray", "MSE")
    yield _line("do nothing", f"{found['do_nothing_mse']:.5f}")
    yield _line("the student project, as published", f"{found['published_mse']:.5f}")
    yield _line(
        "`grayscale`",
        f"{found['mse']:.5f}, {found['times_below']:.1f} times below what is published",
    )


def _identity_table(record: dict[str, Any]) -> Iterator[str]:
    rows = [
        row
        for row in rows_with(record["results"], kind="identity")
        if record["models"][row["model"]]["restored_by"] == row["model"]
    ]
    if not rows:
        return
    yield from _head("model", "photos", "PSNR dB", "the worst photo", "SSIM")
    for row in rows:
        yield _line(
            f"`{row['model']}`",
            _photos(row),
            _db(row["mean"]),
            f"{row['least_psnr_db']:.2f}",
            _number(row["mean"], "ssim", ".4f"),
        )


def _color_table(record: dict[str, Any]) -> Iterator[str]:
    rows = [
        row
        for name in ("lab", "rgb")
        for row in rows_with(record["results"], model=name)
        if row["kind"] == "identity" or (row["recipe"] == WORN and row["textures"] == "held-out")
    ]
    if not rows:
        return
    yield from _head(
        "model", "photos", "given", "ab-PSNR all gray", "ab-PSNR", "gain", "colourfulness",
        "of the truth",
    )  # fmt: skip
    for row in rows:
        yield _line(
            f"`{row['model']}`",
            _photos(row),
            "clean gray" if row["kind"] == "identity" else f"aged by `{row['recipe']}`",
            _db(row["pooled"], "gray_ab_"),
            _db(row["pooled"], "ab_"),
            _number(row["pooled"], "ab_gain_db", "+.2f"),
            _number(row["mean"], "colorfulness", ".1f"),
            _number(row["mean"], "clean_colorfulness", ".1f"),
        )


def rows_with(results: list[dict[str, Any]], **wanted: object) -> list[dict[str, Any]]:
    """Return the results that have these values."""
    return [row for row in results if all(row[key] == value for key, value in wanted.items())]


def _photos(row: dict[str, Any]) -> str:
    return "Kodak" if row["photos"] == "kodak" else "held-out"


def _quality(scores: dict[str, Any], of: str = "") -> str:
    return f"{_db(scores, of)} / {_number(scores, f'{of}ssim', '.3f')}"


def _db(scores: dict[str, Any], of: str = "") -> str:
    return _number(scores, f"{of}psnr_db", ".2f")


def _number(scores: dict[str, Any], name: str, format: str) -> str:
    value = scores.get(name)
    return "" if value is None else f"{value:{format}}"


def _head(*cells: str) -> Iterator[str]:
    yield _line(*cells)
    yield "|---" * len(cells) + "|"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
