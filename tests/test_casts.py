"""Yellowing and casts: colours multiplied over the picture, luma only in one channel."""

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.casts import BROWN, YELLOW, ColorCast, Yellowing, cast, yellow

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LUMA = np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_none_of_it_returns_the_picture(dtype, channels, device):
    x = torch.rand(2, channels, 9, 7).to(device, dtype)
    zero, one = torch.zeros(2, device=device), torch.ones(2, 3, device=device)
    assert torch.equal(yellow(x, amount=zero, brownness=zero), x)
    assert torch.equal(cast(x, gain=one, lift=0 * one), x)


@pytest.mark.parametrize(("brownness", "colour"), [(0.0, YELLOW), (1.0, BROWN)])
def test_white_becomes_the_colour_of_old_paper(brownness, colour):
    white = torch.ones(1, 3, 2, 2)
    made = yellow(white, amount=torch.ones(1), brownness=torch.tensor([brownness]))
    assert made[0, :, 0, 0].tolist() == pytest.approx(colour, abs=1e-6)
    gray = yellow(white[:, :1], amount=torch.ones(1), brownness=torch.tensor([brownness]))
    assert float(gray[0, 0, 0, 0]) == pytest.approx(LUMA @ colour, abs=1e-6)


def test_twice_the_amount_is_twice_the_density():
    x = torch.rand(1, 3, 4, 4)
    half = torch.tensor([0.5])
    twice = yellow(yellow(x, amount=half, brownness=half), amount=half, brownness=half)
    once = yellow(x, amount=2 * half, brownness=half)
    assert torch.allclose(once, twice, rtol=0, atol=1e-6)


def test_yellowing_takes_blue_most_and_never_lightens():
    keys = torch.arange(20)
    x = torch.rand(20, 3, 30, 40)
    there = scene(keys, size=(30, 40), severity=2.0)
    made, mask = Yellowing().apply(x, Yellowing().sample(there), there)
    assert mask is None
    assert (made <= x).all()
    left = (made / x.clamp(min=1e-3)).mean((0, 2, 3))
    assert left[0] > left[1] > left[2]


def test_yellowing_is_deeper_at_the_edges():
    defect = Yellowing(unevenness=(0.0, 0.0), edges=(1.0, 1.0), amount=(0.6, 0.6))
    there = scene(torch.arange(60), size=(60, 80))
    made = defect.apply(torch.ones(60, 3, 60, 80), defect.sample(there), there)[0][:, 2].mean(0)
    assert made[0].mean() < made[20:40, 30:50].mean() - 0.05
    assert torch.allclose(made[25:35], made[30:31].expand(10, 80), rtol=0, atol=0.05)


def test_a_cast_agrees_with_numpy():
    x = torch.rand(2, 3, 5, 4)
    gain = torch.tensor([[1.0, 0.9, 0.8], [0.7, 1.0, 0.95]])
    lift = torch.tensor([[0.0, 0.05, 0.1], [0.1, 0.0, 0.02]])
    made = cast(x, gain=gain, lift=lift).numpy()
    for photo in range(2):
        for channel in range(3):
            low, high = float(lift[photo, channel]), float(gain[photo, channel])
            expected = low + (high - low) * x[photo, channel].numpy()
            assert np.allclose(made[photo, channel], expected, rtol=0, atol=1e-6)
    one = cast(x[:, :1], gain=gain, lift=lift).numpy()
    low, high = lift.numpy() @ LUMA, gain.numpy() @ LUMA
    expected = low[:, None, None, None] + (high - low)[:, None, None, None] * x[:, :1].numpy()
    assert np.allclose(one, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("hue", "strongest"), [(0.0, 0), (120.0, 1), (240.0, 2)])
def test_white_takes_the_hue_and_shadows_the_opposite_one(hue, strongest):
    defect = ColorCast(strength=(0.2, 0.2), hue_deg=(hue, hue), crossing=(0.5, 0.5))
    there = scene(torch.arange(3), size=(1, 2))
    x = torch.tensor([0.0, 1.0]).expand(3, 3, 1, 2)
    made, mask = defect.apply(x, defect.sample(there), there)
    assert mask is None
    shadows, lights = made[0, :, 0, 0], made[0, :, 0, 1]
    assert int(lights.argmax()) == strongest
    assert float(lights.max()) == pytest.approx(1.0, abs=1e-6)
    assert float(lights.min()) == pytest.approx(0.8, abs=1e-6)
    assert int(shadows.argmin()) == strongest
    assert float(shadows.max()) == pytest.approx(0.1, abs=1e-6)


def test_hues_are_drawn_from_their_range():
    defect = ColorCast(hue_deg=(0.0, 90.0))
    gain = defect.sample(scene(torch.arange(500), size=(8, 8)))["gain"]
    assert (gain.argmax(1) != 2).all()
    assert gain.min() >= 0.8
    every = ColorCast().sample(scene(torch.arange(500), size=(8, 8)))["gain"]
    assert set(every.argmax(1).tolist()) == {0, 1, 2}


def test_the_worst_cast_stays_in_range():
    there = scene(torch.arange(300), size=(1, 2), severity=4.0)
    defect = ColorCast(strength=(0.1, 0.6), crossing=(0.0, 1.0))
    drawn = defect.sample(there)
    assert (drawn["lift"] <= drawn["gain"]).all()
    made, _ = defect.apply(torch.tensor([0.0, 1.0]).expand(300, 3, 1, 2), drawn, there)
    assert made.min() >= 0
    assert made.max() <= 1


@pytest.mark.parametrize(("kind", "field"), [(Yellowing, "amount"), (ColorCast, "hue_deg")])
def test_ranges_are_checked(kind, field):
    with pytest.raises(ValueError, match=field):
        kind(**{field: (-1.0, 2.0)})
