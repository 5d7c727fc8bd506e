"""What a network is trained to do, and how it is scored, compared with NumPy and scikit-image."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from nano import drawn, in_units, make_batch, nano_objective
from skimage.color import lab2rgb, rgb2lab
from skimage.metrics import structural_similarity
from torch.nn.functional import interpolate

from agedphoto.datasets import Batch
from agedphoto.synth import MODES, Mode
from agedphoto.train import ColorNet
from agedphoto.train.ab_bins import decode, num_bins
from agedphoto.train.objectives import Objective, make_objective

pytestmark = pytest.mark.usefixtures("nano")

RESTORING: tuple[Mode, ...] = ("grayscale", "rgb", "color")
COLORS = {"ab_psnr_db", "gray_ab_psnr_db", "colorfulness", "clean_colorfulness"}


def summary(objective: Objective, net: torch.nn.Module, batches: list[Batch]) -> dict:
    with torch.no_grad():
        sums = objective.scores(net, batches)
    return objective.summary({name: value.item() for name, value in sums.items()})


def some_batches(mode: Mode) -> list[Batch]:
    """Two, of which the second is filled up with what would be noticed."""
    first, second = make_batch(mode, count=2), make_batch(mode, count=3, seed=1)
    second.valid[2] = False
    second.aged[2] = math.nan
    return [first, second]


def pictures(tensor: torch.Tensor) -> list[np.ndarray]:
    return [picture.permute(1, 2, 0).double().numpy() for picture in tensor]


def psnr(error: float, peak: float = 1.0) -> float:
    return 10 * math.log10(peak**2 / error)


def m3(rgb: np.ndarray) -> float:
    """Hasler and Suesstrunk's colourfulness of sRGB (H, W, 3) in [0, 1]."""
    r, g, b = np.moveaxis(255 * rgb, -1, 0)
    rg, yb = r - g, (r + g) / 2 - b
    spread = math.hypot(rg.std(), yb.std())
    return spread + 0.3 * math.hypot(rg.mean(), yb.mean())


@pytest.mark.parametrize("mask_weight", [0, 0.01])
@pytest.mark.parametrize("mode", RESTORING)
def test_scores_are_those_written_out(mode, mask_weight):
    objective = nano_objective(mode, mask_weight=mask_weight)
    net, batches = drawn(objective).eval(), some_batches(mode)
    if mask_weight:
        # Some masks, not none.
        net.load_state_dict(net.state_dict() | {"mask_tail.bias": torch.zeros(4)})
    found = summary(objective, net, batches)

    errors, similarities, identities = [], [], []
    colors: dict[str, list[float]] = {name: [] for name in COLORS}
    shared = either = 0
    for batch in batches:
        with torch.no_grad():
            restored = net(batch.aged).clamp(0, 1)
            if mode != "rgb":
                same = net(batch.clean).clamp(0, 1)
                identities += [
                    ((one - two) ** 2).mean()
                    for one, two in zip(pictures(same), pictures(batch.clean), strict=True)
                ][: int(batch.valid.sum())]
            if mask_weight:
                logits = net(batch.aged, with_mask=True)[1]
                guess, truth = logits[batch.valid] > 0, batch.mask[batch.valid]
                shared += int((guess & truth).sum())
                either += int((guess | truth).sum())
        valid = batch.valid.tolist()
        for answer, clean, counts in zip(
            pictures(restored), pictures(batch.clean), valid, strict=True
        ):
            if not counts:
                continue
            errors.append(((answer - clean) ** 2).mean())
            similarities.append(
                structural_similarity(
                    answer, clean, data_range=1, channel_axis=2, gaussian_weights=True,
                    sigma=1.5, use_sample_covariance=False,
                )
            )  # fmt: skip
            if mode != "grayscale":
                ab, truth = rgb2lab(answer)[..., 1:], rgb2lab(clean)[..., 1:]
                colors["ab_psnr_db"].append(psnr(((ab - truth) ** 2).mean(), 255))
                colors["gray_ab_psnr_db"].append(psnr((truth**2).mean(), 255))
                colors["colorfulness"].append(m3(answer))
                colors["clean_colorfulness"].append(m3(clean))
    assert len(errors) == 4
    expected = {
        "psnr_db": psnr(float(np.mean(errors))), "mse": np.mean(errors),
        "ssim": np.mean(similarities),
    }  # fmt: skip
    if mask_weight:
        assert either > shared > 0
        expected["mask_iou"] = shared / either
    if mode != "rgb":
        expected["identity_psnr_db"] = psnr(float(np.mean(identities)))
    if mode != "grayscale":
        expected |= {name: np.mean(values) for name, values in colors.items()}
    assert found == pytest.approx(expected, rel=2e-3)
    assert objective.score(found) == found["mse"]


def test_colours_are_scored_within_the_photographs_as_written_out():
    objective = nano_objective("lab")
    net, batches = drawn(objective).eval(), some_batches("lab")
    assert isinstance(net, ColorNet)
    found = summary(objective, net, batches)
    expected: dict[str, list[float]] = {name: [] for name in COLORS}
    for batch in batches:
        with torch.no_grad():
            ab = decode(net(batch.aged, inside=batch.inside), net.rebalance_weights())
        ab = interpolate(ab, size=batch.clean.shape[2:], mode="bilinear", align_corners=False)
        for number in range(2):
            assert batch.inside is not None
            height = int(batch.inside[number, 0, :, 0].sum())
            truth = in_units(batch.clean[number : number + 1])[:height]
            guess = ab[number].permute(1, 2, 0).double().numpy()[:height]
            error = ((guess - truth[..., 1:]) ** 2).mean()
            expected["ab_psnr_db"].append(psnr(error, 255))
            expected["gray_ab_psnr_db"].append(psnr((truth[..., 1:] ** 2).mean(), 255))
            colored = lab2rgb(np.concatenate([truth[..., :1], guess], axis=2))
            expected["colorfulness"].append(m3(colored))
            expected["clean_colorfulness"].append(m3(lab2rgb(truth)))
    assert found.keys() == {"cross_entropy", *COLORS}
    for name, values in expected.items():
        assert len(values) == 4
        assert found[name] == pytest.approx(np.mean(values), rel=5e-3), name
    assert objective.score(found) == found["cross_entropy"]


def test_untrained_every_colour_is_as_surprising():
    objective = nano_objective("lab")
    net = objective.make_net().eval()
    found = summary(objective, net, [make_batch("lab")])
    assert found["cross_entropy"] == pytest.approx(math.log(num_bins()), rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_scores_do_not_depend_on_how_pairs_are_put_into_batches(mode):
    objective = nano_objective(mode)
    net, whole = drawn(objective).eval(), make_batch(mode, count=4)
    parts = [
        dataclasses.replace(
            whole, photos=whole.photos[where],
            **{name: tensor[where] for name, tensor in whole.tensors().items()},
        )
        for where in (slice(0, 1), slice(1, 4))
    ]  # fmt: skip
    found = summary(objective, net, parts)
    assert found == pytest.approx(summary(objective, net, [whole]), rel=1e-3)


def test_doing_nothing_leaves_clean_pictures_as_they_are():
    objective = nano_objective()
    found = summary(objective, objective.make_net().eval(), [make_batch()])
    assert found["identity_psnr_db"] == pytest.approx(120)
    assert found["mask_iou"] == 0
    assert found["psnr_db"] < 40


def test_what_cannot_be_known_is_none():
    """Small crops have no SSIM, and where no damage is and none was found there is no mask."""
    objective = nano_objective()
    batch = make_batch(side_px=16)
    small = dataclasses.replace(
        batch, aged=batch.aged[..., :8, :8], clean=batch.clean[..., :8, :8],
        mask=torch.zeros_like(batch.mask[..., :8, :8]),
    )  # fmt: skip
    found = summary(objective, objective.make_net().eval(), [small])
    assert found["ssim"] is None
    assert found["mask_iou"] is None


@pytest.mark.parametrize("loss", ["charbonnier", "l1", "mse"])
@pytest.mark.parametrize("mode", RESTORING)
def test_the_loss_is_that_of_pictures_and_a_little_of_the_masks_cross_entropy(mode, loss):
    batch = make_batch(mode)
    objective = make_objective(mode=mode, preset="nano", loss=loss, mask_weight=0.3)
    net = drawn(objective)
    with torch.no_grad():
        restored, logits = (one.double().numpy() for one in net(batch.aged, with_mask=True))
        found = objective.loss(net, batch)
    difference = restored - batch.clean.double().numpy()
    each = {
        "charbonnier": np.sqrt(difference**2 + 1e-6), "l1": np.abs(difference),
        "mse": difference**2,
    }[loss]  # fmt: skip
    p = 1 / (1 + np.exp(-logits))
    entropy = -np.where(batch.mask.numpy(), np.log(p), np.log(1 - p))
    expected = each.mean((1, 2, 3)) + 0.3 * entropy.mean((1, 2, 3))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("mode", RESTORING)
def test_without_a_weight_there_is_no_mask(mode):
    objective = nano_objective(mode, mask_weight=0)
    net, batch = objective.make_net(), make_batch(mode)
    assert not any(name.startswith("mask") for name in net.state_dict())
    assert "mask_iou" not in summary(objective, net.eval(), [batch])
    assert objective.loss(net, batch).shape == (4,)


def test_dropout_of_the_colour_network_is_a_function_of_the_keys():
    objective = nano_objective("lab")
    net, batch = drawn(objective).eval(), make_batch("lab")
    order = torch.tensor([2, 0, 3, 1])
    moved = dataclasses.replace(
        batch, **{name: tensor[order] for name, tensor in batch.tensors().items()}
    )
    other = dataclasses.replace(batch, keys=batch.keys + 1)
    with torch.no_grad():
        losses = objective.loss(net, batch)
        torch.testing.assert_close(objective.loss(net, moved), losses[order])
        assert (objective.loss(net, other) - losses).abs().max() > 1e-4


def test_the_colour_network_is_told_how_common_colours_are():
    objective = nano_objective("lab")
    net, batches = objective.make_net(), some_batches("lab")[:1]
    assert isinstance(net, ColorNet)
    inside = batches[0].inside
    assert inside is not None
    objective.prepare(net, batches, alone=True)
    assert net.prior.sum().item() == pytest.approx(1)
    ab = np.concatenate(
        [in_units(batches[0].clean[n : n + 1])[inside[n, 0].numpy()][:, 1:] for n in range(2)]
    )
    common = decode(net.prior.log()[None, :, None, None], torch.ones(num_bins()), temperature=1.0)
    assert common.flatten().numpy() == pytest.approx(ab.mean(0), abs=1.5)
    weights = net.rebalance_weights()
    assert weights[net.prior.argmax()] == weights.min()


@pytest.mark.parametrize("mode", MODES)
def test_pictures_to_look_at_are_gray_or_srgb(mode):
    objective = nano_objective(mode)
    batch = make_batch(mode)
    with torch.no_grad():
        clean, aged, restored = objective.pictures(drawn(objective).eval(), batch)
    assert clean.shape == restored.shape == (4, 1 if mode == "grayscale" else 3, 32, 32)
    assert aged.shape[1] == (3 if mode == "color" else 1)
    assert clean.min() >= 0
    assert clean.max() <= 1 + 1e-3
    if mode == "lab":
        shown = clean[0].permute(1, 2, 0).numpy()
        assert shown == pytest.approx(lab2rgb(in_units(batch.clean[:1])), abs=2e-3)
