"""Halftone: dots of the right area, at the right angle and distance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agedphoto.synth.halftone import Halftone, dot_ranks, halftone, ink_where
from agedphoto.synth.scene import Scene


def scene(
    batch: int = 3, size: tuple[int, int] = (60, 70), severity: float = 1.0, **where
) -> Scene:
    keys = torch.tensor([3, -4, 2**62, 5])[:batch]
    return Scene(keys=keys, op=1, size=size, severity=torch.full((batch,), severity), **where)


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def printed(x: torch.Tensor, *, period_px: float, tilt_deg: float = 0.0, paper: float = 1.0):
    B, _, H, W = x.shape
    here, each = scene(), torch.ones(B)
    return halftone(
        x,
        period_px=each * period_px,
        tilt_deg=each * tilt_deg,
        phase=pictures(B, 8),
        ink=each * 0,
        paper=each * paper,
        blend=each,
        rows=here.rows(H),
        columns=here.columns(W),
    )


def ranks(period_px: float, angle_deg: float, size: int = 256) -> torch.Tensor:
    return dot_ranks(
        scene().rows(size),
        scene().columns(size),
        period_px=torch.tensor([period_px]),
        angle_deg=torch.tensor([angle_deg]),
        phase=torch.tensor([[0.2, 0.7]]),
    )[0, 0]


def test_ranks_are_spread_evenly():
    # Of the angles and periods, some that no whole number of pixels repeats.
    for period, angle in [(3.0, 45.0), (5.3, 15.0), (8.0, 75.0)]:
        sorted_ranks = ranks(period, angle).flatten().sort().values
        even = (torch.arange(len(sorted_ranks)) + 0.5) / len(sorted_ranks)
        assert (sorted_ranks - even).abs().max() < 0.006


def test_ranks_are_the_area_that_is_nearer_to_the_middle_of_a_dot():
    # Counted on a fine grid of one cell in place of the elliptic integral.
    t = (np.arange(1500) + 0.5) / 1500
    s = 0.5 * (np.cos(2 * np.pi * t)[:, None] + np.cos(2 * np.pi * t)[None, :])
    period = 37.0
    ours = dot_ranks(
        scene().rows(38),
        scene().columns(38),
        period_px=torch.tensor([period]),
        angle_deg=torch.tensor([0.0]),
        phase=torch.zeros(1, 2),
    )[0, 0].numpy()
    along = np.cos(2 * np.pi * np.arange(38) / period)
    for row, column in [(0, 0), (3, 5), (9, 9), (18, 1), (18, 18), (30, 7)]:
        expected = (s > 0.5 * (along[row] + along[column])).mean()
        assert ours[row, column] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("period_px", [3.0, 4.7, 8.0])
def test_the_mean_of_a_flat_patch_is_its_tone(channels, period_px):
    tones = torch.tensor([0.0, 0.01, 0.04, 0.1, 0.25, 0.5, 0.7, 0.9, 0.97, 0.995, 1.0])
    x = tones[:, None, None, None].expand(-1, channels, 240, 240)
    mean = printed(x, period_px=period_px, tilt_deg=3.0).mean((2, 3))
    assert (mean - tones[:, None]).abs().max() < 0.004


def test_the_mean_colour_stays():
    colours = pictures(12, 3)
    x = colours[:, :, None, None].expand(-1, -1, 240, 240)
    assert (printed(x, period_px=4.0, tilt_deg=2.0).mean((2, 3)) - colours).abs().max() < 0.01


def test_white_is_paper_and_black_is_ink():
    x = torch.tensor([1.0, 0.0])[:, None, None, None].expand(-1, 3, 32, 32)
    dots = printed(x, period_px=5.0, paper=0.9)
    assert (dots[0] == 0.9).all()
    assert (dots[1] == 0).all()


def test_ink_covers_what_it_should_with_soft_edges():
    place = ranks(6.0, 45.0).double()[None, None]
    for coverage in (0.0, 0.003, 0.02, 0.3, 0.5, 0.8, 0.99, 1.0):
        cover = torch.full((1, 1, 1, 1), coverage, dtype=torch.float64)
        ink = ink_where(place, cover, period_px=torch.tensor([6.0]).double())
        assert ink.mean() == pytest.approx(coverage, abs=0.003)
    half = ink_where(place, torch.full((1, 1, 1, 1), 0.5).double(), period_px=torch.tensor([6.0]))
    soft = ((half > 0.02) & (half < 0.98)).double().mean()
    # Edges are 4 sqrt(1/2) periods long and half a pixel wide.
    assert soft == pytest.approx(0.5 * 2.83 / 6, rel=0.3)


@pytest.mark.parametrize(("period_px", "angle_deg"), [(4.0, 45.0), (6.0, 15.0), (5.0, 0.0)])
def test_dots_lie_at_their_angle_and_distance(period_px, angle_deg):
    spectrum = np.abs(np.fft.fft2(ranks(period_px, angle_deg).numpy() - 0.5))
    peak = np.unravel_index(spectrum.argmax(), spectrum.shape)
    down, right = (np.fft.fftfreq(256)[i] for i in peak)
    assert np.hypot(down, right) == pytest.approx(1 / period_px, rel=0.02)
    turned = np.degrees(np.arctan2(down, right)) % 90
    assert min(abs(turned - angle_deg), 90 - abs(turned - angle_deg)) < 2


def test_no_severity_is_identity():
    here = scene(severity=0.0)
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        for channels in (1, 3):
            x = pictures(3, channels, 9, 11).to(dtype)
            aged, mask = Halftone().apply(x, Halftone().sample(here), here)
            assert torch.equal(aged, x)
            assert aged.dtype == dtype
            assert mask is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_has_the_dots_of_the_whole(channels):
    x, here = pictures(3, channels, 60, 70), scene()
    params = Halftone().sample(here)
    expected = Halftone().apply(x, params, here)[0][..., 16:50, 32:61]
    part = Halftone().apply(x[..., 16:50, 32:61], params, replace(here, top=16, left=32))[0]
    assert torch.allclose(part, expected, atol=1e-5)


def test_a_photograph_does_not_depend_on_the_others():
    x, here = pictures(3, 3, 13, 15), scene()
    aged = Halftone().apply(x, Halftone().sample(here), here)[0]
    few = replace(here, keys=here.keys[[2, 0]], severity=here.severity[[2, 0]])
    assert torch.equal(Halftone().apply(x[[2, 0]], Halftone().sample(few), few)[0], aged[[2, 0]])


def test_finer_scans_have_larger_dots():
    coarse = Halftone().sample(scene())["period_px"]
    assert torch.allclose(Halftone().sample(scene(size=(4096, 9)))["period_px"], 4 * coarse)


def test_wrong_ranges_are_refused_by_name():
    for name, value in [
        ("period_px", (1.0, 4.0)),
        ("blend", (0.5, 2.0)),
        ("tilt_deg", (0.0, 90.0)),
    ]:
        with pytest.raises(ValueError, match=f"{name} must be a pair"):
            Halftone(**{name: value})
