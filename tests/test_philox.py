"""Philox: known answers, an implementation in Python's whole numbers, and what statistics say."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from agedphoto.synth import draw_bits, draw_uniform, normal_field, philox4x32
from agedphoto.synth.philox import PER_PHOTO, WORD, bits_to_below, bits_to_normal, bits_to_uniform

KEYS = torch.tensor([0, 1, -1, 0x0123_4567_89AB_CDEF, -(2**63), 2**63 - 1])
SIZE = 256


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox4x32-10 as in section 4 of the paper, in whole numbers of any size."""
    a, b, c, d = counter
    k, m = key
    for number in range(10):
        high_0, low_0 = divmod(0xD2511F53 * a, 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * c, 2**32)
        k_now = (k + number * 0x9E3779B9) % 2**32
        m_now = (m + number * 0xBB67AE85) % 2**32
        a, b, c, d = high_1 ^ b ^ k_now, low_1, high_0 ^ d ^ m_now, low_0
    return a, b, c, d


def encrypt(numbers: torch.Tensor) -> list[list[int]]:
    """Encrypt rows of four words of counter and two of key."""
    a, b, c, d, k, m = numbers.unbind(1)
    return torch.stack(philox4x32((a, b, c, d), (k, m)), -1).tolist()


def unsigned(key: int) -> tuple[int, int]:
    high, low = divmod(key % 2**64, 2**32)
    return low, high


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1])


@pytest.fixture(scope="module")
def field() -> torch.Tensor:
    """Two keys, two planes."""
    return normal_field(torch.tensor([7, 8]), op=1, planes=2, height=SIZE, width=SIZE)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter, key, answer):
    assert encrypt(torch.tensor([counter + key])) == [list(answer)]
    assert philox(counter, key) == answer


def test_random_counters_agree_with_whole_numbers():
    drawn = np.random.default_rng(0).integers(0, 2**32, (200, 6))
    expected = [list(philox(tuple(row[:4]), tuple(row[4:]))) for row in drawn.tolist()]
    assert encrypt(torch.from_numpy(drawn)) == expected


def test_draws_of_a_photograph_have_the_counters_that_the_module_states():
    made = draw_bits(KEYS, op=0xFFFFFFFE, count=7)
    for key, row in zip(KEYS.tolist(), made.tolist(), strict=True):
        expected = [
            philox((number // 4, 0, 0xFFFFFFFE, PER_PHOTO), unsigned(key))[number % 4]
            for number in range(7)
        ]
        assert row == expected


def test_fields_have_the_counters_that_the_module_states():
    made = normal_field(KEYS, op=3, planes=2, height=3, width=6)
    for place in np.ndindex(*made.shape):
        number, plane, row, column = place
        quad = philox((column // 4, row, 3, plane), unsigned(int(KEYS[number])))
        a, b = quad[:2] if column % 4 < 2 else quad[2:]
        radius = math.sqrt(-2 * math.log(((a >> 8) + 1) / 2**24))
        wave = math.cos if column % 2 == 0 else math.sin
        assert made[place].item() == pytest.approx(
            radius * wave(2 * math.pi * (b >> 8) / 2**24), abs=3e-6
        )


def test_more_draws_start_like_fewer():
    many = draw_bits(KEYS, op=2, count=9)
    for count in range(9):
        assert torch.equal(draw_bits(KEYS, op=2, count=count), many[:, :count])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 4), (9, 13), (3, 14), (11, 15)])
def test_a_larger_field_starts_like_the_smaller(height, width):
    large = normal_field(KEYS, op=0, planes=3, height=12, width=17)
    small = normal_field(KEYS, op=0, planes=2, height=height, width=width)
    assert torch.equal(small, large[:, :2, :height, :width])


def test_a_draw_depends_on_its_own_key_alone():
    whole = normal_field(KEYS, op=0, planes=1, height=5, width=7)
    for number in range(len(KEYS)):
        alone = normal_field(KEYS[number, None], op=0, planes=1, height=5, width=7)
        assert torch.equal(alone[0], whole[number])


def test_no_photographs_no_draws():
    none = torch.zeros(0, dtype=torch.int64)
    assert draw_uniform(none, op=0, count=3).shape == (0, 3)
    assert normal_field(none, op=0, planes=1, height=4, width=5).shape == (0, 1, 4, 5)


def test_uniform_numbers_are_uniform():
    u = draw_uniform(torch.arange(64), op=5, count=1024)
    assert u.dtype == torch.float32
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    assert abs(correlation(u[:, 1:], u[:, :-1])) < 0.02
    assert abs(correlation(u[1:], u[:-1])) < 0.02


def test_uniform_numbers_never_reach_one():
    assert bits_to_uniform(torch.tensor([0, WORD])).tolist() == [0.0, 1 - 2.0**-24]


def test_normal_numbers_are_finite_at_the_ends():
    ends = torch.tensor([0, WORD])
    made = torch.stack(bits_to_normal(ends[:, None], ends))
    assert made.isfinite().all()
    assert made.max().item() == pytest.approx(5.77, abs=0.01)


def test_numbers_below_a_limit_agree_with_whole_numbers():
    bits = torch.tensor([0, 1, 2**31 - 1, 2**31, WORD - 1, WORD])
    for limit in (1, 2, 3, 8, 1000, 2**31):
        expected = [bit * limit // 2**32 for bit in bits.tolist()]
        assert bits_to_below(bits, limit).tolist() == expected
        assert bits_to_below(bits, torch.tensor(limit)).tolist() == expected
        assert min(expected) >= 0
        assert max(expected) == limit - 1


def test_normal_numbers_are_normal(field):
    values = field.flatten().double().numpy()
    assert abs(values.mean()) < 0.01
    assert values.std() == pytest.approx(1, abs=0.01)
    assert abs(stats.kurtosis(values)) < 0.05
    assert stats.kstest(values[::4], "norm").pvalue > 1e-3


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1)])
def test_neighbouring_pixels_are_uncorrelated(field, rows, columns):
    one, other = field[..., rows:, columns:], field[..., : SIZE - rows, : SIZE - columns]
    assert abs(correlation(one, other)) < 0.01
    # Two numbers made of one radius would show in the squares.
    assert abs(correlation(one.square(), other.square())) < 0.01


def test_keys_planes_and_ops_are_uncorrelated(field):
    assert abs(correlation(field[0], field[1])) < 0.015
    assert abs(correlation(field[:, 0], field[:, 1])) < 0.015
    other = normal_field(torch.tensor([7, 8]), op=2, planes=2, height=SIZE, width=SIZE)
    assert abs(correlation(field, other)) < 0.01


@pytest.mark.gpu
def test_a_gpu_draws_the_same_bits():
    assert torch.equal(
        draw_bits(KEYS.cuda(), op=4, count=99).cpu(), draw_bits(KEYS, op=4, count=99)
    )
    shape = {"planes": 3, "height": 33, "width": 35}
    made = normal_field(KEYS.cuda(), op=4, **shape).cpu()
    torch.testing.assert_close(made, normal_field(KEYS, op=4, **shape), atol=1e-5, rtol=0)
