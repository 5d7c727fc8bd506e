"""The command's way into training: what it measures on, starts from, and refuses beforehand."""

import json
from pathlib import Path

import pytest
import torch
from nano import drawn, flat, nano_objective, quick

from agedphoto.datasets import AgedPairs, find_photos, write_shards
from agedphoto.restore import Restorer
from agedphoto.textures import TextureBank
from agedphoto.train import LabNet, UNet, load_model
from agedphoto.training import run_training

pytestmark = pytest.mark.usefixtures("nano")


@pytest.fixture
def validated(make_shards, make_photos) -> Path:
    """Shards with splits to train, measure and test on."""
    shards = make_shards([(40, 48), (56, 44), (48, 48)])
    for split in ("valid", "held", "test"):
        write_shards(find_photos(make_photos([(40, 40)], folder=split)), shards, split=split)
    return shards


@pytest.fixture(autouse=True)
def few_textures(monkeypatch):
    bank = TextureBank.synthesize(3, size_px=64)
    monkeypatch.setattr("agedphoto.training.TextureBank.synthesize", lambda *_, **__: bank)


def run(shards: Path, out: Path, *, config: dict | None = None, **options):
    """Train on 16 pairs."""
    settings = {
        "mode": "grayscale", "crop_px": 32, "long_side_px": 32, "batch_size": 4,
        "crops_per_photo": 8, "seed": 0, "device": "cpu", "dry_run": False,
        "warn": lambda message: None,
    } | options  # fmt: skip
    return run_training(str(shards), out, quick(**{"num_pairs": 16} | (config or {})), **settings)


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- what it does


def test_it_measures_on_the_split_valid(validated, tmp_path, capsys):
    said = []
    run(validated, tmp_path / "run", warn=said.append)
    assert records(tmp_path / "run")[-1]["psnr_db"] > 0
    assert said == []
    assert "all pairs seen: 16 pairs in" in capsys.readouterr().out


def test_it_measures_on_another_split_if_asked_to(validated, tmp_path):
    for split in ("valid", "held"):
        run(validated, tmp_path / split, valid_split=split)
    scores = [records(tmp_path / split)[-1]["psnr_db"] for split in ("valid", "held")]
    # Photos of both are the same; textures, crops and grain depend on the split's photos alone.
    assert scores[0] == scores[1]
    write_shards(find_photos(validated.parent / "shards-photos"), validated, split="larger")
    run(validated, tmp_path / "larger", valid_split="larger")
    assert records(tmp_path / "larger")[-1]["psnr_db"] != scores[0]


def test_without_a_split_valid_it_does_not_measure(make_shards, tmp_path):
    run(make_shards([(40, 48)]), tmp_path / "run")
    assert records(tmp_path / "run")[-1]["psnr_db"] is None


@pytest.mark.parametrize("mode", ["grayscale", "rgb", "color"])
def test_modes_that_restore_measure_pictures_masks_and_colours(validated, tmp_path, mode):
    run(validated, tmp_path / "run", mode=mode, config={"mask_weight": 0.01})
    last = records(tmp_path / "run")[-1]
    expected = {"psnr_db", "ssim", "mse", "mask_iou"}
    if mode != "rgb":
        expected |= {"identity_psnr_db"}
    if mode != "grayscale":
        expected |= {"ab_psnr_db", "gray_ab_psnr_db", "colorfulness", "clean_colorfulness"}
    assert expected <= last.keys()
    assert all(isinstance(last[name], float) for name in expected)
    assert "cross_entropy" not in last
    assert ("identity_psnr_db" in last) == (mode != "rgb")


def test_mode_lab_measures_colours(validated, tmp_path, capsys):
    run(validated, tmp_path / "run", mode="lab")
    last = records(tmp_path / "run")[-1]
    names = {
        "cross_entropy", "ab_psnr_db", "gray_ab_psnr_db", "colorfulness", "clean_colorfulness",
    }  # fmt: skip
    assert all(isinstance(last[name], float) for name in names)
    assert "ssim" not in last
    assert " nats" in capsys.readouterr().out
    assert (tmp_path / "run" / "curve.svg").exists()


def test_photos_that_are_too_small_are_named(make_shards, tmp_path):
    said = []
    run(make_shards([(40, 48), (30, 48)]), tmp_path / "run", warn=said.append)
    assert said == ["left out: 0001 is smaller than the crop of 32 px"]


def test_what_has_ended_is_left_as_it_is(validated, tmp_path, capsys):
    run(validated, tmp_path / "run")

    def state() -> dict[str, tuple[int, bytes]]:
        paths = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    before = state()
    capsys.readouterr()
    assert run(validated, tmp_path / "run") is None
    assert "nothing to do" in capsys.readouterr().out
    assert state() == before


# ---------------------------------------------------------------- starting from weights


@pytest.mark.parametrize("mode", ["grayscale", "lab"])
def test_training_starts_from_the_weights_that_are_given(validated, tmp_path, mode):
    """At a rate of almost nothing they stay what they were."""
    run(validated, tmp_path / "first", mode=mode, config={"lr": 1e-2})
    init = load_model(tmp_path / "first" / "model.safetensors")[0]
    run(validated, tmp_path / "tuned", mode=mode, init=init, config={"lr": 1e-30, "num_pairs": 4})
    tuned, card = load_model(tmp_path / "tuned" / "model.safetensors")
    torch.testing.assert_close(flat(tuned), flat(init), rtol=0, atol=1e-7)
    assert card.training["fine_tuned"] is True


def test_the_first_loss_is_that_of_the_weights_that_are_given(validated, tmp_path):
    init = drawn(nano_objective(mask_weight=0)).eval()
    assert isinstance(init, UNet)
    run(validated, tmp_path / "run", init=init, config={"num_pairs": 4, "log_every": 4})
    with AgedPairs(
        validated, recipe="seed", crop_px=32, batch_size=4, crops_per_photo=8, device="cpu",
        rank=0, world_size=1,
    ) as pairs:  # fmt: skip
        batch = next(iter(pairs))
    with torch.no_grad():
        difference = init(batch.aged) - batch.clean
    expected = (difference**2 + 1e-6).sqrt().mean().item()
    assert records(tmp_path / "run")[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_mask_can_be_learnt_by_weights_that_knew_none(validated, tmp_path):
    init = drawn(nano_objective(mask_weight=0))
    assert isinstance(init, UNet)
    run(validated, tmp_path / "run", init=init, config={"mask_weight": 0.01})
    net = load_model(tmp_path / "run" / "model.safetensors")[0]
    assert isinstance(net, UNet)
    assert net.config.mask_head


@pytest.mark.parametrize(("of", "mode"), [("rgb", "grayscale"), ("grayscale", "lab")])
def test_weights_of_another_shape_are_refused(validated, tmp_path, of, mode):
    init = drawn(nano_objective(of, mask_weight=0))
    assert isinstance(init, UNet)
    with pytest.raises(ValueError, match=r"do not fit this network.*use the preset and mode that"):
        run(validated, tmp_path / "run", mode=mode, init=init)
    assert not (tmp_path / "run" / "config.json").exists()


# ---------------------------------------------------------------- luminance beside colours


def test_a_network_for_luminance_is_kept_and_used_beside_the_colours(validated, tmp_path):
    luminance = drawn(nano_objective("grayscale")).eval()
    assert isinstance(luminance, UNet)
    run(validated, tmp_path / "with", mode="lab", luminance=luminance)
    run(validated, tmp_path / "without", mode="lab")
    net, card = load_model(tmp_path / "with" / "model.safetensors")
    assert isinstance(net, LabNet)
    assert net.luminance is not None
    assert torch.equal(flat(net.luminance), flat(luminance))
    assert card.net["luminance"]["mask_head"]

    picture = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    gray = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    with torch.no_grad():
        restored = luminance(gray[None])[0].clamp(0, 1)
    both, colors_alone = (
        Restorer.from_pretrained(tmp_path / name, device="cpu") for name in ("with", "without")
    )
    assert not torch.equal(both(picture), colors_alone(picture))
    # The colours are the same network's: given the luminance restored, it answers the same.
    torch.testing.assert_close(both(picture), colors_alone(restored), rtol=0, atol=2e-3)


def test_luminance_is_for_mode_lab_and_of_mode_grayscale(validated, tmp_path):
    gray, color = drawn(nano_objective("grayscale")), drawn(nano_objective("color"))
    assert isinstance(gray, UNet)
    assert isinstance(color, UNet)
    with pytest.raises(ValueError, match="luminance is for mode lab, got mode rgb; leave it out"):
        run(validated, tmp_path / "run", mode="rgb", luminance=gray)
    with pytest.raises(ValueError, match="luminance must be a model of mode grayscale"):
        run(validated, tmp_path / "run", mode="lab", luminance=color)
    rgb = drawn(nano_objective("rgb"))
    assert isinstance(rgb, UNet)
    with pytest.raises(ValueError, match="luminance must be a model of mode grayscale"):
        run(validated, tmp_path / "run", mode="lab", luminance=rgb)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid_split": "test"}, "valid_split must not be 'test', which is for the very end"),
        ({"valid_split": "train"}, "must not be 'train', which is what is trained on"),
        ({"valid_split": "gone"}, "there is no split 'gone' to measure on in .* agedphoto shard"),
        ({"crop_px": 34}, "crop_px must be a multiple of 4 for preset nano, got 34; use 32"),
        ({"crop_px": 3}, "crop_px must be a multiple of 4 for preset nano, got 3; use 4"),
        (
            {"crop_px": 100, "config": {"preset": "base"}},
            "crop_px must be a multiple of 16 for preset base, got 100; use 96",
        ),
        (
            {"mode": "lab", "long_side_px": 200},
            "long_side_px must be a multiple of 16 for preset nano, got 200; use 192",
        ),
        ({"batch_size": 10**8}, r"batch_size 100000000 takes about .* GiB .* use at most \d+, and"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"crop_px": 64}, "64"),
        ({"batch_size": 25}, "25"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    validated, tmp_path, options, message
):
    with pytest.raises(ValueError, match=message):
        run(validated, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(validated, tmp_path, device):
    with pytest.raises(ValueError, match="cuda"):
        run(validated, tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", [{"patience": 100.0}, {"schedule": "plateau"}])
def test_what_validation_decides_is_refused_where_there_is_no_split_for_it(
    make_shards, tmp_path, config
):
    with pytest.raises(ValueError, match=r"no split 'valid' to measure on .* --split valid"):
        run(make_shards([(40, 48)]), tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()


def test_a_taken_folder_is_refused_before_anything_is_drawn(validated, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"")

    def drawn_already(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr("agedphoto.training.AgedPairs", drawn_already)
    with pytest.raises(ValueError, match="holds a model already"):
        run(validated, tmp_path / "run")


# ---------------------------------------------------------------- dry runs


@pytest.mark.parametrize("mode", ["grayscale", "lab"])
def test_a_dry_run_says_what_training_would_take_and_leaves_nothing(validated, tmp_path, mode):
    before = sorted(tmp_path.rglob("*"))
    described = run(validated, tmp_path / "run", mode=mode, dry_run=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert described is not None
    assert json.loads(json.dumps(described, allow_nan=False)) is not None
    implied = described["implied"]
    net = nano_objective(mode, mask_weight=0).make_net()
    assert implied["parameters"] == sum(weight.numel() for weight in net.parameters())
    assert implied["global_batch"] == 4
    assert implied["photos"] == 3
    assert implied["pairs_an_epoch"] == 24
    assert implied["pixels_an_epoch"] == 24 * 32 * 32
    assert implied["memory_gib"] >= 0
    assert implied["pairs_per_s"] > 0
    assert implied["hours"] == pytest.approx(16 / implied["pairs_per_s"] / 3600, rel=0.02)
    assert described["train"]["num_pairs"] == 16
