"""How well the models restore: everything that MODEL_ZOO.md says of them, by one command.

Each model is given, by the protocols of `agedphoto evaluate`:

    noise       Kodak's photos with noise of sigma 15, 25, 50, beside denoisers that are told sigma
    recipes     held-out photos aged by every recipe that fits its mode, with held-out textures
    masks       held-out photos under outlines of real damage, with noise (recipe seed) and without
    identity    Kodak's photos as they are: clean in, clean out
    colours     those of lab and rgb, beside all gray and the truth

What is not given is not measured, and said so. The first command measures, the second puts the
tables into MODEL_ZOO.md:

    python benchmarks/quality.py --kodak kodak --held-out data/mine --real-textures textures_real \
        --grayscale runs/grayscale --lab runs/lab --rgb runs/rgb --color runs/color \
        --out benchmarks/results
    python benchmarks/quality.py --write-zoo benchmarks/results/quality_amd-epyc_2026-11-28.json
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from agedphoto import __version__
from agedphoto.benchmarks.quality_zoo import (
    MODELS,
    NOT_YET,
    WORN,
    fill,
    read_record,
    rows_with,
    sections,
)
from agedphoto.benchmarks.record import commit, file_stem, today
from agedphoto.datasets.files import check_writable, write_bytes, write_json
from agedphoto.evaluate_cases import Case, Clean, Noise
from agedphoto.evaluate_peers import PEERS, Peer, find_peers
from agedphoto.evaluate_photos import Subject, find_subjects
from agedphoto.evaluate_run import evaluate, fitting_recipes, plan_ageing, plan_cases
from agedphoto.machine import hardware, versions
from agedphoto.restore import find_model, shipped_models
from agedphoto.synth import Defect, Grayscale, Mode, Recipe, Texture, find_device, find_recipe
from agedphoto.textures import TextureBank
from agedphoto.textures.scans import find_scans
from agedphoto.train import LabNet, ModelCard, Net, UNet

SIGMAS = (15.0, 25.0, 50.0)
PUBLISHED_SEED_MSE = 0.008
"""Of the student project behind agedphoto, at its own recipe."""

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "MODEL_ZOO.md"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, on what."""

    grayscale: str | None = None
    """A name, a .safetensors file or a folder of a training; if not given, the one that comes with
    agedphoto."""
    lab: str | None = None
    """Likewise."""
    rgb: str | None = None
    """Likewise."""
    color: str | None = None
    """Likewise."""
    kodak: str | None = None
    """Kodak's 24 photos: a folder, a zip or shards."""
    held_out: str | None = None
    """Photos that no model was trained on: a folder, a zip or shards."""
    split: str = "valid"
    """Which split of shards."""
    crop_px: int | None = None
    """At most so many pixels a side of the held-out photos; whole if not given."""
    real_textures: Path | None = None
    """Scans or masks of real damage, in this folder and those in it; maps of classes
    (*_classes.png) are left out."""
    beside: tuple[str, ...] | None = None
    """Denoisers beside the models, see `agedphoto evaluate`; if not given, those there are."""
    beside_from: Path | None = None
    """Take their figures from this file of `agedphoto evaluate kodak --json FILE --beside nlm bm3d
    --awgn 15 25 50`, with any model that sees gray: they depend on no model, and take longest."""
    seed: int = 0
    """Of how photos age."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    quick: bool = False
    """Two photos, cut small, and two recipes: to see that it works. Not for MODEL_ZOO.md."""
    out: Path | None = None
    """Folder for the results as JSON."""
    write_zoo: Path | None = None
    """Measure nothing; put the tables of this JSON into MODEL_ZOO.md."""
    zoo: Path = ZOO
    """Where that is."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model to measure."""

    name: Mode
    net: Net
    card: ModelCard
    bytes: int
    restored_by: str | None
    """Of the model whose network restores the luma before this one colours it, if any does."""


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Photos to measure on."""

    name: str
    subjects: list[Subject]
    crop_px: int | None


def main(options: Options) -> int:
    """Measure and write, or put what was measured into MODEL_ZOO.md."""
    if options.write_zoo is not None:
        record = read_record(options.write_zoo)
        text = fill(options.zoo.read_text("utf-8"), sections(record, options.write_zoo.name))
        write_bytes(options.zoo, text.encode())
        print(options.zoo)
        return 0
    if options.out is not None:
        check_writable(options.out)
    record = measure(options)
    for name, text in sections(record, "").items():
        if not text.startswith(NOT_YET):
            print(f"\n{name}\n\n{text}")
    for reason in record["not_measured"]:
        print(f"not measured: {reason}")
    if options.out is not None:
        print(_write(options.out, record))
    return 0


def measure(options: Options) -> dict[str, Any]:
    """Measure all that was given; see the module."""
    device = find_device(options.device)
    missing: list[str] = []
    models = _find_models(options, missing)
    if options.beside is not None and options.beside_from is not None:
        raise ValueError("beside and beside_from exclude one another; give one of them")
    given = None if options.beside_from is None else read_peers(options.beside_from)
    peers = _find_peers(options.beside, missing) if given is None else []
    kodak, held_out = (
        _find_photos(name, source, options, missing)
        for name, source in (("kodak", options.kodak), ("held_out", options.held_out))
    )
    banks = (
        {}
        if options.real_textures is None
        else read_masks(options.real_textures, quick=options.quick)
    )
    if not banks:
        missing.append("real masks: give --real-textures")
    results: list[dict[str, Any]] = []
    for model in models:
        # Results of another network would be the same again.
        restores = model.restored_by == model.name
        noise = [Noise(sigma=sigma, mode=model.name) for sigma in SIGMAS] if restores else []
        if kodak is not None:
            # All one-channel models get the same noisy luma: the denoisers are run on it once.
            beside = peers if model.name == "grayscale" else ()
            cases = [*noise, Clean(mode=model.name)]
            results += _ask(model, kodak, cases, beside, device, missing)
            if given is not None and model.name == "grayscale":
                _put_beside(given, results)
        if held_out is not None:
            cases = plan_cases(
                mode=model.name,
                device=device,
                recipes=_recipes(model, quick=options.quick),
                seed=options.seed,
            )
            masks = [
                plan_ageing(
                    recipe, mode=model.name, device=device, bank=bank, textures=group,
                    seed=options.seed,
                )
                for group, bank in (banks.items() if restores else ())
                for recipe in _mask_recipes(model.name)
            ]  # fmt: skip
            results += _ask(model, held_out, [*cases, *masks], (), device, missing)
    return {
        "schema": 1,
        "what": "quality",
        "quick": options.quick,
        "seed": options.seed,
        "models": {model.name: _describe(model) for model in models},
        "photos": {
            photos.name: {"photos": len(photos.subjects), "crop_px": photos.crop_px}
            for photos in (kodak, held_out)
            if photos is not None
        },
        "real_masks": {
            group: {"textures": len(bank), "fingerprint": bank.fingerprint}
            for group, bank in banks.items()
        },
        "beside": (
            {peer.name: peer.about for peer in peers}
            if given is None
            else {peer["name"]: peer["about"] for noise in given for peer in noise["beside"]}
        ),
        "results": results,
        "seed_project": _seed_project(results),
        "not_measured": missing,
        "hardware": hardware(device),
        "versions": {"agedphoto": __version__, **versions()},
    }


def read_masks(folder: Path, *, quick: bool = False) -> dict[str, TextureBank]:
    """Make textures of the pictures in a folder, and of those in and below each folder in it.

    Args:
        folder: Of the pictures; maps of classes, whose names end in _classes, are left out.
        quick: Take two of each, and make them small.

    Raises:
        ValueError: If there are none, or some cannot be used.
    """
    if not folder.is_dir():
        raise ValueError(f"real_textures must be a folder, got {folder}; name one of scans")
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    groups = {folder.name: find_scans(folder)} | {
        one.name: [path for below in (one, *sorted(one.rglob("*/"))) for path in find_scans(below)]
        for one in inner
    }
    banks = {}
    for name, paths in groups.items():
        chosen = [path for path in paths if not path.stem.endswith("_classes")]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory() as gathered:
            for number, path in enumerate(chosen[:2] if quick else chosen):
                shutil.copyfile(path, Path(gathered) / f"{number:04d}-{path.name}")
            banks[name] = TextureBank.from_scans(gathered, size_px=128 if quick else 1024)
    if not banks:
        raise ValueError(f"real_textures holds no pictures: {folder}; name a folder of scans")
    return banks


def read_peers(path: Path) -> list[dict[str, Any]]:
    """Read what denoisers made of noise from a file of `agedphoto evaluate`.

    Raises:
        ValueError: If it is something else, or of a network that sees colours.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        noise = [one for one in record["measured"] if one["kind"] == "awgn" and one.get("beside")]
        is_gray = record["model"]["mode"] != "color"
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"beside_from must be a file that `agedphoto evaluate --json` wrote, got {path}: "
            f"{error!r}"
        ) from error
    if not noise or not is_gray:
        raise ValueError(
            f"beside_from has no denoisers on gray noise: {path}; measure with a model of mode "
            "grayscale, --awgn and --beside"
        )
    return noise


def _put_beside(given: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    """Give the denoisers' rows to the same noise on as many photos."""
    for result in results:
        for noise in given:
            if (result["kind"], result["sigma"]) != ("awgn", noise["sigma"]):
                continue
            if (len(noise["rows"]), noise["protocol"], noise["mean"]["aged_psnr_db"]) != (
                result["num_photos"], result["protocol"], result["mean"]["aged_psnr_db"],
            ):  # fmt: skip
                raise ValueError("beside_from was measured on other photos or by another protocol")
            result["beside"] = [
                {key: peer[key] for key in ("name", "mean", "pooled")} for peer in noise["beside"]
            ]


def _find_models(options: Options, missing: list[str]) -> list[Model]:
    """Load the models; those that were not given and do not come with agedphoto are missing."""
    found: list[Model] = []
    for name in MODELS:
        source = getattr(options, name) or (name if name in shipped_models() else None)
        if source is None:
            missing.append(f"{name}: give --{name} MODEL")
            continue
        net, card = find_model(source)
        if card.mode != name:
            raise ValueError(f"{name} must be a model of mode {name}, got {card.mode}: {source}")
        gray = next((model.net for model in found if model.name == "grayscale"), None)
        found.append(
            Model(
                name=name,
                net=net,
                card=card,
                bytes=_find_file(source).stat().st_size,
                restored_by=_restored_by(name, net, gray),
            )
        )
    if not found:
        raise ValueError("no models to measure; give --grayscale, --lab, --rgb or --color")
    return found


def _restored_by(name: Mode, net: Net, gray: Net | None) -> str | None:
    if not isinstance(net, LabNet):
        return name
    if net.luminance is None:
        return None
    return "grayscale" if isinstance(gray, UNet) and _alike(net.luminance, gray) else name


def _alike(one: UNet, other: UNet) -> bool:
    if one.config != other.config:
        return False
    weights = other.state_dict()
    return all(torch.equal(weight, weights[key]) for key, weight in one.state_dict().items())


def _find_file(source: str) -> Path:
    path = shipped_models().get(source, Path(source))
    return path / "model.safetensors" if path.is_dir() else path


def _find_peers(names: Sequence[str] | None, missing: list[str]) -> list[Peer]:
    if names is not None:
        return find_peers(names)
    found = []
    for name in PEERS:
        try:
            found += find_peers([name])
        except ValueError as error:
            missing.append(str(error))
    return found


def _find_photos(
    name: str, source: str | None, options: Options, missing: list[str]
) -> Photos | None:
    if source is None:
        missing.append(f"anything on {name}: give --{name.replace('_', '-')}")
        return None
    subjects = find_subjects([source], split=options.split)
    if options.quick:
        return Photos(name=name, subjects=subjects[:2], crop_px=64)
    # The published protocol is one of whole photos.
    crop_px = None if name == "kodak" else options.crop_px
    return Photos(name=name, subjects=subjects, crop_px=crop_px)


def _recipes(model: Model, *, quick: bool) -> list[Recipe]:
    """Return what a model is to restore; what it colours only, it is given restored by another."""
    if model.restored_by is None:
        return []
    if model.restored_by != model.name:
        return [find_recipe(WORN)]
    recipes = fitting_recipes(model.name)
    wanted = ("seed", WORN, "faded_print") if quick else tuple(recipe.name for recipe in recipes)
    return [recipe for recipe in recipes if recipe.name in wanted]


def _mask_recipes(mode: Mode) -> list[Recipe]:
    """Return recipes that lay masks: with noise, where the mode has a recipe for it, and alone."""
    gray: tuple[Defect, ...] = () if mode == "color" else (Grayscale(),)
    alone = Recipe(name="masks alone", defects=(*gray, Texture()))
    return [alone] if mode == "color" else [find_recipe("seed"), alone]


def _ask(
    model: Model,
    photos: Photos,
    cases: Sequence[Case],
    peers: Sequence[Peer],
    device: torch.device,
    missing: list[str],
) -> list[dict[str, Any]]:
    print(f"{model.name}, {photos.name}: {', '.join(case.title for case in cases)}", flush=True)
    record = evaluate(
        model.net.to(device),
        model.card,
        photos.subjects,
        cases,
        device=device,
        model=model.name,
        crop_px=photos.crop_px,
        peers=peers,
        progress=True,
    )
    missing += [
        f"{model.name} on {photos.name}: {failed['photo']}: {failed['reason']}"
        for failed in record["not_measured"]
    ]
    return [
        {
            "model": model.name,
            "photos": photos.name,
            "num_photos": record["photos"]["measured"],
            "kind": measured["kind"],
            "sigma": measured.get("sigma"),
            "recipe": measured["recipe"]["name"] if "recipe" in measured else None,
            "textures": measured.get("textures"),
            "protocol": measured["protocol"],
            "mean": measured["mean"],
            "pooled": measured["pooled"],
            "least_psnr_db": min(row["psnr_db"] for row in measured["rows"]),
            "beside": [
                {key: peer[key] for key in ("name", "mean", "pooled")}
                for peer in measured.get("beside", ())
            ],
        }
        for measured in record["measured"]
    ]


def _describe(model: Model) -> dict[str, Any]:
    training = model.card.training
    recipe = training.get("pairs", {}).get("recipe", {})
    return {
        "mode": model.card.mode,
        "sha256": model.card.sha256,
        "bytes": model.bytes,
        "parameters": sum(weight.numel() for weight in model.net.parameters()),
        "restored_by": model.restored_by,
        "net": model.card.net,
        "trained": {
            "preset": training.get("train", {}).get("preset"),
            "recipe": recipe.get("name") if isinstance(recipe, dict) else recipe,
            "photos": training.get("implied", {}).get("photos"),
            "seen_pairs": training.get("outcome", {}).get("seen_pairs"),
            "device": training.get("implied", {}).get("device"),
        },
    }


def _seed_project(results: list[dict[str, Any]]) -> dict[str, float] | None:
    """Compare with what the student project published for its own recipe."""
    found = rows_with(results, model="grayscale", recipe="seed", textures="held-out")
    if not found:
        return None
    pooled = found[0]["pooled"]
    return {
        "published_mse": PUBLISHED_SEED_MSE,
        "do_nothing_mse": pooled["aged_mse"],
        "mse": pooled["mse"],
        "times_below": PUBLISHED_SEED_MSE / pooled["mse"],
    }


def _write(folder: Path, record: dict[str, Any]) -> Path:
    """Write the record under what, where and when it was measured."""
    date = today()
    path = folder / f"{file_stem('quality', record['hardware'], date, record['quick'])}.json"
    write_json(path, json.loads(json.dumps({"date": date, "commit": commit(), **record})))
    return path


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options, description=__doc__)))
