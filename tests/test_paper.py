"""Paper: a relief of the contrast asked for, lit from one side, and the same in every window."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agedphoto.synth.paper import PaperFibre, felt, shade, slope_towards, weave
from agedphoto.synth.scene import Scene


def scene(
    batch: int = 3, size: tuple[int, int] = (60, 70), severity: float = 1.0, **where
) -> Scene:
    keys = torch.tensor([3, -4, 2**62, 5])[:batch]
    return Scene(keys=keys, op=1, size=size, severity=torch.full((batch,), severity), **where)


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_no_severity_is_identity():
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        x, here = pictures(3, 3, 9, 11).to(dtype), scene(severity=0.0)
        aged, mask = PaperFibre().apply(x, PaperFibre().sample(here), here)
        assert torch.equal(aged, x)
        assert aged.dtype == dtype
        assert mask is None


@pytest.mark.parametrize("woven", [0.0, 1.0])
def test_relief_is_the_contrast_of_the_paper(woven):
    here, gray = scene(size=(256, 256)), torch.full((3, 1, 256, 256), 0.5)
    defect = PaperFibre(relief=(0.04, 0.04), woven=woven)
    aged = defect.apply(gray, defect.sample(here), here)[0] / 0.5
    assert aged.std((1, 2, 3)).tolist() == pytest.approx([0.04] * 3, rel=0.3)
    assert aged.mean((1, 2, 3)).tolist() == pytest.approx([0.96] * 3, abs=0.004)


def test_slopes_are_those_of_numpy():
    height, angle = pictures(2, 1, 12, 13), torch.tensor([0.3, 4.0])
    slope = slope_towards(height, angle=angle).numpy()
    for one, ours, a in zip(height[:, 0].numpy(), slope[:, 0], angle.numpy(), strict=True):
        down, right = np.gradient(one)
        expected = (np.cos(a) * right + np.sin(a) * down)[1:-1, 1:-1]
        assert np.allclose(ours, expected, atol=1e-6)


def test_what_faces_the_lamp_is_light():
    hill = torch.linspace(0, 5, 12).expand(1, 1, 12, 12)
    x = torch.full((1, 1, 10, 10), 0.5)
    towards = shade(x, slope_towards(hill, angle=torch.zeros(1)), relief=torch.tensor([0.1]))
    away = shade(x, slope_towards(hill, angle=torch.full((1,), np.pi)), relief=torch.tensor([0.1]))
    assert (towards > away).all()


def test_black_has_no_relief():
    x = torch.zeros(3, 1, 20, 20)
    assert torch.equal(PaperFibre().apply(x, PaperFibre().sample(scene()), scene())[0], x)


def test_threads_lie_at_their_distance():
    for thread in (4.0, 7.0):
        one = scene(1, size=(256, 256))
        height = weave(one, 256, 256, period_px=torch.tensor([thread]), angle=torch.zeros(1))[0, 0]
        spectrum = (height - height.mean()).numpy()
        spectrum = np.abs(np.fft.fft2(spectrum * np.hanning(256) * np.hanning(256)[:, None]))
        frequency = np.abs(np.fft.fftfreq(256))
        along = spectrum[:6].sum(0)
        assert frequency[along[:128].argmax()] == pytest.approx(1 / thread, rel=0.1)


def test_threads_go_over_and_under_in_turns():
    one = scene(1, size=(128, 128))
    height = weave(one, 128, 128, period_px=torch.tensor([8.0]), angle=torch.zeros(1))[0, 0].numpy()

    def alike(down: int, right: int) -> float:
        a, b = height[: 120 - down, : 120 - right], height[down:120, right:120]
        return float(np.corrcoef(a.flatten(), b.flatten())[0, 1])

    # The next crossing has the other thread on top, the one beside that the same again.
    assert alike(8, 8) > alike(8, 0) + 0.05
    assert alike(8, 8) > alike(0, 8) + 0.05


@pytest.mark.parametrize("woven", [0.0, 0.5, 1.0])
def test_a_window_has_the_paper_of_the_whole(woven):
    x, here, defect = pictures(3, 1, 100, 120), scene(size=(100, 120)), PaperFibre(woven=woven)
    params = defect.sample(here)
    expected = defect.apply(x, params, here)[0][..., 32:80, 48:99]
    part = defect.apply(x[..., 32:80, 48:99], params, replace(here, top=32, left=48))[0]
    assert torch.allclose(part, expected, atol=1e-5)


def test_a_photograph_does_not_depend_on_the_others():
    x, here = pictures(3, 3, 13, 15), scene()
    aged = PaperFibre().apply(x, PaperFibre().sample(here), here)[0]
    few = replace(here, keys=here.keys[[2, 0]], severity=here.severity[[2, 0]])
    again = PaperFibre().apply(x[[2, 0]], PaperFibre().sample(few), few)[0]
    assert torch.allclose(again, aged[[2, 0]], atol=1e-6)


def test_the_share_of_weaves_is_as_asked():
    many = replace(scene(1), keys=torch.arange(500), severity=torch.ones(500))
    share = PaperFibre(woven=0.3).sample(many)["woven"].float().mean()
    assert share == pytest.approx(0.3, abs=0.06)


def test_finer_scans_show_the_same_paper_larger():
    small = felt(scene(1, size=(1024, 1024)), 64, 64)
    large = felt(scene(1, size=(2048, 2048)), 128, 128)
    assert torch.allclose(large[..., ::2, ::2], 2 * small, atol=1e-3)


def test_wrong_fields_are_refused_by_name():
    with pytest.raises(ValueError, match="relief must be a pair"):
        PaperFibre(relief=(0.0, 0.9))
    with pytest.raises(ValueError, match="thread_px must be a pair"):
        PaperFibre(thread_px=(1.0, 9.0))
    with pytest.raises(ValueError, match="woven must be a share"):
        PaperFibre(woven=2.0)
