"""A model on disk comes back as it was; anything else is refused, and nothing is unpickled."""

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from agedphoto.train import (
    ColorNet,
    ColorNetConfig,
    LabNet,
    UNet,
    UNetConfig,
    load_model,
    save_model,
)
from agedphoto.train.ab_bins import ab_bins

CONFIG = UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1, out_channels=3, residual_channels=2)
COLORS = ColorNetConfig(widths=(4, 8, 8, 8), blocks=(0, 1, 0, 0), attention_blocks=1, heads=2)
GRAY = UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1, mask_head=True)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, UNet]:
    net = UNet(CONFIG)
    for weight in net.parameters():
        torch.nn.init.normal_(weight)
    path = tmp_path / "model.safetensors"
    save_model(path, net, mode="rgb", training={"lr": 0.1, "words": ["a", None]})
    return path, net


def rewritten(path: Path, weights=None, **changes: str | None) -> Path:
    """The same file, with some of its metadata or weights changed."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | changes
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata = {name: value for name, value in metadata.items() if value is not None}
    safetensors.torch.save_file(old if weights is None else weights(old), path, metadata)
    return path


def test_a_model_comes_back_exactly(saved):
    path, net = saved
    loaded, card = load_model(path)
    assert isinstance(loaded, UNet)
    assert loaded.config == CONFIG
    assert card.net == dataclasses.asdict(CONFIG) | {"widths": [4, 6]}
    assert loaded.state_dict().keys() == net.state_dict().keys()
    for name, weight in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert not loaded.training
    aged = torch.rand(1, 1, 9, 14)
    with torch.no_grad():
        assert torch.equal(loaded(aged), net(aged))


@pytest.fixture(params=[False, True], ids=["colours alone", "with luminance"])
def saved_lab(tmp_path: Path, request) -> tuple[Path, LabNet]:
    net = LabNet(ColorNet(COLORS), UNet(GRAY) if request.param else None)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor)
    save_model(tmp_path / "lab.safetensors", net, mode="lab", training={})
    return tmp_path / "lab.safetensors", net


def test_both_networks_of_lab_come_back_exactly_with_their_statistics(saved_lab, monkeypatch):
    path, net = saved_lab
    # As in a process that has made no network yet: the bins are not to be found on device meta.
    ab_bins.cache_clear()
    loaded, card = load_model(path)
    assert isinstance(loaded, LabNet)
    assert card.mode == "lab"
    assert loaded.color.config == COLORS
    assert (loaded.luminance and loaded.luminance.config) == (net.luminance and GRAY)
    assert loaded.state_dict().keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert loaded.state_dict()["color.head_norm.num_batches_tracked"].dtype == torch.int64
    assert "color.prior" in loaded.state_dict()
    luma = torch.rand(1, 1, 20, 28)
    with torch.no_grad():
        assert torch.equal(loaded.color(luma), net.eval().color(luma))


@pytest.mark.parametrize(
    "net",
    [
        "[]", "{}", '{"color": {}}', '{"color": [], "luminance": null}',
        '{"color": null, "luminance": null}',
        json.dumps({"color": {"widths": [4]}, "luminance": None}),
        json.dumps({"color": {}, "luminance": {"widths": [4, 6]}}),
    ],
)  # fmt: skip
def test_a_file_of_lab_that_does_not_fit_its_description_is_refused(saved_lab, net):
    with pytest.raises(ValueError, match="does not fit its own description"):
        load_model(rewritten(saved_lab[0], net=net))


def test_the_memory_format_of_training_does_not_matter(saved):
    path, net = saved
    save_model(path, net.to(memory_format=torch.channels_last), mode="rgb", training={})
    for name, weight in load_model(path)[0].state_dict().items():
        assert torch.equal(weight, net.state_dict()[name])


def test_the_card_says_what_was_saved_and_the_hash_of_the_file(saved):
    path, _ = saved
    _, card = load_model(path)
    assert card.mode == "rgb"
    assert card.training == {"lr": 0.1, "words": ["a", None]}
    assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_loaded_model_can_be_trained_on(saved):
    net, _ = load_model(saved[0])
    net(torch.rand(1, 1, 8, 8)).sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_loading_draws_nothing_at_random(saved):
    before = torch.get_rng_state()
    load_model(saved[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_half_precision_are_used_in_full(saved):
    path = rewritten(saved[0], lambda old: {name: w.half() for name, w in old.items()})
    net, _ = load_model(path)
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}


def test_saving_replaces_at_once_and_leaves_nothing_else(saved):
    path, net = saved
    save_model(path, net, mode="color", training={})
    assert load_model(path)[1].mode == "color"
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such model: .*gone\.safetensors"):
        load_model(tmp_path / "gone.safetensors")
    with pytest.raises(ValueError, match="no such model"):
        load_model(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_truncated_file_is_refused(saved, keep):
    path, _ = saved
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else keep])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_model(path)


def test_a_text_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123\n")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_model(path)


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a model of agedphoto"):
        load_model(path)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_never_opened(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        write(Bomb(), file)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_model(path)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"net": None},
        {"net": "{"},
        {"net": "[]"},
        {"net": "{}"},
        {"net": json.dumps({"widths": [4, 6], "gates": 3})},
        {"net": json.dumps({"widths": [4, -6]})},
        {"net": json.dumps({"widths": ["four"]})},
        {"net": json.dumps({"widths": [4, 6]})},
        {"net": json.dumps({"widths": [400_000, 600_000], "blocks": 1, "middle_blocks": 1})},
        {"mode": None},
        {"mode": "sepia"},
        {"training": None},
        {"training": "not json"},
    ],
)
def test_a_file_that_does_not_fit_its_description_is_refused(saved, changes):
    with pytest.raises(ValueError, match="does not fit its own description"):
        load_model(rewritten(saved[0], **changes))


@pytest.mark.parametrize(
    "weights",
    [
        lambda old: {name: old[name] for name in list(old)[1:]},
        lambda old: old | {"extra": torch.zeros(1)},
        lambda old: {name: weight[:1].clone() for name, weight in old.items()},
    ],
)
def test_wrong_weights_are_refused(saved, weights):
    with pytest.raises(ValueError, match="does not fit its own description"):
        load_model(rewritten(saved[0], weights))


def test_weights_may_be_stored_as_halves_and_statistics_stay(tmp_path):
    config = ColorNetConfig(widths=(4, 8, 8, 8), blocks=(0, 0, 0, 0), attention_blocks=1, heads=2)
    net = LabNet(ColorNet(config), UNet(UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1)))
    for number, (_, buffer) in enumerate(net.named_buffers()):
        buffer.copy_(torch.full_like(buffer, number * 1.00001))
    path = tmp_path / "half.safetensors"
    save_model(path, net, mode="lab", training={}, stored=torch.float16)
    read, _ = load_model(path)
    rounded = {name: weight.half().float() for name, weight in net.named_parameters()}
    assert rounded
    for name, weight in read.named_parameters():
        assert torch.equal(weight, rounded[name])
    buffers = dict(net.named_buffers())
    assert buffers
    for name, buffer in read.named_buffers():
        assert torch.equal(buffer, buffers[name])


def test_weights_that_halves_cannot_hold_are_refused(tmp_path):
    net = UNet(UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1))
    with torch.no_grad():
        net.stem.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"stem\.weight has weights too large for torch\.float16"):
        save_model(
            tmp_path / "x.safetensors", net, mode="grayscale", training={}, stored=torch.float16
        )
    assert not list(tmp_path.iterdir())


def test_the_same_network_gives_the_same_bytes(tmp_path):
    net = UNet(UNetConfig(widths=(4, 6), blocks=1, middle_blocks=1))
    training = {"b": 1, "a": [0.5, None], "ä": "ö"}
    paths = [tmp_path / f"{number}.safetensors" for number in range(6)]
    for path in paths:
        save_model(path, net, mode="grayscale", training=training)
    assert len({path.read_bytes() for path in paths}) == 1
    assert load_model(paths[0])[1].training == training
