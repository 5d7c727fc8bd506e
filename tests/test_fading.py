"""Fading: contrast and dyes go, in places more, and at the edges most."""

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.fading import (
    EDGE,
    MOST_DENSITY_LOST,
    MOST_LIFTED,
    MOST_LOST,
    Fading,
    edge_nearness,
    fade,
    patchiness,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
NONE = {"unevenness": (0.0, 0.0), "edges": (0.0, 0.0)}


def faded(x: torch.Tensor, black: float, white_lost: float, lost: tuple[float, ...]):
    B = len(x)
    return fade(
        x,
        black=torch.full((B,), black, device=x.device),
        white_lost=torch.full((B,), white_lost, device=x.device),
        density_lost=torch.tensor([lost] * B, device=x.device),
        where=torch.ones(B, 1, *x.shape[2:], device=x.device),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_lost_returns_the_picture(dtype, channels, device):
    x = torch.rand(2, channels, 9, 7).to(device, dtype)
    made = faded(x, 0.0, 0.0, (0.0, 0.0, 0.0))
    assert torch.equal(made, x)
    assert made.dtype == dtype


def test_fading_agrees_with_numpy(device):
    x = torch.rand(2, 3, 5, 6).to(device)
    lost = np.array([0.4, 0.1, 0.2])
    made = faded(x, 0.2, 0.1, (0.4, 0.1, 0.2)).cpu().double().numpy()
    low = 0.2 * (0.5 + 0.5 * lost / 0.4)
    for channel in range(3):
        tone = x[:, channel].cpu().double().numpy() ** (1 - lost[channel])
        expected = low[channel] + (0.9 - low[channel]) * tone
        assert np.allclose(made[:, channel], expected, rtol=0, atol=1e-6)


def test_black_and_white_become_what_is_asked_for():
    ends = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert faded(ends, 0.2, 0.1, (0.0, 0.0, 0.0)).flatten().tolist() == pytest.approx([0.2, 0.9])


def test_density_scales():
    # Half of the density gone: a gray of density D has D / 2, below what is left of white.
    gray = torch.full((1, 1, 1, 1), 0.25)
    made = float(faded(gray, 0.0, 0.0, (0.5, 0.5, 0.5)))
    assert np.log10(made) == pytest.approx(np.log10(0.25) / 2, abs=1e-5)


def test_a_colour_print_turns_red():
    keys = torch.arange(64)
    gray = torch.full((64, 3, 8, 8), 0.3)
    there = scene(keys, size=(8, 8))
    defect = Fading(dye_lost=(0.3, 0.3), **NONE)
    red, green, blue = defect.apply(gray, defect.sample(there), there)[0].mean((0, 2, 3)).tolist()
    assert red > blue > green
    assert red - green > 0.1


def test_one_channel_fades_as_luma_would():
    lost, weights = (0.4, 0.1, 0.2), torch.tensor([0.299, 0.587, 0.114])
    one = float(faded(torch.full((1, 1, 1, 1), 0.3), 0.0, 0.0, lost))
    assert one == pytest.approx(0.3 ** (1 - float(weights @ torch.tensor(lost))), abs=1e-6)


def test_contrast_falls_with_severity_and_something_always_stays():
    keys = torch.arange(16)
    x = torch.linspace(0, 1, 64).expand(16, 3, 48, 64)
    contrasts = []
    for severity in (0.0, 0.5, 1.0, 2.0, 4.0):
        there = scene(keys, size=(48, 64), severity=severity)
        aged, mask = Fading().apply(x, Fading().sample(there), there)
        assert mask is None
        assert (aged.diff(dim=3).mean((1, 2, 3)) > 0).all()
        contrasts.append(float((aged[..., -1] - aged[..., 0]).mean()))
    assert contrasts[0] == pytest.approx(1.0)
    assert contrasts == sorted(contrasts, reverse=True)
    assert contrasts[-1] > 1 - MOST_LIFTED - MOST_LOST - 0.01


def test_unevenness_is_the_spread_from_place_to_place():
    keys = torch.arange(200)
    there = scene(keys, size=(64, 96))
    zero = torch.zeros(200)
    where = patchiness(there, 64, 96, unevenness=zero + 0.2, edges=zero, plane=0)
    assert float(where.mean()) == pytest.approx(1.0, abs=0.03)
    assert float(where.std()) == pytest.approx(0.2, rel=0.15)
    # Broad patches: next pixels hardly differ.
    assert float(where.diff(dim=3).abs().max()) < 0.05
    flat = patchiness(there, 64, 96, unevenness=zero, edges=zero, plane=0)
    assert torch.equal(flat, torch.ones(200, 1, 64, 96))


def test_edges_of_the_whole_picture_fade_more_and_those_of_a_window_do_not():
    there = scene(torch.arange(100), size=(60, 80))
    zero = torch.zeros(100)
    where = patchiness(there, 60, 80, unevenness=zero, edges=zero + 1, plane=0).mean((0, 1))
    assert where[0].mean() > 1.9
    assert where[:, -1].mean() > 1.9
    assert float(where[30, 40]) == pytest.approx(1.0, abs=0.02)
    window = scene(torch.arange(100), size=(60, 80), top=20, left=30)
    inner = patchiness(window, 10, 10, unevenness=zero, edges=zero + 1, plane=0).mean((0, 1))
    assert torch.allclose(inner, where[20:30, 30:40], rtol=0, atol=1e-5)


def test_nearness_falls_by_e_over_its_depth():
    near = edge_nearness(scene(torch.arange(1), size=(40, 100)), 40, 100, depth_px=7.0)[0, 0]
    for row, column in [(0, 50), (7, 50), (39, 99), (20, 3), (12, 90)]:
        distance = min(row, 39 - row, column, 99 - column)
        assert float(near[row, column]) == pytest.approx(np.exp(-distance / 7), abs=1e-6)
    assert 0 < EDGE < 0.5


def test_what_is_drawn_stays_within_its_limits():
    drawn = Fading().sample(scene(torch.arange(2000), size=(8, 8), severity=4.0))
    assert drawn["black"].max() <= MOST_LIFTED
    assert drawn["white_lost"].max() <= MOST_LOST
    assert drawn["density_lost"].max() <= MOST_DENSITY_LOST
    # Cyan goes first.
    plain = Fading().sample(scene(torch.arange(2000), size=(8, 8)))["density_lost"]
    assert (plain[:, 0] >= plain[:, 1:].amax(1)).all()


@pytest.mark.parametrize("field", ["black", "white_lost", "density_lost", "dye_lost", "edges"])
def test_ranges_are_checked(field):
    with pytest.raises(ValueError, match=field):
        Fading(**{field: (0.2, 9.0)})
