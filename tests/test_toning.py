"""Toning: curves of luma, each kind with its own hue in highlights and shadows."""

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.toning import TONES, Toning, split_tone

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
RAMP = torch.linspace(0, 1, 256).view(1, 1, 1, 256)


def ratios(name: str) -> dict[str, torch.Tensor]:
    light, dark = torch.tensor(TONES[name], dtype=torch.float32) / 100
    return {"highlights": light[None], "shadows": dark[None]}


def toned_ramp(name: str, amount: float = 1.0) -> torch.Tensor:
    return split_tone(RAMP, amount=torch.tensor([amount]), **ratios(name))[0, :, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_amount_zero_returns_the_picture_in_three_channels(dtype, channels, device):
    x = torch.rand(2, channels, 9, 7).to(device, dtype)
    two = {name: value.expand(2, 3).to(device) for name, value in ratios("sepia").items()}
    made = split_tone(x, amount=torch.zeros(2, device=device), **two)
    assert torch.equal(made, x.expand(2, 3, 9, 7))
    assert made.dtype == dtype


@pytest.mark.parametrize("name", list(TONES))
def test_paper_stays_white_and_black_stays_black(name):
    toned = toned_ramp(name)
    assert torch.equal(toned[:, 0], torch.zeros(3))
    assert torch.equal(toned[:, -1], torch.ones(3))


@pytest.mark.parametrize("name", list(TONES))
def test_lighter_stays_lighter_and_luma_nearly_as_it_was(name):
    for amount in (0.3, 1.0):
        toned = toned_ramp(name, amount)
        assert (toned.diff(dim=1) > 0).all()
        luma = torch.tensor([0.299, 0.587, 0.114]) @ toned
        assert (luma - RAMP.flatten()).abs().max() < 0.035


def test_curves_agree_with_densities_computed_one_by_one():
    light, dark = np.array(TONES["albumen"]) / 100
    toned = toned_ramp("albumen", 0.7).double().numpy()
    for level in (1, 40, 128, 200, 254):
        luma = level / 255
        density = -np.log10(luma)
        ratio = 1 + 0.7 * (luma * light + (1 - luma) * dark - 1)
        assert toned[:, level] == pytest.approx(10.0 ** (-density * ratio), abs=1e-6)


def test_each_kind_has_its_hue():
    def warmth(name: str, level: int) -> float:
        red, _, blue = toned_ramp(name)[:, level].tolist()
        return red - blue

    assert warmth("sepia", 128) > 0.2
    assert warmth("sepia", 128) > warmth("albumen", 128) > warmth("warm", 128) > 0.03
    assert warmth("gold", 128) < -0.03
    # Split: warm highlights, nearly neutral shadows.
    assert warmth("split", 190) > 3 * abs(warmth("split", 20))
    # Selenium turns shadows to aubergine, green weakest, and leaves highlights alone.
    red, green, blue = toned_ramp("selenium")[:, 60].tolist()
    assert green < min(red, blue)
    assert np.ptp(toned_ramp("selenium")[:, 240].numpy()) < 0.005


def test_a_warm_print_is_as_warm_as_scans_of_such_prints():
    # Mean red - luma and blue - luma of middle tones in a scan of a 1936 print: 0.015, -0.018.
    toned = toned_ramp("warm", 0.7)[:, 100:160].mean(1)
    luma = torch.tensor([0.299, 0.587, 0.114]) @ toned
    assert float(toned[0] - luma) == pytest.approx(0.015, abs=0.006)
    assert float(toned[2] - luma) == pytest.approx(-0.018, abs=0.006)


def test_only_luma_of_a_colour_picture_counts():
    x = torch.rand(1, 3, 8, 8)
    luma = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * x[0]).sum(0)[None, None]
    amount = torch.ones(1)
    from_colour = split_tone(x, amount=amount, **ratios("sepia"))
    assert torch.allclose(
        from_colour, split_tone(luma, amount=amount, **ratios("sepia")), rtol=0, atol=1e-6
    )


def test_every_kind_is_drawn_equally_often_and_carries_its_ratios():
    keys = torch.arange(6000)
    drawn = Toning().sample(scene(keys, size=(8, 8)))
    seen = torch.cat([drawn["highlights"], drawn["shadows"]], 1)
    for light, dark in TONES.values():
        ratio = torch.tensor([*light, *dark]) / 100
        count = int((seen == ratio).all(1).sum())
        assert abs(count - 1000) < 150
    assert drawn["amount"].min() >= 0.4
    assert drawn["amount"].max() <= 1.0


def test_severity_zero_leaves_alone_and_more_of_it_tones_more():
    keys = torch.arange(50)
    amounts = [
        Toning().sample(scene(keys, size=(8, 8), severity=s))["amount"] for s in (0.0, 0.5, 1.0)
    ]
    assert torch.equal(amounts[0], torch.zeros(50))
    assert (amounts[1] < amounts[2]).all()


@pytest.mark.parametrize("kinds", [(), ("sepia", "cyanotype")])
def test_unknown_kinds_are_named(kinds):
    with pytest.raises(ValueError, match="kinds must be a tuple of at least one of sepia"):
        Toning(kinds=kinds)


def test_toning_hides_nothing_and_keeps_the_memory_format():
    x = torch.rand(2, 3, 6, 5).contiguous(memory_format=torch.channels_last)
    there = scene(torch.arange(2), size=(6, 5))
    made, mask = Toning().apply(x, Toning().sample(there), there)
    assert mask is None
    assert made.is_contiguous(memory_format=torch.channels_last)
