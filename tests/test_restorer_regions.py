"""Restored only where it was asked for, holes filled first, and told where the damage is."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from test_restorer import GRAY, RGB, brighter, make_color_net, make_restorer, make_unet

from agedphoto.restore import has_own_colors
from agedphoto.restore.fill import fill
from agedphoto.synth import Mode
from agedphoto.train import LabNet, UNet, UNetConfig

HALF = np.zeros(GRAY.shape, np.uint8)
HALF[:, 20:] = 255


def with_head(mode: Mode = "grayscale") -> UNet:
    config = make_unet(mode).config
    net = UNet(
        UNetConfig(
            widths=config.widths, blocks=1, middle_blocks=1, in_channels=config.in_channels,
            out_channels=config.out_channels, residual_channels=config.residual_channels,
            mask_head=True,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0, 0.1, generator=generator)
    return net


# ---------------------------------------------------------------- mask: restore only there


@pytest.mark.parametrize("picture", [RGB, GRAY, GRAY.astype(np.uint16) * 257, GRAY / 255])
def test_outside_of_the_mask_not_a_bit_changes(picture):
    restorer = brighter()
    restored = restorer(picture, mask=HALF)
    assert np.array_equal(restored[:, :20], picture[:, :20])
    assert np.array_equal(restored[:, 20:], restorer(picture)[:, 20:])


@pytest.mark.parametrize("mode", ["rgb", "lab"])
def test_outside_of_the_mask_a_gray_picture_stays_gray_among_colours(mode):
    restored = make_restorer(mode)(GRAY, mask=HALF)
    assert np.array_equal(restored[:, :20], np.stack([GRAY[:, :20]] * 3, 2))
    assert not np.array_equal(restored[:, 20:, 0], restored[:, 20:, 2])


def test_a_half_white_mask_restores_half():
    mask = np.full(GRAY.shape, 0.5)
    restored = brighter()(GRAY / 255, mask=mask)
    np.testing.assert_allclose(restored, brighter()(GRAY / 255, strength=0.5), atol=1e-6)


def test_masks_of_all_kinds_mean_the_same():
    expected = brighter()(RGB, mask=HALF)
    masks = [
        HALF > 0, HALF.astype(np.uint16) * 257, HALF / 255, HALF[..., None],
        Image.fromarray(HALF), Image.fromarray(HALF).convert("1"), Image.fromarray(HALF).convert(
            "RGB"
        ), torch.from_numpy(HALF), torch.from_numpy(HALF > 0)[None],
    ]  # fmt: skip
    for mask in masks:
        assert np.array_equal(brighter()(RGB, mask=mask), expected)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (HALF[:-1], "mask must be as large as the picture, 41 x 53 .* got 40 x 53"),
        (HALF.T, "got 53 x 41"),
        ("mask.png", "mask must be a Pillow image, .* got str"),
        (np.full(GRAY.shape, 255.0), r"mask must be in \[0, 1\], got 255"),
        (HALF.astype(int), "mask must be uint8, uint16 or floating point, got int64"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        brighter()(RGB, mask=mask)


# ---------------------------------------------------------------- damage: fill it first


def test_holes_are_filled_and_nothing_else_changes():
    picture = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    holes = torch.zeros(40, 50, dtype=torch.bool)
    holes[10:14, 5:45] = True
    filled = fill(picture, holes)
    assert torch.equal(filled[:, ~holes], picture[:, ~holes])
    assert filled.min() >= picture.min()
    assert filled.max() <= picture.max()
    # What was in the holes does not matter.
    assert torch.equal(fill(torch.where(holes, 9.0, picture), holes), filled)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (33, 1), (37, 53), (64, 64)])
def test_a_plain_picture_is_filled_with_its_tone(size):
    generator = torch.Generator().manual_seed(1)
    holes = torch.rand(size, generator=generator) < 0.7
    holes[0, 0] = False
    picture = torch.full((1, *size), 0.3)
    torch.testing.assert_close(fill(picture, holes), picture)


def test_a_smooth_picture_is_filled_smoothly():
    rows, columns = torch.meshgrid(
        torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij"
    )
    picture = (0.5 * rows + 0.4 * columns)[None]
    holes = torch.zeros(64, 64, dtype=torch.bool)
    holes[20:26] = True
    assert (fill(picture, holes) - picture).abs().max() < 0.06


def test_where_nothing_is_known_the_picture_stays():
    picture = torch.rand(1, 5, 6)
    assert torch.equal(fill(picture, torch.ones(5, 6, dtype=torch.bool)), picture)


def test_marked_damage_is_gone_from_what_the_network_sees():
    photo = astronaut()[:128, :128]
    scratched = photo.copy()
    scratched[60:63] = 255
    marked = np.zeros((128, 128), np.uint8)
    marked[59:64] = 255
    restorer = make_restorer(net=make_unet("grayscale"))
    restored = restorer(scratched, damage=marked)
    assert np.array_equal(restored, restorer(photo_without(photo, marked), damage=marked))
    before = np.square(scratched[60:63] / 255 - photo[60:63] / 255).mean()
    after = np.square(restored[60:63] / 255 - photo[60:63] / 255).mean()
    assert after < before / 10


def photo_without(photo: np.ndarray, marked: np.ndarray) -> np.ndarray:
    gone = photo.copy()
    gone[marked > 0] = 0
    return gone


def test_damage_and_mask_go_together():
    scratched = RGB.copy()
    scratched[20:22] = 0
    damage = np.zeros(GRAY.shape, bool)
    damage[20:22] = True
    restored = brighter()(scratched, damage=damage, mask=damage)
    assert np.array_equal(restored[~damage], scratched[~damage])
    assert (restored[damage] > 0).all()


# ---------------------------------------------------------------- where the damage is


@pytest.mark.parametrize("mode", ["grayscale", "rgb", "color", "lab"])
def test_the_mask_is_what_the_network_finds_on_what_it_sees(mode):
    net = LabNet(make_color_net(), with_head()) if mode == "lab" else with_head(mode)
    restorer = make_restorer(mode, net)
    restored, mask = restorer(RGB / 255, return_mask=True)
    np.testing.assert_allclose(restored, restorer(RGB / 255), atol=1e-6)
    seen = RGB / 255 if mode == "color" else (RGB / 255 @ [0.299, 0.587, 0.114])[..., None]
    finder = net.luminance if isinstance(net, LabNet) else net
    assert finder is not None
    with torch.no_grad():
        x = torch.from_numpy(seen.astype(np.float32)).permute(2, 0, 1)[None]
        expected = finder(x, with_mask=True)[1].sigmoid()[0, 0]
    np.testing.assert_allclose(mask[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "picture",
    [RGB, GRAY, GRAY.astype(np.uint16), Image.fromarray(RGB), torch.from_numpy(GRAY)[None]],
)
@pytest.mark.parametrize("strength", [0, 1])
def test_the_mask_is_of_the_kind_of_the_picture(picture, strength):
    restored, mask = make_restorer(net=with_head())(picture, return_mask=True, strength=strength)
    assert type(mask) is type(picture) is type(restored)
    if isinstance(mask, Image.Image):
        assert (mask.mode, mask.size) == ("L", picture.size)
    else:
        assert mask.dtype == picture.dtype
        assert tuple(mask.shape) in {(41, 53), (41, 53, 1), (1, 41, 53)}


def test_a_mask_of_tiles_is_the_mask_of_the_whole():
    restorer = make_restorer(net=with_head())
    gray = np.random.default_rng(0).random((150, 130), np.float32)
    whole, tiles = (restorer(gray, return_mask=True, tile=tile)[1] for tile in (256, 104))
    assert np.abs(whole - tiles).max() < 0.02


def test_a_network_without_a_head_for_it_says_so():
    assert not make_restorer().finds_damage
    assert make_restorer(net=with_head()).finds_damage
    with pytest.raises(ValueError, match="cannot tell where the damage is: it has no mask head"):
        make_restorer()(RGB, return_mask=True)


# ---------------------------------------------------------------- several at once


def test_a_list_is_restored_one_by_one():
    pictures = [RGB, GRAY, Image.fromarray(RGB)]
    together = brighter()(pictures)
    for one, picture in zip(together, pictures, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(brighter()(picture)))
        assert type(one) is type(picture)
    assert brighter()([]) == []


def test_a_list_has_a_mask_for_each():
    restored = brighter()([RGB, RGB], mask=[HALF, None])
    assert np.array_equal(restored[0], brighter()(RGB, mask=HALF))
    assert np.array_equal(restored[1], brighter()(RGB))
    for wrong in ([HALF], HALF):
        with pytest.raises(ValueError, match="mask of 2 pictures must be a list of as many"):
            brighter()([RGB, RGB], mask=wrong)


def test_a_batch_has_masks_too():
    restorer = make_restorer(net=with_head())
    batch = torch.rand(2, 3, 20, 30)
    restored, masks = restorer(batch, return_mask=True)
    assert restored.shape == batch.shape
    assert masks.shape == (2, 1, 20, 30)
    assert torch.equal(restored[1], restorer(batch[1]))


# ---------------------------------------------------------------- colours


def test_saturation_0_is_gray_and_1_the_default():
    restorer = make_restorer("lab")
    gray = restorer(GRAY, saturation=0).astype(int)
    assert np.ptp(gray, axis=2).max() <= 1
    assert np.array_equal(restorer(GRAY, saturation=1), restorer(GRAY))
    assert not np.array_equal(restorer(GRAY, temperature=1.0), restorer(GRAY))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"saturation": -1}, "saturation must be at least 0, got -1"),
        ({"saturation": float("nan")}, "saturation must be at least 0"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
    ],
)
def test_colours_out_of_range_are_refused_in_all_modes(options, message):
    for mode in ("grayscale", "lab"):
        with pytest.raises(ValueError, match=message):
            make_restorer(mode)(GRAY, **options)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_toned_and_stained_prints_have_no_colours_of_their_own(depth):
    scale = np.iinfo(depth).max
    gray = astronaut() @ np.array([0.299, 0.587, 0.114]) / 255
    sepia = np.stack([gray**0.8, gray**0.95, gray**1.25], 2)
    noisy = sepia + np.random.default_rng(0).normal(0, 0.05, sepia.shape)
    for toned in (gray, gray[..., None], sepia, noisy):
        assert not has_own_colors((toned.clip(0, 1) * scale).astype(depth))
    assert has_own_colors((astronaut() / 255 * scale).astype(depth))


def test_a_picture_of_one_tone_has_no_colours_of_its_own():
    assert not has_own_colors(np.full((5, 7, 3), (200, 30, 30), np.uint8))
    assert not has_own_colors(np.zeros((1, 1, 3), np.uint8))
