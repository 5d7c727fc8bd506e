"""A picture of any kind comes back as the same kind, restored as far as was asked for."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import lab2rgb, rgb2lab, rgb2ycbcr
from skimage.data import astronaut

from agedphoto.restore import Restorer
from agedphoto.restore.colorize import colorize
from agedphoto.synth import MODES, Mode
from agedphoto.train import (
    ColorNet,
    ColorNetConfig,
    LabNet,
    ModelCard,
    Net,
    UNet,
    UNetConfig,
    net_config,
    net_shape,
)

RGB = astronaut()[60:101, 200:253]
GRAY = RGB[:, :, 1].copy()


def make_color_net(seed: int = 0) -> ColorNet:
    """A small network that colours pictures somehow."""
    config = ColorNetConfig(widths=(4, 8, 8, 8), blocks=(0, 0, 0, 0), attention_blocks=1, heads=2)
    net = ColorNet(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0, 1.0, generator=generator)
    return net


def make_net(mode: Mode) -> Net:
    """A small network that changes pictures, but not beyond recognition."""
    return LabNet(make_color_net(), make_unet("grayscale")) if mode == "lab" else make_unet(mode)


def make_unet(mode: Mode, seed: int = 0) -> UNet:
    shape = net_config("tiny", mode)
    net = UNet(
        UNetConfig(
            widths=(4, 6), blocks=1, middle_blocks=1, in_channels=shape.in_channels,
            out_channels=shape.out_channels, residual_channels=shape.residual_channels,
        )
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for name, weight in net.named_parameters():
        scale = 0.1 if name.startswith("tail") else 1.0
        torch.nn.init.normal_(weight, 0, scale / weight[0].numel() ** 0.5, generator=generator)
    return net


def make_restorer(mode: Mode = "grayscale", net: Net | None = None) -> Restorer:
    net = make_net(mode) if net is None else net
    return Restorer(net, ModelCard(mode=mode, net=net_shape(net), training={}), device="cpu")


class Brighter(UNet):
    """Adds a tenth."""

    def forward(self, aged, *, with_mask=False):  # type: ignore[override]
        assert not with_mask
        assert not torch.is_grad_enabled()
        return aged + 0.1


def brighter(mode: Mode = "grayscale") -> Restorer:
    return make_restorer(mode, Brighter(make_unet(mode).config))


def applied(net: Net, pixels: np.ndarray) -> np.ndarray:
    """What the network itself answers to (C, H, W) in [0, 1]."""
    with torch.no_grad():
        return net(torch.from_numpy(pixels.astype(np.float32))[None])[0].numpy()


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])


# ---------------------------------------------------------------- kinds of pictures


@pytest.mark.parametrize("shape", [(41, 53), (41, 53, 1), (41, 53, 3)])
@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "f2", "f4", "f8"])
def test_an_array_keeps_shape_and_type(shape, dtype):
    top = np.iinfo(dtype).max if "u" in dtype else 1
    array = (np.random.default_rng(0).uniform(0.2, 0.8, shape) * top).astype(dtype)
    restored = make_restorer()(array)
    assert (restored.shape, restored.dtype) == (array.shape, array.dtype)
    assert (restored != array).mean() > 0.5


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "f4", "f8"])
def test_arrays_of_every_depth_are_restored_alike(dtype):
    """One picture in 8-bit steps, written in every depth, comes out the same to within a step."""
    top = np.iinfo(dtype).max if "u" in dtype else 1
    array = (GRAY / 255 * top).round(12 if top == 1 else 0).astype(dtype)
    restored = make_restorer()(array) / top
    expected = applied(make_net("grayscale"), GRAY[None] / 255).clip(0, 1)[0]
    assert np.abs(restored - expected).max() < 0.6 / min(top if top > 1 else 1e6, 1e6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 20, 30), (3, 20, 30), (2, 1, 20, 30), (2, 3, 20, 30)])
def test_a_tensor_keeps_shape_and_type(shape, dtype):
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    tensor = (tensor * 255).to(dtype) if dtype == torch.uint8 else tensor.to(dtype)
    restored = make_restorer()(tensor)
    assert (restored.shape, restored.dtype) == (tensor.shape, tensor.dtype)
    assert (restored != tensor).float().mean() > 0.5


def test_arrays_tensors_and_images_are_restored_alike():
    restorer = make_restorer()
    array = restorer(RGB)
    image = restorer(Image.fromarray(RGB))
    tensor = restorer(torch.from_numpy(RGB).permute(2, 0, 1))
    batch = restorer(torch.from_numpy(RGB).permute(2, 0, 1)[None])
    assert np.array_equal(np.asarray(image), array)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), array)
    assert torch.equal(batch[0], tensor)


def test_each_picture_of_a_batch_is_restored_as_alone():
    restorer, batch = make_restorer(), torch.rand(3, 1, 20, 30)
    alone = torch.stack([restorer(picture) for picture in batch])
    assert torch.equal(restorer(batch), alone)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1", "L"), ("L", "L"), ("LA", "LA"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGBA"),
        ("CMYK", "RGB"), ("YCbCr", "RGB"), ("I", "RGB"), ("F", "RGB"), ("PA", "RGBA"),
    ],
)  # fmt: skip
def test_an_image_comes_back_in_its_mode_or_the_one_that_holds_it(before, after):
    image = Image.fromarray(RGB if before not in ("I", "F") else GRAY).convert(before)
    restored = make_restorer()(image)
    assert (restored.mode, restored.size) == (after, image.size)


@pytest.mark.parametrize(("order", "mode"), [("<u2", "I;16"), (">u2", "I;16B")])
def test_16_bit_images_stay_16_bit_in_either_byte_order(order, mode):
    array = (GRAY.astype(np.uint16) * 180 + 7).astype(order)
    image = Image.fromarray(array)
    assert image.mode == mode
    restored = make_restorer()(image)
    assert restored.mode == mode
    assert np.array_equal(np.asarray(restored), make_restorer()(array))
    # Dark scans too: the depth is that of the file, not guessed from its values.
    dark = np.full((20, 20), 200, order)
    assert np.abs(np.asarray(brighter()(Image.fromarray(dark))).astype(int) - 200 - 6554).max() <= 1


@pytest.mark.parametrize("mode", MODES)
def test_a_gray_picture_gets_colours_in_all_modes_but_grayscale(mode):
    restored = make_restorer(mode)(Image.fromarray(GRAY))
    assert restored.mode == ("L" if mode == "grayscale" else "RGB")
    assert make_restorer(mode)(GRAY).ndim == (2 if mode == "grayscale" else 3)
    tensor = torch.from_numpy(GRAY)[None]
    assert make_restorer(mode)(tensor).shape[0] == (1 if mode == "grayscale" else 3)


def test_gray_stays_gray_in_rgb():
    gray = np.dstack([GRAY] * 3)
    restored = make_restorer()(gray)
    assert np.abs(restored.astype(int) - restored[:, :, :1]).max() == 0
    assert np.array_equal(restored[:, :, 0], make_restorer()(GRAY))


# ---------------------------------------------------------------- what the modes answer


def test_grayscale_gives_what_the_network_answers():
    expected = applied(make_net("grayscale"), GRAY[None] / 255).clip(0, 1)[0] * 255
    assert np.abs(make_restorer()(GRAY) - expected).max() < 0.51


def test_rgb_gives_what_the_network_answers_to_the_luma():
    answer = applied(make_net("rgb"), luma(RGB)[None] / 255).clip(0, 1)
    restored = make_restorer("rgb")(RGB)
    assert np.abs(restored - answer.transpose(1, 2, 0) * 255).max() < 0.51


def test_color_gives_what_the_network_answers_to_the_colours():
    answer = applied(make_net("color"), RGB.transpose(2, 0, 1) / 255).clip(0, 1)
    restored = make_restorer("color")(RGB)
    assert np.abs(restored - answer.transpose(1, 2, 0) * 255).max() < 0.51


@pytest.mark.parametrize("packed", [True, False])
def test_lab_gives_colours_to_the_luminance_that_is_restored_if_it_can_be(packed):
    gray = luma(RGB) / 255
    if packed:
        gray = applied(make_unet("grayscale"), gray[None]).clip(0, 1)[0]
    with torch.no_grad():
        ab = colorize(make_color_net(), torch.from_numpy(gray.astype(np.float32))[None, None])
    lightness = rgb2lab(np.dstack([gray] * 3))[:, :, :1]
    expected = lab2rgb(np.dstack([lightness, ab[0].permute(1, 2, 0).numpy()])) * 255
    net = LabNet(make_color_net(), make_unet("grayscale") if packed else None)
    restored = make_restorer("lab", net)(RGB).astype(int)
    assert np.abs(restored - expected).max() < 0.6
    assert np.ptp(restored, axis=2).max() > 20, "there are colours"


@pytest.mark.parametrize("packed", [True, False])
def test_lab_counts_its_colours_as_a_tile(packed):
    net = LabNet(make_color_net(), make_unet("grayscale") if packed else None)
    restorer, done = make_restorer("lab", net), []
    restorer(RGB, on_tile=lambda: done.append(1))
    assert len(done) == restorer.count_tiles(*RGB.shape[:2]) == 1 + packed


def test_colours_of_a_colour_photo_are_kept():
    """Cb and Cr, by scikit-image, where nothing is clipped."""
    array = RGB / 255 * 0.5 + 0.25
    restored = make_restorer()(array)
    kept = (restored > 0).all(2) & (restored < 1).all(2)
    assert kept.mean() > 0.9
    before, after = rgb2ycbcr(array), rgb2ycbcr(restored)
    assert np.abs(after - before)[kept][:, 0].max() > 3
    assert np.abs(after - before)[kept][:, 1:].max() < 1e-3
    expected = applied(make_net("grayscale"), luma(array)[None]).clip(0, 1)[0]
    assert np.abs(luma(restored) - expected)[kept].max() < 1e-5


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_kept(mode):
    image = Image.fromarray(RGB).convert(mode)
    alpha = Image.fromarray(GRAY)
    image.putalpha(alpha)
    restored = make_restorer()(image)
    assert restored.mode == mode
    assert restored.getchannel("A").tobytes() == alpha.tobytes()
    opaque = make_restorer()(Image.fromarray(np.asarray(image)[:, :, :-1].squeeze()))
    assert restored.convert(mode[:-1]).tobytes() == opaque.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_transparency_of_one_colour_is_kept(mode):
    image = Image.fromarray(RGB).convert(mode)
    image.info["transparency"] = (1, 2, 3) if mode == "RGB" else 0
    expected = image.convert("RGBA").getchannel("A")
    restored = make_restorer()(image)
    assert restored.mode in ("LA", "RGBA")
    assert restored.getchannel("A").tobytes() == expected.tobytes()


# ---------------------------------------------------------------- strength


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f2", "f4", "f8"])
def test_strength_0_returns_a_copy_of_an_array(mode, dtype):
    array = RGB.astype(dtype) if dtype[0] == "u" else (RGB / 255).astype(dtype)
    restored = make_restorer(mode)(array, strength=0)
    assert np.array_equal(restored, array)
    assert not np.shares_memory(restored, array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "F"])
def test_strength_0_returns_a_copy_of_an_image(mode):
    image = Image.fromarray(GRAY).convert(mode)
    restored = make_restorer("lab")(image, strength=0)
    assert restored is not image
    assert (restored.mode, restored.tobytes()) == (image.mode, image.tobytes())


def test_strength_0_returns_a_copy_of_a_tensor():
    tensor = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    restored = make_restorer()(tensor, strength=0)
    assert torch.equal(restored, tensor)
    assert restored.data_ptr() != tensor.data_ptr()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("strength", [0.25, 0.5, 0.9])
def test_strength_goes_the_way_from_the_picture_to_the_restored_one(mode, gray, strength):
    array = (GRAY if gray else RGB).astype(np.float32) / 255
    restorer = make_restorer(mode)
    full = restorer(array)
    start = array if full.ndim == array.ndim else np.dstack([array] * 3)
    expected = start + strength * (full - start)
    np.testing.assert_allclose(restorer(array, strength=strength), expected, atol=1e-6)


# ---------------------------------------------------------------- care


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_what_is_given_is_not_changed(strength):
    restorer = make_restorer()
    for picture in (RGB.copy(), (RGB / 255).astype(np.float32)):
        before = picture.copy()
        restorer(picture, strength=strength)
        assert np.array_equal(picture, before)
    tensor = torch.rand(3, 20, 30)
    before = tensor.clone()
    restorer(tensor, strength=strength)
    assert torch.equal(tensor, before)
    image = Image.fromarray(RGB).convert("RGBA")
    data, info = image.tobytes(), dict(image.info)
    restorer(image, strength=strength)
    assert (image.mode, image.tobytes(), image.info) == ("RGBA", data, info)


def test_views_and_read_only_arrays_are_restored_as_their_copies():
    restorer = make_restorer()
    for view in (RGB[::-1, ::-2], RGB.transpose(1, 0, 2), np.broadcast_to(GRAY[:1, :1], (9, 9))):
        assert np.array_equal(restorer(view), restorer(view.copy()))


def test_no_gradient_is_kept():
    """The network of `brighter` looks whether gradients are on."""
    tensor = torch.full((1, 8, 8), 0.5, requires_grad=True)
    restored = brighter()(tensor)
    assert not restored.requires_grad
    torch.testing.assert_close(restored, torch.full((1, 8, 8), 0.6))


def test_restoring_draws_nothing_at_random():
    restorer, before = make_restorer("lab"), torch.get_rng_state()
    assert torch.equal(torch.from_numpy(restorer(RGB)), torch.from_numpy(restorer(RGB)))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_beyond_the_range_is_clipped():
    assert brighter()(np.full((4, 4), 250, np.uint8)).max() == 255
    assert brighter()(np.full((4, 4), 65000, np.uint16)).max() == 65535
    assert brighter()(np.full((4, 4), 0.97)).max() == 1
    assert brighter()(np.full((4, 4), -1e-3)).min() == pytest.approx(0.1)


def test_large_pictures_are_done_in_tiles_and_counted():
    restorer, array = make_restorer(), np.random.default_rng(0).random((150, 90), np.float32)
    done = []
    tiles = restorer(array, tile=104, on_tile=lambda: done.append(1))
    assert len(done) == restorer.count_tiles(150, 90, tile=104) > 1
    whole = restorer(array, tile=256)
    assert np.abs(tiles - whole).max() < 0.02


@pytest.mark.slow
def test_compiled_it_restores_alike():
    config = UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1)
    torch.manual_seed(0)
    net = UNet(config)
    torch.nn.init.normal_(net.tail.weight, 0, 0.1)
    card = ModelCard(mode="grayscale", net=net_shape(net), training={})
    picture = np.random.default_rng(0).random((190, 230), np.float32)
    eager = Restorer(net, card, device="cpu")(picture, tile=104)
    restorer, compiled_for = Restorer(net, card, device="cpu", compile=True), []
    compiled = restorer._compiled
    assert compiled is not None
    restorer._compiled = lambda x: compiled_for.append(tuple(x.shape)) or compiled(x)
    np.testing.assert_allclose(restorer(picture, tile=104), eager, atol=1e-5)
    # Whole tiles alone, so that there is one size to compile for.
    assert set(compiled_for) == {(1, 1, 104, 104)}


def test_a_coarse_network_gets_the_overlap_that_it_needs():
    net = UNet(UNetConfig(widths=(4, 4, 4, 4, 4, 4, 4), blocks=0, middle_blocks=1))
    assert net.config.stride == 128
    assert make_restorer(net=net).check() % 128 == 0
    odd = UNet(UNetConfig(widths=(4, 4), blocks=0, middle_blocks=1, unshuffle=3))
    assert make_restorer(net=odd).check() % 6 == 0


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("photo.jpg", r"must be a Pillow image, .* got str; PIL.Image.open reads files"),
        (RGB.tolist(), "must be a Pillow image"),
        (np.zeros((4,), np.uint8), r"must be \(H, W\), .* got \(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((4, 4, 4), np.uint8), r"got \(4, 4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"got \(2, 4, 4, 3\)"),
        (np.zeros((0, 4), np.uint8), r"got \(0, 4\)"),
        (np.zeros((4, 4), np.int32), "uint8, uint16 or floating point, got int32"),
        (np.zeros((4, 4), np.uint32), "uint8, uint16 or floating point, got uint32"),
        (np.zeros((4, 4), bool), "uint8, uint16 or floating point, got bool"),
        (
            np.full((4, 4), 200.0),
            r"must be in \[0, 1\], got 200 to 200; divide 8-bit",
        ),
        (np.full((4, 4), -1.0), r"must be in \[0, 1\]"),
        (np.array([[0.5, np.nan]]), r"must be in \[0, 1\]"),
        (torch.zeros(4, 4), r"must be \(C, H, W\) or \(B, C, H, W\) .* got \(4, 4\)"),
        (torch.zeros(2, 4, 4), r"got \(2, 4, 4\)"),
        (torch.zeros(1, 0, 4), r"got \(1, 0, 4\)"),
        (torch.zeros(1, 4, 4, dtype=torch.int64), "uint8 or floating point, got torch.int64"),
        (torch.full((1, 4, 4), 255.0), r"must be in \[0, 1\]"),
        (torch.full((1, 4, 4), torch.nan), r"must be in \[0, 1\]"),
    ],
)
@pytest.mark.parametrize("strength", [0, 1])
def test_a_wrong_picture_is_refused_at_any_strength(picture, message, strength):
    with pytest.raises(ValueError, match=message):
        make_restorer()(picture, strength=strength)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_wrong_strength_is_refused(strength):
    with pytest.raises(ValueError, match="strength must be 0 to 1"):
        make_restorer()(RGB, strength=strength)


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (0, "tile must be a multiple of 4 px and at least 104 px"),
        (-512, "at least 104 px"),
        (66, "multiple of 4 px"),
        ("big", "tile must be 'auto' or a whole number of pixels, got 'big'"),
        (512.0, "whole number of pixels, got 512.0"),
        (True, "whole number of pixels, got True"),
    ],
)
def test_a_wrong_tile_is_refused(tile, message):
    with pytest.raises(ValueError, match=message):
        make_restorer()(RGB, tile=tile)
