"""The network: does nothing untrained, takes any size, scales with its input, has no biases."""

import dataclasses
import itertools

import pytest
import torch

from agedphoto.synth import Mode
from agedphoto.train import PRESETS, UNet, UNetConfig, find_preset, net_config

MODES: tuple[Mode, ...] = ("grayscale", "rgb", "color")
"""Mode lab has networks of its own."""

SMALL = {"widths": (4, 6, 8), "blocks": 1, "middle_blocks": 1}


def trained(config: UNetConfig, seed: int = 0) -> UNet:
    """A network whose weights are all drawn, so that it does something."""
    net = UNet(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0, 1 / weight[0].numel() ** 0.5, generator=generator)
    return net


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("preset", PRESETS)
def test_an_untrained_network_returns_its_input_exactly(preset, mode):
    config = net_config(preset, mode)
    aged = noise(2, config.in_channels, 21, 34)
    with torch.no_grad():
        answer = UNet(config)(aged)
    expected = aged.expand(-1, config.out_channels, -1, -1).clone()
    expected[:, config.residual_channels :] = 0
    assert torch.equal(answer, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 5), (7, 64), (8, 8), (17, 33)])
@pytest.mark.parametrize("unshuffle", [1, 2, 3])
def test_any_size_comes_back_in_its_size(size, unshuffle):
    net = trained(UNetConfig(**SMALL, unshuffle=unshuffle))
    with torch.no_grad():
        answer = net(noise(1, 1, *size))
    assert answer.shape == (1, 1, *size)
    assert answer.isfinite().all()


@pytest.mark.parametrize("factor", [0.01, 0.5, 3.0, 255.0])
def test_scaling_the_input_scales_the_output(factor):
    net, aged = trained(UNetConfig(**SMALL)).double(), noise(1, 1, 24, 40).double()
    with torch.no_grad():
        answer = net(aged)
        assert (answer - aged).abs().max() > 0.1
        torch.testing.assert_close(net(factor * aged), factor * answer)


def test_there_is_no_bias_and_no_normalisation():
    net = UNet(find_preset("base"))
    assert all(name.endswith(".weight") for name in net.state_dict())
    assert all(weight.ndim == 4 for weight in net.parameters())
    assert not list(net.buffers())


def test_shifting_the_picture_by_a_stride_shifts_the_answer():
    config = UNetConfig(**SMALL)
    net, aged = trained(config), noise(1, 1, 176, 176)
    shift, edge = config.stride, 72  # the border sees beyond the picture, the middle does not
    with torch.no_grad():
        answer, moved = net(aged), net(aged.roll((shift, 2 * shift), (2, 3)))
    torch.testing.assert_close(
        moved[..., edge:-edge, edge:-edge],
        answer.roll((shift, 2 * shift), (2, 3))[..., edge:-edge, edge:-edge],
        rtol=1e-4,
        atol=1e-5,
    )


def test_pictures_of_a_batch_do_not_meet():
    net, aged = trained(UNetConfig(**SMALL)), noise(3, 1, 16, 16)
    with torch.no_grad():
        together, alone = net(aged), torch.cat([net(picture[None]) for picture in aged])
    torch.testing.assert_close(together, alone)


def with_mask(config: UNetConfig, seed: int = 0) -> tuple[UNet, UNet]:
    """The same restoring weights without and with a head for the mask."""
    plain = trained(config, seed)
    headed = trained(dataclasses.replace(config, mask_head=True), seed)
    headed.load_state_dict(headed.state_dict() | plain.state_dict())
    return plain, headed


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (17, 33)])
@pytest.mark.parametrize("mode", MODES)
def test_the_mask_has_one_logit_a_pixel(mode, size):
    channels = net_config("tiny", mode)
    net = trained(
        UNetConfig(
            **SMALL, in_channels=channels.in_channels, out_channels=channels.out_channels,
            residual_channels=channels.residual_channels, mask_head=True,
        )
    )  # fmt: skip
    with torch.no_grad():
        restored, logits = net(noise(2, channels.in_channels, *size), with_mask=True)
    assert restored.shape == (2, channels.out_channels, *size)
    assert logits.shape == (2, 1, *size)


def test_an_untrained_mask_says_that_damage_is_rare_everywhere():
    net = UNet(UNetConfig(**SMALL, mask_head=True))
    with torch.no_grad():
        _, logits = net(noise(2, 1, 16, 24), with_mask=True)
    assert torch.equal(logits, torch.full_like(logits, -4.0))
    assert torch.sigmoid(logits).mean().item() == pytest.approx(0.02, abs=0.003)


def test_the_mask_head_changes_nothing_about_the_restored_answer():
    plain, headed = with_mask(UNetConfig(**SMALL))
    aged = noise(2, 1, 21, 34)
    with torch.no_grad():
        alone, beside = headed(aged), headed(aged, with_mask=True)[0]
        assert torch.equal(alone, plain(aged))
        assert torch.equal(beside, plain(aged))


def test_a_mask_asked_of_a_network_without_a_head_is_an_error():
    with pytest.raises(ValueError, match="no mask head; it was trained with mask_weight 0"):
        UNet(UNetConfig(**SMALL))(noise(1, 1, 8, 8), with_mask=True)


@pytest.mark.parametrize("factor", [0.01, 3.0])
def test_a_network_with_a_mask_head_still_scales_with_its_input(factor):
    net, aged = with_mask(UNetConfig(**SMALL))[1].double(), noise(1, 1, 24, 40).double()
    with torch.no_grad():
        answer, logits = net(aged, with_mask=True)
        assert (answer - aged).abs().max() > 0.1
        scaled, other = net(factor * aged, with_mask=True)
    torch.testing.assert_close(scaled, factor * answer)
    # The mask has a bias of its own.
    assert (other - factor * logits).abs().max() > 0.1


def expected_parameters(config: UNetConfig) -> int:
    """Count from the definition: 3x3 convolutions, two a block, and 2x2 ones between levels."""
    square, widths = config.unshuffle**2, config.widths
    ends = 9 * widths[0] * square * (config.in_channels + config.out_channels)
    levels = sum(2 * config.blocks * 2 * 9 * width**2 for width in widths[:-1])
    between = sum(2 * 4 * fine * coarse for fine, coarse in itertools.pairwise(widths))
    return ends + levels + between + config.middle_blocks * 2 * 9 * widths[-1] ** 2


@pytest.mark.parametrize(("preset", "millions"), [("tiny", 0.58), ("base", 6.42), ("large", 26.0)])
@pytest.mark.parametrize("mode", MODES)
def test_presets_have_the_parameters_of_their_definition(preset, millions, mode):
    config = net_config(preset, mode, mask_head=True)
    head = config.unshuffle**2 * (9 * config.widths[0] + 1)
    net = UNet(config)
    assert net.num_parameters == expected_parameters(config) + head
    assert net.num_parameters / 1e6 == pytest.approx(millions, rel=0.02)


def test_the_stride_is_what_inputs_are_padded_to():
    assert UNetConfig(widths=(4, 4, 4), unshuffle=3).stride == 12
    assert {name: preset.stride for name, preset in PRESETS.items()} == {
        "tiny": 8,
        "base": 16,
        "large": 16,
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"out_channels": -1}, "out_channels must be at least 1, got -1"),
        ({"middle_blocks": 0}, "middle_blocks must be at least 1, got 0"),
        ({"unshuffle": 0}, "unshuffle must be at least 1, got 0"),
        ({"blocks": -1}, "blocks must be at least 0, got -1"),
        ({"widths": ()}, "widths must be one or more"),
        ({"widths": (8, 0)}, "widths must be one or more"),
        ({"residual_channels": 2}, r"residual_channels must be 0 to 1 \(out_channels\), got 2"),
    ],
)
def test_a_wrong_shape_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**wrong)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ValueError, match="unknown preset 'huge'; there are: tiny, base, large"):
        find_preset("huge")
