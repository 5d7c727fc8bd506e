"""Dust: sizes and clustering as SciPy measures them; and the laws of all marks on film."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from agedphoto.synth.dirt import Dirt
from agedphoto.synth.dust import Dust, Strewn, cover, dust_map, gather_first, normals, strew
from agedphoto.synth.hairs import Hairs
from agedphoto.synth.scene import Scene
from agedphoto.synth.scratches import Scratches
from agedphoto.synth.texture import MASK_LEVEL

MARKS = [
    Dust(density=(1.0, 3.0), dark=0.5),
    Dirt(density=(1.0, 3.0), dark=0.5),
    Hairs(density=(1.0, 5.0), dark=0.5),
    Scratches(density=(2.0, 4.0), dark=0.4, coloured=0.5),
]
marks = pytest.mark.parametrize("defect", MARKS, ids=lambda defect: type(defect).__name__)


def scene_of(
    size: tuple[int, int], count: int = 4, *, severity: float = 1.0, device="cpu"
) -> Scene:
    keys = torch.arange(count, device=device) * 7919 - 3
    return Scene(keys=keys, op=2, size=size, severity=torch.full((count,), severity, device=device))


def pictures(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, channels, height, width), generator=generator)


def even(scene: Scene, *, film_px: float = 1.0, density: float = 3.0) -> dict[str, Any]:
    """Numbers for a map, alike for all photographs, enlarged so that shapes can be measured."""
    numbers = alike(
        len(scene.keys), density=density, film_px=film_px, opacity=0.5, soft_px=1.0, clustering=0.0
    )
    return numbers | {"most_film_px": film_px}


def alike(count: int, **numbers: float) -> dict[str, Any]:
    """The same numbers for each of some photographs."""
    return {name: torch.full((count,), value) for name, value in numbers.items()}


def labelled(marked: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected marks, diagonal neighbours among them; return how many there are."""
    labels: Any = ndimage.label(marked, np.ones((3, 3)))
    return labels[0], labels[1]


def areas(layer: torch.Tensor) -> np.ndarray:
    """Areas of connected marks, each to half of its own peak."""
    found = []
    for sheet in layer[:, 0].numpy():
        labels, count = labelled(sheet > 0.03)
        numbers = np.arange(1, count + 1)
        peaks = np.concatenate([[np.inf], ndimage.maximum(sheet, labels, numbers)])
        found.append(ndimage.sum_labels(sheet >= 0.5 * peaks[labels], labels, numbers))
    return np.concatenate(found)


# The laws.


@marks
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_severity_is_identity(defect, dtype, channels):
    x, scene = pictures(3, channels, 40, 60).to(dtype), scene_of((40, 60), 3, severity=0.0)
    aged, mask = defect.apply(x, defect.sample(scene), scene)
    assert torch.equal(aged, x)
    assert not mask.any()


@marks
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_range_type_and_memory_format_are_kept(defect, dtype, channels, device):
    x = (
        pictures(4, channels, 96, 128)
        .to(device, dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    before, scene = x.clone(), scene_of((96, 128), device=device)
    aged, mask = defect.apply(x, defect.sample(scene), scene)
    assert (aged.dtype, aged.shape, aged.device) == (dtype, x.shape, x.device)
    assert aged.is_contiguous(memory_format=torch.channels_last)
    assert mask.shape == (4, 1, 96, 128)
    assert aged.min() >= 0
    assert aged.max() <= 1
    assert torch.equal(x, before)
    assert not torch.equal(aged, x)


@marks
def test_a_photograph_does_not_depend_on_the_others_and_replays(defect):
    x, scene = pictures(5, 3, 120, 90), scene_of((120, 90), 5)
    params = defect.sample(scene)
    aged, mask = defect.apply(x, params, scene)
    again, _ = defect.apply(x, params, scene)
    assert torch.equal(aged, again)
    some = [3, 1]
    alone = replace(scene, keys=scene.keys[some], severity=scene.severity[some])
    drawn = defect.sample(alone)
    assert all(torch.equal(drawn[name], params[name][some]) for name in params)
    part, part_mask = defect.apply(x[some], drawn, alone)
    assert torch.equal(part, aged[some])
    assert torch.equal(part_mask, mask[some])


@marks
@pytest.mark.parametrize("size", [(300, 420), (1500, 2100)])
def test_a_window_is_what_the_whole_has_there(defect, size):
    x, scene = pictures(1, 3, *size), scene_of(size, 1, severity=2.0)
    params = defect.sample(scene)
    whole, mask = defect.apply(x, params, scene)
    for top, left, height, width in (
        (0, 0, 64, 80),
        (112, 160, 130, 97),
        (size[0] - 50, 32, 50, 9),
    ):
        rows, columns = slice(top, top + height), slice(left, left + width)
        part, part_mask = defect.apply(
            x[:, :, rows, columns], params, replace(scene, top=top, left=left)
        )
        torch.testing.assert_close(part, whole[:, :, rows, columns], rtol=0, atol=1e-4)
        assert (part_mask == mask[:, :, rows, columns]).float().mean() >= 0.999


@marks
def test_the_mask_is_where_the_picture_is_hidden(defect):
    scene = scene_of((150, 200), 8)
    params = defect.sample(scene)
    black, mask = defect.apply(torch.zeros(8, 1, 150, 200), params, scene)
    white, _ = defect.apply(torch.ones(8, 1, 150, 200), params, scene)
    # Light marks show on black only, dark ones on white only.
    changed = black + (1 - white)
    assert (changed[mask] > 0.5 * MASK_LEVEL).all()
    assert (changed[~mask] < MASK_LEVEL + 1e-6).all()
    dark = params["dark"]
    assert dark.any()
    assert not dark.all()
    assert (black[dark] == 0).all()
    assert (white[~dark] == 1).all()


@marks
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (23, 2)])
def test_tiny_pictures(defect, size):
    scene = scene_of(size, 2)
    aged, _ = defect.apply(pictures(2, 3, *size), defect.sample(scene), scene)
    assert aged.shape == (2, 3, *size)


@marks
def test_more_severity_means_more_marks(defect):
    share = []
    for severity in (0.3, 1.0, 2.5):
        scene = scene_of((256, 256), 24, severity=severity)
        _, mask = defect.apply(torch.zeros(24, 1, 256, 256), defect.sample(scene), scene)
        share.append(mask.float().mean().item())
    assert share[0] < 0.6 * share[1]
    assert share[1] < 0.8 * share[2]


@marks
@pytest.mark.gpu
def test_cpu_and_gpu_agree(defect):
    x, here, there = (
        pictures(4, 3, 256, 300),
        scene_of((256, 300)),
        scene_of((256, 300), device="cuda"),
    )
    aged, mask = defect.apply(x, defect.sample(here), here)
    same, same_mask = defect.apply(x.cuda(), defect.sample(there), there)
    assert ((aged - same.cpu()).abs() <= 1e-5).float().mean() >= 0.9999
    assert (mask == same_mask.cpu()).float().mean() >= 0.999


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"density": (0.0, 9.0)}, "density must be a pair"),
        ({"film_px": (0.0, 0.3)}, "film_px must be a pair"),
        ({"opacity": (0.5, 1.5)}, "opacity must be a pair"),
        ({"soft_px": (2.0, 1.0)}, "soft_px must be a pair"),
        ({"dark": 1.5}, "dark must be a share from 0 to 1, got 1.5"),
    ],
)
def test_bad_fields_are_named_with_their_value(wrong, words):
    for kind in (Dust, Dirt, Hairs, Scratches):
        with pytest.raises(ValueError, match=words):
            kind(**wrong)


def test_fine_dust_is_checked():
    with pytest.raises(ValueError, match=r"fine must be from 0 to 4, got 5\.0"):
        Dust(fine=5.0)
    assert issubclass(Dust, Strewn)


# Dust.


def test_dust_has_the_size_and_number_of_film_dust():
    scene = scene_of((512, 512), 10)
    found = areas(dust_map(scene, 512, 512, **even(scene), fine=0.0))
    assert np.median(found) == pytest.approx(56, rel=0.15)
    assert np.percentile(found, 95) == pytest.approx(130, rel=0.15)
    # 763 a frame of 5000 x 3420, less what lies on top of each other.
    assert len(found) == pytest.approx(3 * 763 * 10 * 512**2 / (5000 * 3420), rel=0.1)


def test_fine_dust_goes_on_below():
    scene = scene_of((512, 512), 4)
    given = even(scene)
    more = areas(dust_map(scene, 512, 512, **given))
    less = areas(dust_map(scene, 512, 512, **given, fine=0.0))
    assert (more < 39).sum() > 3 * (less < 39).sum()
    assert (more > 50).sum() == pytest.approx((less > 50).sum(), rel=0.15)


def test_most_specks_are_dim_and_few_are_opaque():
    scene = scene_of((400, 400), 8)
    layer = dust_map(scene, 400, 400, **(even(scene) | alike(8, opacity=0.35)))
    peaks = []
    for sheet in layer[:, 0].numpy():
        labels, count = labelled(sheet > 0.03)
        peaks.append(ndimage.maximum(sheet, labels, np.arange(1, count + 1)))
    peaks = np.concatenate(peaks)
    assert np.median(peaks) == pytest.approx(0.35, rel=0.15)
    assert 0.005 < (peaks > 0.95).mean() < 0.1


@pytest.mark.parametrize(("clustering", "least", "most"), [(0.0, 0.8, 1.25), (0.7, 1.5, 6.0)])
def test_dust_gathers_as_asked(clustering, least, most):
    scene = scene_of((1024, 1024), 6)
    placed, there = strew(
        scene, 1024, 1024, per_frame=torch.full((6,), 763.0), film_px=torch.full((6,), 0.3),
        clustering=torch.full((6,), clustering), per_cell=20, most_wanted=10.0, num_draws=4,
        reach_px=4.0, plane=0,
    )  # fmt: skip
    # In squares of 256 film pixels: an even spread has the variance of its mean.
    ratios, means = [], []
    for x, y, kept in zip(placed.x, placed.y, there, strict=True):
        counts, _, _ = np.histogram2d(
            x[kept].numpy(), y[kept].numpy(), bins=13, range=[[0, 998.4]] * 2
        )
        ratios.append(counts.var() / counts.mean())
        means.append(counts.mean())
    assert least < np.mean(ratios) < most
    assert np.mean(means) == pytest.approx(763 * 256**2 / (5000 * 3420), rel=0.2)


# The tools.


@pytest.mark.parametrize("most", [1, 5, 40, 100])
def test_the_first_that_are_there_are_found(most, device):
    there = torch.rand((6, 40), generator=torch.Generator().manual_seed(2)) < 0.3
    index, kept = gather_first(there.to(device), most)
    for row, numbers, valid in zip(there, index.cpu(), kept.cpu(), strict=True):
        assert numbers[valid].tolist() == np.flatnonzero(row.numpy())[:most].tolist()


def test_normals_are_normal():
    u = torch.rand((20000, 6), generator=torch.Generator().manual_seed(3))
    n = normals(u)
    assert n.mean(0).abs().max() < 0.03
    assert (n.std(0) - 1).abs().max() < 0.03
    assert (torch.corrcoef(n.T) - torch.eye(6)).abs().max() < 0.04
    assert torch.isfinite(normals(torch.zeros(1, 2))).all()


def test_cover_moves_towards_white_or_black():
    x, layer = pictures(2, 3, 5, 6), pictures(2, 1, 5, 6)
    made = cover(x, layer, dark=torch.tensor([False, True])).numpy()
    a, b = x.numpy(), layer.numpy()
    np.testing.assert_allclose(made[0], 1 - (1 - a[0]) * (1 - b[0]), atol=1e-6)
    np.testing.assert_allclose(made[1], a[1] * (1 - b[1]), atol=1e-6)
