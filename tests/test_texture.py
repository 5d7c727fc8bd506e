"""Textures: windows compared pixel by pixel with loops and SciPy, and light only ever added."""

import numpy as np
import pytest
import torch
from scenes import scene
from scipy import ndimage

from agedphoto.synth import Texture, overlay, read_textures
from agedphoto.synth.texture import MASK_LEVEL, STEP

S = 12
TURNS = range(8)


@pytest.fixture
def bank() -> torch.Tensor:
    """Three small textures of noise: every pixel is its own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, S, S), generator=generator, dtype=torch.uint8)


def read(
    bank: torch.Tensor,
    windows: list[tuple[int, int, int, int]],
    size: tuple[int, int],
    step: int = STEP,
):
    """Read windows given as (texture, top, left, turn)."""
    index, top, left, turn = torch.tensor(windows).T.to(bank.device)
    return read_textures(bank, index, top, left, turn, torch.full_like(top, step), size)


def place(row: float, column: float, window: tuple[int, int, int, int]) -> tuple[float, float]:
    """Texture row and column under a place of the window, in texture pixels; may lie outside."""
    _, top, left, turn = window
    down = top - row if turn & 1 else top + row
    right = left - column if turn & 2 else left + column
    return (right, down) if turn & 4 else (down, right)


def all_windows() -> list[tuple[int, int, int, int]]:
    return [(turn % 3, 5 + turn % 2 * 6, turn, turn) for turn in TURNS]


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (12, 12), (12, 3)])
def test_windows_agree_with_plain_loops(bank, device, size):
    made = read(bank.to(device), all_windows(), size).cpu()
    assert made.shape == (8, 1, *size)
    for window, tile in zip(all_windows(), made[:, 0], strict=True):
        for row, column in np.ndindex(*size):
            y, x = place(row, column, window)
            assert tile[row, column] == bank[window[0], int(y) % S, int(x) % S] / 255.0


@pytest.mark.parametrize("step", [STEP - 1, 3 * STEP // 4, STEP // 2, 1000, 1])
def test_an_enlarged_texture_is_bilinear(bank, device, step):
    size = (11, 30)
    made = read(bank.to(device), all_windows(), size, step).cpu()
    for window, tile in zip(all_windows(), made[:, 0], strict=True):
        places = [place(r * step / STEP, c * step / STEP, window) for r, c in np.ndindex(*size)]
        expected = ndimage.map_coordinates(
            bank[window[0]].double().numpy() / 255, np.array(places).T, order=1, mode="grid-wrap"
        )
        assert np.allclose(tile.flatten().numpy(), expected, rtol=0, atol=1e-5)


def test_each_photograph_has_an_enlargement_of_its_own(bank):
    index, top, left, turn = torch.tensor([[0, 3, 4, 5]] * 3).T
    together = read_textures(bank, index, top, left, turn, torch.tensor([STEP, 900, 2048]), (9, 9))
    for tile, step in zip(together, (STEP, 900, 2048), strict=True):
        assert torch.equal(tile, read(bank, [(0, 3, 4, 5)], (9, 9), step)[0])


@pytest.mark.parametrize("size", [(90, 127), (128, 128), (129, 20), (300, 513)])
def test_wear_is_enlarged_as_asked_and_never_repeats(textures, size):
    there = scene(torch.arange(4000), op=2, size=size, textures=textures)
    drawn = Texture(zoom=(1.5, 3.0)).sample(there)["step"]
    # A whole picture must not go around the texture of 128 px more than once.
    assert (drawn * max(size)).max() <= STEP * 128
    least, most = STEP / 3.0, min(STEP / 1.5, STEP * 128 / max(size))
    assert drawn.min() >= min(least, most) - 1
    assert drawn.max() <= most
    if most > least:
        assert drawn.min() < least + 20
    if most == STEP / 1.5:
        assert drawn.double().mean() == pytest.approx((least + most) / 2, rel=0.01)


def test_no_zoom_takes_the_texture_as_it_is(textures):
    defect = Texture(zoom=(1.0, 1.0))
    drawn = defect.sample(scene(torch.arange(50), size=(64, 64), textures=textures))
    assert set(drawn["step"].tolist()) == {STEP}


def test_the_eight_turns_are_different(bank):
    made = read(bank, [(0, 3, 4, turn) for turn in TURNS], (7, 7))
    assert len({tile.numpy().tobytes() for tile in made}) == 8


def test_textures_wrap_without_a_seam():
    # A texture that is smooth around its edges is as smooth in every window.
    along = torch.arange(S) * (2 * torch.pi / S)
    smooth = (128 + 60 * along.sin()[:, None] + 60 * along.cos()[None]).round().to(torch.uint8)
    size = (3 * S, 3 * S)
    for step in (STEP, STEP // 3):
        steepest = 60 * 2 * torch.pi / S * step / STEP + 1
        windows = [(0, top, left, turn) for top in (0, 7) for left in (5, 11) for turn in TURNS]
        made = read(smooth[None], windows, size, step) * 255
        assert made.diff(dim=-1).abs().max() <= steepest
        assert made.diff(dim=-2).abs().max() <= steepest


def test_a_window_does_not_depend_on_the_others(bank):
    windows = all_windows()
    for size in [(7, 5), (25, 18)]:
        whole = read(bank, windows, size)
        for chosen in ([3], [6, 1], [7, 0, 4]):
            part = read(bank, [windows[number] for number in chosen], size)
            assert torch.equal(part, whole[chosen])


def test_offsets_are_the_same_around_the_texture(bank):
    around = [(1, 2 + S, 3 + 5 * S, 5)]
    assert torch.equal(read(bank, [(1, 2, 3, 5)], (6, 8)), read(bank, around, (6, 8)))


def test_overlay_adds_light_and_clips():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(4, 3, 9, 8, generator=generator)
    layer = torch.rand(4, 1, 9, 8, generator=generator)
    alpha = torch.tensor([0.0, 0.3, 0.9, 1.0])
    made = overlay(x, layer, alpha=alpha)
    expected = np.minimum(x.numpy() + alpha.numpy()[:, None, None, None] * layer.numpy(), 1)
    assert np.allclose(made.numpy(), expected, rtol=0, atol=1e-7)
    assert (made >= x).all()
    assert made.max() <= 1
    assert torch.equal(overlay(x, torch.zeros_like(layer), alpha=alpha), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_zero_strength_is_identity(dtype, device):
    x = torch.rand(2, 3, 8, 7).to(device, dtype)
    before = x.clone()
    made = overlay(x, torch.rand(2, 1, 8, 7).to(device), alpha=torch.zeros(2, device=device))
    assert torch.equal(made, x)
    assert (made.dtype, made.device) == (x.dtype, x.device)
    made.zero_()
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [(40, 50), (150, 90)])
def test_the_mask_is_where_enough_light_is_added(textures, size):
    defect, keys = Texture(alpha=(0.05, 0.9)), torch.arange(6)
    there = scene(keys, op=2, size=size, textures=textures)
    params = defect.sample(there)
    x = torch.full((6, 3, *size), 0.1)
    aged, mask = defect.apply(x, params, there)
    window = (params[name] for name in ("texture", "top", "left", "turn", "step"))
    layer = read_textures(textures.textures, *window, size=size).numpy()
    light = params["alpha"].numpy()[:, None, None, None] * layer
    assert mask is not None
    assert mask.dtype == torch.bool
    assert (mask.numpy() == (light >= MASK_LEVEL)).all()
    assert mask.any()
    assert not mask.all()
    # Wear has no colour.
    assert np.allclose(aged.numpy(), np.minimum(0.1 + light, 1).repeat(3, 1), rtol=0, atol=1e-6)


def test_zero_alpha_hides_nothing(textures):
    defect, keys, x = Texture(alpha=(0.0, 0.0)), torch.arange(3), torch.rand(3, 1, 20, 20)
    there = scene(keys, op=2, size=(20, 20), textures=textures)
    aged, mask = defect.apply(x, defect.sample(there), there)
    assert torch.equal(aged, x)
    assert mask is not None
    assert not mask.any()


def test_every_texture_turn_and_offset_is_drawn(textures):
    drawn = Texture(alpha=(0.2, 0.4)).sample(
        scene(torch.arange(5000), op=2, size=(64, 64), textures=textures)
    )
    for name, count in [("texture", 5), ("turn", 8), ("top", 128), ("left", 128)]:
        seen = torch.bincount(drawn[name], minlength=count)
        assert len(seen) == count
        expected = 5000 / count
        assert (seen - expected).abs().max() < 5 * expected**0.5
    assert drawn["alpha"].min() >= 0.2
    assert drawn["alpha"].max() < 0.4
    assert drawn["alpha"].mean() == pytest.approx(0.3, abs=0.005)


def test_what_a_photograph_draws_does_not_depend_on_the_others(textures):
    keys = torch.tensor([5, -6, 7])
    whole = Texture().sample(scene(keys, op=2, size=(9, 9), textures=textures))
    alone = Texture().sample(scene(keys[1:2], op=2, size=(9, 9), textures=textures))
    for name, value in whole.items():
        assert torch.equal(alone[name], value[1:2])
    assert all(len(value) == 3 for value in whole.values())


def test_what_a_key_draws_is_pinned(textures):
    keys = torch.tensor([0, -1, 2**62 + 12345])
    drawn = Texture(alpha=(0.0, 1.0)).sample(scene(keys, op=2, size=(64, 64), textures=textures))
    assert drawn.pop("alpha").tolist() == pytest.approx([0.5354144, 0.8214788, 0.9493572])
    assert {name: value.tolist() for name, value in drawn.items()} == {
        "texture": [4, 2, 1],
        "top": [56, 30, 82],
        "left": [101, 101, 63],
        "turn": [6, 4, 7],
        "step": [2184, 3332, 3101],
    }
