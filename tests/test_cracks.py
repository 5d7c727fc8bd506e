"""Cracks: thin, light, in a net, in some parts of the print."""

import numpy as np
import pytest
import torch
from scenes import scene
from scipy.stats import norm
from skimage.measure import label

from agedphoto.synth.cracks import Cracks, crack, upper_quantile

SIZE = (160, 200)
COUNT = 8


def cracked(x: torch.Tensor, **changed: float) -> tuple[torch.Tensor, torch.Tensor]:
    values = {
        "opacity": 1.0, "area": 1.0, "cell_px": 40.0, "width_px": 2.0, "angle": 0.0,
        "stretch": 1.0, "light": 0.9, "warmth": 0.0,
    } | changed  # fmt: skip
    there = scene(torch.arange(len(x)), size=(x.shape[2], x.shape[3]))
    return crack(x, scene=there, **{k: torch.full((len(x),), v) for k, v in values.items()})


def gray(value: float = 0.4, count: int = COUNT) -> torch.Tensor:
    return torch.full((count, 1, *SIZE), value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_opacity_zero_is_the_identity(dtype):
    x = torch.rand(2, 3, *SIZE, dtype=torch.float64).to(dtype)
    aged, mask = cracked(x, opacity=0.0)
    assert torch.equal(aged, x)
    assert not mask.any()


def test_a_crack_is_light_with_a_dark_lip():
    x = gray()
    aged, mask = cracked(x)
    assert aged[mask].max() > 0.85
    lip = (aged < x - 0.02) & ~mask
    assert 0.01 < lip.float().mean() < 0.3
    assert aged.min() >= 0.4 * (1 - 0.28) - 1e-6
    # A lip lies next to a crack.
    near = torch.nn.functional.max_pool2d(mask.float(), 9, 1, 4) > 0
    assert near[lip].float().mean() > 0.8


def test_a_print_without_damaged_parts_has_no_cracks():
    assert cracked(gray(), area=0.0)[1].float().mean() < 0.001


def test_cracked_parts_are_as_large_as_asked_for():
    # In blocks of about the smaller pieces: with cracks or without; over many prints.
    shares = []
    for area in (0.2, 0.5, 0.8):
        mask = cracked(gray(count=40), area=area, cell_px=10.0)[1]
        shares.append(torch.nn.functional.max_pool2d(mask.float(), 6).mean().item())
    assert shares == pytest.approx([0.2, 0.5, 0.8], abs=0.12)
    assert shares == sorted(shares)


def test_wider_cracks_cover_more():
    covered = [cracked(gray(), width_px=w)[0].gt(0.7).float().mean() for w in (1.0, 2.0, 4.0)]
    assert covered[0] < covered[1] < covered[2] < 0.35


def test_smaller_pieces_have_more_cracks_between_them():
    fine, coarse = (cracked(gray(), cell_px=c)[1].float().mean() for c in (15.0, 60.0))
    assert fine > 1.5 * coarse


def test_cracks_make_a_net_and_not_specks():
    mask = cracked(gray(), cell_px=25.0)[1][:, 0].numpy()
    for one in mask:
        parts = np.asarray(label(one, connectivity=2))
        sizes = np.bincount(parts.ravel())[1:]
        # Half of what is cracked hangs together in pieces far longer than they are wide.
        assert np.sort(sizes)[::-1].cumsum()[:10][-1] > 0.5 * sizes.sum()


def test_stretched_pieces_are_longer_one_way():
    mask = cracked(gray(), stretch=3.0, cell_px=30.0)[1].float()
    # Cracks run along the rows: fewer changes along a row than down a column.
    along, down = (torch.diff(mask, dim=d).abs().mean() for d in (3, 2))
    assert down > 1.3 * along


def test_the_upper_quantile_is_that_of_a_normal_number():
    share = torch.tensor([0.0, 0.001, 0.05, 0.5, 0.9, 1.0])
    expected = norm.isf(share.double().numpy()).clip(-4, 4)
    assert np.allclose(upper_quantile(share), expected, atol=1e-4)


def test_severity_spreads_and_deepens_the_cracks():
    mild, bad = (
        Cracks().sample(scene(torch.arange(200), size=SIZE, severity=s)) for s in (0.3, 1.0)
    )
    for name in ("opacity", "area"):
        assert torch.allclose(mild[name], 0.3 * bad[name])
    assert torch.equal(mild["cell_px"], bad["cell_px"])


@pytest.mark.parametrize(
    "wrong", [{"opacity": (0.5, 1.5)}, {"cell_px": (2.0, 30.0)}, {"stretch": (0.5, 1.0)}]
)
def test_a_wrong_field_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Cracks(**wrong)
