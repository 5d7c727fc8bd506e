"""The network: does nothing untrained, takes any size, scales with its input, has no biases."""

import itertools

import pytest
import torch

from agedphoto.synth import MODES
from agedphoto.train import PRESETS, UNet, UNetConfig, find_preset, net_config

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


def test_only_lab_starts_from_gray_and_not_from_its_input():
    kept = {mode: net_config("tiny", mode).residual_channels for mode in MODES}
    assert kept == {"grayscale": 1, "rgb": 3, "lab": 1, "color": 3}


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


def expected_parameters(config: UNetConfig) -> int:
    """Count from the definition: 3x3 convolutions, two a block, and 2x2 ones between levels."""
    square, widths = config.unshuffle**2, config.widths
    ends = 9 * widths[0] * square * (config.in_channels + config.out_channels)
    levels = sum(2 * config.blocks * 2 * 9 * width**2 for width in widths[:-1])
    between = sum(2 * 4 * fine * coarse for fine, coarse in itertools.pairwise(widths))
    return ends + levels + between + config.middle_blocks * 2 * 9 * widths[-1] ** 2


@pytest.mark.parametrize(("preset", "millions"), [("tiny", 0.58), ("base", 6.42), ("large", 26.0)])
def test_presets_have_the_parameters_of_their_definition(preset, millions):
    net = UNet(find_preset(preset))
    assert net.num_parameters == expected_parameters(net.config)
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
