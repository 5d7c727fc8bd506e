"""Mould: colonies with threads, in clusters; nothing grows where none is near."""

import numpy as np
import pytest
import torch
from scenes import scene
from scipy import ndimage

from agedphoto.synth.mould import BLEACHED, FAR, Mould, colony, mould_cover


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_nothing_grows_where_no_colony_is_near():
    lobes, threads = noise(2, 1, 50, 50, seed=0), noise(2, 1, 50, 50, seed=1)
    grown = colony(torch.zeros(2, 1, 50, 50), lobes, threads, hairy=torch.ones(2))
    assert torch.equal(grown, torch.zeros_like(grown))


def test_bodies_are_dense_and_threads_thin_out():
    lobes, other = noise(1, 1, 400, 400, seed=0), noise(1, 1, 400, 400, seed=1)

    def share(near: float, hairy: float) -> float:
        field = torch.full((1, 1, 400, 400), near)
        grown = colony(field, lobes, other, hairy=torch.tensor([hairy]))
        assert grown.min() >= 0
        assert grown.max() <= 1
        return float(grown.mean())

    edge = 1 - 1 / FAR
    assert share(1.0, 0.0) > 0.6
    assert share(0.5 * edge, 0.0) < 0.02
    along = [share(near * edge, 1.0) for near in (0.1, 0.3, 0.5, 0.7)]
    assert along == sorted(along)
    assert along[-1] > 3 * along[0]
    assert share(0.5 * edge, 1.0) > 5 * share(0.5 * edge, 0.0) + 0.01


def label(picture: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the connected parts."""
    marked, number = ndimage.label(picture)  # type: ignore[misc]
    return marked, number


def cover(defect: Mould, photos: int = 4, side: int = 512) -> np.ndarray:
    there = scene(torch.arange(photos), size=(side, side), op=5)
    made = mould_cover(
        defect.sample(there), there, side, side, most_px=defect.radius_px[1] * there.scale
    )
    return made[:, 0].numpy()


def test_more_colonies_cover_more():
    few, many = (
        cover(Mould(per_mpx=(n, n), specks_per_mpx=(1.0, 1.0), unevenness=(0.0, 0.0)))
        for n in (30.0, 120.0)
    )
    assert (many > 0.1).mean() == pytest.approx(4 * (few > 0.1).mean(), rel=0.4)


def test_specks_are_small_and_as_many_as_asked():
    made = cover(
        Mould(
            per_mpx=(1.0, 1.0),
            specks_per_mpx=(800.0, 800.0),
            unevenness=(0.0, 0.0),
            opacity=(1.0, 1.0),
            bleaching=0.0,
        )
    )
    found = 0
    for picture in made:
        marked, number = label(picture > 0.02)
        found += number
        area = ndimage.sum_labels(picture > 0.02, marked, range(1, number + 1))
        assert np.median(area) < 15
    assert found == pytest.approx(4 * 200, rel=0.2)


def test_colonies_and_specks_come_in_the_same_clusters():
    even, clustered = (
        cover(Mould(per_mpx=(100.0, 100.0), unevenness=(u, u)), photos=8) for u in (0.0, 2.0)
    )

    def unevenness(made: np.ndarray) -> float:
        blocks = (made > 0).reshape(8, 4, 128, 4, 128).mean((2, 4))
        return float(blocks.std() / blocks.mean())

    assert unevenness(clustered) > 1.7 * unevenness(even)


def test_it_darkens_or_bleaches():
    x = torch.full((40, 3, 64, 64), 0.6)
    there = scene(torch.arange(40), size=(64, 64), op=5)
    for share in (0.0, 0.5, 1.0):
        defect = Mould(per_mpx=(1000.0, 1000.0), bleaching=share, unevenness=(0.0, 0.0))
        params = defect.sample(there)
        aged, mask = defect.apply(x, params, there)
        assert mask is not None
        bleached = (params["colour"] == torch.tensor(BLEACHED)).all(1)
        assert bleached.float().mean() == pytest.approx(share, abs=0.2)
        assert mask.any()
        assert (aged[bleached] >= x[bleached] - 1e-6).all()
        assert (aged[~bleached] <= x[~bleached] + 1e-6).all()
