"""Which textures are used: the pack, one's own, or others every epoch."""

import pytest
import torch

from agedphoto.synth import Ageing, EndlessTextures, find_textures
from agedphoto.textures import TextureBank

ENDLESS = EndlessTextures(seed=3, count=2, size_px=64)


def test_without_a_bank_the_pack_is_used():
    bank = Ageing("seed").textures_on(torch.device("cpu"))
    assert bank.fingerprint == TextureBank.load().fingerprint
    assert len(bank) == 64


def test_endless_textures_are_others_every_epoch_and_the_same_again():
    ageing = Ageing("seed", textures=ENDLESS)
    photos, keys = torch.rand(2, 3, 40, 40), torch.tensor([1, 2])
    made = []
    for epoch in (0, 1, 0):
        ageing.turn_to(epoch)
        made.append(ageing(photos, keys).aged)
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])


def test_pairs_turn_endless_textures_with_the_epoch_and_resume(open_pairs):
    source = open_pairs(textures=ENDLESS, augment=False)
    first, second = list(source), list(source)
    resumed = open_pairs(textures=ENDLESS, augment=False)
    resumed.set_epoch(1)
    for one, other in zip(second, resumed, strict=True):
        assert torch.equal(one.aged, other.aged)
    still = open_pairs(textures=ENDLESS, augment=False)
    state = source.state_dict()
    still.load_state_dict(state)
    other = open_pairs(textures=EndlessTextures(seed=4, count=2, size_px=64), augment=False)
    with pytest.raises(ValueError, match="textures was"):
        other.load_state_dict(state)
    assert len(first) == len(second)


def test_textures_by_name(tmp_path):
    assert find_textures("pack") is None
    assert find_textures("endless") == EndlessTextures()
    with pytest.raises(ValueError, match="unknown textures 'packs'; there are: pack, endless"):
        find_textures("packs")
    with pytest.raises(ValueError, match="scan"):
        find_textures(str(tmp_path))
