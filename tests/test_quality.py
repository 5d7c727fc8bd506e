"""The quality table: measured in one go at tiny size; MODEL_ZOO.md says what was measured."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from agedphoto.benchmarks import quality, quality_zoo
from agedphoto.cli import main
from agedphoto.synth import Mode
from agedphoto.train import (
    ColorNet,
    ColorNetConfig,
    LabNet,
    UNet,
    load_model,
    net_config,
    save_model,
)

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "MODEL_ZOO.md"


@pytest.fixture(autouse=True)
def no_shipped_models(monkeypatch):
    """Only what a test gives is measured."""
    monkeypatch.setattr(quality, "shipped_models", dict)


def make_net(mode: Mode) -> UNet:
    """A small network that changes its input a little."""
    torch.manual_seed(0)
    shape = dataclasses.replace(net_config("tiny", mode), widths=(4, 6), blocks=1, middle_blocks=1)
    net = UNet(shape)
    torch.nn.init.normal_(net.tail.weight, 0, 0.02)
    return net.eval()


@pytest.fixture
def models(tmp_path) -> dict[str, str]:
    """Files of four small networks by their options; that of lab restores as grayscale does."""
    paths = {}
    for mode in ("grayscale", "rgb", "color"):
        paths[mode] = str(tmp_path / f"{mode}.safetensors")
        save_model(Path(paths[mode]), make_net(mode), mode=mode, training={})
    color = ColorNet(ColorNetConfig(widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), heads=2))
    paths["lab"] = str(tmp_path / "lab.safetensors")
    net = LabNet(color.eval(), make_net("grayscale")).eval()
    save_model(Path(paths["lab"]), net, mode="lab", training={})
    return paths


@pytest.fixture
def masks(tmp_path) -> Path:
    """A folder of masks and stamps, with a map of classes that is none."""
    generator = np.random.default_rng(0)
    for name in ("masks/one.png", "masks/two.png", "masks/one_classes.png", "stamps/dust/one.png"):
        path = tmp_path / "real" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        marks = 255 * (generator.random((80, 80)) > 0.97).astype(np.uint8)
        if name.startswith("stamps"):
            white = np.full_like(marks, 255)
            Image.fromarray(np.stack([white, white, white, marks], -1)).save(path)
        else:
            Image.fromarray(marks).save(path)
    (tmp_path / "real" / "licence.txt").write_text("MIT")
    return tmp_path / "real"


def measure(**options: Any) -> dict[str, Any]:
    return quality.measure(quality.Options(quick=True, **options))


@pytest.mark.slow
def test_all_is_measured_in_one_go_and_goes_into_the_zoo(
    models, masks, make_photos, make_shards, tmp_path, capsys
):
    kodak = make_photos([(64, 72)] * 3, folder="kodak")
    held_out = make_shards([(80, 64)] * 2, name="held-out", split="valid")
    options = quality.Options(
        **models, kodak=str(kodak), held_out=str(held_out), real_textures=masks, beside=("nlm",),
        quick=True, out=tmp_path / "results", device="cpu",
    )  # fmt: skip
    assert quality.main(options) == 0
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.startswith("quality_")
    assert path.name.endswith("_quick.json")
    record = json.loads(path.read_text())
    assert {"schema", "date", "commit", "seed", "hardware", "versions"} <= set(record)
    assert record["not_measured"] == []
    for name, model in record["models"].items():
        assert len(model["sha256"]) == 64
        assert model["bytes"] == Path(models[name]).stat().st_size
    assert record["photos"]["kodak"]["photos"] == 2
    assert {name: bank["textures"] for name, bank in record["real_masks"].items()} == {
        "masks": 2, "stamps": 1,
    }  # fmt: skip

    rows = record["results"]
    by_model = {
        name: [(row["kind"], row["photos"], row["recipe"], row["textures"])
               for row in rows if row["model"] == name]
        for name in models
    }  # fmt: skip
    noise, clean = ("awgn", "kodak", None, None), ("identity", "held_out", None, None)
    alone = [("recipe", "held_out", "masks alone", group) for group in ("masks", "stamps")]
    for name in ("grayscale", "rgb"):
        assert by_model[name].count(noise) == 3
        assert ("recipe", "held_out", "seed", "held-out") in by_model[name]
        assert ("recipe", "held_out", "seed", "stamps") in by_model[name]
        assert {clean, *alone} <= set(by_model[name])
    assert {noise, clean, *alone} <= set(by_model["color"])
    # Its luma is restored by the network of grayscale: what that does is not measured again.
    assert record["models"]["lab"]["restored_by"] == "grayscale"
    assert {kind for kind, *_ in by_model["lab"]} == {"identity", "recipe"}
    assert {recipe for kind, _, recipe, _ in by_model["lab"] if kind == "recipe"} == {"mixed_wear"}
    # One run of a denoiser serves all that see the same luma.
    assert [row["model"] for row in rows if row["beside"]] == ["grayscale"] * 3
    seed = next(row for row in rows if row["recipe"] == "seed")
    assert record["seed_project"]["mse"] == seed["pooled"]["mse"]
    assert record["seed_project"]["times_below"] == pytest.approx(0.008 / seed["pooled"]["mse"])

    capsys.readouterr()
    zoo = tmp_path / "MODEL_ZOO.md"
    shutil.copyfile(ZOO, zoo)
    with pytest.raises(ValueError, match="one of --quick"):
        quality.main(quality.Options(write_zoo=path, zoo=zoo))
    full = path.with_name("quality_some-cpu_2030-01-02.json")
    full.write_text(json.dumps(record | {"quick": False}))
    assert quality.main(quality.Options(write_zoo=full, zoo=zoo)) == 0
    text = zoo.read_text()
    assert quality_zoo.NOT_YET not in text
    assert quality.main(quality.Options(write_zoo=full, zoo=zoo)) == 0
    assert zoo.read_text() == text
    for row in rows:
        if row["kind"] == "awgn":
            assert f"{row['mean']['psnr_db']:.2f} / {row['mean']['ssim']:.3f}" in text
        if row["kind"] == "recipe" and row["model"] != "lab":
            assert f"| {row['pooled']['gain_db']:+.2f} |" in text
    for model in record["models"].values():
        assert model["sha256"] in text
    # Prose stays as it is.
    assert strip(text) == strip(ZOO.read_text())


def test_noise_and_identity_are_those_of_agedphoto_evaluate(models, make_photos, tmp_path):
    kodak = make_photos([(64, 72)] * 2, folder="kodak")
    found = measure(grayscale=models["grayscale"], kodak=str(kodak), beside=("nlm",))["results"]
    arguments = ["evaluate", kodak, "--model", models["grayscale"], "--crop-px", 64]
    written = tmp_path / "evaluation.json"
    for options, kind in (
        (["--awgn", 15, 25, 50, "--beside", "nlm"], "awgn"),
        ([], "identity"),
    ):
        assert main([*map(str, [*arguments, *options, "--json", written])]) == 0
        expected = json.loads(written.read_text())["measured"]
        rows = [row for row in found if row["kind"] == kind]
        assert len(rows) == len(expected)
        for row, measured in zip(rows, expected, strict=True):
            assert row["mean"] == measured["mean"]
            assert row["pooled"] == measured["pooled"]
            assert row["least_psnr_db"] == min(one["psnr_db"] for one in measured["rows"])
            for peer, other in zip(row["beside"], measured.get("beside", ()), strict=True):
                assert peer["mean"] == other["mean"]


def test_denoisers_may_come_from_an_evaluation_of_another_model(models, make_photos, tmp_path):
    kodak, file = make_photos([(64, 72)] * 2, folder="kodak"), tmp_path / "peers.json"
    words = [
        "evaluate",
        str(kodak),
        "--model",
        models["rgb"],
        "--crop-px",
        "64",
        "--json",
        str(file),
    ]
    assert main([*words, "--beside", "nlm", "--device", "cpu", "--awgn", "15", "25", "50"]) == 0
    gray = {"grayscale": models["grayscale"], "kodak": str(kodak), "device": "cpu"}
    measured = measure(**gray, beside=("nlm",))
    given = measure(**gray, beside_from=file)
    assert given["beside"] == measured["beside"]
    assert given["results"] == measured["results"]
    assert any(row["beside"] for row in given["results"])

    others = make_photos([(64, 72)] * 2, folder="others", seed=7)
    with pytest.raises(ValueError, match="beside_from was measured on other photos or by another"):
        measure(**(gray | {"kodak": str(others)}), beside_from=file)
    with pytest.raises(ValueError, match="beside and beside_from exclude one another"):
        measure(**gray, beside=("nlm",), beside_from=file)
    record = json.loads(file.read_text())
    for noise in record["measured"]:
        del noise["beside"]
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="beside_from has no denoisers on gray noise"):
        measure(**gray, beside_from=file)
    file.write_text("[]")
    with pytest.raises(ValueError, match="beside_from must be a file that `agedphoto evaluate"):
        measure(**gray, beside_from=file)


def test_what_is_not_given_is_not_measured_and_said(models):
    record = measure(grayscale=models["grayscale"])
    assert record["results"] == []
    for option in ("--lab", "--rgb", "--color", "--kodak", "--held-out", "--real-textures"):
        assert any(option in reason for reason in record["not_measured"]), option
    tables = quality_zoo.sections(record, "")
    assert models["grayscale"] not in tables["card-grayscale"]
    assert record["models"]["grayscale"]["sha256"] in tables["card-grayscale"]
    assert {name for name, text in tables.items() if text == quality_zoo.NOT_YET} == set(tables) - {
        "about",
        "card-grayscale",
    }


def test_a_model_that_comes_with_agedphoto_is_measured_by_its_name(models, monkeypatch):
    shipped = {"rgb": Path(models["rgb"])}
    monkeypatch.setattr(quality, "shipped_models", lambda: shipped)
    monkeypatch.setattr(quality, "find_model", lambda name: load_model(shipped[name]))
    record = measure(beside=())
    assert list(record["models"]) == ["rgb"]
    assert record["models"]["rgb"]["bytes"] == Path(models["rgb"]).stat().st_size


def test_a_network_that_only_colours_is_measured_on_clean_photos(tmp_path, make_photos):
    color = ColorNet(ColorNetConfig(widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), heads=2))
    path = tmp_path / "lab.safetensors"
    save_model(path, LabNet(color.eval(), None).eval(), mode="lab", training={})
    record = measure(lab=str(path), kodak=str(make_photos([(64, 64)])))
    assert [row["kind"] for row in record["results"]] == ["identity"]
    tables = quality_zoo.sections(record, "")
    assert "it colours only" in tables["card-lab"]
    # A luma that is passed on as it is says nothing.
    assert tables["identity"] == quality_zoo.NOT_YET
    assert "| `lab` | Kodak | clean gray |" in tables["colors"]


def test_mistakes_are_found_before_anything_is_measured(models, tmp_path):
    (tmp_path / "empty").mkdir()
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"what": "restoring", "schema": 1, "quick": false}')
    for options, said in (
        ({"rgb": models["color"]}, "rgb must be a model of mode rgb, got color"),
        ({}, "no models to measure"),
        ({"rgb": models["rgb"], "real_textures": tmp_path / "empty"}, "holds no pictures"),
        ({"rgb": models["rgb"], "real_textures": tmp_path / "gone"}, "must be a folder"),
        ({"write_zoo": wrong}, "must be a record of quality"),
        ({"write_zoo": tmp_path / "gone.json"}, "must be a file that benchmarks/quality.py wrote"),
    ):
        with pytest.raises(ValueError, match=said):
            quality.main(quality.Options(**options))


def test_markers_and_tables_go_together():
    fill = quality_zoo.fill
    text = "a\n<!-- measured: one -->\nold\n<!-- /measured -->\nb\n"
    filled = fill(text, {"one": "new\nlines"})
    assert filled == "a\n<!-- measured: one -->\nnew\nlines\n<!-- /measured -->\nb\n"
    for tables in ({}, {"one": "", "two": ""}, {"two": ""}):
        with pytest.raises(ValueError, match="markers must be those of the tables"):
            fill(text, tables)
    with pytest.raises(ValueError, match="markers must be those of the tables"):
        fill(text + text, {"one": ""})


def test_the_newest_record_counts_and_quick_ones_do_not(tmp_path):
    assert quality_zoo.newest_record(tmp_path) is None
    for name in (
        "quality_b-cpu_2026-01-02", "quality_a-cpu_2026-11-28", "quality_z-cpu_2026-02-01",
        "quality_a-cpu_2026-12-01_quick", "restoring_a-cpu_2027-01-01",
    ):  # fmt: skip
        (tmp_path / f"{name}.json").touch()
    newest = quality_zoo.newest_record(tmp_path)
    assert newest == tmp_path / "quality_a-cpu_2026-11-28.json"


def test_the_zoo_says_what_the_newest_record_says():
    path = quality_zoo.newest_record(ROOT / "benchmarks" / "results")
    record = None if path is None else quality_zoo.read_record(path)
    text = ZOO.read_text("utf-8")
    assert text == quality_zoo.fill(text, quality_zoo.sections(record, path.name if path else ""))
    if record is None:
        assert text.count(quality_zoo.NOT_YET) == len(quality_zoo.MARKED.findall(text))


def strip(text: str) -> str:
    """Leave the tables out."""
    return quality_zoo.MARKED.sub("", text)
