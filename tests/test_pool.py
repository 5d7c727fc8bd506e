"""The pool of decoded photos."""

import numpy as np
import pytest
import torch

from agedphoto.datasets import PhotoPool

CPU = torch.device("cpu")


def photo(number: int, height: int, width: int) -> torch.Tensor:
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def test_a_photo_comes_back_as_it_was_put(device):
    pool = PhotoPool(10_000, device=device)
    pixels = photo(0, 20, 31)
    pool.put(7, pixels)
    pixels_before = pixels.clone()
    pixels[:] = 0  # The pool has a copy.
    np.testing.assert_array_equal(pool[7].cpu().numpy(), pixels_before)
    assert pool[7].device.type == device.type
    assert (7 in pool, 8 in pool, len(pool)) == (True, False, 1)
    assert (pool.used_bytes, pool.capacity_bytes) == (20 * 31 * 3, 10_000)


def test_a_photo_that_is_not_contiguous_is_put_alike():
    pool = PhotoPool(10_000, device=CPU)
    pixels = photo(0, 20, 30)[::2].flip(1)[:, ::2]
    pool.put(0, pixels)
    np.testing.assert_array_equal(pool[0].numpy(), pixels)


def test_the_longest_unused_goes_first():
    pool = PhotoPool(3 * 300, device=CPU)
    for number in range(3):
        pool.put(number, photo(number, 10, 10))
    pool[0]
    pool.put(3, photo(3, 10, 10))
    assert list(pool.photos) == [2, 0, 3]


def test_what_is_to_be_kept_stays():
    pool = PhotoPool(3 * 300, device=CPU)
    for number in range(3):
        pool.put(number, photo(number, 10, 10))
    pool.put(3, photo(3, 10, 10), keep={0, 1})
    assert set(pool.photos) == {0, 1, 3}


def test_there_is_room_for_what_is_left_beside_those_to_keep():
    pool = PhotoPool(3 * 300, device=CPU)
    for number in range(3):
        pool.put(number, photo(number, 10, 10))
    assert pool.has_room(600, keep={0})
    assert not pool.has_room(601, keep={0})
    assert pool.has_room(300, keep={0, 1, 99})
    assert not pool.has_room(1, keep={0, 1, 2})


def test_a_photo_put_again_takes_the_place_of_itself():
    pool = PhotoPool(2 * 300, device=CPU)
    pool.put(0, photo(0, 10, 10))
    pool.put(1, photo(1, 10, 10))
    pool.put(0, photo(9, 5, 20))
    np.testing.assert_array_equal(pool[0].numpy(), photo(9, 5, 20))
    np.testing.assert_array_equal(pool[1].numpy(), photo(1, 10, 10))
    assert pool.used_bytes == 600


def test_photos_move_together_when_only_the_gaps_between_them_are_left():
    pool = PhotoPool(4 * 300, device=CPU)
    for number in range(4):
        pool.put(number, photo(number, 10, 10))
    pool.put(9, photo(9, 20, 10), keep={1, 3})
    assert set(pool.photos) == {1, 3, 9}
    for number, height in ((1, 10), (3, 10), (9, 20)):
        np.testing.assert_array_equal(pool[number].numpy(), photo(number, height, 10))


def test_a_photo_that_cannot_fit_is_an_error_that_names_the_remedy():
    pool = PhotoPool(600, device=CPU)
    with pytest.raises(ValueError, match=r"photo 4 of 1,200 bytes .* pool of 600 bytes"):
        pool.put(4, photo(4, 20, 20))
    pool.put(0, photo(0, 10, 10))
    with pytest.raises(ValueError, match="beside 1 photos of 300 bytes still wanted; use a larger"):
        pool.put(1, photo(1, 15, 10), keep={0})
    np.testing.assert_array_equal(pool[0].numpy(), photo(0, 10, 10))


def test_a_pool_without_room_for_a_pixel_is_refused():
    with pytest.raises(ValueError, match="at least one pixel, got 2"):
        PhotoPool(2, device=CPU)


@pytest.mark.parametrize("seed", range(6))
def test_random_use_agrees_with_a_dictionary(seed):
    """The model: a dictionary of what was put; only what the pool says it dropped is missing."""
    rng = np.random.default_rng(seed)
    capacity = int(rng.integers(3000, 9000))
    pool, model = PhotoPool(capacity, device=CPU), {}
    for step in range(300):
        number = int(rng.integers(40))
        height, width = rng.integers(1, 18, 2).tolist()
        wanted = [other for other in model if other != number and rng.random() < 0.3]
        room = capacity - 3 * height * width
        keep = set()
        for other in wanted:
            if sum(model[name].nbytes for name in keep) + model[other].nbytes <= room:
                keep.add(other)
        before = list(pool.photos)
        pixels = photo(1000 * seed + step, height, width)
        pool.put(number, pixels, keep=keep)
        model[number] = pixels
        dropped = [name for name in before if name not in pool]
        assert not keep & set(dropped)
        free_to_go = [name for name in before if name not in keep and name != number]
        assert dropped == free_to_go[: len(dropped)], "oldest first"
        model = {name: model[name] for name in pool.photos}
        assert pool.used_bytes == sum(pixels.nbytes for pixels in model.values()) <= capacity
        for name in rng.permutation(list(model))[:3].tolist():
            np.testing.assert_array_equal(pool[name].numpy(), model[name])
            assert list(pool.photos)[-1] == name
    for name, pixels in model.items():
        np.testing.assert_array_equal(pool[name].numpy(), pixels)


def test_photos_of_many_sizes_are_seldom_moved(monkeypatch):
    """Moving all for every photo that comes would cost more than decoding it."""
    moves = []
    move = PhotoPool._move_together
    monkeypatch.setattr(PhotoPool, "_move_together", lambda pool: (moves.append(1), move(pool)))
    rng = np.random.default_rng(0)
    pool = PhotoPool(100_000, device=CPU)
    for number in range(1000):
        pool.put(number, photo(number, *rng.integers(8, 20, 2).tolist()))
        for recent in range(max(0, number - 60), number, 7):
            if recent in pool:
                pool[recent]
    assert len(moves) < 50
