"""The colour network: sizes, padding, dropout by key."""

import pytest
import torch

from agedphoto.train.ab_bins import num_bins
from agedphoto.train.colornet import COLOR_PRESETS, ColorNet, ColorNetConfig, keyed_dropout

SMALL = ColorNetConfig(widths=(4, 8, 8, 16), blocks=(1, 1, 1, 1), attention_blocks=1, heads=2)


def net(seed: int = 0, config: ColorNetConfig = SMALL) -> ColorNet:
    """A network none of whose weights is 0, as after some training."""
    torch.manual_seed(seed)
    made = ColorNet(config)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
        for name, statistic in made.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_()
    return made.eval()


def lumas(height: int, width: int, count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 3), (16, 16), (17, 33), (50, 64)])
def test_pictures_of_any_size_are_answered_at_a_quarter_rounded_up(size):
    height, width = size
    logits = net()(lumas(height, width))
    assert logits.shape == (2, num_bins(), -(-height // 4), -(-width // 4))
    assert torch.isfinite(logits).all()


def test_untrained_every_bin_is_as_likely_as_every_other():
    torch.manual_seed(0)
    assert ColorNet(SMALL).eval()(lumas(32, 32)).abs().max() == 0


@pytest.mark.parametrize(("name", "millions"), [("tiny", 1), ("base", 8), ("large", 28)])
def test_presets_have_about_as_many_weights_as_they_should(name, millions):
    made = ColorNet(COLOR_PRESETS[name])
    assert made.num_parameters == pytest.approx(1e6 * millions, rel=0.1)
    assert made.stride == COLOR_PRESETS[name].stride == 16


def test_what_lies_outside_does_not_change_what_is_inside():
    inside = torch.zeros(2, 1, 48, 64, dtype=torch.bool)
    inside[0, :, :33, :20] = True
    inside[1, :, :, :50] = True
    color = net()
    first = color(lumas(48, 64).where(inside, 0.0), inside=inside)
    second = color(lumas(48, 64).where(inside, lumas(48, 64, seed=9)), inside=inside)
    assert torch.equal(first, second)


def test_attention_leaves_padding_out():
    # Far from the padding, a padded picture is answered as the picture alone: convolutions do not
    # reach so far, and attention would.
    config = ColorNetConfig(
        widths=(4, 8, 8, 16), blocks=(0, 0, 0, 0), attention_blocks=1, heads=2, up_blocks=0
    )
    color = net(config=config)
    picture = lumas(64, 64)
    padded = torch.zeros(2, 1, 64, 512)
    padded[..., :64] = picture
    inside = torch.zeros(2, 1, 64, 512, dtype=torch.bool)
    inside[..., :64] = True
    alone, within, seen = color(picture), color(padded, inside=inside), color(padded)
    apart = (slice(None), slice(None), slice(None), slice(0, 4))
    assert torch.allclose(within[apart], alone[apart], atol=1e-5)
    assert not torch.allclose(seen[apart], alone[apart], atol=1e-3)


def test_everything_inside_is_the_same_as_no_mask():
    color, picture = net(), lumas(40, 24)
    whole = color(picture, inside=torch.ones_like(picture, dtype=torch.bool))
    assert torch.allclose(whole, color(picture), atol=1e-5)


def test_a_picture_with_nothing_inside_is_answered_all_the_same():
    color, picture = net(), lumas(32, 32)
    inside = torch.zeros_like(picture, dtype=torch.bool)
    inside[0] = True
    logits = color(picture, inside=inside)
    assert torch.isfinite(logits).all()
    assert torch.allclose(logits[:1], color(picture[:1]), atol=1e-5)


def test_what_is_far_away_changes_the_answer():
    color, picture = net(), lumas(32, 256, count=1)
    changed = picture.clone()
    changed[..., 200:] = 1 - changed[..., 200:]
    assert not torch.allclose(color(picture)[..., :4], color(changed)[..., :4], atol=1e-6)


def test_dropout_is_a_function_of_the_key_alone():
    keys = torch.tensor([5, -7, 2**62, 5])
    kept = keyed_dropout(keys, 64, 0.3)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(keyed_dropout(keys[order], 64, 0.3), kept[order])
    assert torch.equal(kept[0], kept[3])
    assert not torch.equal(kept[0], kept[1])
    torch.manual_seed(1)
    assert torch.equal(keyed_dropout(keys, 64, 0.3), kept)


def test_dropout_keeps_the_mean_and_drops_its_share():
    kept = keyed_dropout(torch.arange(2000), 64, 0.3)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (kept == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert kept.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(keyed_dropout(torch.arange(3), 8, 0.0), torch.ones(3, 8))


def test_dropout_of_one_picture_leaves_the_others():
    color, picture = net(), lumas(32, 32)
    dropped = torch.ones(2, SMALL.widths[-1])
    dropped[1, ::2] = 0
    with_dropout, without = color(picture, dropout=dropped), color(picture)
    assert torch.allclose(with_dropout[0], without[0], atol=1e-5)
    assert not torch.allclose(with_dropout[1], without[1], atol=1e-3)


def test_all_weights_are_trained():
    color = net().train()
    color(lumas(32, 48), dropout=torch.ones(2, 16)).square().mean().backward()
    assert all(weight.grad is not None for weight in color.parameters())


def test_bf16_and_channels_last_answer_alike():
    color, picture = net(), lumas(32, 48)
    expected = color(picture)
    last = net().to(memory_format=torch.channels_last)
    assert torch.allclose(last(picture), expected, atol=1e-4)
    inside = torch.ones_like(picture, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        rough = color(picture, inside=inside)
    assert (rough.float() - expected).norm() < 0.05 * expected.norm()


def test_the_prior_is_stored_with_the_weights():
    color = net()
    color.prior.copy_(torch.rand(num_bins()).softmax(0))
    other = net(seed=1)
    other.load_state_dict(color.state_dict())
    assert torch.equal(other.prior, color.prior)
    assert torch.equal(other.rebalance_weights(), color.rebalance_weights())
    assert torch.allclose(ColorNet(SMALL).rebalance_weights(), torch.ones(num_bins()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": (8, 16, 32)}, "widths must be 4 numbers"),
        ({"widths": (0, 16, 32, 64)}, "widths must be 4 numbers"),
        ({"blocks": (1, 1, 1, -1)}, "blocks must be 4 numbers"),
        ({"heads": 3}, "heads must divide 256"),
        ({"attention_blocks": -1}, "attention_blocks must be at least 0"),
        ({"up_blocks": -1}, "up_blocks must be at least 0"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"long_side_px": 8}, "long_side_px must be at least 16"),
        ({"rebalance_mix": 2.0}, "rebalance_mix must be in"),
    ],
)
def test_impossible_shapes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ColorNetConfig(**wrong)


def test_impossible_dropout_is_refused():
    with pytest.raises(ValueError, match="p must be in"):
        keyed_dropout(torch.arange(2), 4, 1.0)
