"""Stains: absorption and lines by formulas in NumPy; and what all that lies on a print shares."""

import numpy as np
import pytest
import torch
from scenes import scene

from agedphoto.synth.defect import Defect
from agedphoto.synth.fingerprints import Fingerprints
from agedphoto.synth.foxing import Foxing
from agedphoto.synth.mirroring import SilverMirroring
from agedphoto.synth.mould import Mould
from agedphoto.synth.stains import (
    COFFEE,
    DEPOSIT,
    LUMA,
    TEA,
    WaterStains,
    changed,
    colours_between,
    cover_with,
    luma_of,
    stain,
    tide_line,
)
from agedphoto.synth.texture import MASK_LEVEL

KEYS = torch.tensor([3, -4, 2**62, 9])

GROWN: tuple[Defect, ...] = (
    WaterStains(num=(2.0, 3.0)),
    Foxing(per_mpx=(2000.0, 4000.0)),
    Mould(per_mpx=(300.0, 1000.0)),
    Fingerprints(num=(1.0, 2.0)),
    SilverMirroring(),
)


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def age(defect: Defect, x: torch.Tensor, severity: float = 1.0):
    there = scene(KEYS, size=(x.shape[2], x.shape[3]), op=3, severity=severity)
    return defect.apply(x, defect.sample(there), there)


@pytest.fixture(params=GROWN, ids=lambda defect: type(defect).__name__)
def defect(request) -> Defect:
    return request.param


def test_the_mask_is_where_a_channel_changes_enough(defect):
    x = torch.full((4, 3, 90, 70), 0.3)
    aged, mask = age(defect, x, severity=2.0)
    assert mask is not None
    by = np.abs(aged.numpy() - x.numpy()).max(1, keepdims=True)
    assert (mask.numpy() == (by >= MASK_LEVEL)).all()
    assert mask.any()
    assert not mask.all()


def test_severity_makes_more_of_it(defect):
    x = torch.full((4, 3, 128, 128), 0.4)
    weak, strong = (age(defect, x, severity=severity)[0] for severity in (0.3, 2.0))
    assert (strong - x).abs().mean() > 1.5 * (weak - x).abs().mean()


def test_one_channel_gets_the_luma_of_the_colours(defect):
    gray = pictures(4, 1, 60, 60)
    one, _ = age(defect, gray)
    three, _ = age(defect, gray.expand(-1, 3, -1, -1).contiguous())
    luma = np.tensordot(three.numpy(), LUMA, axes=(1, 0))
    assert np.allclose(one[:, 0].numpy(), luma, rtol=0, atol=1e-5)


def test_a_stain_absorbs_light_as_beer_and_lambert_say():
    x, density = pictures(2, 3, 9, 8), 3 * pictures(2, 1, 9, 8, seed=1)
    absorb = torch.tensor([TEA, COFFEE])
    passing = np.exp(-absorb.numpy()[:, :, None, None] * density.numpy())
    deposit = np.array(DEPOSIT)[None, :, None, None]
    expected = x.numpy() * passing + deposit * (1 - passing)
    assert np.allclose(stain(x, density, absorb=absorb).numpy(), expected, rtol=0, atol=1e-6)
    assert torch.equal(stain(x, 0 * density, absorb=absorb), x)
    thick = stain(x, 0 * density + 100, absorb=absorb)
    assert np.allclose(thick.numpy(), np.broadcast_to(deposit, x.shape), rtol=0, atol=1e-6)


def test_a_cover_goes_from_the_picture_to_its_colour():
    x, colour = pictures(2, 3, 4, 5), pictures(2, 3, seed=2)
    for share in (0.0, 0.3, 1.0):
        made = cover_with(x, torch.full((2, 1, 4, 5), share), colour=colour)
        expected = (1 - share) * x + share * colour[:, :, None, None]
        assert torch.allclose(made, expected, rtol=0, atol=1e-6)
    assert torch.equal(cover_with(x, torch.zeros(2, 1, 4, 5), colour=colour), x)


def test_a_tide_line_is_sharp_outside_and_fades_inside():
    depth = torch.linspace(-20, 60, 801)[None, None, None]
    rim, body, rim_px = torch.tensor([0.8]), torch.tensor([0.2]), torch.tensor([5.0])
    line = tide_line(depth, rim=rim, body=body, rim_px=rim_px, edge_px=2.0)[0, 0, 0].numpy()
    at = depth[0, 0, 0].numpy()
    assert (line[at <= -1] == 0).all()
    inside = at >= 1
    expected = 0.2 + 0.6 * np.exp(-at[inside] / 5)
    assert np.allclose(line[inside], expected, rtol=0, atol=1e-5)
    assert abs(at[line.argmax()] - 1) < 0.2
    assert line.max() > 3 * line[-1]


def test_stains_are_as_many_and_as_large_as_asked():
    defect = WaterStains(num=(1.5, 2.5), radius_px=(50.0, 400.0), rings=0.25)
    drawn = defect.sample(scene(torch.arange(4000), size=(512, 512), op=1))
    there = drawn["density"] > 0
    assert there.float().sum(1).mean() == pytest.approx(2.0, abs=0.05)
    assert drawn["radius_px"].log().mean() == pytest.approx(np.log(50 * 400) / 2, abs=0.03)
    assert drawn["radius_px"].min() >= 50
    assert drawn["radius_px"].max() <= 400
    # Rings are round, and nearly empty.
    ring = (drawn["stretch"].log().abs() <= 0.015) & (drawn["body"] <= 0.061 * drawn["density"])
    assert ring[there].float().mean() == pytest.approx(0.25, abs=0.03)


def test_lengths_grow_with_the_scan():
    defect, small, large = WaterStains(), (512, 1024), (2048, 4096)
    one = defect.sample(scene(KEYS, size=small, op=1))
    two = defect.sample(scene(KEYS, size=large, op=1))
    for name in ("radius_px", "column", "row", "wobble_px", "rim_px", "inner_px"):
        assert torch.allclose(two[name], 4 * one[name], rtol=1e-4)


def test_the_line_is_the_darkest_part_of_a_stain():
    x, defect = torch.ones(4, 3, 300, 300), WaterStains(num=(3.0, 3.0), rings=0.0)
    aged, _ = age(defect, x)
    blue = aged[:, 2]
    assert (blue <= aged[:, 0] + 1e-6).all()  # brown
    for picture in blue.flatten(1):
        stained = picture[picture < 0.99]
        assert len(stained) > 100
        assert stained.min() < stained.median() - 0.1


def test_colours_and_luma():
    assert luma_of((1.0, 1.0, 1.0)) == pytest.approx(1.0)
    mixed = colours_between(torch.tensor([0.0, 0.5, 1.0]), TEA, COFFEE)
    expected = np.stack([TEA, (np.array(TEA) + np.array(COFFEE)) / 2, COFFEE])
    assert np.allclose(mixed.numpy(), expected, atol=1e-6)
    x = torch.zeros(1, 3, 1, 2)
    aged = x.clone()
    aged[0, 1, 0, 1] = 0.06
    assert changed(x, aged).tolist() == [[[[False, True]]]]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (WaterStains, {"num": (0.0, 4.0)}),
        (WaterStains, {"radius_px": (0.0, 4.0)}),
        (WaterStains, {"density": (2.0, 1.0)}),
        (WaterStains, {"rings": 1.5}),
        (Foxing, {"per_mpx": (0.0, 5.0)}),
        (Foxing, {"radius_px": (1.0, 99.0)}),
        (Foxing, {"density": (-1.0, 1.0)}),
        (Foxing, {"unevenness": (0.0, 9.0)}),
        (Mould, {"per_mpx": (0.0, 5.0)}),
        (Mould, {"specks_per_mpx": (0.0, 5.0)}),
        (Mould, {"radius_px": (1.0, 99.0)}),
        (Mould, {"opacity": (0.0, 1.1)}),
        (Mould, {"bleaching": -0.1}),
        (Mould, {"unevenness": (0.0, 9.0)}),
        (Fingerprints, {"num": (0.0, 3.0)}),
        (Fingerprints, {"size_px": (0.0, 3.0)}),
        (Fingerprints, {"period_px": (0.0, 3.0)}),
        (Fingerprints, {"light": (0.0, 3.0)}),
        (Fingerprints, {"dark": (0.0, 3.0)}),
        (Fingerprints, {"darkened": 2.0}),
        (SilverMirroring, {"sheen": (0.0, 3.0)}),
        (SilverMirroring, {"width_px": (0.0, 3.0)}),
        (SilverMirroring, {"inside": (0.0, 3.0)}),
    ],
)
def test_mistakes_are_named(kind, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        kind(**wrong)
