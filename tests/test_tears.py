"""Tears: at the places they are said to be, with white fibres along them and nothing beyond."""

import numpy as np
import pytest
import torch
from scenes import scene
from skimage.measure import label

from agedphoto.synth.tears import BACKDROP, TornCorners, backdrop_of, tear

SIZE = (180, 240)
HEIGHT, WIDTH = SIZE
CORNERS = ((0, 0), (0, WIDTH - 1), (HEIGHT - 1, WIDTH - 1), (HEIGHT - 1, 0))


def torn_one(place: int, kind: int, **changed: float) -> dict[str, torch.Tensor]:
    """One tear of two photographs."""
    values = {"down": 40.0, "aside": 60.0, "inset": 100.0, "lean": 0.0, "rough": 2.0} | changed
    torn = torch.zeros(2, 4, dtype=torch.int64)
    torn[:, place] = kind
    return {"torn": torn} | {name: torch.full((2, 4), value) for name, value in values.items()}


def torn(x: torch.Tensor, place: int, kind: int, *, backdrop: float = 0.0, **changed: float):
    there = scene(torch.arange(len(x)), size=(x.shape[2], x.shape[3]))
    whole = {"band_px": 6.0, "light": 0.95, "warmth": 0.0, "backdrop": backdrop}
    return tear(
        x,
        scene=there,
        **torn_one(place, kind, **changed),
        **{name: torch.full((len(x),), value) for name, value in whole.items()},
    )


def gray() -> torch.Tensor:
    return torch.full((2, 1, *SIZE), 0.4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_whole_print_stays_as_it_is(dtype):
    x = torch.rand(2, 3, *SIZE, dtype=torch.float64).to(dtype)
    aged, mask = torn(x, 0, 0)
    assert torch.equal(aged, x)
    assert not mask.any()


@pytest.mark.parametrize("place", range(4))
def test_a_corner_is_a_triangle_of_its_legs(place):
    aged, mask = torn(gray(), place, 1, rough=0.5)
    gone = aged < 0.2
    for number, (row, column) in enumerate(CORNERS):
        assert gone[:, 0, row, column].all() == (number == place)
    assert gone.float().sum((1, 2, 3)).tolist() == pytest.approx([40 * 60 / 2] * 2, rel=0.15)
    # Place 1 runs down the right edge: there `aside` is rows and `down` columns.
    rows, columns = (60, 40) if place % 2 else (40, 60)
    where = gone[0, 0].nonzero()
    deep = [(where[:, axis].max() - where[:, axis].min() + 1).item() for axis in range(2)]
    assert deep == pytest.approx([rows, columns], abs=9)
    assert mask[gone].all()


def test_fibres_line_the_tear_on_the_prints_side():
    aged, mask = torn(gray(), 0, 1)
    white, gone = aged > 0.7, aged < 0.2
    assert not (white & gone).any()
    # Between the print and what is gone; about the band's width, with breaks.
    near = torch.nn.functional.max_pool2d(gone.float(), 25, 1, 12) > 0
    assert near[white].float().mean() > 0.95
    length = np.hypot(40, 60)
    assert 1.0 < white[0].sum() / length < 7
    assert mask[white].all()


def test_far_from_the_tear_nothing_changes():
    x = torch.rand(2, 3, *SIZE)
    aged, mask = torn(x, 0, 1)
    assert torch.equal(aged[:, :, 90:, 110:], x[:, :, 90:, 110:])
    assert not mask[:, :, 90:, 110:].any()


@pytest.mark.parametrize("place", range(4))
def test_a_rip_is_a_wedge_from_its_edge(place):
    aged, _ = torn(gray(), place, 2, aside=8.0, down=60.0, inset=90.0)
    gone = (aged < 0.25)[0, 0]
    # Turned so that the place is the upper edge, and the corner to its left.
    gone = torch.rot90(gone, place)
    assert gone[0, 82:99].float().mean() > 0.6
    assert not gone[0, :70].any()
    assert not gone[0, 110:].any()
    assert gone.sum() == pytest.approx(8 * 60, rel=0.25)
    assert 45 < gone.any(1).nonzero().max() < 61
    assert gone[:30].sum() > 2 * gone[30:].sum()


def test_a_rip_hangs_together_and_does_not_go_on_past_its_tip():
    for lean in (-1.0, 0.0, 1.0):
        _, mask = torn(gray(), 0, 2, aside=2.0, down=80.0, rough=5.0, lean=lean)
        one = mask[0, 0].numpy()
        parts = np.asarray(label(one, connectivity=2))
        assert np.bincount(parts.ravel())[1:].max() > 0.7 * one.sum()
        assert not one[90:].any()


def test_the_shadow_on_the_backdrop_fades_off_the_print():
    aged, _ = torn(gray(), 0, 1, backdrop=0.9, down=100.0, aside=100.0, rough=0.5)
    # The tear crosses the diagonal at 50.
    beyond = aged[0, 0].diagonal()[:49]
    assert beyond[0] == pytest.approx(0.9, abs=0.001)
    assert beyond.min() < 0.75
    assert (torch.diff(beyond) <= 1e-6).all()


def test_tears_take_a_twentieth_of_a_print_at_most():
    x = torch.full((60, 1, *SIZE), 0.4)
    there = scene(torch.arange(60), size=SIZE)
    defect = TornCorners()
    _, mask = defect.apply(x, defect.sample(there), there)
    assert mask is not None
    share = mask.float().mean((1, 2, 3))
    assert share.max() < 0.05
    assert share.median() > 0.0005


@pytest.mark.parametrize("severity", [0.0, 0.5, 2.0])
def test_the_worse_worn_the_more_tears(severity):
    there = scene(torch.arange(2000), size=SIZE, severity=severity)
    kinds = TornCorners(num_tears=(1.0, 1.0), rips=0.25).sample(there)["torn"]
    assert (kinds > 0).sum(1).float().mean() == pytest.approx(severity, abs=0.08)
    if severity:
        assert (kinds == 2).sum() / (kinds > 0).sum() == pytest.approx(0.25, abs=0.04)


def test_backdrops_are_mostly_dark_or_light():
    u = torch.linspace(0, 1, 1001)
    backdrop = backdrop_of(u, BACKDROP)
    assert [backdrop[0].item(), backdrop[-1].item()] == pytest.approx(list(BACKDROP))
    assert ((backdrop < 0.2) | (backdrop > 0.8)).float().mean() > 0.6


@pytest.mark.parametrize("wrong", [{"num_tears": (0.0, 9.0)}, {"rips": -0.1}, {"size": (0.1, 0.9)}])
def test_a_wrong_field_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TornCorners(**wrong)
